/* Windows, credit, and several requests at once: what a node that keeps to the protocol sees of the client. */
#include "fake.h"

#include "check.h"

enum { LEN = 3000000 };

static uint8_t value[LEN];

static elcache_client_t *client_of(const struct fake *fake) {
    elcache_client_t *client = elcache_client_create();
    CHECK(client != NULL);
    CHECK_OK(client, elcache_client_set_timeout(client, 20000));
    CHECK_OK(client, elcache_client_connect_unix(client, fake->path));
    return client;
}

/* --- Sending --- */

/* Takes a value, with credit in steps of odd sizes, and checks that never more is sent than was allowed. */
static void take_value(struct fake *fake, int fd, struct fake_frame *frame) {
    uint64_t state = 3;
    uint64_t allowed = fake->window;
    uint64_t received = 0;
    for (;;) {
        CHECK(frame->header.data_len <= allowed);
        CHECK(received + frame->header.data_len <= LEN);
        CHECK(memcmp(frame->bytes + frame->header.fields_len, value + received, (size_t)frame->header.data_len) == 0);
        received += frame->header.data_len;
        allowed -= frame->header.data_len;
        if (frame->header.flags & FRAME_END) {
            break;
        }
        if (allowed == 0) {
            uint64_t more = 1 + random_next(&state) % 200000;
            allowed += more;
            CHECK(fake_credit(fd, frame->header.id, more));
        }
        CHECK(fake_read(fd, frame) && frame->header.kind == FRAME_DATA);
    }
    CHECK(received == LEN);
    fake_reply(fd, frame->header.id, FRAME_END, STATUS_OK, 0, NULL, 0);
}

static void serve_puts(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    fake_greet(fake, fd);
    while (fake_read(fd, &frame)) {
        CHECK(frame.header.kind == FRAME_PUT);
        atomic_store(&fake->seen, frame_has(&frame.fields, TAG_SIZE));
        take_value(fake, fd, &frame);
    }
}

