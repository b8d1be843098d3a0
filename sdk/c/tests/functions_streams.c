/* Streams, alone and beside other calls. */
#include "check.h"
#include "functions.h"

static char output[4096];

/* Writes in pieces of random sizes. */
static void write_pieces(elcache_client_t *client, elcache_write_stream_t *stream, size_t len, uint64_t seed) {
    for (size_t at = 0; at < len;) {
        size_t piece = (size_t)(random_next(&seed) % (random_next(&seed) % 2 ? 1000 : 3000000));
        piece = piece < len - at ? piece : len - at;
        CHECK_OK(client, elcache_write_stream_write(stream, large + at, piece));
        at += piece;
    }
}

/* Reads all that is left in pieces of random sizes, and compares it with what begins at `expected`. */
static void read_pieces(elcache_client_t *client, elcache_read_stream_t *stream, const uint8_t *expected, size_t len,
                        uint64_t seed) {
    uint8_t *buffer = malloc(3000000);
    CHECK(buffer != NULL);
    size_t at = 0;
    while (!elcache_read_stream_eof(stream)) {
        size_t got = 0;
        size_t wanted = 1 + (size_t)(random_next(&seed) % (random_next(&seed) % 2 ? 1000 : 3000000));
        CHECK_OK(client, elcache_read_stream_read(stream, buffer, wanted, &got));
        CHECK(got <= len - at && memcmp(buffer, expected + at, got) == 0);
        at += got;
        CHECK(got == wanted || at == len);
    }
    CHECK(at == len);
    free(buffer);
}

static void a_value_written_in_pieces_is_whole(void) {
    static const size_t LENGTHS[] = {0, 1, 100000, 4 << 20, LARGE};
    elcache_client_t *client = node_client(&node);
    for (size_t i = 0; i < sizeof LENGTHS / sizeof *LENGTHS; i++) {
        for (int knows_size = 0; knows_size < 2; knows_size++) {
            elcache_write_stream_t *stream = NULL;
            uint64_t total_size = knows_size ? LENGTHS[i] : 0;
            CHECK_OK(client, elcache_client_write_stream_start(client, "pieces", 6, total_size, NULL, &stream));
            write_pieces(client, stream, LENGTHS[i], i);
            CHECK_OK(client, elcache_write_stream_finish(stream));
            expect_value(client, "pieces", large, LENGTHS[i]);
        }
    }
    elcache_client_destroy(client);
}

static void a_value_is_invisible_until_it_is_finished(void) {
    elcache_client_t *client = node_client(&node);
    elcache_write_stream_t *stream = NULL;
    CHECK_OK(client, elcache_client_put(client, "unseen", 6, "old", 3, NULL));
    CHECK_OK(client, elcache_client_write_stream_start(client, "unseen", 6, 0, NULL, &stream));
    CHECK_OK(client, elcache_write_stream_write(stream, large, LARGE));
    expect_value(client, "unseen", "old", 3);
    node_curl(&node, output, sizeof output, "$B/cache/unseen");
    CHECK(strcmp(output, "old") == 0);
    CHECK_OK(client, elcache_write_stream_abort(stream));
    expect_value(client, "unseen", "old", 3);
    CHECK_OK(client, elcache_client_write_stream_start(client, "unseen", 6, 1000, NULL, &stream));
    CHECK_OK(client, elcache_write_stream_write(stream, large, 999));
    CHECK_OUTCOME(client, elcache_write_stream_write(stream, large, 2), ELCACHE_ERR_INVALID_ARG);
    CHECK_OUTCOME(client, elcache_write_stream_finish(stream), ELCACHE_ERR_PARTIAL);
    CHECK(strstr(elcache_client_last_error(client), "999 of 1000 bytes") != NULL);
    expect_value(client, "unseen", "old", 3);
    /* One whose client goes is given up as well. */
    elcache_client_t *other = node_client(&node);
    CHECK_OK(other, elcache_client_write_stream_start(other, "unseen", 6, 0, NULL, &stream));
    CHECK_OK(other, elcache_write_stream_write(stream, large, LARGE));
    elcache_client_destroy(other);
    CHECK(elcache_write_stream_finish(stream) == ELCACHE_ERR_CONNECTION);
    expect_value(client, "unseen", "old", 3);
    elcache_client_destroy(client);
}

