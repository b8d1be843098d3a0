/*
 * One connection: hello, request ids, and the frames of several requests told apart by them.
 *
 * There is one thread. Frames are read while somebody waits for one, whichever request they belong to: their bytes go
 * to that request's sink, which has space for as much as the node was told it may send. So nothing is ever left
 * unread because another request is slow, and nothing grows.
 *
 * A request that its caller gave up stays in the table of open ones until the node has ended it; its bytes are passed
 * over.
 */
#ifndef ELCACHE_CONNECTION_H
#define ELCACHE_CONNECTION_H

#include "request.h"
#include "share.h"
#include "transport.h"

enum {
    CONNECTION_REQUESTS_MAX = 64,
    /* Takes a header and fields of any length. */
    CONNECTION_IN_LEN = FRAME_HEADER_LEN + FRAME_FIELDS_MAX + 8192,
    /* Takes the longest request without its data, and control frames of all requests. */
    CONNECTION_OUT_LEN = 16384,
    CONNECTION_REASON_LEN = FRAME_MESSAGE_MAX + 1
};

struct connection {
    struct transport *transport; /* NULL: not connected */
    uint64_t last_id;
    int is_greeted; /* the node's hello has come */

    uint64_t features;       /* that both have */
    uint64_t request_window; /* bytes of a request that may be sent before the node gives credit */
    size_t requests_max;

    struct open_request {
        uint64_t id;
        struct request *request; /* NULL: given up */
        int is_cancel_due;
    } open[CONNECTION_REQUESTS_MAX];
    size_t open_count;
    int is_control_due; /* some request has credit or a cancellation to be sent */

    size_t in_begin;
    size_t in_end;
    uint64_t data_left;           /* of the frame whose data are coming */
    uint64_t data_id;             /* its request, */
    struct request *data_request; /* NULL: the data are passed over; */
    int is_data_last;             /* whether the request ends with them */
    int has_places;               /* they are places, */
    int is_current;               /* the only one of a value that is its key's value still */

    struct share *share;     /* what the node shares; NULL: nothing */
    uint64_t map_id;         /* the request for a region that is open; 0: none */
    uint32_t map_region;     /* which one */
    uint32_t refused_region; /* which one could not be had */
    int is_map_due;          /* it is to be sent */

    size_t out_begin;
    size_t out_end;
    int is_mid_frame; /* data of a frame are being sent: nothing may come between */

    elcache_error_t broken_error;         /* why there is no connection any more, */
    char reason[CONNECTION_REASON_LEN];   /* in words */
    uint8_t in[CONNECTION_IN_LEN];
    uint8_t out[CONNECTION_OUT_LEN];
};

/* A connection that is not connected. */
void connection_init(struct connection *connection);

/* Takes the transport and says hello over it; `features` are those that the client would use. When that fails the
 * transport is closed, and `reason` says why. */
elcache_error_t connection_open(struct connection *connection, struct transport *transport, uint64_t features,
                                int64_t deadline_ns);

/* Ends it, and all open requests with it, for this reason. */
void connection_break(struct connection *connection, elcache_error_t error, const char *reason);

/* The same as the transport said: TRANSPORT_CLOSED, or TRANSPORT_FAILED, of which errno says why. */
void connection_break_as(struct connection *connection, ssize_t outcome);

/* Sends a request that was reset, with as much of `data` as may be sent at once; the rest is for connection_send.
 * `ends`: no more data than these belong to it. 0: the deadline passed. A connection that breaks ends the request
 * and is 1. */
int connection_begin(struct connection *connection, struct request *request, const struct command *command,
                     const void *data, size_t len, int ends, size_t *taken, int64_t deadline_ns);

/* Sends data of an open request as the node gives credit, until all are sent or the request is over. `ends`: they
 * are the last ones. 0: the deadline passed, and how much was sent is not known. */
int connection_send(struct connection *connection, struct request *request, const void *data, size_t len, int ends,
                    int64_t deadline_ns);

/* Waits for the next bytes from the node and gives them to those whom they belong to. 0: the deadline passed. */
int connection_pump(struct connection *connection, int64_t deadline_ns);

/* Lets the node send so many bytes more for this request. */
void connection_grant(struct connection *connection, struct request *request, uint64_t bytes);

/* Sends what is due as far as it can be done at once. */
void connection_flush(struct connection *connection);

/* Gives an open request up: from now on nothing points to it, and the node is told. Nothing happens to one that is
 * over. */
void connection_cancel(struct connection *connection, struct request *request);

/* As connection_cancel, of a request that the node has ended, or will with the frame that is being read. */
void connection_drop(struct connection *connection, struct request *request);

/* Takes a request that the node has ended out of the table of open ones. */
void connection_forget(struct connection *connection, uint64_t id);

/* Whether any request is open that was not given up. */
int connection_is_used(const struct connection *connection);

#endif
