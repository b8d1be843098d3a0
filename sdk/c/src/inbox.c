#include "inbox.h"

#include "places.h"

#include <string.h>

static struct open_request *find(struct connection *connection, uint64_t id) {
    for (size_t i = 0; i < connection->open_count; i++) {
        if (connection->open[i].id == id) {
            return &connection->open[i];
        }
    }
    return NULL;
}

static void refuse(struct connection *connection, const char *reason) {
    connection_break(connection, ELCACHE_ERR_PROTOCOL, reason);
}

static void on_hello(struct connection *connection, const struct frame_fields *fields) {
    if (connection->is_greeted) {
        refuse(connection, "the node said hello twice");
        return;
    }
    if (frame_number(fields, TAG_VERSION_MAX, 0) != FRAME_VERSION) {
        refuse(connection, "the node speaks another version of the protocol");
        return;
    }
    uint64_t requests = frame_number(fields, TAG_REQUESTS, 1);
    connection->requests_max = requests < CONNECTION_REQUESTS_MAX ? (size_t)requests : CONNECTION_REQUESTS_MAX;
    if (connection->requests_max == 0) {
        refuse(connection, "the node takes no requests");
        return;
    }
    connection->features = frame_number(fields, TAG_FEATURES, 0);
    connection->request_window = frame_number(fields, TAG_WINDOW, 0);
    connection->is_greeted = 1;
}

/* What a status means of a connection: most of them are of values, and nothing is known of any. */
static elcache_error_t farewell_error(uint64_t status) {
    switch (status) {
    case STATUS_BUSY:
    case STATUS_TIMEOUT:
    case STATUS_INTERNAL:
        return status_error(status);
    default:
        return ELCACHE_ERR_PROTOCOL;
    }
}

/* The node's last words. */
static void on_farewell(struct connection *connection, const struct frame_fields *fields) {
    elcache_error_t error = farewell_error(frame_number(fields, TAG_STATUS, STATUS_PROTOCOL));
    char reason[CONNECTION_REASON_LEN] = "the node ended the connection";
    if (frame_has(fields, TAG_MESSAGE)) {
        memcpy(reason, fields->spans[TAG_MESSAGE].bytes, fields->spans[TAG_MESSAGE].len);
        reason[fields->spans[TAG_MESSAGE].len] = '\0';
    }
    connection_break(connection, error, reason);
}

static void end(struct connection *connection, struct request *request, elcache_error_t error,
                const struct frame_fields *fields) {
    const struct frame_span *message = &fields->spans[TAG_MESSAGE];
    int has_message = frame_has(fields, TAG_MESSAGE);
    connection_forget(connection, request->id);
    request_end(request, error, has_message ? (const char *)message->bytes : "", has_message ? message->len : 0);
}

/* Whether a reply of this status may have bytes of the value behind it. */
static int carries_data(const struct request *request) {
    return request->answer.status == STATUS_OK || request->answer.status == STATUS_PARTIAL;
}

/* The bytes are not wanted. The caller hears why, and the node to stop. */
static void turn_down(struct connection *connection, struct request *request, elcache_error_t error, int is_over) {
    if (is_over) {
        connection_forget(connection, request->id);
    } else {
        connection_cancel(connection, request);
    }
    request_end(request, error, "", 0);
}

/* NULL, or what is wrong with a reply that tells of a value: something is not told, or it is of other bytes than were
 * asked for. */
static const char *find_fault(const struct request *request, const struct frame_fields *fields) {
    const struct answer *answer = &request->answer;
    int is_part = answer->status == STATUS_PARTIAL && answer->length > 0;
    int is_read = request->kind == FRAME_GET;
    if ((!is_read && request->kind != FRAME_STAT) || (answer->status != STATUS_OK && !is_part)) {
        return NULL;
    }
    if (!frame_has(fields, TAG_SIZE) || (is_read && !frame_has(fields, TAG_LENGTH))) {
        return "an answer does not tell how long the value is";
    }
    uint64_t rest = request->offset <= answer->size ? answer->size - request->offset : 0;
    uint64_t wanted = request->length > 0 && request->length < rest ? request->length : rest;
    if (is_read && (answer->length > wanted || (answer->length < wanted && !is_part))) {
        return "an answer is of other bytes than were asked for";
    }
    return NULL;
}

