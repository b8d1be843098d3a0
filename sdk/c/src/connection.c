/* The half of a connection that opens, sends and ends. */
#include "connection.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "inbox.h"

enum {
    /* Longest run of data that is sent as one frame: what an answer that comes early may have to wait for. */
    DATA_FRAME_MAX = 1048576,
    CONTROL_FRAME_LEN = FRAME_HEADER_LEN + 12,
    /* A request without its data; the key is most of it. */
    HEAD_LEN_MAX = ELCACHE_MAX_KEY_LEN + 1024,
    /* The node answers that it was too slow this much before the caller goes, at most: */
    DEADLINE_MARGIN_MS = 100
};

void connection_init(struct connection *connection) {
    /* All but the buffers, which are long and need not be anything. */
    memset(connection, 0, offsetof(struct connection, reason));
    connection->reason[0] = '\0';
    connection->broken_error = ELCACHE_ERR_CONNECTION;
}

static void copy_reason(struct connection *connection, const char *reason) {
    size_t len = strnlen(reason, sizeof connection->reason - 1);
    memmove(connection->reason, reason, len);
    connection->reason[len] = '\0';
}

void connection_break(struct connection *connection, elcache_error_t error, const char *reason) {
    if (connection->transport == NULL) {
        return;
    }
    connection->transport->ops->close(connection->transport);
    connection->transport = NULL;
    share_end(connection->share);
    connection->share = NULL;
    connection->map_id = 0;
    connection->is_map_due = 0;
    connection->broken_error = error;
    copy_reason(connection, reason);
    for (size_t i = 0; i < connection->open_count; i++) {
        struct request *request = connection->open[i].request;
        if (request != NULL) {
            request->is_broken = 1;
            request_end(request, error, connection->reason, strlen(connection->reason));
        }
    }
    connection->open_count = 0;
    connection->data_request = NULL;
    connection->data_left = 0;
}

void connection_break_as(struct connection *connection, ssize_t outcome) {
    char text[128];
    if (outcome == TRANSPORT_CLOSED) {
        connection_break(connection, ELCACHE_ERR_CONNECTION, "the node has closed the connection");
        return;
    }
    int number = errno;
    if (number == EPROTO) {
        connection_break(connection, ELCACHE_ERR_PROTOCOL, "the node uses the shared memory against the protocol");
        return;
    }
    snprintf(text, sizeof text, "the connection failed: error %d of the system", number);
    connection_break(connection, ELCACHE_ERR_CONNECTION, text);
}

void connection_forget(struct connection *connection, uint64_t id) {
    for (size_t i = 0; i < connection->open_count; i++) {
        if (connection->open[i].id == id) {
            connection->open[i] = connection->open[--connection->open_count];
            return;
        }
    }
}

int connection_is_used(const struct connection *connection) {
    for (size_t i = 0; i < connection->open_count; i++) {
        if (connection->open[i].request != NULL) {
            return 1;
        }
    }
    return 0;
}

/* --- Sending --- */

/* Room for so many bytes behind what waits already; the writer's `bytes` is NULL if there is none. */
static struct frame_writer out_writer(struct connection *connection, size_t len) {
    if (connection->out_begin == connection->out_end) {
        connection->out_begin = 0;
        connection->out_end = 0;
    } else if (sizeof connection->out - connection->out_end < len) {
        connection->out_end -= connection->out_begin;
        memmove(connection->out, connection->out + connection->out_begin, connection->out_end);
        connection->out_begin = 0;
    }
    struct frame_writer writer = {0};
    if (sizeof connection->out - connection->out_end >= len) {
        writer.bytes = connection->out + connection->out_end;
        writer.capacity = sizeof connection->out - connection->out_end;
    }
    return writer;
}

/* Puts the request for a region there, if it is due. 0: it has no room. */
static int queue_map(struct connection *connection) {
    if (!connection->is_map_due) {
        return 1;
    }
    struct frame_writer writer = out_writer(connection, CONTROL_FRAME_LEN);
    if (writer.bytes == NULL) {
        return 0;
    }
    frame_begin(&writer, FRAME_MAP, 0, connection->map_id);
    frame_add_number(&writer, TAG_REGION, connection->map_region);
    frame_finish(&writer, 0);
    connection->out_end += writer.len;
    connection->is_map_due = 0;
    return 1;
}