static void stream_options_are_those_of_put_and_get(void) {
    elcache_client_t *client = node_client(&node);
    elcache_put_options_t put = ELCACHE_PUT_OPTIONS_INIT;
    elcache_get_options_t get = ELCACHE_GET_OPTIONS_INIT;
    elcache_write_stream_t *writing = NULL;
    elcache_read_stream_t *reading = NULL;
    elcache_metadata_t metadata;
    put.flags = 5;
    put.ttl_seconds = 500;
    CHECK_OK(client, elcache_client_write_stream_start(client, "streamed", 8, LARGE, &put, &writing));
    write_pieces(client, writing, LARGE, 3);
    CHECK_OK(client, elcache_write_stream_finish(writing));
    CHECK_OK(client, elcache_client_metadata(client, "streamed", 8, &metadata));
    CHECK(metadata.flags == 5 && metadata.expires_at >= metadata.created_at + 499 && metadata.total_size == LARGE);
    put.ttl_seconds = -5;
    CHECK_OUTCOME(client, elcache_client_write_stream_start(client, "streamed", 8, 0, &put, &writing),
                  ELCACHE_ERR_INVALID_ARG);
    get.offset = 5000001;
    get.length = 6000003;
    CHECK_OK(client, elcache_client_read_stream_start(client, "streamed", 8, &get, &reading));
    CHECK(elcache_read_stream_total_size(reading) == LARGE);
    read_pieces(client, reading, large + 5000001, 6000003, 8);
    CHECK(elcache_read_stream_bytes_read(reading) == 6000003);
    elcache_read_stream_close(reading);
    get.offset = LARGE;
    CHECK_OK(client, elcache_client_read_stream_start(client, "streamed", 8, &get, &reading));
    read_pieces(client, reading, large, 0, 8);
    elcache_read_stream_close(reading);
    get.offset = LARGE + 1;
    CHECK_OUTCOME(client, elcache_client_read_stream_start(client, "streamed", 8, &get, &reading),
                  ELCACHE_ERR_INVALID_ARG);
    CHECK_OUTCOME(client, elcache_client_read_stream_start(client, "none", 4, NULL, &reading), ELCACHE_ERR_NOT_FOUND);
    CHECK(reading == NULL);
    elcache_client_destroy(client);
}

/* Several streams both ways on one connection, with calls between. */
static void streams_and_calls_share_a_connection(void) {
    elcache_client_t *client = node_client(&node);
    elcache_read_stream_t *slow = NULL;
    elcache_read_stream_t *reading = NULL;
    elcache_write_stream_t *writing = NULL;
    uint8_t buffer[1000];
    size_t got = 0;
    CHECK_OK(client, elcache_client_put(client, "source", 6, large, LARGE, NULL));
    CHECK_OK(client, elcache_client_read_stream_start(client, "source", 6, NULL, &slow));
    CHECK_OK(client, elcache_client_read_stream_start(client, "source", 6, NULL, &reading));
    CHECK_OK(client, elcache_client_write_stream_start(client, "copy", 4, 0, NULL, &writing));
    uint8_t *piece = malloc(1000000);
    CHECK(piece != NULL);
    for (size_t at = 0; at < LARGE; at += got) {
        CHECK_OK(client, elcache_read_stream_read(reading, piece, 1000000, &got));
        CHECK_OK(client, elcache_write_stream_write(writing, piece, got));
        CHECK_OK(client, elcache_client_put(client, "between", 7, piece, 70000, NULL));
        expect_value(client, "between", piece, 70000);
    }
    CHECK_OK(client, elcache_write_stream_finish(writing));
    expect_value(client, "copy", large, LARGE);
    free(piece);
    /* What the slow one began with is what it gets, also when it is replaced. */
    CHECK_OK(client, elcache_read_stream_read(slow, buffer, sizeof buffer, &got));
    CHECK(got == sizeof buffer && memcmp(buffer, large, got) == 0);
    CHECK_OK(client, elcache_client_put(client, "source", 6, "new", 3, NULL));
    read_pieces(client, slow, large + sizeof buffer, LARGE - sizeof buffer, 5);
    elcache_read_stream_close(slow);
    elcache_read_stream_close(reading);
    expect_value(client, "source", "new", 3);
    elcache_client_destroy(client);
}

static void streams_that_are_dropped_leave_room_for_more(void) {
    elcache_client_t *client = node_client(&node);
    CHECK_OK(client, elcache_client_put(client, "dropped", 7, large, LARGE, NULL));
    for (int i = 0; i < 200; i++) {
        elcache_read_stream_t *reading = NULL;
        elcache_write_stream_t *writing = NULL;
        CHECK_OK(client, elcache_client_read_stream_start(client, "dropped", 7, NULL, &reading));
        CHECK_OK(client, elcache_client_write_stream_start(client, "dropped", 7, 0, NULL, &writing));
        CHECK_OK(client, elcache_write_stream_write(writing, large, (size_t)i * 1000));
        elcache_read_stream_close(reading);
        CHECK_OK(client, elcache_write_stream_abort(writing));
    }
    expect_value(client, "dropped", large, LARGE);
    elcache_client_destroy(client);
}

void test_streams(void) {
    RUN(a_value_written_in_pieces_is_whole);
    RUN(a_value_is_invisible_until_it_is_finished);
    RUN(stream_options_are_those_of_put_and_get);
    RUN(streams_and_calls_share_a_connection);
    RUN(streams_that_are_dropped_leave_room_for_more);
}
