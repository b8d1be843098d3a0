/* Every function of the API against a real node, cross-checked over HTTP. Arguments: the program elcached, the
 * transport (unix or shm). */
#include "functions.h"

#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../src/clock.h"
#include "check.h"

struct node node;
uint8_t *large;

static char output[65536];

static int64_t now_ms(void) {
    return clock_now_ns() / NS_PER_MS;
}

static elcache_error_t put(elcache_client_t *client, const char *key, const char *value,
                           const elcache_put_options_t *options) {
    return elcache_client_put(client, key, strlen(key), value, strlen(value), options);
}

static elcache_error_t get(elcache_client_t *client, const char *key, char *buffer, size_t size, size_t *len,
                           const elcache_get_options_t *options) {
    return elcache_client_get(client, key, strlen(key), buffer, size, len, options);
}

void expect_value(elcache_client_t *client, const char *key, const void *value, size_t len) {
    void *got = NULL;
    size_t got_len = 0;
    CHECK_OK(client, elcache_client_get_alloc(client, key, strlen(key), &got, &got_len, NULL));
    CHECK(got_len == len && memcmp(got, value, len) == 0);
    elcache_free(got);
}

/* --- Lifecycle --- */

static void a_client_connects_and_disconnects(void) {
    elcache_client_t *client = elcache_client_create();
    CHECK(client != NULL && !elcache_client_is_connected(client));
    CHECK(strcmp(elcache_client_last_error(client), "") == 0);
    CHECK_OUTCOME(client, put(client, "a", "b", NULL), ELCACHE_ERR_CONNECTION);
    CHECK(strcmp(elcache_client_last_error(client), "put: Connection failed: the client is not connected") == 0);
    CHECK_OK(client, node_connect(&node, client));
    CHECK(elcache_client_is_connected(client));
    CHECK_OK(client, put(client, "a", "b", NULL));
    CHECK_OK(client, node_connect(&node, client));
    elcache_client_disconnect(client);
    CHECK(!elcache_client_is_connected(client));
    CHECK_OUTCOME(client, put(client, "a", "b", NULL), ELCACHE_ERR_CONNECTION);
    elcache_client_destroy(client);
    elcache_client_destroy(NULL);
    elcache_client_disconnect(NULL);
    CHECK(!elcache_client_is_connected(NULL) && elcache_client_connect_unix(NULL, "a") == ELCACHE_ERR_INVALID_ARG);
}

/* --- Values --- */

static void what_is_put_is_got_here_and_over_http(void) {
    elcache_client_t *client = node_client(&node);
    char buffer[100];
    size_t len = 0;
    CHECK_OK(client, put(client, "greetings/hello", "Hello, cache", NULL));
    CHECK_OK(client, get(client, "greetings/hello", buffer, sizeof buffer, &len, NULL));
    CHECK(len == 12 && memcmp(buffer, "Hello, cache", 12) == 0);
    node_curl(&node, output, sizeof output, "$B/cache/greetings/hello");
    CHECK(strcmp(output, "Hello, cache") == 0);
    node_curl(&node, output, sizeof output, "-d other -H 'X-ElCache-Flags: 77' $B/cache/greetings/hello");
    CHECK_OK(client, get(client, "greetings/hello", buffer, sizeof buffer, &len, NULL));
    CHECK(len == 5 && memcmp(buffer, "other", 5) == 0);
    elcache_metadata_t metadata;
    CHECK_OK(client, elcache_client_metadata(client, "greetings/hello", 15, &metadata));
    CHECK(metadata.flags == 77 && metadata.total_size == 5);
    elcache_client_destroy(client);
}

