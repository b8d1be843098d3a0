/* Nodes that are slow, silent, gone, or liars: calls end in time, say what was wrong, and the client is good for
 * the next call. */
#include "fake.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../src/clock.h"
#include "check.h"

enum { TIMEOUT_MS = 200, SLACK_MS = 1500 /* machines that test are busy, and valgrind is slow */ };

static uint8_t value[300000];

static elcache_client_t *client_of(const struct fake *fake) {
    elcache_client_t *client = elcache_client_create();
    CHECK(client != NULL);
    CHECK_OK(client, elcache_client_connect_unix(client, fake->path));
    return client;
}

static elcache_error_t get(elcache_client_t *client, size_t *len) {
    static uint8_t buffer[sizeof value];
    return elcache_client_get(client, "key", 3, buffer, sizeof buffer, len, NULL);
}

static int64_t now_ms(void) {
    return clock_now_ns() / NS_PER_MS;
}

/* --- Slow and silent --- */

static void serve_silence(struct fake *fake, int fd) {
    if (fake->variant == 1) {
        fake_greet(fake, fd);
    }
    fake_linger(fd);
}

static void a_node_that_says_nothing_costs_a_time_out(void) {
    struct fake fake;
    fake_start(&fake, serve_silence, 65536, 0);
    elcache_client_t *client = elcache_client_create();
    CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
    int64_t begin = now_ms();
    CHECK_OUTCOME(client, elcache_client_connect_unix(client, fake.path), ELCACHE_ERR_TIMEOUT);
    CHECK(now_ms() - begin >= TIMEOUT_MS - 1 && now_ms() - begin < TIMEOUT_MS + SLACK_MS);
    CHECK(!elcache_client_is_connected(client));
    elcache_client_destroy(client);
    fake_stop(&fake);
}

static void a_call_that_is_not_answered_ends_in_time_and_the_next_connects_anew(void) {
    struct fake fake;
    fake_start(&fake, serve_silence, 65536, 1);
    elcache_client_t *client = client_of(&fake);
    CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
    for (int round = 1; round <= 2; round++) {
        size_t len = 1;
        int64_t begin = now_ms();
        CHECK_OUTCOME(client, get(client, &len), ELCACHE_ERR_TIMEOUT);
        CHECK(len == 0);
        CHECK(now_ms() - begin >= TIMEOUT_MS - 1 && now_ms() - begin < TIMEOUT_MS + SLACK_MS);
        CHECK(strcmp(elcache_client_last_error(client), "get: Timed out: no answer in time") == 0);
        CHECK(atomic_load(&fake.connections) == round);
    }
    elcache_get_options_t options = ELCACHE_GET_OPTIONS_INIT;
    options.timeout_ms = 20;
    CHECK_OK(client, elcache_client_set_timeout(client, 20000));
    int64_t begin = now_ms();
    void *bytes = NULL;
    size_t len = 0;
    CHECK_OUTCOME(client, elcache_client_get_alloc(client, "key", 3, &bytes, &len, &options), ELCACHE_ERR_TIMEOUT);
    CHECK(bytes == NULL && now_ms() - begin < 20 + SLACK_MS);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

static void a_queue_that_is_full_costs_a_time_out(void) {
    struct fake fake;
    fake_start(&fake, serve_silence, 65536, 0);
    CHECK(listen(fake.listener, 0) == 0);
    int fds[4];
    struct sockaddr_un address = {0};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, fake.path, strlen(fake.path));
    for (int i = 0; i < 4; i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fds[i], (struct sockaddr *)&address, sizeof address);
        fake_sleep_ms(20);
    }
    elcache_client_t *client = elcache_client_create();
    CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
    int64_t begin = now_ms();
    CHECK_OUTCOME(client, elcache_client_connect_unix(client, fake.path), ELCACHE_ERR_TIMEOUT);
    CHECK(now_ms() - begin >= TIMEOUT_MS - 1 && now_ms() - begin < TIMEOUT_MS + SLACK_MS);
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
    }
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* What a node drips: hello, an answer's head, an answer's data, or frames that are nothing. */
static void serve_drops(struct fake *fake, int fd) {
    static const uint8_t EMPTY[FRAME_HEADER_LEN] = {FRAME_VERSION, FRAME_HELLO};
    struct fake_frame frame = {0};
    if (fake->variant > 0) {
        CHECK(fake_greet_and_read(fake, fd, &frame));
    }
    if (fake->variant == 2) {
        fake_reply(fd, frame.header.id, 0, STATUS_OK, 1000, value, 1);
        fake_data(fd, frame.header.id, 0, NULL, 0);
    }
    uint8_t head[FRAME_HEADER_LEN] = {FRAME_VERSION, fake->variant == 0 ? FRAME_HELLO : FRAME_REPLY, 0, 0, 200};
    frame_store_u64(head + 8, frame.header.id);
    for (int i = 0; i < 200; i++) {
        int is_gone = fake->variant == 2   ? !fake_data(fd, frame.header.id, 0, value, 1)
                      : fake->variant == 3 ? !fake_credit(fd, frame.header.id, 1)
                                           : !fake_write(fd, i < FRAME_HEADER_LEN ? head + i : EMPTY, 1);
        if (is_gone) {
            break;
        }
        fake_sleep_ms(fake->variant == 3 ? 0 : 10);
        i = fake->variant == 3 ? 0 : i;
    }
    free(frame.bytes);
}

