/* A value that is read piece by piece. */
#include <stdlib.h>
#include <string.h>

#include "values.h"

/* Bytes that have come and were not asked for yet, in a ring; and straight in the caller's buffer while a call
 * waits and nothing is before them. The window that the node has is what is free here. */
struct ring_sink {
    struct sink base;
    uint64_t window;
    uint8_t *bytes;
    size_t capacity; /* the window, or the whole answer if that is less */
    size_t first;
    size_t len;
    uint8_t *direct; /* NULL: no call waits */
    size_t direct_len;
    size_t direct_filled;
};

struct elcache_read_stream {
    struct stream base;
    struct request request;
    struct ring_sink ring;
    uint64_t bytes_read;
    uint64_t unclaimed; /* bytes read for which the node has no new credit yet */
    int timeout_ms;
};

static elcache_error_t ring_begin(struct sink *sink, const struct answer *answer) {
    struct ring_sink *self = (struct ring_sink *)sink;
    size_t capacity = answer->length < self->window ? (size_t)answer->length : (size_t)self->window;
    free(self->bytes);
    self->bytes = malloc(capacity > 0 ? capacity : 1);
    self->capacity = capacity;
    self->first = 0;
    self->len = 0;
    return self->bytes == NULL ? ELCACHE_ERR_OUT_OF_MEMORY : ELCACHE_OK;
}

static int is_direct(const struct ring_sink *self) {
    return self->direct != NULL && self->len == 0 && self->direct_filled < self->direct_len;
}

static uint8_t *ring_space(struct sink *sink, size_t *len) {
    struct ring_sink *self = (struct ring_sink *)sink;
    if (is_direct(self)) {
        *len = self->direct_len - self->direct_filled;
        return self->direct + self->direct_filled;
    }
    size_t end = self->first + self->len;
    if (end < self->capacity) {
        *len = self->capacity - end;
        return self->bytes + end;
    }
    *len = self->capacity - self->len;
    return self->bytes + (end - self->capacity);
}

static void ring_filled(struct sink *sink, size_t len) {
    struct ring_sink *self = (struct ring_sink *)sink;
    if (is_direct(self)) {
        self->direct_filled += len;
    } else {
        self->len += len;
    }
}

static const struct sink_ops RING_OPS = {ring_begin, ring_space, ring_filled};

/* Moves what is there into the buffer. */
static size_t ring_take(struct ring_sink *ring, uint8_t *buffer, size_t size) {
    size_t taken = 0;
    while (taken < size && ring->len > 0) {
        size_t run = ring->capacity - ring->first;
        run = run < ring->len ? run : ring->len;
        run = run < size - taken ? run : size - taken;
        memcpy(buffer + taken, ring->bytes + ring->first, run);
        ring->first = (ring->first + run) % ring->capacity;
        ring->len -= run;
        taken += run;
    }
    return taken;
}

/* --- Starting --- */

static elcache_error_t run_start(struct call *call, const void *key, size_t key_len,
                                 const elcache_get_options_t *wanted, elcache_read_stream_t *stream) {
    struct command command = get_command(key, key_len, wanted, stream->ring.window);
    /* What was given out cannot be taken back, so nothing is read in place. */
    command.flags |= FRAME_GET_COPY;
    command.has_deadline = 0; /* a stream may take as long as its reader */
    struct exchange exchange = {0};
    exchange.request = &stream->request;
    exchange.sink = &stream->ring.base;
    exchange.window = stream->ring.window;
    exchange.until = REQUEST_ANSWERED;
    elcache_error_t error = call_run(call, &command, &exchange);
    /* Bytes before the first that is missing are read before that is said. */
    int has_bytes = error == ELCACHE_ERR_PARTIAL && stream->ring.len > 0;
    int is_partial = has_bytes || (error == ELCACHE_OK && stream->request.answer.status == STATUS_PARTIAL);
    call_count_read(call, is_partial ? ELCACHE_ERR_PARTIAL : error, 0);
    return has_bytes ? ELCACHE_OK : error;
}

static elcache_error_t check_start(elcache_client_t *client, const void *key, size_t key_len,
                                   const elcache_get_options_t *options, elcache_read_stream_t **stream) {
    elcache_error_t error = client_check_key(client, "read_stream_start", key, key_len);
    if (stream != NULL) {
        *stream = NULL;
    }
    if (error != ELCACHE_OK) {
        return error;
    }
    if (stream == NULL) {
        return client_fail(client, "read_stream_start", ELCACHE_ERR_INVALID_ARG, "there is no place for the stream");
    }
    if (options != NULL && options->timeout_ms < 0) {
        return client_fail(client, "read_stream_start", ELCACHE_ERR_INVALID_ARG, "a time-out is not below 0");
    }
    return ELCACHE_OK;
}