static void values_and_keys_of_all_lengths_come_back(void) {
    static const size_t LENGTHS[] = {0, 1, 1023, 1024, 65535, 65536, 65537, 1 << 20, 4 << 20, (4 << 20) + 1, LARGE};
    elcache_client_t *client = node_client(&node);
    uint8_t *buffer = malloc(LARGE);
    CHECK(buffer != NULL);
    for (size_t i = 0; i < sizeof LENGTHS / sizeof *LENGTHS; i++) {
        size_t len = 0;
        size_t offset = LARGE - LENGTHS[i];
        CHECK_OK(client, elcache_client_put(client, "length", 6, large + offset, LENGTHS[i], NULL));
        CHECK_OK(client, elcache_client_get(client, "length", 6, buffer, LARGE, &len, NULL));
        CHECK(len == LENGTHS[i] && memcmp(buffer, large + offset, len) == 0);
        expect_value(client, "length", large + offset, LENGTHS[i]);
    }
    uint8_t key[ELCACHE_MAX_KEY_LEN + 1];
    fill_bytes(key, sizeof key, 4);
    for (size_t key_len = 1; key_len <= ELCACHE_MAX_KEY_LEN; key_len = key_len * 2) {
        size_t len = 0;
        CHECK_OK(client, elcache_client_put(client, key, key_len, &key_len, sizeof key_len, NULL));
        CHECK_OK(client, elcache_client_get(client, key, key_len, buffer, LARGE, &len, NULL));
        CHECK(len == sizeof key_len && memcmp(buffer, &key_len, len) == 0);
    }
    CHECK_OUTCOME(client, elcache_client_put(client, key, sizeof key, "a", 1, NULL), ELCACHE_ERR_KEY_TOO_LARGE);
    CHECK_OUTCOME(client, elcache_client_delete(client, key, sizeof key), ELCACHE_ERR_KEY_TOO_LARGE);
    free(buffer);
    elcache_client_destroy(client);
}

static void a_large_value_is_the_same_over_http(void) {
    char arguments[256];
    elcache_client_t *client = node_client(&node);
    CHECK_OK(client, elcache_client_put(client, "large", 5, large, LARGE, NULL));
    snprintf(arguments, sizeof arguments, "$B/cache/large | cksum");
    node_curl(&node, output, sizeof output, arguments);
    char path[96];
    snprintf(path, sizeof path, "%s/large", node.folder);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fwrite(large, 1, LARGE, file) == LARGE && fclose(file) == 0);
    char command[256];
    char expected[256] = {0};
    snprintf(command, sizeof command, "cksum < %s", path);
    FILE *pipe = popen(command, "r");
    CHECK(pipe != NULL && fgets(expected, sizeof expected, pipe) != NULL && pclose(pipe) == 0);
    CHECK(strcmp(output, expected) == 0);
    snprintf(arguments, sizeof arguments, "-T %s $B/cache/large-back", path);
    node_curl(&node, output, sizeof output, arguments);
    expect_value(client, "large-back", large, LARGE);
    elcache_client_destroy(client);
}

static void a_small_buffer_is_told_the_size_that_is_needed(void) {
    elcache_client_t *client = node_client(&node);
    char buffer[12];
    size_t len = 0;
    CHECK_OK(client, put(client, "small", "Hello, cache", NULL));
    for (size_t size = 0; size < 12; size++) {
        CHECK_OUTCOME(client, get(client, "small", buffer, size, &len, NULL), ELCACHE_ERR_BUFFER_TOO_SMALL);
        CHECK(len == 12);
    }
    CHECK_OUTCOME(client, get(client, "small", NULL, 0, &len, NULL), ELCACHE_ERR_BUFFER_TOO_SMALL);
    CHECK_OK(client, get(client, "small", buffer, 12, &len, NULL));
    elcache_get_options_t options = ELCACHE_GET_OPTIONS_INIT;
    options.offset = 3;
    CHECK_OUTCOME(client, get(client, "small", buffer, 8, &len, &options), ELCACHE_ERR_BUFFER_TOO_SMALL);
    CHECK(len == 9);
    options.length = 8;
    CHECK_OK(client, get(client, "small", buffer, 8, &len, &options));
    CHECK(len == 8 && memcmp(buffer, "lo, cach", 8) == 0);
    CHECK_OK(client, elcache_client_put(client, "large", 5, large, LARGE, NULL));
    CHECK_OUTCOME(client, get(client, "large", buffer, 12, &len, NULL), ELCACHE_ERR_BUFFER_TOO_SMALL);
    CHECK(len == LARGE);
    CHECK_OK(client, put(client, "empty", "", NULL));
    CHECK_OK(client, get(client, "empty", NULL, 0, &len, NULL));
    CHECK(len == 0);
    /* Also of a value that is kept, there is nothing behind its end that would need a buffer. */
    options.offset = 12;
    options.length = 0;
    for (int i = 0; i < 3; i++) {
        CHECK_OK(client, get(client, "small", buffer, 12, &len, NULL));
        CHECK_OK(client, get(client, "small", NULL, 0, &len, &options));
        CHECK(len == 0);
    }
    elcache_client_destroy(client);
}

