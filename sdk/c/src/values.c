#include "values.h"

#include <stdlib.h>
#include <string.h>

/* What get_alloc allocates at once before any byte has come, at most; then it doubles. */
enum { GROW_FIRST = 1048576 };

elcache_get_options_t get_options(const elcache_get_options_t *options) {
    static const elcache_get_options_t DEFAULTS = ELCACHE_GET_OPTIONS_INIT;
    return options != NULL ? *options : DEFAULTS;
}

struct command get_command(const void *key, size_t key_len, const elcache_get_options_t *options, uint64_t window) {
    unsigned flags = options->allow_partial ? FRAME_GET_PARTIAL : 0;
    struct command command = command_new(FRAME_GET, flags, key, key_len);
    command.is_read_only = 1;
    if (options->offset > 0) {
        command_add(&command, TAG_OFFSET, options->offset);
    }
    if (options->length > 0) {
        command_add(&command, TAG_LENGTH, options->length);
    }
    command_add(&command, TAG_WINDOW, window);
    return command;
}

elcache_error_t put_command(elcache_client_t *client, const char *call, const elcache_put_options_t *options,
                            struct command *command) {
    client_name_operation(client, command);
    if (options == NULL) {
        return ELCACHE_OK;
    }
    if (options->ttl_seconds < 0) {
        return client_fail(client, call, ELCACHE_ERR_INVALID_ARG, "a time to live is not below 0");
    }
    if (options->ttl_seconds > 0) {
        command_add(command, TAG_TTL, (uint64_t)options->ttl_seconds);
    }
    if (options->flags != 0) {
        command_add(command, TAG_USER_FLAGS, options->flags);
    }
    command->flags |= (options->no_memory ? FRAME_PUT_NO_MEMORY : 0u) | (options->no_disk ? FRAME_PUT_NO_DISK : 0u) |
                      (options->no_cluster ? FRAME_PUT_NO_CLUSTER : 0u);
    return ELCACHE_OK;
}

static elcache_error_t check_get(elcache_client_t *client, const char *call, const void *key, size_t key_len,
                                 int has_results, const elcache_get_options_t *options) {
    elcache_error_t error = client_check_key(client, call, key, key_len);
    if (error != ELCACHE_OK) {
        return error;
    }
    if (!has_results) {
        return client_fail(client, call, ELCACHE_ERR_INVALID_ARG, "there is no place for the result");
    }
    if (options != NULL && options->timeout_ms < 0) {
        return client_fail(client, call, ELCACHE_ERR_INVALID_ARG, "a time-out is not below 0");
    }
    return ELCACHE_OK;
}

/* --- What is kept --- */

/* The value of this key, if it was kept and is good still; the answer is then known without asking. */
static const struct kept *find_kept(struct call *call, const void *key, size_t key_len) {
    const struct share *share = call->client->connection.share;
    return share != NULL ? share_find(share, key, key_len) : NULL;
}

/* What a command wants of a kept value; NULL: the node has to be asked. */
static const struct kept *find_wanted(struct call *call, const struct command *command, size_t *length) {
    const struct kept *kept = find_kept(call, command->key, command->key_len);
    uint64_t offset = command_number(command, TAG_OFFSET);
    uint64_t wanted = command_number(command, TAG_LENGTH);
    if (kept == NULL || offset > kept->size) {
        return NULL;
    }
    uint64_t rest = kept->size - offset;
    *length = (size_t)(wanted > 0 && wanted < rest ? wanted : rest);
    return kept;
}

static int copy_kept(struct call *call, const struct command *command, const struct kept *kept, void *buffer,
                     size_t length) {
    return share_copy(call->client->connection.share, kept, command_number(command, TAG_OFFSET), buffer, length);
}

/* Keeps an answer that may be kept. */
static void keep(struct call *call, const struct command *command, const struct request *request) {
    struct share *share = call->client->connection.share;
    if (request->may_keep && share != NULL) {
        share_keep(share, command->key, command->key_len, &request->kept);
    }
}

/* --- get --- */

elcache_error_t read_into(struct call *call, const struct command *command, void *buffer, size_t buffer_size,
                          size_t *len, struct request *request) {
    size_t length = 0;
    const struct kept *kept = find_wanted(call, command, &length);
    if (kept != NULL && length <= buffer_size && copy_kept(call, command, kept, buffer, length)) {
        request->message[0] = '\0';
        *len = length;
        return ELCACHE_OK;
    }
    struct buffer_sink sink;
    buffer_sink_init(&sink, buffer, buffer_size);
    struct exchange exchange = {0};
    exchange.request = request;
    exchange.sink = &sink.base;
    exchange.window = command_number(command, TAG_WINDOW);
    exchange.until = REQUEST_OVER;
    elcache_error_t error = call_run(call, command, &exchange);
    if (error == ELCACHE_ERR_BUFFER_TOO_SMALL) {
        *len = request->answer.length <= SIZE_MAX ? (size_t)request->answer.length : SIZE_MAX;
    } else if (error == ELCACHE_OK || (error == ELCACHE_ERR_PARTIAL && command->flags & FRAME_GET_PARTIAL)) {
        *len = (size_t)request->received; /* and not what the sink has of an attempt before the last */
        keep(call, command, request);
    }
    return error;
}

