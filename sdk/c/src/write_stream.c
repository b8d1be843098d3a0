/* A value that is written piece by piece. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "values.h"

struct elcache_write_stream {
    struct stream base;
    struct request request;
    uint64_t total_size; /* 0: not known */
    uint64_t written;
    size_t capacity;
    size_t len;      /* bytes that are gathered and not sent yet */
    uint8_t bytes[]; /* `capacity` of them */
};

/* --- Starting --- */

static elcache_error_t check_start(elcache_client_t *client, const void *key, size_t key_len, uint64_t total_size,
                                   elcache_write_stream_t **stream) {
    elcache_error_t error = client_check_key(client, "write_stream_start", key, key_len);
    if (stream != NULL) {
        *stream = NULL;
    }
    if (error != ELCACHE_OK) {
        return error;
    }
    if (stream == NULL) {
        return client_fail(client, "write_stream_start", ELCACHE_ERR_INVALID_ARG, "there is no place for the stream");
    }
    if (total_size > ELCACHE_MAX_VALUE_LEN) {
        return client_fail(client, "write_stream_start", ELCACHE_ERR_VALUE_TOO_LARGE, "a value has at most 20 TB");
    }
    return ELCACHE_OK;
}

static elcache_error_t run_start(struct call *call, const struct command *command, elcache_write_stream_t *stream) {
    struct exchange exchange = {0};
    exchange.request = &stream->request;
    exchange.until = REQUEST_WAITING; /* it is sent, and nothing is answered before the end */
    elcache_error_t error = call_run(call, command, &exchange);
    return call_end(call, error, stream->request.message);
}

elcache_error_t elcache_client_write_stream_start(elcache_client_t *client, const void *key, size_t key_len,
                                                  uint64_t total_size, const elcache_put_options_t *options,
                                                  elcache_write_stream_t **stream) {
    elcache_error_t error = check_start(client, key, key_len, total_size, stream);
    if (error != ELCACHE_OK) {
        return error;
    }
    struct command command = command_new(FRAME_PUT, 0, key, key_len);
    if (total_size > 0) {
        command_add(&command, TAG_SIZE, total_size);
    }
    error = put_command(client, "write_stream_start", options, &command);
    if (error != ELCACHE_OK) {
        return error;
    }
    command.has_deadline = 0; /* a stream may take as long as its writer */
    elcache_write_stream_t *self = calloc(1, sizeof *self + client->send_buffer);
    if (self == NULL) {
        return client_fail(client, "write_stream_start", ELCACHE_ERR_OUT_OF_MEMORY, "");
    }
    self->capacity = client->send_buffer;
    self->total_size = total_size;
    struct call call = call_new(client, "write_stream_start", 0);
    error = run_start(&call, &command, self);
    if (error != ELCACHE_OK) {
        free(self);
        return error;
    }
    client_add_stream(client, &self->base);
    *stream = self;
    return ELCACHE_OK;
}

/* --- Writing --- */

static elcache_error_t outcome(const elcache_write_stream_t *stream) {
    return stream->request.state == REQUEST_OVER ? stream->request.error : ELCACHE_OK;
}

/* A value of which a part could not be sent cannot be gone on with. */
static elcache_error_t give_up(struct call *call, elcache_write_stream_t *stream) {
    static const char REASON[] = "the node took no more in time";
    call_abandon(call, &stream->request);
    request_end(&stream->request, ELCACHE_ERR_TIMEOUT, REASON, sizeof REASON - 1);
    return ELCACHE_ERR_TIMEOUT;
}

static elcache_error_t send_bytes(struct call *call, elcache_write_stream_t *stream, const void *bytes, size_t len,
                                  int ends) {
    int is_in_time =
        connection_send(&call->client->connection, &stream->request, bytes, len, ends, call->deadline_ns);
    return is_in_time ? outcome(stream) : give_up(call, stream);
}