static void offset_and_length_choose_the_bytes(void) {
    elcache_client_t *client = node_client(&node);
    static char buffer[100];
    char value[41] = "0123456789abcdefghijklmnopqrstuvwxyzABCD";
    CHECK_OK(client, put(client, "part", value, NULL));
    for (uint64_t offset = 0; offset <= 42; offset++) {
        for (uint64_t length = 0; length <= 42; length++) {
            elcache_get_options_t options = ELCACHE_GET_OPTIONS_INIT;
            options.offset = offset;
            options.length = length;
            size_t len = 7;
            elcache_error_t error = get(client, "part", buffer, sizeof buffer, &len, &options);
            if (offset > 40) {
                CHECK(error == ELCACHE_ERR_INVALID_ARG && len == 0);
                continue;
            }
            size_t expected = length == 0 || length > 40 - offset ? (size_t)(40 - offset) : (size_t)length;
            CHECK_OK(client, error);
            CHECK(len == expected && memcmp(buffer, value + offset, len) == 0);
        }
    }
    size_t len = 0;
    CHECK_OK(client, elcache_client_read_range(client, "part", 4, 38, buffer, 10, &len));
    CHECK(len == 2 && memcmp(buffer, "CD", 2) == 0);
    CHECK_OK(client, elcache_client_read_range(client, "part", 4, 40, buffer, 10, &len));
    CHECK(len == 0);
    CHECK_OK(client, elcache_client_read_range(client, "part", 4, 5, NULL, 0, &len));
    CHECK(len == 0);
    CHECK_OUTCOME(client, elcache_client_read_range(client, "part", 4, 41, buffer, 10, &len), ELCACHE_ERR_INVALID_ARG);
    CHECK_OUTCOME(client, elcache_client_read_range(client, "part", 4, 41, NULL, 0, &len), ELCACHE_ERR_INVALID_ARG);
    CHECK_OUTCOME(client, elcache_client_read_range(client, "none", 4, 0, buffer, 1, &len), ELCACHE_ERR_NOT_FOUND);
    CHECK_OUTCOME(client, elcache_client_read_range(client, "part", 4, UINT64_MAX, buffer, 10, &len),
                  ELCACHE_ERR_INVALID_ARG);
    elcache_client_destroy(client);
}

static void put_options_are_honoured(void) {
    elcache_client_t *client = node_client(&node);
    elcache_put_options_t options = ELCACHE_PUT_OPTIONS_INIT;
    elcache_metadata_t metadata;
    int64_t begin = (int64_t)time(NULL);
    options.ttl_seconds = 1000;
    options.flags = 0xfedcba98u;
    CHECK_OK(client, put(client, "options", "value", &options));
    CHECK_OK(client, elcache_client_metadata(client, "options", 7, &metadata));
    int64_t end = (int64_t)time(NULL);
    CHECK(metadata.flags == 0xfedcba98u && metadata.total_size == 5 && metadata.chunk_count == 1);
    CHECK(metadata.created_at >= begin && metadata.created_at <= end);
    CHECK(metadata.expires_at >= begin + 999 && metadata.expires_at <= end + 1000);
    node_curl(&node, output, sizeof output, "-I $B/cache/options");
    CHECK(strstr(output, "X-ElCache-Flags: 4275878552") != NULL && strstr(output, "X-ElCache-TTL: 9") != NULL);
    CHECK_OK(client, put(client, "options", "value", NULL));
    CHECK_OK(client, elcache_client_metadata(client, "options", 7, &metadata));
    CHECK(metadata.flags == 0 && metadata.expires_at == 0);
    options.ttl_seconds = -1;
    CHECK_OUTCOME(client, put(client, "options", "value", &options), ELCACHE_ERR_INVALID_ARG);
    CHECK(strstr(elcache_client_last_error(client), "time to live") != NULL);
    options.ttl_seconds = 1;
    CHECK_OK(client, put(client, "options", "value", &options));
    int exists = 1;
    for (int i = 0; i < 100 && exists; i++) {
        usleep(50000);
        CHECK_OK(client, elcache_client_exists(client, "options", 7, &exists));
    }
    CHECK(!exists);
    elcache_client_destroy(client);
}