elcache_error_t elcache_client_get(elcache_client_t *client, const void *key, size_t key_len, void *buffer,
                                   size_t buffer_size, size_t *value_len, const elcache_get_options_t *options) {
    if (value_len != NULL) {
        *value_len = 0;
    }
    int has_results = value_len != NULL && (buffer != NULL || buffer_size == 0);
    elcache_error_t error = check_get(client, "get", key, key_len, has_results, options);
    if (error != ELCACHE_OK) {
        return error;
    }
    elcache_get_options_t wanted = get_options(options);
    struct call call = call_new(client, "get", wanted.timeout_ms);
    /* A window of nothing would leave the node with an answer that it may not begin. */
    struct command command = get_command(key, key_len, &wanted, buffer_size > 0 ? buffer_size : 1);
    struct request request;
    error = read_into(&call, &command, buffer, buffer_size, value_len, &request);
    call_count_read(&call, error, *value_len);
    return call_end(&call, error, request.message);
}

/* --- get_alloc --- */

static elcache_error_t first_space(struct sink *sink, const struct answer *answer) {
    struct buffer_sink *self = (struct buffer_sink *)sink;
    size_t first = answer->length < GROW_FIRST ? (size_t)answer->length : GROW_FIRST;
    self->len = 0;
    self->capacity = first;
    /* realloc: an answer to a request that was sent again takes the place of the first. */
    uint8_t *bytes = realloc(self->bytes, first > 0 ? first : 1);
    if (bytes == NULL) {
        return ELCACHE_ERR_OUT_OF_MEMORY;
    }
    self->bytes = bytes;
    return ELCACHE_OK;
}

static const struct sink_ops GROWING_OPS = {first_space, buffer_sink_space, buffer_sink_filled};

/* Doubles the space when half of it is full: memory follows what has come, not what the node says that will. */
static elcache_error_t grow(struct call *call, struct exchange *exchange) {
    struct buffer_sink *sink = (struct buffer_sink *)exchange->sink;
    uint64_t length = exchange->request->answer.length;
    if (sink->capacity >= length || sink->len < sink->capacity / 2) {
        return ELCACHE_OK;
    }
    uint64_t doubled = (uint64_t)sink->capacity * 2;
    uint64_t capacity = doubled < length ? doubled : length;
    uint8_t *bytes = capacity <= PTRDIFF_MAX ? realloc(sink->bytes, (size_t)capacity) : NULL;
    if (bytes == NULL) {
        return ELCACHE_ERR_OUT_OF_MEMORY;
    }
    connection_grant(&call->client->connection, exchange->request, capacity - sink->capacity);
    sink->bytes = bytes;
    sink->capacity = (size_t)capacity;
    return ELCACHE_OK;
}

/* Runs it; what came is in the sink, also if it failed. The bytes belong to whoever calls. */
static elcache_error_t read_growing(struct call *call, const struct command *command, struct buffer_sink *sink,
                                    struct request *request) {
    size_t length = 0;
    const struct kept *kept = find_wanted(call, command, &length);
    sink->base.ops = &GROWING_OPS;
    if (kept != NULL && (sink->bytes = malloc(length > 0 ? length : 1)) != NULL &&
        copy_kept(call, command, kept, sink->bytes, length)) {
        request->message[0] = '\0';
        sink->len = length;
        return ELCACHE_OK;
    }
    struct exchange exchange = {0};
    exchange.request = request;
    exchange.sink = &sink->base;
    exchange.window = GROW_FIRST;
    exchange.until = REQUEST_OVER;
    exchange.step = grow;
    elcache_error_t error = call_run(call, command, &exchange);
    sink->len = (size_t)request->received; /* and not what there was of an attempt before the last */
    if (error == ELCACHE_OK && sink->bytes == NULL) {
        /* An empty value began no data. */
        sink->bytes = malloc(1);
        error = sink->bytes == NULL ? ELCACHE_ERR_OUT_OF_MEMORY : ELCACHE_OK;
    }
    if (error == ELCACHE_OK) {
        keep(call, command, request);
    }
    return error;
}

elcache_error_t elcache_client_get_alloc(elcache_client_t *client, const void *key, size_t key_len, void **value,
                                         size_t *value_len, const elcache_get_options_t *options) {
    if (value != NULL) {
        *value = NULL;
    }
    if (value_len != NULL) {
        *value_len = 0;
    }
    int has_results = value != NULL && value_len != NULL;
    elcache_error_t error = check_get(client, "get_alloc", key, key_len, has_results, options);
    if (error != ELCACHE_OK) {
        return error;
    }
    elcache_get_options_t wanted = get_options(options);
    struct call call = call_new(client, "get_alloc", wanted.timeout_ms);
    struct command command = get_command(key, key_len, &wanted, GROW_FIRST);
    struct buffer_sink sink = {0};
    struct request request;
    error = read_growing(&call, &command, &sink, &request);
    if (error == ELCACHE_OK || (error == ELCACHE_ERR_PARTIAL && wanted.allow_partial && sink.len > 0)) {
        *value = sink.bytes;
        *value_len = sink.len;
    } else {
        free(sink.bytes);
    }
    call_count_read(&call, error, *value_len);
    return call_end(&call, error, request.message);
}

