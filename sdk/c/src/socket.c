/* The transport over a Unix socket. */
#include "transport.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"

/* By how much a read may outlast its deadline. Reading with the socket's own time-out saves a poll before each
 * read, and setting that anew for every read would cost as much as the poll: so it is set anew only when it is off
 * by more than this. */
#define SLACK_NS (2 * NS_PER_MS)

struct socket_transport {
    struct transport base;
    int fd;
    int64_t receive_timeout_ns; /* what the socket has now */
};

static struct socket_transport *of(struct transport *transport) {
    return (struct socket_transport *)transport;
}

/* A time-out of 0 would mean none at all to the kernel. */
static struct timeval to_timeval(int64_t ns) {
    struct timeval value;
    int64_t us = ns <= 1000 ? 1 : ns / 1000;
    value.tv_sec = (time_t)(us / 1000000);
    value.tv_usec = (suseconds_t)(us % 1000000);
    return value;
}

/* Sees to it that a read does not wait longer than until the deadline. It may wake up before: then it is called
 * again. */
static void limit_read(struct socket_transport *self, int64_t left_ns) {
    int64_t set_ns = self->receive_timeout_ns;
    if (set_ns <= left_ns + SLACK_NS && set_ns >= left_ns / 2 && set_ns > 0) {
        return;
    }
    struct timeval value = to_timeval(left_ns);
    if (setsockopt(self->fd, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof value) == 0) {
        self->receive_timeout_ns = left_ns;
    }
}

static ssize_t socket_read(struct transport *transport, const struct iovec *parts, int count, int64_t deadline_ns) {
    struct socket_transport *self = of(transport);
    struct msghdr message = {0};
    message.msg_iov = (struct iovec *)(uintptr_t)parts;
    message.msg_iovlen = (size_t)count;
    for (;;) {
        int64_t left_ns = deadline_ns - clock_now_ns();
        if (left_ns > 0) {
            limit_read(self, left_ns);
        }
        ssize_t got = recvmsg(self->fd, &message, left_ns > 0 ? 0 : MSG_DONTWAIT);
        if (got > 0) {
            return got;
        }
        if (got == 0 || errno == ECONNRESET) {
            return TRANSPORT_CLOSED;
        }
        if (errno != EAGAIN && errno != EINTR) {
            return TRANSPORT_FAILED;
        }
        if (errno == EAGAIN && left_ns <= 0) {
            return TRANSPORT_TIMEOUT;
        }
    }
}

static ssize_t socket_write(struct transport *transport, const struct iovec *parts, int count) {
    struct msghdr message = {0};
    message.msg_iov = (struct iovec *)(uintptr_t)parts;
    message.msg_iovlen = (size_t)count;
    for (;;) {
        ssize_t sent = sendmsg(of(transport)->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            return sent;
        }
        if (errno == EAGAIN) {
            return 0;
        }
        if (errno == EPIPE || errno == ECONNRESET) {
            return TRANSPORT_CLOSED;
        }
        if (errno != EINTR) {
            return TRANSPORT_FAILED;
        }
    }
}

static int socket_wait(struct transport *transport, int64_t deadline_ns) {
    struct pollfd entry = {of(transport)->fd, POLLIN | POLLOUT, 0};
    for (;;) {
        int left_ms = clock_left_ms(deadline_ns);
        int ready = poll(&entry, 1, left_ms);
        /* Any other failure is left to the read or write that follows: it says what it is. */
        if (ready > 0 || (ready < 0 && errno != EINTR)) {
            return 1;
        }
        if (left_ms == 0) {
            return 0;
        }
    }
}

static int socket_is_alive(struct transport *transport) {
    /* Unlike a read this tells of the end also while there is something to be read before it. */
    struct pollfd entry = {of(transport)->fd, 0, 0};
    return poll(&entry, 1, 0) <= 0;
}

static void set_buffer(int fd, int option, size_t bytes) {
    int value = (int)bytes;
    if (bytes != 0) {
        /* The kernel may give less, which costs speed and nothing else. */
        (void)setsockopt(fd, SOL_SOCKET, option, &value, sizeof value);
    }
}

static void socket_set_buffers(struct transport *transport, size_t receive, size_t send) {
    set_buffer(of(transport)->fd, SO_RCVBUF, receive);
    set_buffer(of(transport)->fd, SO_SNDBUF, send);
}

static void socket_close(struct transport *transport) {
    close(of(transport)->fd);
    free(transport);
}

static const struct transport_ops SOCKET_OPS = {
    .read = socket_read,
    .write = socket_write,
    .wait = socket_wait,
    .is_alive = socket_is_alive,
    .set_buffers = socket_set_buffers,
    .close = socket_close,
};

/* Connects, and waits for a place in the node's queue no longer than until the deadline. */
static int connect_until(int fd, const struct sockaddr_un *address, int64_t deadline_ns) {
    for (;;) {
        int64_t left_ns = deadline_ns - clock_now_ns();
        if (left_ns <= 0) {
            errno = ETIMEDOUT;
            return -1;
        }
        struct timeval value = to_timeval(left_ns);
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof value) != 0) {
            return -1;
        }
        if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0) {
            return 0;
        }
        if (errno != EINTR && errno != EAGAIN) {
            return -1;
        }
    }
}

struct transport *socket_connect(const char *path, int64_t deadline_ns) {
    struct sockaddr_un address = {0};
    size_t len = strlen(path);
    if (len >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path, len);
    struct socket_transport *self = calloc(1, sizeof *self);
    if (self == NULL) {
        return NULL;
    }
    self->base.ops = &SOCKET_OPS;
    self->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (self->fd >= 0 && connect_until(self->fd, &address, deadline_ns) == 0) {
        return &self->base;
    }
    int reason = errno;
    if (self->fd >= 0) {
        close(self->fd);
    }
    free(self);
    errno = reason;
    return NULL;
}

int socket_descriptor(const struct transport *transport) {
    return ((const struct socket_transport *)transport)->fd;
}