static void tiers_can_be_left_out(void) {
    elcache_client_t *client = node_client(&node);
    elcache_put_options_t options = ELCACHE_PUT_OPTIONS_INIT;
    options.no_memory = 1;
    CHECK_OK(client, put(client, "tiers", "on the disk", &options));
    node_curl(&node, output, sizeof output, "-I $B/cache/tiers");
    CHECK(strstr(output, "X-ElCache-Hit: disk") != NULL);
    options.no_memory = 0;
    options.no_disk = 1;
    options.no_cluster = 1;
    CHECK_OK(client, put(client, "tiers", "in memory", &options));
    node_curl(&node, output, sizeof output, "-I $B/cache/tiers");
    CHECK(strstr(output, "X-ElCache-Hit: memory") != NULL);
    CHECK_OK(client, put(client, "tiers/kept", "kept", NULL));
    node_end(&node, SIGTERM);
    node_restart(&node);
    int exists = 1;
    CHECK_OK(client, elcache_client_exists(client, "tiers", 5, &exists));
    CHECK(!exists);
    CHECK_OK(client, elcache_client_exists(client, "tiers/kept", 10, &exists));
    CHECK(exists);
    elcache_client_destroy(client);
}

static void what_is_deleted_is_gone(void) {
    elcache_client_t *client = node_client(&node);
    char buffer[10];
    size_t len = 3;
    int exists = 1;
    void *bytes = buffer;
    elcache_metadata_t metadata;
    CHECK_OUTCOME(client, elcache_client_delete(client, "gone", 4), ELCACHE_ERR_NOT_FOUND);
    CHECK_OK(client, put(client, "gone", "here", NULL));
    CHECK_OK(client, elcache_client_exists(client, "gone", 4, &exists));
    CHECK(exists == 1);
    CHECK_OK(client, elcache_client_delete(client, "gone", 4));
    CHECK_OK(client, elcache_client_exists(client, "gone", 4, &exists));
    CHECK(exists == 0);
    CHECK_OUTCOME(client, get(client, "gone", buffer, sizeof buffer, &len, NULL), ELCACHE_ERR_NOT_FOUND);
    CHECK(len == 0 && strncmp(elcache_client_last_error(client), "get: Not found", 14) == 0);
    CHECK_OUTCOME(client, elcache_client_get_alloc(client, "gone", 4, &bytes, &len, NULL), ELCACHE_ERR_NOT_FOUND);
    CHECK(bytes == NULL && len == 0);
    CHECK_OUTCOME(client, elcache_client_metadata(client, "gone", 4, &metadata), ELCACHE_ERR_NOT_FOUND);
    CHECK(metadata.total_size == 0);
    elcache_client_destroy(client);
}

static void arguments_that_cannot_be_are_refused(void) {
    elcache_client_t *client = node_client(&node);
    char buffer[10];
    size_t len = 0;
    void *bytes = NULL;
    elcache_get_options_t options = ELCACHE_GET_OPTIONS_INIT;
    elcache_error_t invalid = ELCACHE_ERR_INVALID_ARG;
    CHECK(elcache_client_put(NULL, "a", 1, "b", 1, NULL) == invalid);
    CHECK(elcache_client_put(client, NULL, 1, "b", 1, NULL) == invalid);
    CHECK(elcache_client_put(client, "a", 0, "b", 1, NULL) == invalid);
    CHECK(elcache_client_put(client, "a", 1, NULL, 1, NULL) == invalid);
    CHECK(elcache_client_get(client, "a", 1, NULL, 1, &len, NULL) == invalid);
    CHECK(elcache_client_get(client, "a", 1, buffer, 1, NULL, NULL) == invalid);
    CHECK(elcache_client_get_alloc(client, "a", 1, NULL, &len, NULL) == invalid);
    CHECK(elcache_client_get_alloc(client, "a", 1, &bytes, NULL, NULL) == invalid);
    options.timeout_ms = -1;
    CHECK(elcache_client_get(client, "a", 1, buffer, 1, &len, &options) == invalid);
    CHECK(elcache_client_exists(client, "a", 1, NULL) == invalid);
    CHECK(elcache_client_metadata(client, "a", 1, NULL) == invalid);
    CHECK(elcache_client_read_range(client, "a", 1, 0, NULL, 1, &len) == invalid);
    CHECK(elcache_client_read_range(client, "a", 1, 0, buffer, 1, NULL) == invalid);
    CHECK(elcache_client_check_availability(client, "a", 1, 0, 0, NULL) == invalid);
    CHECK(elcache_client_write_range(client, "a", 1, 0, NULL, 1) == invalid);
    CHECK(elcache_client_write_stream_start(client, "a", 1, 0, NULL, NULL) == invalid);
    CHECK(elcache_client_read_stream_start(client, "a", 1, NULL, NULL) == invalid);
    CHECK(elcache_write_stream_write(NULL, "a", 1) == invalid && elcache_write_stream_finish(NULL) == invalid);
    CHECK(elcache_write_stream_abort(NULL) == invalid);
    CHECK(elcache_read_stream_read(NULL, buffer, 1, &len) == invalid);
    CHECK(elcache_read_stream_total_size(NULL) == 0 && elcache_read_stream_bytes_read(NULL) == 0);
    CHECK(elcache_read_stream_eof(NULL) == 0);
    elcache_read_stream_close(NULL);
    elcache_availability_free(NULL);
    elcache_free(NULL);
    CHECK(elcache_client_set_timeout(client, 0) == invalid && elcache_client_set_timeout(NULL, 1) == invalid);
    CHECK(elcache_client_set_recv_buffer(client, 10) == invalid);
    CHECK(elcache_client_set_send_buffer(client, SIZE_MAX) == invalid);
    CHECK(elcache_client_stats(client, NULL) == invalid);
    elcache_client_destroy(client);
}

