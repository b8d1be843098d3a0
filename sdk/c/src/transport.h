/*
 * What carries bytes between a client and its node: a table of functions, so that a connection does not know whether
 * it speaks over a socket or over shared memory.
 *
 * A transport is a run of bytes in each direction. All calls come from one thread. Deadlines are those of
 * clock_now_ns.
 */
#ifndef ELCACHE_TRANSPORT_H
#define ELCACHE_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct transport;

/* What `read` and `write` say instead of a number of bytes. */
enum {
    TRANSPORT_TIMEOUT = -1, /* the deadline passed; `read` only */
    TRANSPORT_CLOSED = -2,  /* the other side has ended, as it does when it dies or stops */
    TRANSPORT_FAILED = -3   /* errno says why */
};

struct transport_ops {
    /* Reads what is there into the parts, one after the other; where there is nothing, waits for the first byte. At
     * least one part is not empty. Bytes that are there are read even if the deadline has passed. */
    ssize_t (*read)(struct transport *transport, const struct iovec *parts, int count, int64_t deadline_ns);
    /* Takes of the parts what it has room for, without waiting; 0: no room now. */
    ssize_t (*write)(struct transport *transport, const struct iovec *parts, int count);
    /* Waits until one of `read` and `write` would do something. 0: the deadline passed. */
    int (*wait)(struct transport *transport, int64_t deadline_ns);
    /* 0 if the other side is known to have ended. Does not wait, and reads nothing. */
    int (*is_alive)(struct transport *transport);
    /* Sizes of the kernel's buffers, in bytes; 0: as they are. A transport that has none does nothing. */
    void (*set_buffers)(struct transport *transport, size_t receive, size_t send);
    /* Ends the connection and frees the transport. */
    void (*close)(struct transport *transport);
};

/* The first member of every transport. */
struct transport {
    const struct transport_ops *ops;
};

/* Connects to the Unix socket at `path`. NULL: errno says why; ETIMEDOUT if the deadline passed, ENAMETOOLONG if no
 * socket can have this path. */
struct transport *socket_connect(const char *path, int64_t deadline_ns);

/* The descriptor of a transport that socket_connect made. It stays the transport's. */
int socket_descriptor(const struct transport *transport);

#endif
