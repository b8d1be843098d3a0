/* Nodes that share memory and lie: what a client believes of a session, a watch, regions and places. */
#include "fake_shm.h"

#include <unistd.h>

#include "check.h"
#include "held.h"
#include "liar.h"

enum { TIMEOUT_MS = 200, SLACK_MS = 1500, LEN = 2000, SHORT_LEN = 500 };

static uint8_t short_value[SHORT_LEN];

static elcache_client_t *new_client(int timeout_ms) {
    elcache_client_t *client = elcache_client_create();
    CHECK(client != NULL);
    CHECK_OK(client, elcache_client_set_timeout(client, timeout_ms));
    return client;
}

static elcache_client_t *client_of(const struct fake *fake) {
    elcache_client_t *client = new_client(20000);
    CHECK_OK(client, elcache_client_connect_shm(client, fake->path));
    return client;
}

static int64_t now_ms(void) {
    return clock_now_ns() / NS_PER_MS;
}

static int wants_copy(const struct fake_frame *frame) {
    return (frame->header.flags & FRAME_GET_COPY) != 0;
}

/* Answers with two places, of which the second is good only if `is_good`. */
static void tell_places(struct fake_shm *shm, uint64_t id, int is_good) {
    struct place places[2] = {shm_place(0, 0, LEN / 2), shm_place(1, LEN / 2, LEN / 2)};
    places[1].generation += is_good ? 0 : 1;
    shm_reply(shm, id, 0, STATUS_OK, LEN, NULL, 0);
    shm_places(shm, id, FRAME_END, places, 2);
}

/* --- What is read in place and goes meanwhile --- */

/* What the key has when it is asked for again. */
enum { NOW_EMPTY, NOW_SHORT, NOW_NOWHERE, NOW_INCOMPLETE, NOW_GONE, NOWS };

static void tell_what_is_there_now(struct fake_shm *shm, uint64_t id, int now) {
    switch (now) {
    case NOW_EMPTY:
        shm_reply(shm, id, FRAME_END, STATUS_OK, 0, NULL, 0);
        break;
    case NOW_SHORT:
        shm_reply(shm, id, FRAME_END, STATUS_OK, SHORT_LEN, short_value, SHORT_LEN);
        break;
    case NOW_NOWHERE: {
        const struct fake_number numbers[] = {{TAG_STATUS, STATUS_PARTIAL}, {TAG_SIZE, LEN}, {TAG_LENGTH, 0}};
        uint8_t bytes[FAKE_HEAD_LEN];
        shm_write(shm, bytes, fake_encode(bytes, FRAME_REPLY, FRAME_END, id, numbers, 3, 0));
        break;
    }
    default:
        shm_reply(shm, id, FRAME_END, now == NOW_GONE ? STATUS_NOT_FOUND : STATUS_INCOMPLETE, 0, NULL, 0);
    }
}

static void serve_a_value_that_goes(struct fake *fake, int fd) {
    struct fake_shm shm;
    struct fake_frame frame = {0};
    if (!shm_begin(&shm, fake, fd, 'o')) {
        return;
    }
    while (shm_read(&shm, &frame)) {
        if (frame.header.kind == FRAME_MAP) {
            shm_map(&shm, frame.header.id, STATUS_OK, 1);
        } else if (frame.header.kind == FRAME_GET && !wants_copy(&frame)) {
            tell_places(&shm, frame.header.id, 0);
        } else if (frame.header.kind == FRAME_GET) {
            tell_what_is_there_now(&shm, frame.header.id, fake->variant);
        }
    }
    shm_end(&shm);
}

static void expect_now(int now, elcache_error_t error, const void *bytes, size_t len) {
    static const elcache_error_t ERRORS[] = {ELCACHE_OK, ELCACHE_OK, ELCACHE_ERR_PARTIAL, ELCACHE_ERR_PARTIAL,
                                             ELCACHE_ERR_NOT_FOUND};
    CHECK(error == ERRORS[now]);
    CHECK(len == (now == NOW_SHORT ? SHORT_LEN : 0));
    CHECK(len == 0 || memcmp(bytes, short_value, len) == 0);
}

/* A value of several chunks was read in place; after the first chunks a later one was stale, so the node was asked
 * again, and had an empty value by then. The bytes of the value that was gone were given out as ELCACHE_OK. */