/* Gathers what is small, and sends what is not from where it lies. */
static elcache_error_t write_bytes(struct call *call, elcache_write_stream_t *stream, const void *data, size_t len) {
    elcache_error_t error = outcome(stream);
    if (error == ELCACHE_OK && stream->len > 0 && len > stream->capacity - stream->len) {
        error = send_bytes(call, stream, stream->bytes, stream->len, 0);
        stream->len = 0;
    }
    if (error != ELCACHE_OK) {
        return error;
    }
    if (len >= stream->capacity) {
        return send_bytes(call, stream, data, len, 0);
    }
    memcpy(stream->bytes + stream->len, data, len);
    stream->len += len;
    return ELCACHE_OK;
}

elcache_error_t elcache_write_stream_write(elcache_write_stream_t *stream, const void *data, size_t len) {
    if (stream == NULL) {
        return ELCACHE_ERR_INVALID_ARG;
    }
    if (stream->base.client == NULL) {
        return ELCACHE_ERR_CONNECTION;
    }
    elcache_client_t *client = stream->base.client;
    uint64_t most = stream->total_size > 0 ? stream->total_size : ELCACHE_MAX_VALUE_LEN;
    if ((data == NULL && len > 0) || (stream->total_size > 0 && len > most - stream->written)) {
        return client_fail(client, "write_stream_write", ELCACHE_ERR_INVALID_ARG,
                           data == NULL ? "there are no data" : "that is more than the stream was said to have");
    }
    if (len > most - stream->written) {
        return client_fail(client, "write_stream_write", ELCACHE_ERR_VALUE_TOO_LARGE, "a value has at most 20 TB");
    }
    struct call call = call_new(client, "write_stream_write", 0);
    elcache_error_t error = len > 0 ? write_bytes(&call, stream, data, len) : outcome(stream);
    if (error == ELCACHE_OK) {
        stream->written += len;
    }
    return call_end(&call, error, stream->request.message);
}

/* --- Ending --- */

/* Nothing points to the stream any more; what the node has not ended it gives up. */
static void release(elcache_write_stream_t *stream) {
    if (stream->base.client != NULL) {
        connection_cancel(&stream->base.client->connection, &stream->request);
        connection_flush(&stream->base.client->connection);
        client_remove_stream(&stream->base);
    }
    free(stream);
}

static elcache_error_t finish(struct call *call, elcache_write_stream_t *stream) {
    elcache_error_t error = outcome(stream);
    if (error != ELCACHE_OK) {
        return error;
    }
    if (stream->written < stream->total_size) {
        snprintf(stream->request.message, sizeof stream->request.message, "%llu of %llu bytes were written",
                 (unsigned long long)stream->written, (unsigned long long)stream->total_size);
        return ELCACHE_ERR_PARTIAL;
    }
    error = send_bytes(call, stream, stream->bytes, stream->len, 1);
    if (error == ELCACHE_OK) {
        error = call_wait(call, &stream->request, REQUEST_OVER);
    }
    if (error == ELCACHE_ERR_TIMEOUT && stream->request.state != REQUEST_OVER) {
        error = give_up(call, stream);
    }
    return error;
}

elcache_error_t elcache_write_stream_finish(elcache_write_stream_t *stream) {
    if (stream == NULL) {
        return ELCACHE_ERR_INVALID_ARG;
    }
    if (stream->base.client == NULL) {
        free(stream);
        return ELCACHE_ERR_CONNECTION;
    }
    struct call call = call_new(stream->base.client, "write_stream_finish", 0);
    elcache_error_t error = finish(&call, stream);
    call.client->stats.counts.bytes_written += error == ELCACHE_OK ? stream->written : 0;
    error = call_end(&call, error, stream->request.message);
    release(stream);
    return error;
}

elcache_error_t elcache_write_stream_abort(elcache_write_stream_t *stream) {
    if (stream == NULL) {
        return ELCACHE_ERR_INVALID_ARG;
    }
    release(stream);
    return ELCACHE_OK;
}