static void a_value_is_sent_as_the_node_allows(void) {
    static const uint64_t WINDOWS[] = {0, 1, 1000, 65536, LEN, UINT64_MAX};
    for (size_t i = 0; i < sizeof WINDOWS / sizeof *WINDOWS; i++) {
        struct fake fake;
        fake_start(&fake, serve_puts, WINDOWS[i], 0);
        elcache_client_t *client = client_of(&fake);
        CHECK_OK(client, elcache_client_put(client, "key", 3, value, LEN, NULL));
        CHECK(atomic_load(&fake.seen));
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

static void a_stream_is_sent_as_the_node_allows(void) {
    struct fake fake;
    fake_start(&fake, serve_puts, 1000, 0);
    elcache_client_t *client = client_of(&fake);
    uint64_t state = 5;
    for (int knows_size = 0; knows_size < 2; knows_size++) {
        elcache_write_stream_t *stream = NULL;
        CHECK_OK(client, elcache_client_write_stream_start(client, "key", 3, knows_size ? LEN : 0, NULL, &stream));
        for (size_t at = 0; at < LEN;) {
            size_t piece = (size_t)(random_next(&state) % (random_next(&state) % 4 ? 3000 : 200000));
            piece = piece < LEN - at ? piece : LEN - at;
            CHECK_OK(client, elcache_write_stream_write(stream, value + at, piece));
            at += piece;
        }
        if (knows_size) {
            CHECK_OUTCOME(client, elcache_write_stream_write(stream, "x", 1), ELCACHE_ERR_INVALID_ARG);
        }
        CHECK_OK(client, elcache_write_stream_finish(stream));
        CHECK(atomic_load(&fake.seen) == knows_size);
    }
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* Refuses a value when its first bytes are there; what is still under way is passed over. */
static void serve_refusals(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    fake_greet(fake, fd);
    uint64_t refused = 0;
    while (fake_read(fd, &frame)) {
        if (frame.header.kind == FRAME_PUT) {
            refused = frame.header.id;
            fake_reply(fd, refused, FRAME_END, STATUS_NO_ROOM, 0, NULL, 0);
        } else if (frame.header.kind == FRAME_DELETE) {
            fake_reply(fd, frame.header.id, FRAME_END, STATUS_OK, 0, NULL, 0);
        } else {
            CHECK(frame.header.id == refused);
            atomic_fetch_add(&fake->seen, 1);
        }
    }
}

static void a_value_that_is_refused_early_is_not_sent_to_its_end(void) {
    struct fake fake;
    fake_start(&fake, serve_refusals, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    CHECK_OUTCOME(client, elcache_client_put(client, "key", 3, value, LEN, NULL), ELCACHE_ERR_NO_ROOM);
    CHECK(strcmp(elcache_client_last_error(client), "put: No room: so says the fake") == 0);
    CHECK_OK(client, elcache_client_delete(client, "key", 3));
    CHECK(atomic_load(&fake.seen) == 0 && atomic_load(&fake.connections) == 1);
    elcache_write_stream_t *stream = NULL;
    CHECK_OK(client, elcache_client_write_stream_start(client, "key", 3, 0, NULL, &stream));
    CHECK_OUTCOME(client, elcache_write_stream_write(stream, value, LEN), ELCACHE_ERR_NO_ROOM);
    CHECK_OUTCOME(client, elcache_write_stream_write(stream, value, 1), ELCACHE_ERR_NO_ROOM);
    CHECK_OUTCOME(client, elcache_write_stream_finish(stream), ELCACHE_ERR_NO_ROOM);
    CHECK_OK(client, elcache_client_delete(client, "key", 3));
    CHECK(atomic_load(&fake.connections) == 1);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* --- Receiving --- */

/* Answers one GET after the other with `value`, in frames of odd sizes, and sends no more than it may. Other frames
 * are answered while it waits. `variant`: whether the reply itself carries data. */
struct answering {
    uint64_t id; /* 0: none */
    uint64_t window;
    uint64_t allowed;
    size_t sent;
};

/* Sends the reply, with or without the first bytes. */
static size_t begin_answer(struct fake *fake, int fd, const struct answering *open, size_t piece, uint64_t *state) {
    size_t with = fake->variant && random_next(state) % 2 ? piece : 0;
    fake_reply(fd, open->id, with == LEN ? FRAME_END : 0, STATUS_OK, LEN, value, with);
    return with;
}

static void answer_more(struct fake *fake, int fd, struct answering *open, uint64_t *state) {
    int is_new = open->sent == 0;
    while (open->id != 0 && open->sent < LEN && open->allowed > 0) {
        size_t piece = (size_t)(1 + random_next(state) % 100000);
        piece = piece < LEN - open->sent ? piece : LEN - open->sent;
        piece = piece < open->allowed ? piece : (size_t)open->allowed;
        if (is_new) {
            piece = begin_answer(fake, fd, open, piece, state);
        } else {
            fake_data(fd, open->id, open->sent + piece == LEN ? FRAME_END : 0, value + open->sent, piece);
        }
        is_new = 0;
        open->sent += piece;
        open->allowed -= piece;
    }
    if (open->sent == LEN) {
        open->id = 0;
    }
}

static void serve_reads(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    struct answering open[8] = {{0}};
    uint64_t state = 11;
    fake_greet(fake, fd);
    while (fake_read(fd, &frame)) {
        struct answering *of = NULL;
        for (size_t i = 0; i < 8 && of == NULL; i++) {
            of = open[i].id == frame.header.id || (frame.header.kind == FRAME_GET && open[i].id == 0) ? &open[i] : NULL;
        }
        if (frame.header.kind == FRAME_GET) {
            CHECK(of != NULL && frame_has(&frame.fields, TAG_WINDOW));
            uint64_t window = frame_number(&frame.fields, TAG_WINDOW, 0);
            struct answering begun = {frame.header.id, window, window, 0};
            *of = begun;
            answer_more(fake, fd, of, &state);
        } else if (frame.header.kind == FRAME_CREDIT && of != NULL) {
            of->allowed += frame_number(&frame.fields, TAG_WINDOW, 0);
            /* A stream gets no more than its window, get_alloc in all no more than twice what has come. */
            CHECK(of->allowed <= of->window + (of->window == 1048576 ? of->sent : 0));
            answer_more(fake, fd, of, &state);
        } else if (frame.header.kind == FRAME_CANCEL) {
            atomic_fetch_add(&fake->seen, 1);
            if (of != NULL) {
                fake_reply(fd, of->id, FRAME_END, STATUS_CANCELLED, 0, NULL, 0);
                of->id = 0;
            }
        } else if (frame.header.kind == FRAME_DELETE) {
            fake_reply(fd, frame.header.id, FRAME_END, STATUS_OK, 0, NULL, 0);
        }
    }
}

static void a_value_is_read_whole_by_every_call(void) {
    for (int variant = 0; variant < 2; variant++) {
        struct fake fake;
        fake_start(&fake, serve_reads, 65536, variant);
        elcache_client_t *client = client_of(&fake);
        uint8_t *buffer = malloc(LEN);
        void *bytes = NULL;
        size_t len = 0;
        CHECK(buffer != NULL);
        CHECK_OK(client, elcache_client_get(client, "key", 3, buffer, LEN, &len, NULL));
        CHECK(len == LEN && memcmp(buffer, value, LEN) == 0);
        CHECK_OK(client, elcache_client_get_alloc(client, "key", 3, &bytes, &len, NULL));
        CHECK(len == LEN && memcmp(bytes, value, LEN) == 0);
        elcache_free(bytes);
        free(buffer);
        elcache_client_destroy(client);
        fake_stop(&fake);
    }
}

static void a_buffer_that_is_too_small_costs_the_connection_nothing(void) {
    struct fake fake;
    fake_start(&fake, serve_reads, 65536, 1);
    elcache_client_t *client = client_of(&fake);
    static uint8_t buffer[100000];
    for (size_t size = 0; size <= sizeof buffer; size += 25000) {
        size_t len = 0;
        elcache_error_t error = elcache_client_get(client, "key", 3, buffer, size, &len, NULL);
        CHECK(error == ELCACHE_ERR_BUFFER_TOO_SMALL && len == LEN);
        CHECK_OK(client, elcache_client_delete(client, "key", 3));
    }
    CHECK(atomic_load(&fake.seen) == 5 && atomic_load(&fake.connections) == 1);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* The cancellation was kept for the next call: a client that made none held its request open, and a node that was to
 * stop waited for it. */
static void the_node_hears_at_once_that_a_buffer_was_too_small(void) {
    struct fake fake;
    fake_start(&fake, serve_reads, 65536, 1);
    elcache_client_t *client = client_of(&fake);
    static uint8_t buffer[100];
    size_t len = 0;
    CHECK_OUTCOME(client, elcache_client_get(client, "key", 3, buffer, sizeof buffer, &len, NULL),
                  ELCACHE_ERR_BUFFER_TOO_SMALL);
    for (int i = 0; i < 1000 && atomic_load(&fake.seen) == 0; i++) {
        fake_sleep_ms(5);
    }
    CHECK(atomic_load(&fake.seen) == 1);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* Reads `len` bytes of a stream, which begins `at`, and compares them. */
static void read_and_compare(elcache_client_t *client, elcache_read_stream_t *stream, size_t at, size_t len) {
    static uint8_t buffer[LEN];
    size_t got = 0;
    CHECK_OK(client, elcache_read_stream_read(stream, buffer, len, &got));
    CHECK(got == len && memcmp(buffer, value + at, len) == 0);
}

static void a_stream_holds_no_more_than_its_window_and_no_other_call_up(void) {
    struct fake fake;
    fake_start(&fake, serve_reads, 65536, 1);
    elcache_client_t *client = client_of(&fake);
    CHECK_OK(client, elcache_client_set_recv_buffer(client, 50000));
    elcache_read_stream_t *streams[3] = {NULL, NULL, NULL};
    size_t at[3] = {0, 0, 0};
    for (int i = 0; i < 3; i++) {
        CHECK_OK(client, elcache_client_read_stream_start(client, "key", 3, NULL, &streams[i]));
        CHECK(elcache_read_stream_total_size(streams[i]) == LEN);
    }
    uint64_t state = 9;
    while (at[0] < LEN || at[1] < LEN || at[2] < LEN) {
        int i = (int)(random_next(&state) % 3);
        size_t len = (size_t)(random_next(&state) % (random_next(&state) % 2 ? 200000 : 500));
        len = len < LEN - at[i] ? len : LEN - at[i];
        read_and_compare(client, streams[i], at[i], len);
        at[i] += len;
        CHECK(elcache_read_stream_bytes_read(streams[i]) == at[i]);
        CHECK(!elcache_read_stream_eof(streams[i]) || at[i] == LEN);
        if (random_next(&state) % 8 == 0) {
            CHECK_OK(client, elcache_client_delete(client, "key", 3));
        }
    }
    for (int i = 0; i < 3; i++) {
        read_and_compare(client, streams[i], LEN, 0);
        uint8_t byte;
        size_t got = 1;
        CHECK_OK(client, elcache_read_stream_read(streams[i], &byte, 1, &got));
        CHECK(got == 0 && elcache_read_stream_eof(streams[i]));
        elcache_read_stream_close(streams[i]);
    }
    CHECK(atomic_load(&fake.seen) == 0);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

static void streams_that_are_closed_in_the_middle_leave_nothing(void) {
    struct fake fake;
    fake_start(&fake, serve_reads, 65536, 1);
    elcache_client_t *client = client_of(&fake);
    CHECK_OK(client, elcache_client_set_recv_buffer(client, 50000));
    for (int round = 0; round < 20; round++) {
        elcache_read_stream_t *stream = NULL;
        CHECK_OK(client, elcache_client_read_stream_start(client, "key", 3, NULL, &stream));
        read_and_compare(client, stream, 0, (size_t)(round * 10007));
        elcache_read_stream_close(stream);
    }
    CHECK_OK(client, elcache_client_delete(client, "key", 3));
    CHECK(atomic_load(&fake.seen) == 20 && atomic_load(&fake.connections) == 1);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

static void more_requests_than_the_node_takes_are_refused_here(void) {
    struct fake fake;
    fake_start(&fake, serve_reads, 65536, 1);
    elcache_client_t *client = client_of(&fake);
    CHECK_OK(client, elcache_client_set_recv_buffer(client, 4096));
    elcache_read_stream_t *streams[4];
    for (int i = 0; i < 4; i++) {
        CHECK_OK(client, elcache_client_read_stream_start(client, "key", 3, NULL, &streams[i]));
    }
    CHECK_OUTCOME(client, elcache_client_delete(client, "key", 3), ELCACHE_ERR_BUSY);
    elcache_read_stream_close(streams[0]);
    /* It is open until the node has answered the cancellation, which the call waits for. */
    CHECK_OK(client, elcache_client_delete(client, "key", 3));
    for (int i = 1; i < 4; i++) {
        elcache_read_stream_close(streams[i]);
    }
    elcache_client_destroy(client);
    fake_stop(&fake);
}

static void streams_outlive_their_client(void) {
    struct fake fake;
    fake_start(&fake, serve_reads, 65536, 1);
    elcache_client_t *client = client_of(&fake);
    elcache_read_stream_t *reading = NULL;
    elcache_write_stream_t *writing = NULL;
    elcache_write_stream_t *given_up = NULL;
    CHECK_OK(client, elcache_client_read_stream_start(client, "key", 3, NULL, &reading));
    CHECK_OK(client, elcache_client_write_stream_start(client, "key", 3, 0, NULL, &writing));
    CHECK_OK(client, elcache_client_write_stream_start(client, "key", 3, 0, NULL, &given_up));
    elcache_client_destroy(client);
    uint8_t byte = 0;
    size_t got = 0;
    CHECK(elcache_read_stream_read(reading, &byte, 1, &got) == ELCACHE_ERR_CONNECTION);
    CHECK(elcache_write_stream_write(writing, &byte, 1) == ELCACHE_ERR_CONNECTION);
    CHECK(elcache_write_stream_finish(writing) == ELCACHE_ERR_CONNECTION);
    CHECK(elcache_write_stream_abort(given_up) == ELCACHE_OK);
    elcache_read_stream_close(reading);
    fake_stop(&fake);
}

/* A GET of `slow` is not answered. */
static void serve_all_but_one(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    uint64_t stream = 0;
    fake_greet(fake, fd);
    while (fake_read(fd, &frame)) {
        if (frame.header.kind == FRAME_GET && frame.fields.spans[TAG_KEY].len == 3) {
            stream = frame.header.id;
            fake_reply(fd, stream, 0, STATUS_OK, 10, value, 4);
        } else if (frame.header.kind == FRAME_CANCEL) {
            fake_data(fd, stream, FRAME_END, value + 4, 6);
        }
    }
}

static void a_call_that_times_out_does_no_harm_to_a_stream(void) {
    struct fake fake;
    fake_start(&fake, serve_all_but_one, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    elcache_read_stream_t *stream = NULL;
    CHECK_OK(client, elcache_client_read_stream_start(client, "key", 3, NULL, &stream));
    elcache_get_options_t options = ELCACHE_GET_OPTIONS_INIT;
    options.timeout_ms = 50;
    uint8_t buffer[10];
    size_t len = 0;
    CHECK_OUTCOME(client, elcache_client_get(client, "slow", 4, buffer, 10, &len, &options), ELCACHE_ERR_TIMEOUT);
    CHECK_OK(client, elcache_read_stream_read(stream, buffer, 10, &len));
    CHECK(len == 10 && memcmp(buffer, value, 10) == 0 && atomic_load(&fake.connections) == 1);
    elcache_read_stream_close(stream);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

static void a_stream_that_times_out_goes_on(void) {
    struct fake fake;
    fake_start(&fake, serve_all_but_one, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    elcache_read_stream_t *stream = NULL;
    elcache_get_options_t options = ELCACHE_GET_OPTIONS_INIT;
    options.timeout_ms = 50;
    CHECK_OK(client, elcache_client_read_stream_start(client, "key", 3, &options, &stream));
    uint8_t buffer[10];
    size_t len = 0;
    CHECK_OK(client, elcache_read_stream_read(stream, buffer, 10, &len));
    CHECK(len == 4);
    CHECK_OUTCOME(client, elcache_read_stream_read(stream, buffer, 10, &len), ELCACHE_ERR_TIMEOUT);
    CHECK_OUTCOME(client, elcache_client_get(client, "slow", 4, buffer, 10, &len, &options), ELCACHE_ERR_TIMEOUT);
    CHECK_OK(client, elcache_read_stream_read(stream, buffer, 10, &len));
    CHECK(len == 6 && memcmp(buffer, value + 4, 6) == 0);
    elcache_read_stream_close(stream);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

/* Bytes that had come of a read that failed, and those of an upload that was given up, were counted. */
static void only_what_was_delivered_is_counted(void) {
    struct fake fake;
    fake_start(&fake, serve_all_but_one, 65536, 0);
    elcache_client_t *client = client_of(&fake);
    elcache_get_options_t options = ELCACHE_GET_OPTIONS_INIT;
    options.timeout_ms = 50;
    uint8_t buffer[10];
    void *bytes = NULL;
    size_t len = 0;
    elcache_stats_t stats;
    CHECK_OUTCOME(client, elcache_client_get(client, "key", 3, buffer, 10, &len, &options), ELCACHE_ERR_TIMEOUT);
    CHECK_OUTCOME(client, elcache_client_get_alloc(client, "key", 3, &bytes, &len, &options), ELCACHE_ERR_TIMEOUT);
    elcache_write_stream_t *stream = NULL;
    CHECK_OK(client, elcache_client_write_stream_start(client, "key", 3, 0, NULL, &stream));
    CHECK_OK(client, elcache_write_stream_write(stream, value, 1000));
    CHECK_OK(client, elcache_write_stream_abort(stream));
    CHECK_OK(client, elcache_client_stats(client, &stats));
    CHECK(stats.bytes_read == 0 && stats.bytes_written == 0);
    elcache_client_destroy(client);
    fake_stop(&fake);
}

int main(void) {
    fill_bytes(value, sizeof value, 7);
    RUN(a_value_is_sent_as_the_node_allows);
    RUN(a_stream_is_sent_as_the_node_allows);
    RUN(a_value_that_is_refused_early_is_not_sent_to_its_end);
    RUN(a_value_is_read_whole_by_every_call);
    RUN(a_buffer_that_is_too_small_costs_the_connection_nothing);
    RUN(the_node_hears_at_once_that_a_buffer_was_too_small);
    RUN(a_stream_holds_no_more_than_its_window_and_no_other_call_up);
    RUN(streams_that_are_closed_in_the_middle_leave_nothing);
    RUN(more_requests_than_the_node_takes_are_refused_here);
    RUN(streams_outlive_their_client);
    RUN(a_call_that_times_out_does_no_harm_to_a_stream);
    RUN(a_stream_that_times_out_goes_on);
    RUN(only_what_was_delivered_is_counted);
    return 0;
}
