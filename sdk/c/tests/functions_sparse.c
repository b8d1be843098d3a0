/* Values put together from ranges. */
#include <pthread.h>

#include "check.h"
#include "functions.h"

static char output[4096];

enum { RANGE = 777777, WRITERS = 4 };

static void write_at(elcache_client_t *client, const char *key, size_t offset, size_t len) {
    CHECK_OK(client, elcache_client_write_range(client, key, strlen(key), offset, large + offset, len));
}

static void ranges_in_any_order_make_a_value(void) {
    elcache_client_t *client = node_client(&node);
    CHECK_OK(client, elcache_client_put(client, "sparse", 6, "old", 3, NULL));
    CHECK_OK(client, elcache_client_create_sparse(client, "sparse", 6, LARGE, NULL));
    CHECK_OUTCOME(client, elcache_client_create_sparse(client, "sparse", 6, LARGE, NULL), ELCACHE_ERR_CONFLICT);
    write_at(client, "sparse", 5000000, 3000000);
    write_at(client, "sparse", LARGE - 1, 1);
    CHECK_OUTCOME(client, elcache_client_finalize(client, "sparse", 6), ELCACHE_ERR_PARTIAL);
    CHECK(strlen(elcache_client_last_error(client)) > strlen("finalize: Partially available"));
    expect_value(client, "sparse", "old", 3);
    node_curl(&node, output, sizeof output, "$B/sparse/sparse");
    CHECK(strstr(output, "\"complete\": false") != NULL);
    /* Over what is there already as well: the last writer of a byte wins, and writes the same here. */
    CHECK_OK(client, elcache_client_write_range(client, "sparse", 6, 6000000, large, 1000));
    for (size_t at = LARGE; at > 0;) {
        size_t len = at < RANGE ? at : RANGE;
        at -= len;
        write_at(client, "sparse", at, len);
    }
    CHECK_OK(client, elcache_client_finalize(client, "sparse", 6));
    expect_value(client, "sparse", large, LARGE);
    CHECK_OUTCOME(client, elcache_client_write_range(client, "sparse", 6, 0, large, 10), ELCACHE_ERR_NOT_FOUND);
    elcache_client_destroy(client);
}

static void ranges_outside_of_the_value_are_refused(void) {
    elcache_client_t *client = node_client(&node);
    CHECK_OUTCOME(client, elcache_client_write_range(client, "no-upload", 9, 0, large, 10), ELCACHE_ERR_NOT_FOUND);
    CHECK_OUTCOME(client, elcache_client_finalize(client, "no-upload", 9), ELCACHE_ERR_NOT_FOUND);
    CHECK_OK(client, elcache_client_create_sparse(client, "outside", 7, 1000, NULL));
    CHECK_OUTCOME(client, elcache_client_write_range(client, "outside", 7, 991, large, 10), ELCACHE_ERR_INVALID_ARG);
    CHECK_OUTCOME(client, elcache_client_write_range(client, "outside", 7, UINT64_MAX, large, 10),
                  ELCACHE_ERR_INVALID_ARG);
    CHECK_OK(client, elcache_client_write_range(client, "outside", 7, 0, large, 1000));
    CHECK_OK(client, elcache_client_finalize(client, "outside", 7));
    expect_value(client, "outside", large, 1000);
    elcache_client_destroy(client);
}

static void sparse_options_are_those_of_put(void) {
    elcache_client_t *client = node_client(&node);
    elcache_put_options_t options = ELCACHE_PUT_OPTIONS_INIT;
    elcache_metadata_t metadata;
    options.flags = 99;
    options.ttl_seconds = 500;
    CHECK_OK(client, elcache_client_create_sparse(client, "sparse/options", 14, 10, &options));
    CHECK_OK(client, elcache_client_write_range(client, "sparse/options", 14, 0, large, 10));
    CHECK_OK(client, elcache_client_finalize(client, "sparse/options", 14));
    CHECK_OK(client, elcache_client_metadata(client, "sparse/options", 14, &metadata));
    CHECK(metadata.flags == 99 && metadata.total_size == 10);
    CHECK(metadata.expires_at >= metadata.created_at + 499 && metadata.expires_at <= metadata.created_at + 501);
    options.ttl_seconds = -1;
    CHECK_OUTCOME(client, elcache_client_create_sparse(client, "sparse/options", 14, 10, &options),
                  ELCACHE_ERR_INVALID_ARG);
    elcache_client_destroy(client);
}

/* Writes each fourth range, with a client of its own. */
static void *write_share(void *argument) {
    size_t share = *(size_t *)argument;
    elcache_client_t *client = node_client(&node);
    for (size_t at = share * RANGE; at < LARGE; at += WRITERS * RANGE) {
        write_at(client, "together", at, LARGE - at < RANGE ? LARGE - at : RANGE);
    }
    elcache_client_destroy(client);
    return NULL;
}

static void many_clients_write_one_value(void) {
    elcache_client_t *client = node_client(&node);
    pthread_t writers[WRITERS];
    size_t shares[WRITERS];
    CHECK_OK(client, elcache_client_create_sparse(client, "together", 8, LARGE, NULL));
    for (size_t i = 0; i < WRITERS; i++) {
        shares[i] = i;
        CHECK(pthread_create(&writers[i], NULL, write_share, &shares[i]) == 0);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        CHECK(pthread_join(writers[i], NULL) == 0);
    }
    CHECK_OK(client, elcache_client_finalize(client, "together", 8));
    expect_value(client, "together", large, LARGE);
    node_curl(&node, output, sizeof output, "-I $B/cache/together");
    CHECK(strstr(output, "200 OK") != NULL);
    elcache_client_destroy(client);
}

void test_sparse(void) {
    RUN(ranges_in_any_order_make_a_value);
    RUN(ranges_outside_of_the_value_are_refused);
    RUN(sparse_options_are_those_of_put);
    RUN(many_clients_write_one_value);
}