/* Puts credit and cancellations that are due behind what waits to be sent. What has no room is due the next time. */
static void queue_control(struct connection *connection) {
    if (!connection->is_control_due || connection->is_mid_frame || !queue_map(connection)) {
        return;
    }
    for (size_t i = 0; i < connection->open_count; i++) {
        struct open_request *entry = &connection->open[i];
        int has_credit = entry->request != NULL && entry->request->credit_due > 0;
        if (!has_credit && !entry->is_cancel_due) {
            continue;
        }
        struct frame_writer writer = out_writer(connection, CONTROL_FRAME_LEN);
        if (writer.bytes == NULL) {
            return;
        }
        frame_begin(&writer, has_credit ? FRAME_CREDIT : FRAME_CANCEL, 0, entry->id);
        if (has_credit) {
            frame_add_number(&writer, TAG_WINDOW, entry->request->credit_due);
            entry->request->credit_due = 0;
        }
        frame_finish(&writer, 0);
        entry->is_cancel_due = 0;
        connection->out_end += writer.len;
    }
    connection->is_control_due = 0;
}

/* Writes what waits, and then the data, as much as goes at once. -1: the connection broke. */
static int write_some(struct connection *connection, const uint8_t **data, size_t *len) {
    struct iovec parts[2];
    size_t waiting = connection->out_end - connection->out_begin;
    parts[0].iov_base = connection->out + connection->out_begin;
    parts[0].iov_len = waiting;
    parts[1].iov_base = (void *)(uintptr_t)*data;
    parts[1].iov_len = *len;
    ssize_t sent = connection->transport->ops->write(connection->transport, parts, *len > 0 ? 2 : 1);
    if (sent < 0) {
        connection_break_as(connection, sent);
        return -1;
    }
    size_t of_out = (size_t)sent < waiting ? (size_t)sent : waiting;
    connection->out_begin += of_out;
    *data += (size_t)sent - of_out;
    *len -= (size_t)sent - of_out;
    return sent > 0;
}

/* Sends all that waits, and then the data; reads meanwhile, since the node may have to get rid of something before
 * it takes more. 0: the deadline passed. What it left unsent of the data cannot be sent later, so that breaks the
 * connection. */
static int send_all(struct connection *connection, const uint8_t *data, size_t len, int64_t deadline_ns) {
    connection->is_mid_frame = len > 0;
    while (connection->transport != NULL && (len > 0 || connection->out_begin < connection->out_end)) {
        int sent = write_some(connection, &data, &len);
        if (sent > 0) {
            continue;
        }
        if (sent < 0) {
            break;
        }
        if (clock_now_ns() >= deadline_ns || !connection->transport->ops->wait(connection->transport, deadline_ns)) {
            connection->is_mid_frame = 0;
            if (len > 0) {
                connection_break(connection, ELCACHE_ERR_CONNECTION, "a frame could not be sent in time");
            }
            return 0;
        }
        inbox_read(connection, 0);
    }
    connection->is_mid_frame = 0;
    return 1;
}

void connection_flush(struct connection *connection) {
    const uint8_t *nothing = NULL;
    size_t len = 0;
    if (connection->transport == NULL || connection->is_mid_frame) {
        return;
    }
    queue_control(connection);
    while (connection->transport != NULL && connection->out_begin < connection->out_end &&
           write_some(connection, &nothing, &len) > 0) {
    }
}

int connection_pump(struct connection *connection, int64_t deadline_ns) {
    if (connection->transport == NULL) {
        return 1;
    }
    if (connection->is_control_due || connection->out_begin < connection->out_end) {
        connection_flush(connection);
        if (connection->transport == NULL) {
            return 1;
        }
    }
    int64_t read_until_ns = deadline_ns;
    if (connection->out_begin < connection->out_end) {
        /* The node may be waiting for what does not go out. */
        if (!connection->transport->ops->wait(connection->transport, deadline_ns)) {
            return 0;
        }
        read_until_ns = 0;
    }
    int has_read = inbox_read(connection, read_until_ns);
    if (has_read && connection->transport == NULL) {
        return 1;
    }
    /* A node that never stops sending holds nobody longer than one that is silent. */
    return has_read || read_until_ns == 0 ? clock_now_ns() < deadline_ns : 0;
}

