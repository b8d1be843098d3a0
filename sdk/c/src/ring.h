/*
 * The transport over shared memory: two rings in a session that the node has made, and the socket that it was made
 * over, on which each side wakes the other. docs/protocol.md, "Shared memory".
 */
#ifndef ELCACHE_RING_H
#define ELCACHE_RING_H

#include <stddef.h>
#include <stdint.h>

#include "transport.h"

/* Bytes of a session before its rings. */
#define RING_CONTROL_LEN 4096

/* A region that the node has sent, by the number of the request that asked for it. */
struct ring_region {
    uint64_t id;
    uint64_t status;
    int fd; /* -1 without one */
};

/* Goes on over the rings of this session. Takes the descriptor, and the socket, which must have nothing to be read.
 * NULL: errno says why, EPROTO if the session is not as it should be; the socket is then as it was. */
struct transport *ring_begin(struct transport *socket, int session_fd);

/* The session's memory, for what is in it beside the rings. */
uint8_t *ring_session(struct transport *transport);

/* Takes the region that has come by the socket, 1, or 0 if none has. When one comes, `read` returns 0. */
int ring_take_region(struct transport *transport, struct ring_region *region);

#endif
