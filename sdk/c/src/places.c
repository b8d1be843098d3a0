/* Answers that say where their bytes lie. */
#define _GNU_SOURCE
#include "places.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "inbox.h"
#include "ring.h"
#include "share.h"

enum {
    /* Bytes of a ring that are asked for. */
    RING_WISH = 262144,
    REPLY_LEN = 2048
};

/* --- A connection becomes one over shared memory --- */

/* The reply to a request for memory, and what came with it. */
struct granted {
    uint8_t bytes[REPLY_LEN];
    size_t len;
    int fds[2];
    size_t fd_count;
    int is_cut; /* some of the descriptors were lost */
};

static void close_all(struct granted *granted) {
    while (granted->fd_count > 0) {
        close(granted->fds[--granted->fd_count]);
    }
}

static void keep_descriptors(struct granted *granted, struct msghdr *message) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            if (granted->fd_count < 2) {
                granted->fds[granted->fd_count++] = fd;
            } else {
                close(fd);
            }
        }
    }
}

/* Reads some of the reply. What `read` of a transport says. */
static ssize_t receive(int socket, struct granted *granted, int64_t deadline_ns) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec part = {granted->bytes + granted->len, sizeof granted->bytes - granted->len};
    struct msghdr message = {0};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    for (;;) {
        struct pollfd entry = {socket, POLLIN, 0};
        int left_ms = clock_left_ms(deadline_ns);
        (void)poll(&entry, 1, left_ms);
        ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got > 0) {
            keep_descriptors(granted, &message);
            granted->is_cut |= (message.msg_flags & MSG_CTRUNC) != 0;
            granted->len += (size_t)got;
            return got;
        }
        if (got == 0 || errno == ECONNRESET) {
            return TRANSPORT_CLOSED;
        }
        if (errno != EAGAIN && errno != EINTR) {
            return TRANSPORT_FAILED;
        }
        if (left_ms == 0) {
            return TRANSPORT_TIMEOUT;
        }
    }
}

/* Whether all of the reply is there; -1: it is none. */
static int is_whole(const struct granted *granted, struct frame_header *header, struct frame_fields *fields) {
    if (granted->len < FRAME_HEADER_LEN) {
        return 0;
    }
    if (frame_header_decode(granted->bytes, header) != NULL || header->kind != FRAME_REPLY || header->data_len != 0 ||
        header->fields_len > REPLY_LEN - FRAME_HEADER_LEN) {
        return -1;
    }
    if (granted->len < FRAME_HEADER_LEN + header->fields_len) {
        return 0;
    }
    return frame_fields_decode(granted->bytes + FRAME_HEADER_LEN, header->fields_len, fields) == NULL ? 1 : -1;
}

static elcache_error_t give_up(struct connection *connection, struct granted *granted, elcache_error_t error,
                               const char *reason) {
    close_all(granted);
    connection_break(connection, error, reason);
    return error;
}

/* The node's own words for why it shares nothing. */
static elcache_error_t refused(struct connection *connection, struct granted *granted,
                               const struct frame_fields *fields, uint64_t status) {
    char reason[CONNECTION_REASON_LEN] = "the node shares no memory";
    if (frame_has(fields, TAG_MESSAGE)) {
        memcpy(reason, fields->spans[TAG_MESSAGE].bytes, fields->spans[TAG_MESSAGE].len);
        reason[fields->spans[TAG_MESSAGE].len] = '\0';
    }
    return give_up(connection, granted, status_error(status), reason);
}

/* Takes what was granted into use. */
static elcache_error_t go_on(struct connection *connection, struct granted *granted) {
    char reason[128];
    struct transport *ring = ring_begin(connection->transport, granted->fds[0]);
    int number = errno;
    granted->fds[0] = granted->fds[1];
    granted->fd_count = 1;
    if (ring != NULL) {
        connection->transport = ring;
        granted->fd_count = 0;
        connection->share = share_begin(ring_session(ring), granted->fds[0]);
        number = errno;
    }
    if (connection->share != NULL) {
        return ELCACHE_OK;
    }
    if (number == EPROTO) {
        return give_up(connection, granted, ELCACHE_ERR_PROTOCOL, "the node's memory is not as it should be");
    }
    snprintf(reason, sizeof reason, "the node's memory cannot be mapped: error %d of the system", number);
    elcache_error_t error = number == ENOMEM ? ELCACHE_ERR_OUT_OF_MEMORY : ELCACHE_ERR_CONNECTION;
    return give_up(connection, granted, error, reason);
}

