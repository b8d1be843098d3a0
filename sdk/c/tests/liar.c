/* A node that shares memory, and does and says at random what is not so. */
#include "liar.h"

#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "fake_shm.h"

enum { ROUNDS = 200, CALLS = 6, TIMEOUT_MS = 25, SLACK_MS = 1500, BUFFER_LEN = 2500, MOST = 5000 };

/* What values are made of, and what a buffer holds before: nobody may be given that as a value's bytes. */
enum { HONEST = 'o', UNTOUCHED = 'x' };

struct liar {
    struct fake_shm shm;
    uint64_t state;
};

/* Set when a region was sent that is none, so that its bytes may be anything. */
static atomic_int has_sent_other_memory;

static uint64_t below(struct liar *liar, uint64_t end) {
    return random_next(&liar->state) % end;
}

static int once_in(struct liar *liar, uint64_t times) {
    return below(liar, times) == 0;
}

/* --- What it spoils --- */

static void spoil_memory(struct liar *liar) {
    if (once_in(liar, 8)) {
        liar->shm.session.bytes[below(liar, 16)] = (uint8_t)random_next(&liar->state);
    }
    if (once_in(liar, 8)) {
        liar->shm.watch.bytes[below(liar, 80)] = (uint8_t)random_next(&liar->state);
    }
}

static void spoil_counts(struct liar *liar) {
    const struct fake_shm *shm = &liar->shm;
    if (once_in(liar, 12)) {
        uint64_t near = shm->read - below(liar, 9);
        atomic_store(shm_count(shm, SHM_AT_REQUESTS_READ), once_in(liar, 2) ? random_next(&liar->state) : near);
    }
    if (once_in(liar, 12)) {
        uint64_t near = shm->written + below(liar, 200);
        atomic_store(shm_count(shm, SHM_AT_ANSWERS_WRITTEN), once_in(liar, 2) ? random_next(&liar->state) : near);
    }
    if (once_in(liar, 10)) {
        atomic_store(shm_word(shm, 0), (uint64_t)SHM_GENERATION + below(liar, 2));
    }
}