static void on_first_reply(struct connection *connection, struct request *request, const struct frame_header *header,
                           const struct frame_fields *fields) {
    int is_over = (header->flags & FRAME_END) != 0;
    answer_decode(fields, &request->answer);
    request->is_answered = 1;
    const char *fault = find_fault(request, fields);
    if (fault != NULL) {
        refuse(connection, fault);
        return;
    }
    if (request->kind != FRAME_GET) {
        request->answer.length = header->data_len;
    }
    if (is_over && header->data_len == 0) {
        if (carries_data(request) && request->answer.length > 0) {
            refuse(connection, "an answer ended before its last byte");
            return;
        }
        end(connection, request, status_error(request->answer.status), fields);
        return;
    }
    if (!carries_data(request) || request->sink == NULL) {
        refuse(connection, "an answer carries data where there are none");
        return;
    }
    elcache_error_t error = request->sink->ops->begin(request->sink, &request->answer);
    if (error != ELCACHE_OK) {
        turn_down(connection, request, error, is_over);
        return;
    }
    request->state = REQUEST_ANSWERED;
}

static void on_reply(struct connection *connection, struct request *request, const struct frame_header *header,
                     const struct frame_fields *fields) {
    if (request->state == REQUEST_WAITING) {
        on_first_reply(connection, request, header, fields);
        return;
    }
    elcache_error_t error = status_error(frame_number(fields, TAG_STATUS, STATUS_INTERNAL));
    if (error == ELCACHE_OK || !(header->flags & FRAME_END) || header->data_len > 0) {
        refuse(connection, "a second reply that tells of no failure");
        return;
    }
    end(connection, request, error, fields);
}

static void on_credit(struct request *request, const struct frame_fields *fields) {
    uint64_t more = frame_number(fields, TAG_WINDOW, 0);
    request->credit = more > UINT64_MAX - request->credit ? UINT64_MAX : request->credit + more;
}

/* A frame of a request that is known and wanted. */
static void on_answer(struct connection *connection, struct request *request, const struct frame_header *header,
                      const struct frame_fields *fields) {
    switch (header->kind) {
    case FRAME_REPLY:
        on_reply(connection, request, header, fields);
        break;
    case FRAME_DATA:
        if (request->state != REQUEST_ANSWERED) {
            refuse(connection, "data before the reply that they belong to");
        }
        break;
    case FRAME_PLACES:
        places_begin(connection, request, header);
        break;
    case FRAME_CREDIT:
        on_credit(request, fields);
        break;
    default:
        refuse(connection, "a frame of a kind that a client has not asked for");
    }
}

/* Checks the data that the frame announces, before any is taken. */
static void expect_data(struct connection *connection, struct request *request, const struct frame_header *header) {
    if (header->data_len > request->window) {
        refuse(connection, "the node sends more than it was told that it may");
        return;
    }
    if (header->data_len > request->answer.length - request->received) {
        refuse(connection, "an answer is longer than it said");
        return;
    }
    request->window -= header->data_len;
    connection->data_request = request;
}

static void on_frame(struct connection *connection, const struct frame_header *header,
                     const struct frame_fields *fields) {
    if (header->id == 0 && header->kind == FRAME_REPLY) {
        on_farewell(connection, fields);
        return;
    }
    if (header->id == 0 && header->kind == FRAME_HELLO && header->data_len == 0) {
        on_hello(connection, fields);
        return;
    }
    if (!connection->is_greeted || header->id == 0 || header->id > connection->last_id) {
        refuse(connection, "a frame of a request that there never was");
        return;
    }
    connection->data_request = NULL;
    connection->has_places = 0;
    connection->data_left = header->data_len;
    connection->data_id = header->id;
    connection->is_data_last =
        (header->flags & FRAME_END) != 0 && header->kind != FRAME_CREDIT;

    struct open_request *entry = find(connection, header->id);
    struct request *request = entry != NULL ? entry->request : NULL;
    if (request == NULL) {
        return; /* over or given up: its frames are passed over */
    }
    on_answer(connection, request, header, fields);
    /* What was given up or ended by this frame is not to be touched. */
    entry = find(connection, header->id);
    int has_data = header->kind == FRAME_REPLY || header->kind == FRAME_DATA;
    if (entry != NULL && entry->request == request && has_data) {
        expect_data(connection, request, header);
    }
}

/* The last byte of a frame is there. */
static void on_frame_end(struct connection *connection) {
    struct request *request = connection->data_request;
    connection->data_request = NULL;
    if (!connection->is_data_last) {
        return;
    }
    connection->is_data_last = 0;
    if (request == NULL) {
        connection_forget(connection, connection->data_id);
        return;
    }
    if (request->received != request->answer.length) {
        refuse(connection, "an answer ended before its last byte");
        return;
    }
    connection_forget(connection, request->id);
    request_end(request, status_error(request->answer.status), "", 0);
}