/* --- Requests --- */

/* What the node is told: a little less than the caller waits, so that its answer is still in time. */
static uint64_t told_deadline_ms(int64_t deadline_ns) {
    int64_t left_ms = clock_left_ms(deadline_ns);
    int64_t margin_ms = left_ms / 16 < DEADLINE_MARGIN_MS ? left_ms / 16 : DEADLINE_MARGIN_MS;
    return left_ms - margin_ms > 1 ? (uint64_t)(left_ms - margin_ms) : 1;
}

/* Whether the node may have all of a request, after its last frame, or only an earlier one, was to be sent. */
static int may_be_whole(const struct connection *connection, enum frame_kind kind, int is_last) {
    int has_data = kind == FRAME_PUT || kind == FRAME_SPARSE_WRITE;
    int went_out = connection->transport != NULL || connection->out_end == connection->out_begin;
    return went_out && (is_last || !has_data);
}

static void write_command(struct frame_writer *writer, const struct command *command, uint64_t id, unsigned flags,
                          size_t data_len, int64_t deadline_ns) {
    frame_begin(writer, command->kind, command->flags | flags, id);
    frame_add_bytes(writer, TAG_KEY, command->key, command->key_len);
    for (size_t i = 0; i < command->number_count; i++) {
        frame_add_number(writer, command->numbers[i].tag, command->numbers[i].value);
    }
    if (command->has_operation) {
        frame_add_bytes(writer, TAG_OPERATION, command->operation, sizeof command->operation);
    }
    if (command->has_deadline) {
        frame_add_number(writer, TAG_DEADLINE, told_deadline_ms(deadline_ns));
    }
    frame_finish(writer, data_len);
}

/* Waits until another request may be opened. 0: the deadline passed. */
static int wait_for_turn(struct connection *connection, struct request *request, int64_t deadline_ns) {
    while (connection->transport != NULL && connection->open_count >= connection->requests_max) {
        int may_end = 0;
        for (size_t i = 0; i < connection->open_count; i++) {
            may_end |= connection->open[i].request == NULL;
        }
        if (!may_end) {
            request_end(request, ELCACHE_ERR_BUSY, "", 0);
            return 1;
        }
        if (!connection_pump(connection, deadline_ns)) {
            return 0;
        }
    }
    if (connection->transport == NULL) {
        request->is_broken = 1;
        request_end(request, connection->broken_error, connection->reason, strlen(connection->reason));
    }
    return 1;
}

static size_t smallest(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t least = a < b ? a : b;
    return (size_t)(least < c ? least : c);
}

/* Waits until a head of any length has room in `out`. 0: the deadline passed. */
static int wait_for_room(struct connection *connection, int64_t deadline_ns) {
    queue_control(connection);
    int has_much = connection->out_end - connection->out_begin > sizeof connection->out - HEAD_LEN_MAX;
    return !has_much || send_all(connection, NULL, 0, deadline_ns);
}

int connection_begin(struct connection *connection, struct request *request, const struct command *command,
                     const void *data, size_t len, int ends, size_t *taken, int64_t deadline_ns) {
    *taken = 0;
    if (!wait_for_turn(connection, request, deadline_ns) || !wait_for_room(connection, deadline_ns)) {
        return 0;
    }
    if (request->state == REQUEST_OVER || connection->transport == NULL) {
        if (request->state != REQUEST_OVER) {
            request->is_broken = 1;
            request_end(request, connection->broken_error, connection->reason, strlen(connection->reason));
        }
        return 1;
    }
    size_t first = smallest(len, connection->request_window, DATA_FRAME_MAX);
    unsigned flags = ends && first == len ? FRAME_END : 0;
    request->id = ++connection->last_id;
    request->credit = connection->request_window - first;
    struct open_request entry = {request->id, request, 0};
    connection->open[connection->open_count++] = entry;

    struct frame_writer writer = out_writer(connection, HEAD_LEN_MAX);
    write_command(&writer, command, request->id, flags, first, deadline_ns);
    if (writer.overflow) {
        connection_break(connection, ELCACHE_ERR_INTERNAL, "a request has no room");
        return 1;
    }
    connection->out_end += writer.len;
    *taken = first;
    int is_in_time = send_all(connection, data, first, deadline_ns);
    request->is_sent = may_be_whole(connection, command->kind, (flags & FRAME_END) != 0);
    return is_in_time;
}