elcache_error_t places_share(struct connection *connection, int64_t deadline_ns) {
    struct granted granted = {{0}, 0, {-1, -1}, 0, 0};
    struct frame_header header = {0};
    struct frame_fields fields;
    struct frame_writer writer = {connection->out, sizeof connection->out, 0, 0, 0};
    uint64_t id = ++connection->last_id;
    frame_begin(&writer, FRAME_SHARE, 0, id);
    frame_add_number(&writer, TAG_RING, RING_WISH);
    frame_finish(&writer, 0);
    connection->out_begin = 0;
    connection->out_end = writer.len;
    connection_flush(connection);
    if (connection->transport == NULL) {
        return connection->broken_error;
    }
    int socket = socket_descriptor(connection->transport);
    int whole = 0;
    while (whole == 0) {
        ssize_t got = receive(socket, &granted, deadline_ns);
        if (got == TRANSPORT_TIMEOUT) {
            return give_up(connection, &granted, ELCACHE_ERR_TIMEOUT, "the node does not answer a request for memory");
        }
        if (got < 0) {
            close_all(&granted);
            connection_break_as(connection, got);
            return connection->broken_error;
        }
        whole = is_whole(&granted, &header, &fields);
    }
    if (whole < 0 || header.id != id || granted.len != FRAME_HEADER_LEN + header.fields_len) {
        return give_up(connection, &granted, ELCACHE_ERR_PROTOCOL, "the node answers something else than was asked");
    }
    uint64_t status = frame_number(&fields, TAG_STATUS, STATUS_INTERNAL);
    if (status != STATUS_OK) {
        return refused(connection, &granted, &fields, status);
    }
    if (granted.is_cut && granted.fd_count < 2) {
        return give_up(connection, &granted, ELCACHE_ERR_CONNECTION, "no descriptor is free for the node's memory");
    }
    if (granted.fd_count != 2) {
        return give_up(connection, &granted, ELCACHE_ERR_PROTOCOL, "the node sent no memory");
    }
    return go_on(connection, &granted);
}

/* --- Frames of places --- */

void places_begin(struct connection *connection, struct request *request, const struct frame_header *header) {
    int may_be_placed = request->kind == FRAME_GET && request->state == REQUEST_ANSWERED &&
                        request->answer.status == STATUS_OK;
    if (connection->share == NULL || !may_be_placed || header->data_len % PLACE_LEN != 0) {
        connection_break(connection, ELCACHE_ERR_PROTOCOL, "the node sends places that cannot be");
        return;
    }
    connection->has_places = 1;
    connection->is_current = (header->flags & FRAME_PLACES_CURRENT) != 0 && header->data_len == PLACE_LEN;
    connection->data_request = request;
}

/* The bytes are not what they were. Whoever asked asks again. */
static void stale(struct connection *connection, struct request *request) {
    static const char REASON[] = "the value went while it was being read";
    connection->data_request = NULL;
    if (connection->is_data_last) {
        connection_drop(connection, request);
    } else {
        connection_cancel(connection, request);
    }
    request->is_stale = 1;
    request_end(request, ELCACHE_ERR_BUSY, REASON, sizeof REASON - 1);
}

/* Copies the bytes to where they belong. 0: they are not good. */
static int copy(struct connection *connection, struct request *request, const struct place *place,
                const uint8_t *bytes) {
    struct sink *sink = request->sink;
    uint64_t done = 0;
    while (done < place->length) {
        size_t room = 0;
        uint8_t *space = sink->ops->space(sink, &room);
        size_t len = place->length - done < room ? (size_t)(place->length - done) : room;
        memcpy(space, bytes + done, len);
        if (!share_is_good(connection->share, place)) {
            return 0;
        }
        sink->ops->filled(sink, len);
        done += len;
    }
    request->received += place->length;
    request->window -= place->length;
    return 1;
}

/* Keeps what says that it is current, for whoever knows the key. */
static void note_kept(struct request *request, const struct place *place) {
    const struct answer *answer = &request->answer;
    struct kept *kept = &request->kept;
    kept->place = *place;
    kept->size = answer->size;
    kept->chunks = answer->chunks;
    kept->user_flags = answer->user_flags;
    kept->modified_ms = answer->modified_ms;
    kept->expires_ms = answer->expires_ms;
    request->may_keep = 1;
}

static void ask_for(struct connection *connection, uint32_t region) {
    connection->map_region = region;
    connection->map_id = ++connection->last_id;
    connection->is_map_due = 1;
    connection->is_control_due = 1;
}

int places_take(struct connection *connection) {
    struct request *request = connection->data_request;
    struct place place;
    if (connection->map_id != 0 || connection->in_end - connection->in_begin < PLACE_LEN) {
        return 0;
    }
    place_decode(connection->in + connection->in_begin, &place);
    if (place.length > request->window || place.length > request->answer.length - request->received) {
        connection_break(connection, ELCACHE_ERR_PROTOCOL, "an answer is longer than it may be");
        return 0;
    }
    const uint8_t *bytes = share_bytes(connection->share, &place);
    if (bytes == NULL && connection->refused_region != place.region) {
        ask_for(connection, place.region);
        return 0;
    }
    connection->refused_region = 0;
    connection->in_begin += PLACE_LEN;
    connection->data_left -= PLACE_LEN;
    if (bytes == NULL || !share_is_good(connection->share, &place) || !copy(connection, request, &place, bytes)) {
        stale(connection, request);
    } else if (connection->is_current) {
        note_kept(request, &place);
    }
    return 1;
}

void places_map(struct connection *connection) {
    struct ring_region region;
    if (connection->share == NULL || !ring_take_region(connection->transport, &region)) {
        return;
    }
    int is_ours = region.id == connection->map_id && region.id != 0;
    int is_wanted = is_ours && region.status == STATUS_OK && region.fd >= 0;
    if (region.fd >= 0 && !is_wanted) {
        close(region.fd);
    }
    int is_mapped = is_wanted && share_map(connection->share, connection->map_region, region.fd) == 0;
    if (is_ours) {
        connection->refused_region = is_mapped ? 0 : connection->map_region;
        connection->map_id = 0;
    }
}