/* --- What is partly there --- */

/* Stores a value of which some chunks are evicted then, on a node without a disk. */
static void evict_some(elcache_client_t *client, const struct node *small) {
    char key[32];
    size_t missing = 0;
    CHECK_OK(client, elcache_client_put(client, "partial", 7, large, LARGE, NULL));
    for (int i = 0; i < 100 && missing == 0; i++) {
        elcache_availability_t availability;
        snprintf(key, sizeof key, "filler/%d", i);
        CHECK_OK(client, elcache_client_put(client, key, strlen(key), large + i, 1 << 20, NULL));
        CHECK_OK(client, elcache_client_check_availability(client, "partial", 7, 0, 0, &availability));
        missing = availability.missing_count;
        elcache_availability_free(&availability);
    }
    node_curl(small, output, sizeof output, "-o /dev/null -w '%{http_code}' $B/cache/partial");
    CHECK(strcmp(output, "404") == 0);
}

static void expect_ranges(elcache_client_t *client, const elcache_availability_t *availability) {
    uint8_t *buffer = malloc(LARGE);
    CHECK(buffer != NULL);
    for (size_t i = 0; i < availability->available_count; i++) {
        size_t len = 0;
        elcache_range_t range = availability->available_ranges[i];
        size_t size = (size_t)range.length;
        CHECK_OK(client, elcache_client_read_range(client, "partial", 7, range.offset, buffer, size, &len));
        CHECK(len == range.length && memcmp(buffer, large + range.offset, len) == 0);
    }
    for (size_t i = 0; i < availability->missing_count; i++) {
        size_t len = 1;
        CHECK_OUTCOME(client,
                      elcache_client_read_range(client, "partial", 7, availability->missing_ranges[i].offset, buffer,
                                                10, &len),
                      ELCACHE_ERR_PARTIAL);
        CHECK(len == 0);
    }
    free(buffer);
}

/* Both kinds of ranges together are the range that was asked for, without gap and overlap. */
static void expect_tiling(const elcache_availability_t *availability, uint64_t begin, uint64_t end) {
    size_t there = 0;
    size_t missing = 0;
    while (begin < end) {
        const elcache_range_t *range = NULL;
        if (there < availability->available_count && availability->available_ranges[there].offset == begin) {
            range = &availability->available_ranges[there++];
        } else if (missing < availability->missing_count && availability->missing_ranges[missing].offset == begin) {
            range = &availability->missing_ranges[missing++];
        }
        CHECK(range != NULL && range->length > 0);
        begin += range->length;
    }
    CHECK(begin == end && there == availability->available_count && missing == availability->missing_count);
}