elcache_error_t elcache_client_read_stream_start(elcache_client_t *client, const void *key, size_t key_len,
                                                 const elcache_get_options_t *options,
                                                 elcache_read_stream_t **stream) {
    elcache_error_t error = check_start(client, key, key_len, options, stream);
    if (error != ELCACHE_OK) {
        return error;
    }
    elcache_read_stream_t *self = calloc(1, sizeof *self);
    if (self == NULL) {
        return client_fail(client, "read_stream_start", ELCACHE_ERR_OUT_OF_MEMORY, "");
    }
    elcache_get_options_t wanted = get_options(options);
    self->timeout_ms = wanted.timeout_ms;
    self->ring.base.ops = &RING_OPS;
    self->ring.window = client->recv_buffer;
    struct call call = call_new(client, "read_stream_start", wanted.timeout_ms);
    error = call_end(&call, run_start(&call, key, key_len, &wanted, self), self->request.message);
    if (error != ELCACHE_OK) {
        free(self->ring.bytes);
        free(self);
        return error;
    }
    client_add_stream(client, &self->base);
    *stream = self;
    return ELCACHE_OK;
}

/* --- Reading --- */

/* Lets the node send more when so much was read that it is worth a frame, and there is more. */
static void claim(elcache_read_stream_t *stream) {
    struct request *request = &stream->request;
    if (request->state == REQUEST_OVER || stream->unclaimed < stream->ring.window / 4) {
        return;
    }
    if (request->answer.length - request->received > request->window) {
        connection_grant(&stream->base.client->connection, request, stream->unclaimed);
        stream->unclaimed = 0;
    }
}

/* Waits for bytes, of which `*got` go straight into the buffer. 0: the deadline passed. */
static int wait_for_bytes(struct call *call, elcache_read_stream_t *stream, uint8_t *buffer, size_t size,
                          size_t *got) {
    struct ring_sink *ring = &stream->ring;
    ring->direct = buffer;
    ring->direct_len = size;
    ring->direct_filled = 0;
    int is_in_time = connection_pump(&call->client->connection, call->deadline_ns);
    ring->direct = NULL;
    *got = ring->direct_filled;
    return is_in_time;
}

/* Reads until the buffer is full, the answer is over, or the time is: then what has come is taken all the same. */
static size_t fill_buffer(struct call *call, elcache_read_stream_t *stream, uint8_t *buffer, size_t size) {
    size_t got = 0;
    size_t straight = 0;
    int is_in_time = 1;
    for (;;) {
        size_t taken = straight + ring_take(&stream->ring, buffer + got + straight, size - got - straight);
        got += taken;
        stream->unclaimed += taken;
        claim(stream);
        if (got == size || stream->request.state == REQUEST_OVER || !is_in_time) {
            return got;
        }
        is_in_time = wait_for_bytes(call, stream, buffer + got, size - got, &straight);
    }
}

static elcache_error_t read_bytes(struct call *call, elcache_read_stream_t *stream, uint8_t *buffer, size_t size,
                                  size_t *bytes_read) {
    const struct request *request = &stream->request;
    size_t got = size > 0 ? fill_buffer(call, stream, buffer, size) : 0;
    connection_flush(&call->client->connection);
    *bytes_read = got;
    stream->bytes_read += got;
    call->client->stats.counts.bytes_read += got;
    if (got > 0 || size == 0) {
        return ELCACHE_OK;
    }
    return request->state == REQUEST_OVER ? request->error : ELCACHE_ERR_TIMEOUT;
}

elcache_error_t elcache_read_stream_read(elcache_read_stream_t *stream, void *buffer, size_t buffer_size,
                                         size_t *bytes_read) {
    if (bytes_read != NULL) {
        *bytes_read = 0;
    }
    if (stream == NULL) {
        return ELCACHE_ERR_INVALID_ARG;
    }
    if (stream->base.client == NULL) {
        return ELCACHE_ERR_CONNECTION;
    }
    if (bytes_read == NULL || (buffer == NULL && buffer_size > 0)) {
        return client_fail(stream->base.client, "read_stream_read", ELCACHE_ERR_INVALID_ARG,
                           "there is no place for the result");
    }
    struct call call = call_new(stream->base.client, "read_stream_read", stream->timeout_ms);
    elcache_error_t error = read_bytes(&call, stream, buffer, buffer_size, bytes_read);
    return call_end(&call, error, stream->request.message);
}

uint64_t elcache_read_stream_total_size(const elcache_read_stream_t *stream) {
    return stream != NULL ? stream->request.answer.size : 0;
}

uint64_t elcache_read_stream_bytes_read(const elcache_read_stream_t *stream) {
    return stream != NULL ? stream->bytes_read : 0;
}

int elcache_read_stream_eof(const elcache_read_stream_t *stream) {
    return stream != NULL && stream->request.state == REQUEST_OVER && stream->request.error == ELCACHE_OK &&
           stream->ring.len == 0;
}

void elcache_read_stream_close(elcache_read_stream_t *stream) {
    if (stream == NULL) {
        return;
    }
    if (stream->base.client != NULL) {
        connection_cancel(&stream->base.client->connection, &stream->request);
        connection_flush(&stream->base.client->connection);
        client_remove_stream(&stream->base);
    }
    free(stream->ring.bytes);
    free(stream);
}
