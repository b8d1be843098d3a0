/* Values put together from ranges. */
#include "values.h"

static elcache_error_t run_upload(struct call *call, const struct command *command, const void *data, size_t len) {
    struct request request;
    struct exchange exchange = {0};
    exchange.request = &request;
    exchange.data = data;
    exchange.len = len;
    exchange.ends = command->kind == FRAME_SPARSE_WRITE;
    exchange.until = REQUEST_OVER;
    elcache_error_t error = call_run(call, command, &exchange);
    return call_end(call, error, request.message);
}

elcache_error_t elcache_client_create_sparse(elcache_client_t *client, const void *key, size_t key_len,
                                             uint64_t total_size, const elcache_put_options_t *options) {
    elcache_error_t error = client_check_key(client, "create_sparse", key, key_len);
    if (error != ELCACHE_OK) {
        return error;
    }
    if (total_size > ELCACHE_MAX_VALUE_LEN) {
        return client_fail(client, "create_sparse", ELCACHE_ERR_VALUE_TOO_LARGE, "a value has at most 20 TB");
    }
    struct command command = command_new(FRAME_SPARSE_OPEN, 0, key, key_len);
    command_add(&command, TAG_SIZE, total_size);
    error = put_command(client, "create_sparse", options, &command);
    if (error != ELCACHE_OK) {
        return error;
    }
    struct call call = call_new(client, "create_sparse", 0);
    return run_upload(&call, &command, NULL, 0);
}

elcache_error_t elcache_client_write_range(elcache_client_t *client, const void *key, size_t key_len, uint64_t offset,
                                           const void *data, size_t data_len) {
    elcache_error_t error = client_check_key(client, "write_range", key, key_len);
    if (error != ELCACHE_OK) {
        return error;
    }
    if (data == NULL && data_len > 0) {
        return client_fail(client, "write_range", ELCACHE_ERR_INVALID_ARG, "there are no data");
    }
    struct command command = command_new(FRAME_SPARSE_WRITE, 0, key, key_len);
    command_add(&command, TAG_OFFSET, offset);
    command_add(&command, TAG_LENGTH, data_len);
    struct call call = call_new(client, "write_range", 0);
    error = run_upload(&call, &command, data, data_len);
    client->stats.counts.bytes_written += error == ELCACHE_OK ? data_len : 0;
    return error;
}

elcache_error_t elcache_client_finalize(elcache_client_t *client, const void *key, size_t key_len) {
    elcache_error_t error = client_check_key(client, "finalize", key, key_len);
    if (error != ELCACHE_OK) {
        return error;
    }
    struct command command = command_new(FRAME_SPARSE_FINALIZE, 0, key, key_len);
    struct call call = call_new(client, "finalize", 0);
    return run_upload(&call, &command, NULL, 0);
}