/* --- put --- */

elcache_error_t elcache_client_put(elcache_client_t *client, const void *key, size_t key_len, const void *value,
                                   size_t value_len, const elcache_put_options_t *options) {
    elcache_error_t error = client_check_key(client, "put", key, key_len);
    if (error != ELCACHE_OK) {
        return error;
    }
    if (value == NULL && value_len > 0) {
        return client_fail(client, "put", ELCACHE_ERR_INVALID_ARG, "there is no value");
    }
    if (value_len > ELCACHE_MAX_VALUE_LEN) {
        return client_fail(client, "put", ELCACHE_ERR_VALUE_TOO_LARGE, "a value has at most 20 TB");
    }
    struct command command = command_new(FRAME_PUT, 0, key, key_len);
    command_add(&command, TAG_SIZE, value_len);
    error = put_command(client, "put", options, &command);
    if (error != ELCACHE_OK) {
        return error;
    }
    struct call call = call_new(client, "put", 0);
    struct request request;
    struct exchange exchange = {0};
    exchange.request = &request;
    exchange.data = value;
    exchange.len = value_len;
    exchange.ends = 1;
    exchange.until = REQUEST_OVER;
    error = call_run(&call, &command, &exchange);
    client->stats.counts.bytes_written += error == ELCACHE_OK ? value_len : 0;
    return call_end(&call, error, request.message);
}

/* --- what has no bytes --- */

static elcache_error_t run_plain(struct call *call, const struct command *command, struct request *request) {
    struct exchange exchange = {0};
    exchange.request = request;
    exchange.until = REQUEST_OVER;
    return call_run(call, command, &exchange);
}

elcache_error_t elcache_client_delete(elcache_client_t *client, const void *key, size_t key_len) {
    elcache_error_t error = client_check_key(client, "delete", key, key_len);
    if (error != ELCACHE_OK) {
        return error;
    }
    struct call call = call_new(client, "delete", 0);
    struct command command = command_new(FRAME_DELETE, 0, key, key_len);
    struct request request;
    error = run_plain(&call, &command, &request);
    return call_end(&call, error, request.message);
}

/* A value of which some bytes are gone has its metadata still. */
static elcache_error_t stat_value(struct call *call, const void *key, size_t key_len, struct request *request) {
    const struct kept *kept = find_kept(call, key, key_len);
    if (kept != NULL) {
        struct answer answer = {0};
        answer.size = kept->size;
        answer.chunks = kept->chunks;
        answer.user_flags = kept->user_flags;
        answer.modified_ms = kept->modified_ms;
        answer.expires_ms = kept->expires_ms;
        request->answer = answer;
        request->message[0] = '\0';
        return ELCACHE_OK;
    }
    struct command command = command_new(FRAME_STAT, 0, key, key_len);
    command.is_read_only = 1;
    elcache_error_t error = run_plain(call, &command, request);
    return error == ELCACHE_ERR_PARTIAL ? ELCACHE_OK : error;
}

elcache_error_t elcache_client_exists(elcache_client_t *client, const void *key, size_t key_len, int *exists) {
    elcache_error_t error = client_check_key(client, "exists", key, key_len);
    if (exists != NULL) {
        *exists = 0;
    }
    if (error != ELCACHE_OK) {
        return error;
    }
    if (exists == NULL) {
        return client_fail(client, "exists", ELCACHE_ERR_INVALID_ARG, "there is no place for the result");
    }
    struct call call = call_new(client, "exists", 0);
    struct request request;
    error = stat_value(&call, key, key_len, &request);
    *exists = error == ELCACHE_OK;
    return call_end(&call, error == ELCACHE_ERR_NOT_FOUND ? ELCACHE_OK : error, request.message);
}

elcache_error_t elcache_client_metadata(elcache_client_t *client, const void *key, size_t key_len,
                                        elcache_metadata_t *metadata) {
    elcache_error_t error = client_check_key(client, "metadata", key, key_len);
    if (metadata != NULL) {
        memset(metadata, 0, sizeof *metadata);
    }
    if (error != ELCACHE_OK) {
        return error;
    }
    if (metadata == NULL) {
        return client_fail(client, "metadata", ELCACHE_ERR_INVALID_ARG, "there is no place for the result");
    }
    struct call call = call_new(client, "metadata", 0);
    struct request request;
    error = stat_value(&call, key, key_len, &request);
    if (error == ELCACHE_OK) {
        *metadata = answer_metadata(&request.answer);
    }
    return call_end(&call, error, request.message);
}