static void what_is_partly_there_is_told_and_read(void) {
    struct node small;
    node_start(&small, node.binary, node.is_shared ? "shm" : "unix", "64", "0");
    elcache_client_t *client = node_client(&small);
    elcache_availability_t availability;
    evict_some(client, &small);
    CHECK_OK(client, elcache_client_check_availability(client, "partial", 7, 0, 0, &availability));
    CHECK(availability.exists && availability.metadata.total_size == LARGE && availability.metadata.chunk_count == 7);
    CHECK(availability.missing_count > 0);
    expect_tiling(&availability, 0, LARGE);
    expect_ranges(client, &availability);
    uint64_t first = availability.missing_ranges[0].offset;
    elcache_availability_free(&availability);
    CHECK(availability.available_ranges == NULL);
    elcache_availability_free(&availability);

    elcache_get_options_t options = ELCACHE_GET_OPTIONS_INIT;
    void *bytes = NULL;
    size_t len = 1;
    CHECK_OUTCOME(client, elcache_client_get_alloc(client, "partial", 7, &bytes, &len, NULL), ELCACHE_ERR_PARTIAL);
    CHECK(len == first && (len == 0 || memcmp(bytes, large, len) == 0));
    elcache_free(bytes);
    options.allow_partial = 0;
    CHECK_OUTCOME(client, elcache_client_get_alloc(client, "partial", 7, &bytes, &len, &options), ELCACHE_ERR_PARTIAL);
    CHECK(len == 0 && bytes == NULL);
    CHECK_OK(client, elcache_client_check_availability(client, "partial", 7, 100, 5 << 20, &availability));
    expect_tiling(&availability, 100, 100 + (5 << 20));
    elcache_availability_free(&availability);
    CHECK_OK(client, elcache_client_check_availability(client, "partial", 7, LARGE, 5, &availability));
    CHECK(availability.exists && availability.available_count == 0 && availability.missing_count == 0);
    elcache_availability_free(&availability);
    CHECK_OUTCOME(client, elcache_client_check_availability(client, "partial", 7, LARGE + 1, 5, &availability),
                  ELCACHE_ERR_INVALID_ARG);
    CHECK_OUTCOME(client, elcache_client_put(client, "too-large", 9, large, LARGE, NULL), ELCACHE_OK);
    elcache_stats_t stats;
    CHECK_OK(client, elcache_client_stats(client, &stats));
    CHECK(stats.partial_hits >= 2);
    elcache_client_destroy(client);
    node_remove(&small);
}

static void what_does_not_fit_has_no_room(void) {
    struct node small;
    node_start(&small, node.binary, node.is_shared ? "shm" : "unix", "16", "0");
    elcache_client_t *client = node_client(&small);
    CHECK_OUTCOME(client, elcache_client_put(client, "huge", 4, large, LARGE, NULL), ELCACHE_ERR_NO_ROOM);
    CHECK_OK(client, put(client, "huge", "small", NULL));
    CHECK_OUTCOME(client, elcache_client_create_sparse(client, "huge", 4, ELCACHE_MAX_VALUE_LEN + 1, NULL),
                  ELCACHE_ERR_VALUE_TOO_LARGE);
    elcache_write_stream_t *stream = NULL;
    CHECK_OUTCOME(client,
                  elcache_client_write_stream_start(client, "huge", 4, ELCACHE_MAX_VALUE_LEN + 1, NULL, &stream),
                  ELCACHE_ERR_VALUE_TOO_LARGE);
    elcache_client_destroy(client);
    node_remove(&small);
}

static void all_of_a_whole_value_is_available(void) {
    elcache_client_t *client = node_client(&node);
    elcache_availability_t availability;
    CHECK_OK(client, elcache_client_put(client, "whole", 5, large, LARGE, NULL));
    CHECK_OK(client, elcache_client_check_availability(client, "whole", 5, 10, 0, &availability));
    CHECK(availability.exists && availability.available_count == 1 && availability.missing_count == 0);
    CHECK(availability.available_ranges[0].offset == 10 && availability.available_ranges[0].length == LARGE - 10);
    elcache_availability_free(&availability);
    CHECK_OK(client, elcache_client_check_availability(client, "nothing", 7, 0, 0, &availability));
    CHECK(!availability.exists && availability.missing_count == 0);
    elcache_availability_free(&availability);
    elcache_client_destroy(client);
}

/* --- Nodes that stop, die, and come back --- */

static void a_node_that_is_stopped_costs_a_time_out(void) {
    elcache_client_t *client = node_client(&node);
    char buffer[10];
    size_t len = 0;
    CHECK_OK(client, put(client, "stopped", "value", NULL));
    CHECK_OK(client, elcache_client_set_timeout(client, 300));
    node_pause(&node);
    int64_t begin = now_ms();
    CHECK_OUTCOME(client, get(client, "stopped", buffer, sizeof buffer, &len, NULL), ELCACHE_ERR_TIMEOUT);
    CHECK_OUTCOME(client, elcache_client_put(client, "stopped/2", 9, large, LARGE, NULL), ELCACHE_ERR_TIMEOUT);
    CHECK_OUTCOME(client, node_connect(&node, client), ELCACHE_ERR_TIMEOUT);
    CHECK(now_ms() - begin >= 890 && now_ms() - begin < 3000);
    node_resume(&node);
    CHECK_OK(client, elcache_client_set_timeout(client, 20000));
    CHECK_OK(client, get(client, "stopped", buffer, sizeof buffer, &len, NULL));
    elcache_client_destroy(client);
}

