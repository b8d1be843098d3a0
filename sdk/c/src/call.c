#include "call.h"

#include <string.h>

#include "clock.h"

struct call call_new(elcache_client_t *client, const char *name, int timeout_ms) {
    struct call call;
    call.client = client;
    call.name = name;
    call.begin_ns = clock_now_ns();
    call.deadline_ns = call.begin_ns + (timeout_ms > 0 ? timeout_ms : client->timeout_ms) * NS_PER_MS;
    return call;
}

elcache_error_t call_wait(struct call *call, struct request *request, enum request_state until) {
    while (request->state < until) {
        if (!connection_pump(&call->client->connection, call->deadline_ns) && request->state < until) {
            return ELCACHE_ERR_TIMEOUT;
        }
    }
    return request->state == REQUEST_OVER ? request->error : ELCACHE_OK;
}

void call_abandon(struct call *call, struct request *request) {
    struct connection *connection = &call->client->connection;
    connection_cancel(connection, request);
    if (connection_is_used(connection)) {
        connection_flush(connection);
        return;
    }
    /* Nobody else needs it, and a node that was silent for so long may be silent for ever: the next call makes
     * another. */
    connection_break(connection, ELCACHE_ERR_CONNECTION, "an earlier call was not answered in time");
}

/* Waits for the answer, and does meanwhile what the exchange wants done. */
static elcache_error_t follow(struct call *call, struct exchange *exchange) {
    struct request *request = exchange->request;
    if (exchange->step == NULL) {
        return call_wait(call, request, exchange->until);
    }
    while (request->state < exchange->until) {
        if (!connection_pump(&call->client->connection, call->deadline_ns) && request->state < exchange->until) {
            return ELCACHE_ERR_TIMEOUT;
        }
        elcache_error_t error = request->state == REQUEST_ANSWERED ? exchange->step(call, exchange) : ELCACHE_OK;
        if (error != ELCACHE_OK) {
            connection_cancel(&call->client->connection, request);
            request_end(request, error, "", 0);
        }
    }
    return request->state == REQUEST_OVER ? request->error : ELCACHE_OK;
}

static void end_with(struct request *request, elcache_error_t error, const char *message) {
    request_end(request, error, message, strlen(message));
}

static elcache_error_t attempt(struct call *call, const struct command *command, struct exchange *exchange) {
    struct connection *connection = &call->client->connection;
    struct request *request = exchange->request;
    const uint8_t *data = exchange->data;
    size_t taken = 0;
    request_reset(request, command, exchange->sink, exchange->window);
    int is_in_time = connection_begin(connection, request, command, data, exchange->len, exchange->ends, &taken,
                                      call->deadline_ns);
    if (is_in_time && taken < exchange->len) {
        is_in_time = connection_send(connection, request, data + taken, exchange->len - taken, exchange->ends,
                                     call->deadline_ns);
    }
    elcache_error_t error = is_in_time ? follow(call, exchange) : ELCACHE_ERR_TIMEOUT;
    if (error == ELCACHE_ERR_TIMEOUT && request->state != REQUEST_OVER) {
        call_abandon(call, request);
        end_with(request, error, "no answer in time");
    } else if (!is_in_time) {
        end_with(request, error, "the node took no more in time");
    } else {
        /* Of what was turned down the node hears now: there may be no next call for long. */
        connection_flush(connection);
    }
    return error;
}

/* Whether it is certain that sending the request again does no harm. A write whose last byte went out may have been
 * done: to send it again could put it over what somebody else has written since, so its caller is told, and
 * decides. */
static int may_repeat(const struct command *command, const struct request *request) {
    if (!request->is_broken || request->error != ELCACHE_ERR_CONNECTION || request->is_answered) {
        return 0;
    }
    return !request->is_sent || command->is_read_only;
}

elcache_error_t call_run(struct call *call, const struct command *command, struct exchange *exchange) {
    struct connection *connection = &call->client->connection;
    for (int is_second = 0;; is_second = 1) {
        elcache_error_t error = client_connect(call->client, call->deadline_ns);
        if (error != ELCACHE_OK) {
            request_reset(exchange->request, command, NULL, 0);
            end_with(exchange->request, error, connection->reason);
            return error;
        }
        error = attempt(call, command, exchange);
        if (exchange->request->is_stale && !(command->flags & FRAME_GET_COPY)) {
            /* What was read in place changed meanwhile: this time it is sent. */
            struct command copying = *command;
            copying.flags |= FRAME_GET_COPY;
            return call_run(call, &copying, exchange);
        }
        if (is_second || error == ELCACHE_OK || !may_repeat(command, exchange->request)) {
            return error;
        }
    }
}

elcache_error_t call_end(struct call *call, elcache_error_t error, const char *detail) {
    stats_record(&call->client->stats, clock_now_ns() - call->begin_ns);
    return error == ELCACHE_OK ? ELCACHE_OK : client_fail(call->client, call->name, error, detail);
}

void call_count_read(struct call *call, elcache_error_t error, uint64_t bytes) {
    elcache_stats_t *counts = &call->client->stats.counts;
    counts->hits += error == ELCACHE_OK;
    counts->misses += error == ELCACHE_ERR_NOT_FOUND;
    counts->partial_hits += error == ELCACHE_ERR_PARTIAL;
    counts->bytes_read += error == ELCACHE_OK || error == ELCACHE_ERR_PARTIAL ? bytes : 0;
}