static void a_value_that_goes_while_it_is_read_leaves_nothing(void) {
    for (int now = 0; now < NOWS; now++) {
        struct fake fake;
        fake_start(&fake, serve_a_value_that_goes, 65536, now);
        elcache_client_t *client = client_of(&fake);
        static uint8_t buffer[2 * LEN];
        void *bytes = NULL;
        size_t len = 77;
        elcache_error_t error = elcache_client_get(client, "key", 3, buffer, sizeof buffer, &len, NULL);
        expect_now(now, error, buffer, len);
        error = elcache_client_get_alloc(client, "key", 3, &bytes, &len, NULL);
        expect_now(now, error, bytes, len);
        CHECK((bytes != NULL) == (error == ELCACHE_OK));
        elcache_free(bytes);
        error = elcache_client_read_range(client, "key", 3, 0, buffer, sizeof buffer, &len);
        expect_now(now, error, buffer, len);
        elcache_stats_t stats;
        CHECK_OK(client, elcache_client_stats(client, &stats));
        CHECK(stats.bytes_read == (now == NOW_SHORT ? 3 * SHORT_LEN : 0));
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

/* --- Time --- */

static void *flood(void *argument) {
    static const char WAKES[65536];
    const struct fake_shm *shm = argument;
    int64_t end_ms = now_ms() + TIMEOUT_MS + 2 * SLACK_MS;
    while (now_ms() < end_ms && fake_write(shm->fd, WAKES, sizeof WAKES)) {
    }
    return NULL;
}

static void serve_a_flood(struct fake *fake, int fd) {
    struct fake_shm shm;
    struct fake_frame frame = {0};
    pthread_t threads[4];
    if (!shm_begin(&shm, fake, fd, 'o')) {
        return;
    }
    if (shm_read(&shm, &frame)) {
        for (int i = 0; i < 4; i++) {
            CHECK(pthread_create(&threads[i], NULL, flood, &shm) == 0);
        }
        for (int i = 0; i < 4; i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
        }
    }
    free(frame.bytes);
    shm_end(&shm);
}

/* All wake-ups that there were had to be read before a call looked at the clock again: a node that sent them as fast
 * as they were read held it for as long as it liked. */
static void a_flood_of_wake_ups_costs_a_time_out(void) {
    struct fake fake;
    fake_start(&fake, serve_a_flood, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
    int64_t begin = now_ms();
    CHECK_OUTCOME(client, elcache_client_delete(client, "key", 3), ELCACHE_ERR_TIMEOUT);
    CHECK(now_ms() - begin >= TIMEOUT_MS - 1 && now_ms() - begin < TIMEOUT_MS + SLACK_MS);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* Begins a stream, answers the next call with a place whose region it never sends, and with all the rest of the
 * stream behind that. Nothing comes after it. */
static void serve_a_region_that_never_comes(struct fake *fake, int fd) {
    struct fake_shm shm;
    struct fake_frame frame = {0};
    uint64_t stream = 0;
    if (!shm_begin(&shm, fake, fd, 'o')) {
        return;
    }
    while (shm_read(&shm, &frame)) {
        if (frame.header.kind == FRAME_GET && wants_copy(&frame)) {
            stream = frame.header.id;
            shm_reply(&shm, stream, 0, STATUS_OK, 10, short_value, 4);
        } else if (frame.header.kind == FRAME_GET) {
            tell_places(&shm, frame.header.id, 1);
            shm_data(&shm, stream, FRAME_END, short_value + 4, 6);
        }
    }
    shm_end(&shm);
}

/* The frames behind places whose region was waited for were handled only when something else came, though the call
 * that waited had given up. */
static void what_comes_behind_a_place_that_is_given_up_is_read(void) {
    struct fake fake;
    fake_start(&fake, serve_a_region_that_never_comes, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    elcache_get_options_t options = ELCACHE_GET_OPTIONS_INIT;
    options.timeout_ms = TIMEOUT_MS;
    elcache_read_stream_t *stream = NULL;
    static uint8_t buffer[LEN];
    size_t len = 0;
    CHECK_OK(client, elcache_client_read_stream_start(client, "key", 3, NULL, &stream));
    CHECK_OUTCOME(client, elcache_client_get(client, "key", 3, buffer, LEN, &len, &options), ELCACHE_ERR_TIMEOUT);
    int64_t begin = now_ms();
    CHECK_OK(client, elcache_read_stream_read(stream, buffer, LEN, &len));
    CHECK(len == 10 && memcmp(buffer, short_value, 10) == 0 && now_ms() - begin < SLACK_MS);
    elcache_read_stream_close(stream);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* --- Descriptors and memory --- */

/* Refuses every region, and sends its descriptor all the same. */
static void serve_refusals(struct fake *fake, int fd) {
    struct fake_shm shm;
    struct fake_frame frame = {0};
    if (!shm_begin(&shm, fake, fd, 'o')) {
        return;
    }
    while (shm_read(&shm, &frame)) {
        if (frame.header.kind == FRAME_MAP) {
            shm_map(&shm, frame.header.id, STATUS_NOT_FOUND, 1);
        } else if (frame.header.kind == FRAME_GET && !wants_copy(&frame)) {
            tell_places(&shm, frame.header.id, 1);
        } else if (frame.header.kind == FRAME_GET) {
            shm_reply(&shm, frame.header.id, FRAME_END, STATUS_OK, SHORT_LEN, short_value, SHORT_LEN);
        }
    }
    shm_end(&shm);
}

static void a_descriptor_that_comes_with_a_refusal_is_closed(void) {
    struct fake fake;
    fake_start(&fake, serve_refusals, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    int before = held_descriptors(getpid(), "/memfd:fake-region");
    for (int i = 0; i < 20; i++) {
        static uint8_t buffer[LEN];
        size_t len = 0;
        CHECK_OK(client, elcache_client_get(client, "key", 3, buffer, LEN, &len, NULL));
        CHECK(len == SHORT_LEN && memcmp(buffer, short_value, len) == 0);
    }
    CHECK(held_descriptors(getpid(), "/memfd:fake-region") == before);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* Seals all memory but one. */
enum { OPEN_SESSION, OPEN_WATCH, OPEN_REGION };

static void serve_what_can_shrink(struct fake *fake, int fd) {
    struct fake_shm shm;
    struct fake_frame frame = {0};
    uint64_t id = shm_greet(fake, fd);
    if (id == 0) {
        return;
    }
    shm_make(&shm, fd, 'o');
    const struct fake_memory *memory[] = {&shm.session, &shm.watch, &shm.region};
    for (int i = OPEN_SESSION; i <= OPEN_REGION; i++) {
        if (i != fake->variant) {
            shm_seal(memory[i]);
        }
    }
    shm_grant(&shm, id);
    while (shm_read(&shm, &frame)) {
        if (frame.header.kind == FRAME_MAP) {
            shm_map(&shm, frame.header.id, STATUS_OK, 1);
        } else if (frame.header.kind == FRAME_GET && !wants_copy(&frame)) {
            tell_places(&shm, frame.header.id, 1);
        } else if (frame.header.kind == FRAME_GET) {
            shm_reply(&shm, frame.header.id, FRAME_END, STATUS_OK, SHORT_LEN, short_value, SHORT_LEN);
        }
    }
    shm_end(&shm);
}

/* A file that gets shorter under a mapping ends whoever touches it, with SIGBUS. */
static void memory_that_could_shrink_is_not_used(void) {
    for (int variant = OPEN_SESSION; variant <= OPEN_REGION; variant++) {
        struct fake fake;
        fake_start(&fake, serve_what_can_shrink, 65536, variant);
        elcache_client_t *client = new_client(20000);
        elcache_error_t expected = variant == OPEN_REGION ? ELCACHE_OK : ELCACHE_ERR_PROTOCOL;
        CHECK_OUTCOME(client, elcache_client_connect_shm(client, fake.path), expected);
        if (variant == OPEN_REGION) {
            static uint8_t buffer[LEN];
            size_t len = 0;
            CHECK_OK(client, elcache_client_get(client, "key", 3, buffer, LEN, &len, NULL));
            CHECK(len == SHORT_LEN && memcmp(buffer, short_value, len) == 0);
        } else {
            CHECK(strstr(elcache_client_last_error(client), "not as it should be") != NULL);
        }
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

/* --- Sessions that are none --- */

enum { NO_SESSION, OTHER_SESSION, ODD_RING, SHORT_SESSION, NO_WATCH, OTHER_WATCH, MANY_WORDS, STRANGERS };

static void serve_a_stranger(struct fake *fake, int fd) {
    struct fake_shm shm;
    uint64_t id = shm_greet(fake, fd);
    if (id == 0) {
        return;
    }
    shm_make(&shm, fd, 'o');
    shm.session.bytes[0] ^= fake->variant == NO_SESSION;
    shm.session.bytes[SHM_AT_LAYOUT] ^= fake->variant == OTHER_SESSION;
    shm.session.bytes[SHM_AT_CAPACITY] ^= fake->variant == ODD_RING;
    shm.watch.bytes[0] ^= fake->variant == NO_WATCH;
    shm.watch.bytes[SHM_AT_LAYOUT] ^= fake->variant == OTHER_WATCH;
    frame_store_u64(shm.watch.bytes + 8, SHM_WORDS + (fake->variant == MANY_WORDS));
    if (fake->variant == SHORT_SESSION) {
        CHECK(ftruncate(shm.session.fd, 4096 + SHM_RING) == 0);
    }
    shm_seal(&shm.session);
    shm_seal(&shm.watch);
    shm_grant(&shm, id);
    fake_linger(fd);
    shm_end(&shm);
}

/* It was called a failed connection, after which nobody tries the socket alone. */
static void a_session_of_another_kind_is_against_the_protocol(void) {
    for (int variant = 0; variant < STRANGERS; variant++) {
        struct fake fake;
        fake_start(&fake, serve_a_stranger, 65536, variant);
        elcache_client_t *client = new_client(20000);
        CHECK_OUTCOME(client, elcache_client_connect_shm(client, fake.path), ELCACHE_ERR_PROTOCOL);
        CHECK(strstr(elcache_client_last_error(client), "not as it should be") != NULL);
        CHECK(!elcache_client_is_connected(client));
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

/* Writes nonsense over the counts that are the node's: of the answers, or of the requests. */
static void serve_false_counts(struct fake *fake, int fd) {
    struct fake_shm shm;
    struct fake_frame frame = {0};
    if (!shm_begin(&shm, fake, fd, 'o')) {
        return;
    }
    size_t at = fake->variant == 0 ? SHM_AT_ANSWERS_WRITTEN : SHM_AT_REQUESTS_READ;
    if (fake->variant == 1) {
        atomic_store(shm_count(&shm, at), 1);
        atomic_store(&fake->seen, 1);
    } else if (shm_read(&shm, &frame)) {
        atomic_store(shm_count(&shm, at), SHM_RING + 1);
        shm_wake(&shm);
    }
    fake_linger(fd);
    free(frame.bytes);
    shm_end(&shm);
}

static void counts_that_cannot_be_are_against_the_protocol(void) {
    for (int variant = 0; variant < 2; variant++) {
        struct fake fake;
        fake_start(&fake, serve_false_counts, 65536, variant);
        elcache_client_t *client = client_of(&fake);
        for (int i = 0; i < 1000 && variant == 1 && !atomic_load(&fake.seen); i++) {
            fake_sleep_ms(5);
        }
        CHECK_OUTCOME(client, elcache_client_delete(client, "key", 3), ELCACHE_ERR_PROTOCOL);
        CHECK(strstr(elcache_client_last_error(client), "against the protocol") != NULL);
        CHECK(atomic_load(&fake.connections) == 1);
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

/* Takes the session's memory back, as a node that ends it does, after a call has come, or when a client waits for the
 * data of an answer, which it then announces all the same: they are zeros. */
static void serve_until_it_ends(struct fake *fake, int fd) {
    struct fake_shm shm;
    struct fake_frame frame = {0};
    if (!shm_begin(&shm, fake, fd, 'o')) {
        return;
    }
    if (shm_read(&shm, &frame)) {
        uint8_t head[FAKE_HEAD_LEN];
        uint64_t id = frame.header.id;
        shm_reply(&shm, id, fake->variant == 0 ? FRAME_END : 0, STATUS_OK, fake->variant == 0 ? 0 : LEN, NULL, 0);
        if (fake->variant == 1) {
            shm_write(&shm, head, fake_encode(head, FRAME_DATA, FRAME_END, id, NULL, 0, LEN));
        }
        for (int i = 0; i < 1000 && atomic_load(shm_count(&shm, SHM_AT_ANSWERS_READ)) < shm.written; i++) {
            fake_sleep_ms(5);
        }
        shm_take_back(&shm);
        if (fake->variant == 1) {
            atomic_store(shm_count(&shm, SHM_AT_ANSWERS_WRITTEN), shm.written + LEN);
        }
        shm_wake(&shm);
        atomic_store(&fake->seen, 1);
    }
    fake_linger(fd);
    free(frame.bytes);
    shm_end(&shm);
}

/* What was copied while the node took its memory back was given out as a value of zeros, and counts that were zeros
 * were taken for a node that lies. */
static void a_session_that_ends_is_a_connection_that_ends(void) {
    for (int variant = 0; variant < 2; variant++) {
        struct fake fake;
        fake_start(&fake, serve_until_it_ends, 65536, variant);
        elcache_client_t *client = client_of(&fake);
        if (variant == 0) {
            CHECK_OK(client, elcache_client_delete(client, "key", 3));
            for (int i = 0; i < 1000 && !atomic_load(&fake.seen); i++) {
                fake_sleep_ms(5);
            }
            CHECK_OUTCOME(client, elcache_client_delete(client, "key", 3), ELCACHE_ERR_CONNECTION);
        } else {
            static uint8_t buffer[LEN];
            size_t len = 77;
            elcache_error_t error = elcache_client_get(client, "key", 3, buffer, LEN, &len, NULL);
            CHECK_OUTCOME(client, error, ELCACHE_ERR_CONNECTION);
            CHECK(len == 0);
        }
        CHECK(strstr(elcache_client_last_error(client), "the node has closed the connection") != NULL);
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

/* Answers what is not read in place with places. */
static void serve_places_for_runs(struct fake *fake, int fd) {
    struct fake_shm shm;
    struct fake_frame frame = {0};
    struct place place = shm_place(0, 0, 0);
    place.generation++;
    if (!shm_begin(&shm, fake, fd, 'o')) {
        return;
    }
    while (shm_read(&shm, &frame)) {
        shm_reply(&shm, frame.header.id, 0, STATUS_OK, LEN, NULL, 0);
        shm_places(&shm, frame.header.id, FRAME_END, &place, 1);
    }
    shm_end(&shm);
}

static void places_answer_nothing_but_a_read(void) {
    struct fake fake;
    fake_start(&fake, serve_places_for_runs, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    elcache_availability_t availability;
    CHECK_OUTCOME(client, elcache_client_check_availability(client, "key", 3, 0, 0, &availability),
                  ELCACHE_ERR_PROTOCOL);
    CHECK(strstr(elcache_client_last_error(client), "places that cannot be") != NULL);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* --- Waiting --- */

static _Atomic uint32_t *client_waits;

static void serve_slowly(struct fake *fake, int fd) {
    struct fake_shm shm;
    struct fake_frame frame = {0};
    if (!shm_begin(&shm, fake, fd, 'o')) {
        return;
    }
    client_waits = (_Atomic uint32_t *)(void *)(shm.session.bytes + SHM_AT_CLIENT_WAITS);
    while (shm_read(&shm, &frame)) {
        for (int i = 0; i < 1000 && atomic_load(client_waits) == 0; i++) {
            fake_sleep_ms(5);
        }
        atomic_fetch_add(&fake->seen, atomic_load(client_waits) == 1);
        shm_reply(&shm, frame.header.id, FRAME_END, STATUS_OK, 0, NULL, 0);
    }
    shm_end(&shm);
}

/* A flag that stayed set cost the node a wake-up for nobody. */
static void who_waits_no_longer_says_so(void) {
    struct fake fake;
    fake_start(&fake, serve_slowly, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    for (int i = 1; i <= 3; i++) {
        CHECK_OK(client, elcache_client_delete(client, "key", 3));
        CHECK(atomic_load(&fake.seen) == i && atomic_load(client_waits) == 0);
    }
    elcache_client_destroy(client);
    fake_stop(&fake);
}

int main(void) {
    fill_bytes(short_value, sizeof short_value, 7);
    RUN(a_value_that_goes_while_it_is_read_leaves_nothing);
    RUN(a_flood_of_wake_ups_costs_a_time_out);
    RUN(what_comes_behind_a_place_that_is_given_up_is_read);
    RUN(a_descriptor_that_comes_with_a_refusal_is_closed);
    RUN(memory_that_could_shrink_is_not_used);
    RUN(a_session_of_another_kind_is_against_the_protocol);
    RUN(counts_that_cannot_be_are_against_the_protocol);
    RUN(a_session_that_ends_is_a_connection_that_ends);
    RUN(places_answer_nothing_but_a_read);
    RUN(who_waits_no_longer_says_so);
    RUN(a_liar_over_shared_memory_harms_nobody);
    CHECK(held_descriptors(getpid(), "/memfd:fake") == 0 && held_mappings(getpid(), "/memfd:fake") == 0);
    return 0;
}