/* Waits until some of the data may be sent, or the request is over. 0: the deadline passed. */
static int wait_for_credit(struct connection *connection, struct request *request, int64_t deadline_ns) {
    while (request->state != REQUEST_OVER && request->credit == 0) {
        if (!connection_pump(connection, deadline_ns)) {
            return 0;
        }
    }
    return 1;
}

int connection_send(struct connection *connection, struct request *request, const void *data, size_t len, int ends,
                    int64_t deadline_ns) {
    const uint8_t *bytes = data;
    while (len > 0 || ends) {
        if (len > 0 && !wait_for_credit(connection, request, deadline_ns)) {
            return 0;
        }
        if (!wait_for_room(connection, deadline_ns)) {
            return 0;
        }
        if (request->state == REQUEST_OVER) {
            return 1;
        }
        size_t piece = smallest(len, request->credit, DATA_FRAME_MAX);
        int is_last = piece == len && ends;
        struct frame_writer writer = out_writer(connection, FRAME_HEADER_LEN);
        frame_begin(&writer, FRAME_DATA, is_last ? FRAME_END : 0, request->id);
        frame_finish(&writer, piece);
        connection->out_end += writer.len;
        request->credit -= piece;
        int is_in_time = send_all(connection, bytes, piece, deadline_ns);
        request->is_sent = may_be_whole(connection, request->kind, is_last);
        if (is_last || !is_in_time) {
            return is_in_time;
        }
        bytes += piece;
        len -= piece;
    }
    return 1;
}

void connection_grant(struct connection *connection, struct request *request, uint64_t bytes) {
    request->window += bytes;
    request->credit_due += bytes;
    connection->is_control_due = 1;
}

void connection_drop(struct connection *connection, struct request *request) {
    for (size_t i = 0; i < connection->open_count; i++) {
        if (connection->open[i].request == request) {
            connection->open[i].request = NULL;
        }
    }
}

void connection_cancel(struct connection *connection, struct request *request) {
    for (size_t i = 0; i < connection->open_count; i++) {
        struct open_request *entry = &connection->open[i];
        if (entry->request == request) {
            entry->request = NULL;
            entry->is_cancel_due = 1;
            connection->is_control_due = 1;
        }
    }
    if (connection->data_request == request) {
        connection->data_request = NULL;
    }
}

/* --- Opening --- */

/* What the node's people see of this client. */
#define TEXT_OF(number) #number
#define VERSION_TEXT(major, minor, patch) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(patch)
static const char NAME[] =
    "elcache-c/" VERSION_TEXT(ELCACHE_VERSION_MAJOR, ELCACHE_VERSION_MINOR, ELCACHE_VERSION_PATCH);

static void queue_hello(struct connection *connection, uint64_t features) {
    struct frame_writer writer = out_writer(connection, sizeof connection->out);
    memcpy(writer.bytes, FRAME_PREAMBLE, FRAME_PREAMBLE_LEN);
    writer.len = FRAME_PREAMBLE_LEN;
    frame_begin(&writer, FRAME_HELLO, 0, 0);
    frame_add_number(&writer, TAG_VERSION_MIN, FRAME_VERSION);
    frame_add_number(&writer, TAG_VERSION_MAX, FRAME_VERSION);
    frame_add_number(&writer, TAG_FEATURES, features);
    frame_add_bytes(&writer, TAG_NAME, NAME, sizeof NAME - 1);
    frame_finish(&writer, 0);
    connection->out_end = writer.len;
}

elcache_error_t connection_open(struct connection *connection, struct transport *transport, uint64_t features,
                                int64_t deadline_ns) {
    connection_init(connection);
    connection->transport = transport;
    queue_hello(connection, features);
    while (connection->transport != NULL && !connection->is_greeted) {
        if (!connection_pump(connection, deadline_ns)) {
            connection_break(connection, ELCACHE_ERR_TIMEOUT, "the node does not answer a hello");
        }
    }
    return connection->transport != NULL ? ELCACHE_OK : connection->broken_error;
}