/* So many bytes of data were put where the request wants them. */
static void took_data(struct connection *connection, size_t len) {
    struct request *request = connection->data_request;
    connection->data_left -= len;
    if (request != NULL) {
        request->received += len;
        request->sink->ops->filled(request->sink, len);
    }
    if (connection->data_left == 0) {
        on_frame_end(connection);
    }
}

/* Gives buffered bytes of data to their request. 0: that cannot be done before more has been read. */
static int take_data(struct connection *connection) {
    if (connection->has_places && connection->data_request != NULL) {
        int is_taken = places_take(connection);
        if (is_taken && connection->transport != NULL && connection->data_left == 0) {
            on_frame_end(connection);
        }
        return is_taken;
    }
    size_t there = connection->in_end - connection->in_begin;
    size_t len = there < connection->data_left ? there : (size_t)connection->data_left;
    if (connection->data_request != NULL) {
        struct sink *sink = connection->data_request->sink;
        size_t room = 0;
        uint8_t *space = sink->ops->space(sink, &room);
        len = len < room ? len : room;
        memcpy(space, connection->in + connection->in_begin, len);
    }
    connection->in_begin += len;
    took_data(connection, len);
    return 1;
}

/* Handles the head of a frame if all of it is there. */
static int take_head(struct connection *connection) {
    const uint8_t *bytes = connection->in + connection->in_begin;
    size_t there = connection->in_end - connection->in_begin;
    struct frame_header header;
    if (there < FRAME_HEADER_LEN) {
        return 0;
    }
    const char *wrong = frame_header_decode(bytes, &header);
    if (wrong != NULL) {
        refuse(connection, wrong);
        return 0;
    }
    if (there - FRAME_HEADER_LEN < header.fields_len) {
        return 0;
    }
    struct frame_fields fields;
    wrong = frame_fields_decode(bytes + FRAME_HEADER_LEN, header.fields_len, &fields);
    if (wrong != NULL) {
        refuse(connection, wrong);
        return 0;
    }
    connection->in_begin += FRAME_HEADER_LEN + header.fields_len;
    on_frame(connection, &header, &fields);
    if (connection->transport != NULL && connection->data_left == 0) {
        on_frame_end(connection);
    }
    return 1;
}

static void handle(struct connection *connection) {
    while (connection->transport != NULL && connection->in_begin < connection->in_end) {
        if (connection->data_left > 0) {
            if (!take_data(connection)) {
                return;
            }
        } else if (!take_head(connection)) {
            return;
        }
    }
}

/* Makes the rest of the buffer free. What lies in it is at most the head of a frame that is not whole. */
static struct iovec free_part(struct connection *connection) {
    size_t left = connection->in_end - connection->in_begin;
    if (left > 0 && connection->in_begin > 0) {
        memmove(connection->in, connection->in + connection->in_begin, left);
    }
    connection->in_begin = 0;
    connection->in_end = left;
    struct iovec part = {connection->in + left, sizeof connection->in - left};
    return part;
}

/* Handles what was left because places before it waited for their region, and need not wait any more: their request
 * was given up. 0: there is nothing. */
static int take_up(struct connection *connection) {
    size_t before = connection->in_begin;
    handle(connection);
    return connection->transport == NULL || connection->in_begin != before;
}

int inbox_read(struct connection *connection, int64_t deadline_ns) {
    if (take_up(connection)) {
        return 1;
    }
    struct iovec parts[2];
    int count = 0;
    size_t straight = 0;
    if (connection->data_left > 0 && connection->data_request != NULL && !connection->has_places) {
        /* Data that are on their way go where they belong without lying in the buffer first. */
        struct sink *sink = connection->data_request->sink;
        parts[0].iov_base = sink->ops->space(sink, &straight);
        straight = straight < connection->data_left ? straight : (size_t)connection->data_left;
        parts[0].iov_len = straight;
        count = 1;
    }
    parts[count++] = free_part(connection);
    ssize_t got = connection->transport->ops->read(connection->transport, parts, count, deadline_ns);
    if (got == TRANSPORT_TIMEOUT) {
        return 0;
    }
    places_map(connection);
    if (got < 0) {
        connection_break_as(connection, got);
        return 1;
    }
    size_t direct = (size_t)got < straight ? (size_t)got : straight;
    connection->in_end += (size_t)got - direct;
    if (direct > 0) {
        took_data(connection, direct);
    }
    handle(connection);
    return 1;
}