static void a_node_that_dies_is_an_error_and_one_that_is_back_is_found(void) {
    elcache_client_t *client = node_client(&node);
    char buffer[10];
    size_t len = 0;
    int exists = 0;
    CHECK_OK(client, put(client, "dead", "value", NULL));
    node_end(&node, SIGKILL);
    CHECK_OUTCOME(client, get(client, "dead", buffer, sizeof buffer, &len, NULL), ELCACHE_ERR_CONNECTION);
    CHECK_OUTCOME(client, put(client, "dead", "other", NULL), ELCACHE_ERR_CONNECTION);
    CHECK_OUTCOME(client, elcache_client_exists(client, "dead", 4, &exists), ELCACHE_ERR_CONNECTION);
    CHECK(!elcache_client_is_connected(client));
    node_restart(&node);
    CHECK_OK(client, get(client, "dead", buffer, sizeof buffer, &len, NULL));
    CHECK(len == 5 && memcmp(buffer, "value", 5) == 0);
    node_end(&node, SIGTERM);
    node_restart(&node);
    CHECK_OK(client, put(client, "dead", "other", NULL));
    elcache_client_destroy(client);
}

/* Allows this process so many descriptors more than are open. */
static void leave_descriptors(rlim_t count) {
    struct rlimit limit;
    int lowest = dup(0);
    CHECK(lowest >= 0 && close(lowest) == 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = (rlim_t)lowest + count;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* Under valgrind the limit is valgrind's own, and does not hold for descriptors that come by a socket. */
static int is_limited(void) {
    const char *preloaded = getenv("LD_PRELOAD");
    return preloaded == NULL || strstr(preloaded, "vgpreload") == NULL;
}

/* The descriptors of the node's memory were lost for want of room, and the node was said not to have sent any. */
static void without_descriptors_there_is_no_connection_and_it_is_said_why(void) {
    struct rlimit before;
    elcache_client_t *client = elcache_client_create();
    CHECK(client != NULL && getrlimit(RLIMIT_NOFILE, &before) == 0);
    for (rlim_t left = 0; left <= 2; left++) {
        leave_descriptors(left);
        elcache_error_t error = node_connect(&node, client);
        CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
        int has_enough = left > 0 && (!node.is_shared || !is_limited());
        CHECK_OUTCOME(client, error, has_enough ? ELCACHE_OK : ELCACHE_ERR_CONNECTION);
        const char *reason = left == 0 ? "Too many open files" : "no descriptor is free";
        CHECK(has_enough || strstr(elcache_client_last_error(client), reason) != NULL);
    }
    CHECK_OK(client, put(client, "descriptors", "enough", NULL));
    elcache_client_destroy(client);
}

/* --- Diagnostics --- */

static void statistics_count_what_was_done(void) {
    elcache_client_t *client = node_client(&node);
    elcache_stats_t stats;
    char buffer[10];
    size_t len = 0;
    CHECK_OK(client, put(client, "stats", "12345", NULL));
    for (int i = 0; i < 10; i++) {
        CHECK_OK(client, get(client, "stats", buffer, sizeof buffer, &len, NULL));
    }
    CHECK_OUTCOME(client, get(client, "stats/none", buffer, sizeof buffer, &len, NULL), ELCACHE_ERR_NOT_FOUND);
    CHECK_OUTCOME(client, get(client, "stats", buffer, 4, &len, NULL), ELCACHE_ERR_BUFFER_TOO_SMALL);
    CHECK_OK(client, elcache_client_stats(client, &stats));
    CHECK(stats.hits == 10 && stats.misses == 1 && stats.partial_hits == 0);
    CHECK(stats.bytes_read == 50 && stats.bytes_written == 5);
    /* A buffer of nothing gets all that it takes, or finds no value, as any other does. */
    CHECK_OK(client, elcache_client_read_range(client, "stats", 5, 1, buffer, 0, &len));
    CHECK_OUTCOME(client, elcache_client_read_range(client, "stats/none", 10, 1, buffer, 0, &len),
                  ELCACHE_ERR_NOT_FOUND);
    CHECK_OK(client, elcache_client_read_range(client, "stats", 5, 1, buffer, 3, &len));
    CHECK_OK(client, elcache_client_stats(client, &stats));
    CHECK(stats.hits == 12 && stats.misses == 2 && stats.bytes_read == 53);
    elcache_client_reset_stats(client);
    CHECK_OK(client, elcache_client_stats(client, &stats));
    CHECK(stats.hits == 0 && stats.bytes_read == 0 && stats.latency_us_avg == 0.0 && stats.latency_us_p99 == 0.0);
    elcache_client_reset_stats(NULL);
    elcache_client_destroy(client);
}

/* One call that takes a time that is known, among others that take less. */
static void statistics_tell_how_long_calls_took(void) {
    enum { QUICK = 20, SLOW_MS = 60 };
    elcache_client_t *client = node_client(&node);
    elcache_stats_t stats;
    elcache_get_options_t options = ELCACHE_GET_OPTIONS_INIT;
    char buffer[10];
    size_t len = 0;
    int64_t begin_ns = clock_now_ns();
    for (int i = 0; i < QUICK; i++) {
        CHECK_OUTCOME(client, get(client, "stats/none", buffer, sizeof buffer, &len, NULL), ELCACHE_ERR_NOT_FOUND);
    }
    options.timeout_ms = SLOW_MS;
    node_pause(&node);
    CHECK_OUTCOME(client, get(client, "stats/slow", buffer, sizeof buffer, &len, &options), ELCACHE_ERR_TIMEOUT);
    double all_us = (double)(clock_now_ns() - begin_ns) / 1000;
    node_resume(&node);
    CHECK_OK(client, elcache_client_stats(client, &stats));
    CHECK(stats.latency_us_avg * (QUICK + 1) >= (SLOW_MS - 1) * 1000 && stats.latency_us_avg * (QUICK + 1) <= all_us);
    CHECK(stats.latency_us_p99 >= (SLOW_MS - 1) * 1000 && stats.latency_us_p99 <= all_us * 1.02);
    memset(&stats, 1, sizeof stats);
    CHECK(elcache_client_stats(NULL, &stats) == ELCACHE_ERR_INVALID_ARG && stats.hits == 0);
    elcache_client_destroy(client);
}

static void errors_have_names(void) {
    CHECK(strcmp(elcache_error_string(ELCACHE_OK), "Success") == 0);
    CHECK(strcmp(elcache_error_string(ELCACHE_ERR_NOT_FOUND), "Not found") == 0);
    for (int code = ELCACHE_ERR_CONFLICT; code < 0; code++) {
        const char *text = elcache_error_string((elcache_error_t)code);
        CHECK(strlen(text) > 0 && strcmp(text, "Unknown error") != 0);
    }
    CHECK(strcmp(elcache_error_string((elcache_error_t)-99), "Unknown error") == 0);
    CHECK(strlen(elcache_client_last_error(NULL)) > 0);
}

static void buffers_of_all_sizes_work(void) {
    static const size_t SIZES[] = {4096, 10000, 8 << 20};
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        elcache_client_t *client = elcache_client_create();
        CHECK_OK(client, elcache_client_set_recv_buffer(client, SIZES[i]));
        CHECK_OK(client, node_connect(&node, client));
        CHECK_OK(client, elcache_client_set_send_buffer(client, SIZES[i]));
        CHECK_OK(client, elcache_client_put(client, "buffers", 7, large, LARGE, NULL));
        expect_value(client, "buffers", large, LARGE);
        elcache_client_destroy(client);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    large = malloc(LARGE);
    CHECK(large != NULL);
    fill_bytes(large, LARGE, 12);
    node_start(&node, argv[1], argv[2], "256", "2");
    RUN(a_client_connects_and_disconnects);
    RUN(what_is_put_is_got_here_and_over_http);
    RUN(values_and_keys_of_all_lengths_come_back);
    RUN(a_large_value_is_the_same_over_http);
    RUN(a_small_buffer_is_told_the_size_that_is_needed);
    RUN(offset_and_length_choose_the_bytes);
    RUN(put_options_are_honoured);
    RUN(tiers_can_be_left_out);
    RUN(what_is_deleted_is_gone);
    RUN(arguments_that_cannot_be_are_refused);
    RUN(what_is_partly_there_is_told_and_read);
    RUN(what_does_not_fit_has_no_room);
    RUN(all_of_a_whole_value_is_available);
    test_streams();
    test_sparse();
    RUN(a_node_that_is_stopped_costs_a_time_out);
    RUN(a_node_that_dies_is_an_error_and_one_that_is_back_is_found);
    RUN(without_descriptors_there_is_no_connection_and_it_is_said_why);
    RUN(statistics_count_what_was_done);
    RUN(statistics_tell_how_long_calls_took);
    RUN(errors_have_names);
    RUN(buffers_of_all_sizes_work);
    node_remove(&node);
    free(large);
    return 0;
}