static void spoil_socket(struct liar *liar) {
    uint8_t noise[100];
    if (once_in(liar, 10)) {
        fill_bytes(noise, sizeof noise, random_next(&liar->state));
        (void)send(liar->shm.fd, noise, (size_t)below(liar, sizeof noise), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    if (once_in(liar, 12)) {
        shm_map(&liar->shm, below(liar, 5), below(liar, 3), 1);
    }
}

/* --- What it says --- */

static struct place some_place(struct liar *liar, uint64_t length) {
    struct place place = shm_place(0, below(liar, SHM_REGION_LEN), length);
    place.region = once_in(liar, 4) ? (uint32_t)below(liar, 600) : place.region;
    place.watch = once_in(liar, 10) ? (uint32_t)below(liar, 40) : 0;
    place.generation += once_in(liar, 8) ? 1 : 0;
    place.offset = once_in(liar, 8) ? random_next(&liar->state) : place.offset;
    place.length = once_in(liar, 16) ? random_next(&liar->state) : place.length;
    return place;
}

/* Places that add up to the length, more or less. */
static void tell_places(struct liar *liar, uint64_t id, uint64_t length) {
    uint8_t bytes[6 * PLACE_LEN];
    uint8_t head[FAKE_HEAD_LEN];
    size_t count = 1 + (size_t)below(liar, 6);
    uint64_t at = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t rest = length > at ? length - at : 0;
        uint64_t part = i + 1 == count ? rest : below(liar, rest + 1);
        struct place place = some_place(liar, once_in(liar, 4) ? below(liar, MOST) : part);
        shm_encode_place(bytes + i * PLACE_LEN, &place);
        at += part;
    }
    size_t len = count * PLACE_LEN;
    if (once_in(liar, 6)) {
        bytes[below(liar, len)] = (uint8_t)random_next(&liar->state);
    }
    len = once_in(liar, 12) ? (size_t)below(liar, len + 1) : len;
    unsigned flags = FRAME_END | (once_in(liar, 2) ? FRAME_PLACES_CURRENT : 0u);
    flags = once_in(liar, 8) ? (unsigned)below(liar, 4) : flags;
    shm_write(&liar->shm, head, fake_encode(head, FRAME_PLACES, flags, id, NULL, 0, len));
    shm_write(&liar->shm, bytes, len);
}

static void tell_of_a_value(struct liar *liar, uint64_t id) {
    uint64_t length = once_in(liar, 3) ? below(liar, MOST) : 2000;
    const struct fake_number numbers[] = {
        {TAG_STATUS, once_in(liar, 10) ? below(liar, 20) : STATUS_OK},
        {TAG_SIZE, once_in(liar, 10) ? below(liar, MOST) : length},
        {TAG_LENGTH, length},
        {TAG_CHUNKS, 1},
    };
    uint8_t head[FAKE_HEAD_LEN];
    size_t len = fake_encode(head, FRAME_REPLY, once_in(liar, 6) ? FRAME_END : 0, id, numbers, 4, 0);
    if (once_in(liar, 10)) {
        head[below(liar, len)] = (uint8_t)random_next(&liar->state);
    }
    shm_write(&liar->shm, head, len);
    if (!once_in(liar, 8)) {
        tell_places(liar, id, length);
    } else {
        size_t sent = (size_t)(once_in(liar, 2) ? length : below(liar, MOST));
        shm_data(&liar->shm, id, FRAME_END, liar->shm.region.bytes, sent);
    }
}

static void answer(struct liar *liar, const struct fake_frame *frame) {
    uint64_t id = frame->header.id;
    if (frame->header.kind == FRAME_MAP) {
        size_t fds = once_in(liar, 6) ? (size_t)below(liar, 5) : 1;
        if (fds > 1) {
            atomic_store(&has_sent_other_memory, 1);
        }
        shm_map(&liar->shm, id, once_in(liar, 6) ? below(liar, 20) : STATUS_OK, fds);
    } else if (frame->header.kind == FRAME_GET || frame->header.kind == FRAME_STAT) {
        tell_of_a_value(liar, id);
    } else if (frame->header.kind != FRAME_CREDIT && frame->header.kind != FRAME_CANCEL) {
        shm_reply(&liar->shm, id, FRAME_END, below(liar, 20), 0, NULL, 0);
    }
}

static void serve_lies(struct fake *fake, int fd) {
    struct liar liar;
    struct fake_frame frame = {0};
    uint64_t id = shm_greet(fake, fd);
    if (id == 0) {
        return;
    }
    liar.state = (uint64_t)atomic_load(&fake->connections);
    shm_make(&liar.shm, fd, HONEST);
    liar.shm.lies = 1;
    shm_seal(&liar.shm.session);
    shm_seal(&liar.shm.watch);
    shm_seal(&liar.shm.region);
    spoil_memory(&liar);
    shm_grant(&liar.shm, id);
    while (!once_in(&liar, 30) && shm_read(&liar.shm, &frame)) {
        spoil_counts(&liar);
        spoil_socket(&liar);
        answer(&liar, &frame);
    }
    free(frame.bytes);
    shm_end(&liar.shm);
}

/* --- What its client does --- */

/* Nothing that did not come is given out as a value. */
static void expect_no_untouched(const uint8_t *bytes, size_t len, size_t most) {
    CHECK(len <= most);
    CHECK(len == 0 || atomic_load(&has_sent_other_memory) || memchr(bytes, UNTOUCHED, len) == NULL);
}

static void call_get(elcache_client_t *client) {
    uint8_t buffer[BUFFER_LEN];
    size_t len = 0;
    memset(buffer, UNTOUCHED, sizeof buffer);
    elcache_error_t error = elcache_client_get(client, "k", 1, buffer, sizeof buffer, &len, NULL);
    if (error != ELCACHE_ERR_BUFFER_TOO_SMALL) {
        CHECK(len == 0 || error == ELCACHE_OK || error == ELCACHE_ERR_PARTIAL);
        expect_no_untouched(buffer, len, sizeof buffer);
    }
}

static void call_get_alloc(elcache_client_t *client) {
    void *bytes = NULL;
    size_t len = 0;
    elcache_error_t error = elcache_client_get_alloc(client, "k", 1, &bytes, &len, NULL);
    CHECK(bytes != NULL || (error != ELCACHE_OK && len == 0));
    elcache_free(bytes);
}

static void call_stream(elcache_client_t *client) {
    elcache_read_stream_t *stream = NULL;
    uint8_t buffer[BUFFER_LEN];
    size_t len = 0;
    if (elcache_client_read_stream_start(client, "k", 1, NULL, &stream) == ELCACHE_OK) {
        memset(buffer, UNTOUCHED, sizeof buffer);
        (void)elcache_read_stream_read(stream, buffer, sizeof buffer, &len);
        expect_no_untouched(buffer, len, sizeof buffer);
    }
    elcache_read_stream_close(stream);
}

static void call_availability(elcache_client_t *client) {
    elcache_availability_t availability;
    (void)elcache_client_check_availability(client, "k", 1, 0, 0, &availability);
    CHECK(availability.available_count + availability.missing_count <= 1);
    elcache_availability_free(&availability);
}

static void call_at_random(elcache_client_t *client, uint64_t *state) {
    static void (*const CALLED[])(elcache_client_t *) = {call_get, call_get, call_get_alloc, call_stream,
                                                        call_availability};
    int64_t begin_ns = clock_now_ns();
    size_t which = (size_t)(random_next(state) % 6);
    if (which < 5) {
        CALLED[which](client);
    } else {
        (void)elcache_client_delete(client, "k", 1);
    }
    /* A stream is two calls. */
    CHECK(clock_now_ns() - begin_ns < (2 * TIMEOUT_MS + SLACK_MS) * NS_PER_MS);
}

void a_liar_over_shared_memory_harms_nobody(void) {
    struct fake fake;
    uint64_t state = 1;
    fake_start(&fake, serve_lies, 65536, 0);
    for (int round = 0; round < ROUNDS; round++) {
        elcache_client_t *client = elcache_client_create();
        CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
        atomic_store(&has_sent_other_memory, 0);
        (void)elcache_client_connect_shm(client, fake.path);
        for (int call = 0; call < CALLS; call++) {
            call_at_random(client, &state);
        }
        elcache_client_destroy(client);
    }
    fake_stop(&fake);
}