static void a_node_that_drips_costs_a_time_out(void) {
    for (int variant = 0; variant < 4; variant++) {
        struct fake fake;
        fake_start(&fake, serve_drops, 65536, variant);
        elcache_client_t *client = elcache_client_create();
        CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
        int64_t begin = now_ms();
        elcache_error_t error = elcache_client_connect_unix(client, fake.path);
        CHECK(error == (variant == 0 ? ELCACHE_ERR_TIMEOUT : ELCACHE_OK));
        if (variant > 0) {
            size_t len = 0;
            begin = now_ms();
            CHECK_OUTCOME(client, get(client, &len), ELCACHE_ERR_TIMEOUT);
        }
        CHECK(now_ms() - begin >= TIMEOUT_MS - 1 && now_ms() - begin < TIMEOUT_MS + SLACK_MS);
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

/* Takes nothing: neither the rest of a frame nor any other. */
static void serve_deafness(struct fake *fake, int fd) {
    fake_greet(fake, fd);
    for (int i = 0; i < 200 && send(fd, "", 0, MSG_NOSIGNAL) == 0; i++) {
        char byte;
        if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
            return;
        }
        fake_sleep_ms(10);
    }
}

enum { FLOOD_LEN = 64 << 20, FLOOD_FRAMES = 1000 };

/* Sends a value of FLOOD_LEN bytes in frames of one byte, as fast as they are taken. */
static void serve_a_flood(struct fake *fake, int fd) {
    static uint8_t frames[FLOOD_FRAMES * (FRAME_HEADER_LEN + 1)];
    struct fake_frame frame = {0};
    if (fake_greet_and_read(fake, fd, &frame)) {
        for (size_t at = 0; at < sizeof frames; at += FRAME_HEADER_LEN + 1) {
            uint8_t head[FAKE_HEAD_LEN];
            memcpy(frames + at, head, fake_encode(head, FRAME_DATA, 0, frame.header.id, NULL, 0, 1));
            frames[at + FRAME_HEADER_LEN] = 'o';
        }
        fake_reply(fd, frame.header.id, 0, STATUS_OK, FLOOD_LEN, NULL, 0);
        int room = 4 << 20; /* so much is always there to be read */
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
        int64_t end = now_ms() + 2 * (TIMEOUT_MS + SLACK_MS);
        while (now_ms() < end && fake_write(fd, frames, sizeof frames)) {
        }
    }
    free(frame.bytes);
}

/* As long as bytes came a stream read on, until its buffer was full. What has come when the time is up is given out,
 * and the next call goes on behind it. */
static void a_stream_that_does_not_fill_its_buffer_costs_a_time_out(void) {
    struct fake fake;
    fake_start(&fake, serve_a_flood, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    CHECK_OK(client, elcache_client_set_recv_buffer(client, FLOOD_LEN));
    CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
    elcache_read_stream_t *stream = NULL;
    uint8_t *buffer = calloc(1, FLOOD_LEN);
    size_t at = 0;
    CHECK(buffer != NULL);
    CHECK_OK(client, elcache_client_read_stream_start(client, "key", 3, NULL, &stream));
    for (int round = 0; round < 2; round++) {
        size_t len = 0;
        int64_t begin = now_ms();
        CHECK_OK(client, elcache_read_stream_read(stream, buffer + at, FLOOD_LEN - at, &len));
        CHECK(now_ms() - begin >= TIMEOUT_MS - 1 && now_ms() - begin < TIMEOUT_MS + SLACK_MS);
        CHECK(len > 0 && memchr(buffer, 0, at + len) == NULL && buffer[at + len] == 0);
        at += len;
    }
    CHECK(elcache_read_stream_bytes_read(stream) == at && !elcache_read_stream_eof(stream));
    elcache_read_stream_close(stream);
    free(buffer);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

static void a_node_that_takes_nothing_costs_a_time_out(void) {
    struct fake fake;
    fake_start(&fake, serve_deafness, UINT64_C(1) << 40, 0);
    elcache_client_t *client = client_of(&fake);
    CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
    size_t len = 16 << 20;
    uint8_t *large = calloc(1, len);
    CHECK(large != NULL);
    int64_t begin = now_ms();
    CHECK_OUTCOME(client, elcache_client_put(client, "key", 3, large, len, NULL), ELCACHE_ERR_TIMEOUT);
    CHECK(now_ms() - begin >= TIMEOUT_MS - 1 && now_ms() - begin < TIMEOUT_MS + SLACK_MS);
    free(large);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* --- Gone --- */

static void serve_after_a_break(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    int is_first = atomic_load(&fake->connections) == 1;
    int has_frame = fake_greet_and_read(fake, fd, &frame);
    if (has_frame && is_first && fake->variant == 1) {
        fake_reply(fd, frame.header.id, 0, STATUS_OK, 1000, value, 10);
    }
    while (has_frame && !is_first) {
        if (frame.header.kind == FRAME_GET) {
            fake_reply(fd, frame.header.id, FRAME_END, STATUS_OK, 10, value, 10);
        }
        if (frame.header.kind == FRAME_DELETE) {
            fake_reply(fd, frame.header.id, FRAME_END, STATUS_OK, 0, NULL, 0);
        }
        has_frame = fake_read(fd, &frame);
    }
    free(frame.bytes);
}

static void a_read_that_had_no_answer_is_made_again_on_a_new_connection(void) {
    struct fake fake;
    fake_start(&fake, serve_after_a_break, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    size_t len = 0;
    CHECK_OK(client, get(client, &len));
    CHECK(len == 10 && atomic_load(&fake.connections) == 2);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

static void a_read_that_had_begun_says_that_the_connection_broke(void) {
    struct fake fake;
    fake_start(&fake, serve_after_a_break, 65536, 1);
    elcache_client_t *client = client_of(&fake);
    size_t len = 1;
    CHECK_OUTCOME(client, get(client, &len), ELCACHE_ERR_CONNECTION);
    CHECK(len == 0 && strstr(elcache_client_last_error(client), "closed") != NULL);
    CHECK_OK(client, get(client, &len));
    CHECK(len == 10);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

static void a_deletion_that_was_sent_is_not_sent_again(void) {
    struct fake fake;
    fake_start(&fake, serve_after_a_break, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    CHECK_OUTCOME(client, elcache_client_delete(client, "key", 3), ELCACHE_ERR_CONNECTION);
    CHECK(atomic_load(&fake.connections) == 1);
    CHECK_OK(client, elcache_client_delete(client, "key", 3));
    elcache_client_destroy(client);
    fake_stop(&fake);
}

static void serve_and_close_when_idle(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    fake_greet(fake, fd);
    if (atomic_load(&fake->connections) > 1 && fake_read(fd, &frame)) {
        fake_reply(fd, frame.header.id, FRAME_END, STATUS_OK, 0, NULL, 0);
        fake_linger(fd);
    }
    free(frame.bytes);
}

static void a_connection_that_died_while_idle_is_noticed_by_nobody(void) {
    struct fake fake;
    fake_start(&fake, serve_and_close_when_idle, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    for (int i = 0; i < 100 && elcache_client_is_connected(client); i++) {
        fake_sleep_ms(10);
    }
    CHECK(!elcache_client_is_connected(client));
    CHECK_OK(client, elcache_client_delete(client, "key", 3));
    CHECK(elcache_client_is_connected(client) && atomic_load(&fake.connections) == 2);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* Keeps the operation of the first connection's PUT, and compares it with the second's. */
static void serve_a_put_twice(struct fake *fake, int fd) {
    static uint8_t operation[FRAME_OPERATION_MAX];
    struct fake_frame frame = {0};
    CHECK(fake_greet_and_read(fake, fd, &frame) && frame.header.kind == FRAME_PUT);
    struct frame_span span = frame.fields.spans[TAG_OPERATION];
    CHECK(frame_has(&frame.fields, TAG_OPERATION) && span.len >= 16);
    if (atomic_load(&fake->connections) == 1) {
        CHECK(!(frame.header.flags & FRAME_END));
        memcpy(operation, span.bytes, span.len);
        free(frame.bytes);
        return;
    }
    CHECK(memcmp(operation, span.bytes, span.len) == 0);
    fake_reply(fd, frame.header.id, FRAME_END, STATUS_OK, 0, NULL, 0);
    CHECK(fake_read(fd, &frame) && frame.header.kind == FRAME_PUT && frame.header.flags & FRAME_END);
    CHECK(memcmp(operation, frame.fields.spans[TAG_OPERATION].bytes, span.len) != 0);
    free(frame.bytes);
}

static void a_put_is_sent_again_under_its_name_if_its_last_byte_was_not(void) {
    struct fake fake;
    fake_start(&fake, serve_a_put_twice, 10, 0);
    elcache_client_t *client = client_of(&fake);
    CHECK_OK(client, elcache_client_put(client, "key", 3, value, 11, NULL));
    CHECK_OUTCOME(client, elcache_client_put(client, "key", 3, value, 10, NULL), ELCACHE_ERR_CONNECTION);
    CHECK(atomic_load(&fake.connections) == 2);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

static void without_a_node_there_is_no_connection(void) {
    elcache_client_t *client = elcache_client_create();
    size_t len = 0;
    CHECK_OUTCOME(client, get(client, &len), ELCACHE_ERR_CONNECTION);
    CHECK_OUTCOME(client, elcache_client_connect_unix(client, "/nowhere/at/all"), ELCACHE_ERR_CONNECTION);
    CHECK(strstr(elcache_client_last_error(client), "/nowhere/at/all: No such file") != NULL);
    CHECK_OUTCOME(client, elcache_client_connect_unix(client, NULL), ELCACHE_ERR_INVALID_ARG);
    CHECK_OUTCOME(client, elcache_client_connect_unix(client, ""), ELCACHE_ERR_INVALID_ARG);
    char path[200];
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = '\0';
    CHECK_OUTCOME(client, elcache_client_connect_unix(client, path), ELCACHE_ERR_INVALID_ARG);
    elcache_client_destroy(client);
}

static void a_node_that_appears_later_is_found(void) {
    struct fake fake;
    fake_start(&fake, serve_and_close_when_idle, 65536, 0);
    atomic_store(&fake.connections, 1);
    elcache_client_t *client = elcache_client_create();
    char away[128];
    snprintf(away, sizeof away, "%s-away", fake.path);
    CHECK(rename(fake.path, away) == 0);
    CHECK_OUTCOME(client, elcache_client_connect_unix(client, fake.path), ELCACHE_ERR_CONNECTION);
    CHECK(rename(away, fake.path) == 0);
    CHECK_OK(client, elcache_client_delete(client, "key", 3));
    elcache_client_disconnect(client);
    CHECK_OUTCOME(client, elcache_client_delete(client, "key", 3), ELCACHE_ERR_CONNECTION);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* --- Liars --- */

struct lie {
    const char *name;
    elcache_error_t error;
};

/* What is sent in answer to a GET of a window of sizeof value; a PUT in the last ones. */
static const struct lie LIES[] = {
    {"another version", ELCACHE_ERR_PROTOCOL},
    {"fields too long", ELCACHE_ERR_PROTOCOL},
    {"data too long", ELCACHE_ERR_PROTOCOL},
    {"data before the reply", ELCACHE_ERR_PROTOCOL},
    {"longer than said", ELCACHE_ERR_PROTOCOL},
    {"shorter than said", ELCACHE_ERR_PROTOCOL},
    {"whole without data", ELCACHE_ERR_PROTOCOL},
    {"more than the window", ELCACHE_ERR_BUFFER_TOO_SMALL},
    {"a kind that is not known", ELCACHE_ERR_PROTOCOL},
    {"a request that there never was", ELCACHE_ERR_PROTOCOL},
    {"a second hello", ELCACHE_ERR_PROTOCOL},
    {"a second reply that is well", ELCACHE_ERR_PROTOCOL},
    {"data of a failure", ELCACHE_ERR_PROTOCOL},
    {"a field that is cut off", ELCACHE_ERR_PROTOCOL},
    {"a status that is not known", ELCACHE_ERR_INTERNAL},
    {"a second reply that tells of a failure", ELCACHE_ERR_TIMEOUT},
    {"a farewell", ELCACHE_ERR_BUSY},
    {"places without shared memory", ELCACHE_ERR_PROTOCOL},
    {"a farewell that tells of a value", ELCACHE_ERR_PROTOCOL},
    {"a part of the value that is called whole", ELCACHE_ERR_PROTOCOL},
    {"a value without a length", ELCACHE_ERR_PROTOCOL},
    {"a value without a size", ELCACHE_ERR_PROTOCOL},
    {"more than the value has", ELCACHE_ERR_PROTOCOL},
    {"a part that has more than the value", ELCACHE_ERR_PROTOCOL},
    {"a part that ends before its last byte", ELCACHE_ERR_PROTOCOL},
};

static void tell_in_frames(int lie, int fd, uint64_t id) {
    switch (lie) {
    case 3:
        fake_data(fd, id, FRAME_END, value, 10);
        break;
    case 4:
        fake_reply(fd, id, 0, STATUS_OK, 10, value, 5);
        fake_data(fd, id, FRAME_END, value, 6);
        break;
    case 5:
        fake_reply(fd, id, 0, STATUS_OK, 10, value, 5);
        fake_data(fd, id, FRAME_END, value, 4);
        break;
    case 6:
        fake_reply(fd, id, FRAME_END, STATUS_OK, 10, NULL, 0);
        break;
    case 7:
        fake_reply(fd, id, 0, STATUS_OK, sizeof value + 1, value, 5);
        break;
    case 9:
        fake_reply(fd, id + 1, FRAME_END, STATUS_OK, 10, value, 10);
        break;
    case 11:
        fake_reply(fd, id, 0, STATUS_OK, 10, value, 5);
        fake_reply(fd, id, FRAME_END, STATUS_OK, 10, value, 5);
        break;
    case 12:
        fake_reply(fd, id, FRAME_END, STATUS_NOT_FOUND, 10, value, 10);
        break;
    case 14:
        fake_reply(fd, id, FRAME_END, 4711, 0, NULL, 0);
        break;
    case 15:
        fake_reply(fd, id, 0, STATUS_OK, 10, value, 5);
        fake_reply(fd, id, FRAME_END, STATUS_TIMEOUT, 0, NULL, 0);
        break;
    case 16:
        fake_reply(fd, 0, FRAME_END, STATUS_BUSY, 0, NULL, 0);
        break;
    case 18:
        fake_reply(fd, 0, FRAME_END, STATUS_PARTIAL, 0, NULL, 0);
        break;
    default:
        break;
    }
}

/* Replies whose size and length do not go together. */
static void tell_in_numbers(int lie, int fd, uint64_t id) {
    struct fake_number numbers[] = {{TAG_STATUS, STATUS_OK}, {TAG_SIZE, 1000}, {TAG_LENGTH, 1000}};
    switch (lie) {
    case 19:
        numbers[2].value = 3;
        fake_tell(fd, id, FRAME_END, numbers, 3, value, 3);
        break;
    case 20:
        fake_tell(fd, id, FRAME_END, numbers, 2, NULL, 0);
        break;
    case 21:
        numbers[1] = numbers[2];
        fake_tell(fd, id, FRAME_END, numbers, 2, value, 1000);
        break;
    case 22:
        numbers[1].value = 999;
        fake_tell(fd, id, FRAME_END, numbers, 3, value, 1000);
        break;
    case 23:
        numbers[0].value = STATUS_PARTIAL;
        numbers[1].value = 999;
        fake_tell(fd, id, FRAME_END, numbers, 3, value, 1000);
        break;
    case 24:
        numbers[0].value = STATUS_PARTIAL;
        fake_tell(fd, id, FRAME_END, numbers, 3, NULL, 0);
        break;
    default:
        break;
    }
}

static void tell_in_bytes(int lie, int fd, uint64_t id) {
    uint8_t head[FRAME_HEADER_LEN + 4] = {FRAME_VERSION, FRAME_REPLY};
    size_t len = FRAME_HEADER_LEN;
    frame_store_u64(head + 8, id);
    switch (lie) {
    case 0:
        head[0] = 2;
        break;
    case 1:
        head[4] = 1;
        head[6] = 1;
        break;
    case 2:
        frame_store_u64(head + 16, FRAME_DATA_MAX + 1);
        break;
    case 8:
        head[1] = 200;
        break;
    case 10:
        head[1] = FRAME_HELLO;
        frame_store_u64(head + 8, 0);
        break;
    case 13:
        head[4] = 4;
        head[FRAME_HEADER_LEN] = TAG_STATUS;
        head[FRAME_HEADER_LEN + 2] = 8;
        len += 4;
        break;
    case 17:
        head[1] = FRAME_PLACES;
        break;
    default:
        return;
    }
    fake_write(fd, head, len);
}

static void serve_a_lie(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    if (fake_greet_and_read(fake, fd, &frame)) {
        tell_in_frames(fake->variant, fd, frame.header.id);
        tell_in_numbers(fake->variant, fd, frame.header.id);
        tell_in_bytes(fake->variant, fd, frame.header.id);
        fake_linger(fd);
    }
    free(frame.bytes);
}

static void lies_are_seen(void) {
    for (size_t lie = 0; lie < sizeof LIES / sizeof *LIES; lie++) {
        struct fake fake;
        fake_start(&fake, serve_a_lie, 65536, (int)lie);
        elcache_client_t *client = client_of(&fake);
        size_t len = 1;
        elcache_error_t error = get(client, &len);
        if (error != LIES[lie].error) {
            fprintf(stderr, "%s: %d, %s\n", LIES[lie].name, error, elcache_client_last_error(client));
        }
        CHECK(error == LIES[lie].error);
        CHECK(len == (error == ELCACHE_ERR_BUFFER_TOO_SMALL ? sizeof value + 1 : 0));
        if (error == ELCACHE_ERR_BUSY || error == ELCACHE_ERR_TIMEOUT) {
            CHECK(strstr(elcache_client_last_error(client), "so says the fake") != NULL);
        }
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

/* Answers every request with 1000 bytes of a value of 5000. */
static void serve_another_part(struct fake *fake, int fd) {
    const struct fake_number numbers[] = {{TAG_STATUS, STATUS_OK}, {TAG_SIZE, 5000}, {TAG_LENGTH, 1000}};
    struct fake_frame frame = {0};
    fake_greet(fake, fd);
    while (fake_read(fd, &frame)) {
        fake_tell(fd, frame.header.id, FRAME_END, numbers, 3, value, 1000);
    }
}

/* An answer that was shorter than what was asked for passed as all of it. */
static void a_part_is_the_one_that_was_asked_for(void) {
    struct fake fake;
    fake_start(&fake, serve_another_part, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    static uint8_t buffer[10000];
    size_t len = 0;
    CHECK_OK(client, elcache_client_read_range(client, "key", 3, 3000, buffer, 1000, &len));
    CHECK(len == 1000 && memcmp(buffer, value, len) == 0);
    CHECK_OK(client, elcache_client_read_range(client, "key", 3, 4000, buffer, sizeof buffer, &len));
    CHECK(len == 1000);
    static const uint64_t OFFSETS[] = {0, 3999, 4001, 5000, 5001, UINT64_MAX};
    for (size_t i = 0; i < sizeof OFFSETS / sizeof *OFFSETS; i++) {
        elcache_error_t error = elcache_client_read_range(client, "key", 3, OFFSETS[i], buffer, sizeof buffer, &len);
        CHECK_OUTCOME(client, error, ELCACHE_ERR_PROTOCOL);
        CHECK(len == 0 && strstr(elcache_client_last_error(client), "of other bytes") != NULL);
    }
    CHECK_OUTCOME(client, elcache_client_read_range(client, "key", 3, 0, buffer, 999, &len), ELCACHE_ERR_PROTOCOL);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* Tells of one run after the other of a value that has three chunks; `variant` 0: and no size. */
static void serve_runs_without_end(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    fake_greet(fake, fd);
    while (fake_read(fd, &frame)) {
        uint64_t offset = frame_number(&frame.fields, TAG_OFFSET, 0);
        const struct fake_number numbers[] = {{TAG_STATUS, STATUS_OK}, {TAG_CHUNKS, 3}, {TAG_COVERED, offset + 2000},
                                              {TAG_SIZE, UINT64_MAX}};
        uint8_t run[FRAME_RUN_LEN];
        frame_store_u64(run, offset + 1000);
        frame_store_u64(run + 8, 500);
        size_t len = frame.header.flags & FRAME_STAT_RUNS ? sizeof run : 0;
        fake_tell(fd, frame.header.id, FRAME_END, numbers, fake->variant ? 4 : 3, run, len);
    }
}

/* Runs were kept for as long as the node told of more. */
static void what_is_told_of_a_value_has_bounds(void) {
    for (int variant = 0; variant < 2; variant++) {
        struct fake fake;
        fake_start(&fake, serve_runs_without_end, 65536, variant);
        elcache_client_t *client = client_of(&fake);
        CHECK_OK(client, elcache_client_set_timeout(client, SLACK_MS));
        elcache_availability_t availability;
        elcache_metadata_t metadata;
        CHECK_OUTCOME(client, elcache_client_check_availability(client, "key", 3, 0, 0, &availability),
                      ELCACHE_ERR_PROTOCOL);
        CHECK(availability.available_ranges == NULL && availability.missing_ranges == NULL);
        elcache_error_t expected = variant ? ELCACHE_OK : ELCACHE_ERR_PROTOCOL;
        CHECK_OUTCOME(client, elcache_client_metadata(client, "key", 3, &metadata), expected);
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

/* Frames that begin well, changed in a few places, or nothing but noise. */
static void serve_noise(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    uint64_t state = (uint64_t)fake->variant * 1000 + (uint64_t)atomic_load(&fake->connections);
    uint8_t bytes[512] = {0};
    if (random_next(&state) % 4 > 0) {
        fake_greet(fake, fd);
        (void)fake_read(fd, &frame);
    }
    struct frame_writer writer = {0};
    writer.bytes = bytes;
    writer.capacity = sizeof bytes;
    frame_begin(&writer, FRAME_REPLY, (unsigned)(random_next(&state) % 4), frame.bytes != NULL ? frame.header.id : 0);
    frame_add_number(&writer, TAG_STATUS, random_next(&state) % 3);
    uint64_t length = random_next(&state) % 300;
    frame_add_number(&writer, TAG_SIZE, random_next(&state) % 4 > 0 ? length : random_next(&state) % 300);
    frame_add_number(&writer, TAG_LENGTH, length);
    frame_finish(&writer, random_next(&state) % 2 ? length : random_next(&state) % 300);
    fill_bytes(bytes + writer.len, sizeof bytes - writer.len, random_next(&state));
    for (uint64_t change = random_next(&state) % 4; change > 0; change--) {
        bytes[random_next(&state) % 96] = (uint8_t)random_next(&state);
    }
    fake_write(fd, bytes, sizeof bytes);
    free(frame.bytes);
}

/* What a get may say: bytes that it did not get it leaves alone. */
static void get_with_care(elcache_client_t *client) {
    static uint8_t buffer[sizeof value];
    size_t len = 77;
    memset(buffer, 'x', sizeof buffer);
    elcache_error_t error = elcache_client_get(client, "key", 3, buffer, sizeof buffer, &len, NULL);
    if (error == ELCACHE_ERR_BUFFER_TOO_SMALL) {
        CHECK(len > sizeof buffer);
    } else if (error == ELCACHE_OK || error == ELCACHE_ERR_PARTIAL) {
        CHECK(len <= sizeof buffer);
        for (size_t i = len; i < sizeof buffer; i++) {
            CHECK(buffer[i] == 'x');
        }
    } else {
        CHECK(len == 0);
    }
}

static void noise_harms_nobody(void) {
    for (int seed = 0; seed < 150; seed++) {
        struct fake fake;
        fake_start(&fake, serve_noise, 1000, seed);
        elcache_client_t *client = elcache_client_create();
        CHECK_OK(client, elcache_client_set_timeout(client, 100));
        (void)elcache_client_connect_unix(client, fake.path);
        size_t len = 0;
        void *bytes = NULL;
        get_with_care(client);
        elcache_availability_t availability;
        elcache_read_stream_t *stream = NULL;
        (void)elcache_client_check_availability(client, "key", 3, 0, 0, &availability);
        elcache_availability_free(&availability);
        (void)elcache_client_get_alloc(client, "key", 3, &bytes, &len, NULL);
        elcache_free(bytes);
        if (elcache_client_read_stream_start(client, "key", 3, NULL, &stream) == ELCACHE_OK) {
            uint8_t buffer[100];
            while (elcache_read_stream_read(stream, buffer, sizeof buffer, &len) == ELCACHE_OK && len > 0) {
            }
            elcache_read_stream_close(stream);
        }
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

/* Sends a byte more than the window, in the reply or in the frame behind it; in that case the reply has so little
 * that the reader gives no credit for it. */
static void serve_too_much(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    if (fake_greet_and_read(fake, fd, &frame)) {
        size_t window = (size_t)frame_number(&frame.fields, TAG_WINDOW, 0);
        size_t first = fake->variant == 0 ? window + 1 : window / 8;
        fake_reply(fd, frame.header.id, 0, STATUS_OK, sizeof value, value, first);
        if (fake->variant == 1) {
            fake_data(fd, frame.header.id, 0, value + first, window - first + 1);
        }
        fake_linger(fd);
    }
    free(frame.bytes);
}

static void more_than_the_window_is_refused(void) {
    for (int variant = 0; variant < 2; variant++) {
        struct fake fake;
        fake_start(&fake, serve_too_much, 65536, variant);
        elcache_client_t *client = client_of(&fake);
        elcache_read_stream_t *stream = NULL;
        static uint8_t buffer[sizeof value];
        size_t len = 0;
        CHECK_OK(client, elcache_client_set_recv_buffer(client, 5000));
        elcache_error_t error = elcache_client_read_stream_start(client, "key", 3, NULL, &stream);
        while (error == ELCACHE_OK) {
            error = elcache_read_stream_read(stream, buffer, sizeof buffer, &len);
        }
        CHECK(error == ELCACHE_ERR_PROTOCOL);
        CHECK(strstr(elcache_client_last_error(client), "more than it was told") != NULL);
        elcache_read_stream_close(stream);
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

/* A size that nobody has is not allocated because it was said. */
static void serve_a_large_promise(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    if (fake_greet_and_read(fake, fd, &frame)) {
        fake_reply(fd, frame.header.id, 0, STATUS_OK, fake->variant ? UINT64_MAX : ELCACHE_MAX_VALUE_LEN, value, 100);
        fake_linger(fd);
    }
    free(frame.bytes);
}

static void a_large_promise_takes_no_memory(void) {
    for (int variant = 0; variant < 2; variant++) {
        struct fake fake;
        fake_start(&fake, serve_a_large_promise, 65536, variant);
        elcache_client_t *client = client_of(&fake);
        CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
        void *bytes = NULL;
        size_t len = 0;
        CHECK_OUTCOME(client, elcache_client_get_alloc(client, "key", 3, &bytes, &len, NULL), ELCACHE_ERR_TIMEOUT);
        CHECK(bytes == NULL && len == 0);
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

int main(void) {
    fill_bytes(value, sizeof value, 7);
    RUN(a_node_that_says_nothing_costs_a_time_out);
    RUN(a_call_that_is_not_answered_ends_in_time_and_the_next_connects_anew);
    RUN(a_queue_that_is_full_costs_a_time_out);
    RUN(a_node_that_drips_costs_a_time_out);
    RUN(a_stream_that_does_not_fill_its_buffer_costs_a_time_out);
    RUN(a_node_that_takes_nothing_costs_a_time_out);
    RUN(a_read_that_had_no_answer_is_made_again_on_a_new_connection);
    RUN(a_read_that_had_begun_says_that_the_connection_broke);
    RUN(a_deletion_that_was_sent_is_not_sent_again);
    RUN(a_connection_that_died_while_idle_is_noticed_by_nobody);
    RUN(a_put_is_sent_again_under_its_name_if_its_last_byte_was_not);
    RUN(without_a_node_there_is_no_connection);
    RUN(a_node_that_appears_later_is_found);
    RUN(lies_are_seen);
    RUN(a_part_is_the_one_that_was_asked_for);
    RUN(what_is_told_of_a_value_has_bounds);
    RUN(more_than_the_window_is_refused);
    RUN(noise_harms_nobody);
    RUN(a_large_promise_takes_no_memory);
    return 0;
}
