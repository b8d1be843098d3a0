/* One call of the API: its time, its attempts, and how it ended. */
#ifndef ELCACHE_CALL_H
#define ELCACHE_CALL_H

#include "client.h"

struct call {
    elcache_client_t *client;
    const char *name;
    int64_t begin_ns;
    int64_t deadline_ns;
};

/* `timeout_ms` 0: the client's. */
struct call call_new(elcache_client_t *client, const char *name, int timeout_ms);

/* What belongs to a request beside its command. */
struct exchange {
    struct request *request;
    struct sink *sink; /* NULL: the answer has no data */
    uint64_t window;   /* what it may send at once */
    const void *data;  /* what the request carries */
    size_t len;
    int ends;                 /* no more data belong to it */
    enum request_state until; /* how far the call goes */
    /* Called whenever something has come; may grant more, or say why no more is wanted. NULL: nothing is to be
     * done. */
    elcache_error_t (*step)(struct call *call, struct exchange *exchange);
};

/* Connects where that is needed, sends the request, and waits until it is as far as the exchange says. A connection
 * that breaks is made anew, once, and the request is sent again if nothing was answered yet and it is certain that
 * nothing was done: that it only reads, or that its last byte did not go out. What comes back is not ELCACHE_OK if
 * the request is over with an error, or could not be made; the request is then not open any more. */
elcache_error_t call_run(struct call *call, const struct command *command, struct exchange *exchange);

/* Waits until an open request is so far. ELCACHE_ERR_TIMEOUT leaves it open. */
elcache_error_t call_wait(struct call *call, struct request *request, enum request_state until);

/* Gives up what could not be ended in time. */
void call_abandon(struct call *call, struct request *request);

/* Keeps how long it took, and the text if it failed. Gives `error` back. */
elcache_error_t call_end(struct call *call, elcache_error_t error, const char *detail);

/* Counts a read by how it ended, and the bytes that its caller got. */
void call_count_read(struct call *call, elcache_error_t error, uint64_t bytes);

#endif
