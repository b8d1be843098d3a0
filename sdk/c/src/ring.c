/* The transport over shared memory. */
#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "frame.h"
#include "memory.h"

enum {
    SESSION_MAGIC = 0x4d534c45, /* "ELSM" */
    SESSION_LAYOUT = 1,
    RING_MIN = 65536,
    RING_MAX = 16777216
};

/* Where things lie in a session. */
enum {
    AT_MAGIC = 0,
    AT_CAPACITY = 8,
    AT_REQUESTS_WRITTEN = 64,
    AT_REQUESTS_READ = 128,
    AT_ANSWERS_WRITTEN = 192,
    AT_ANSWERS_READ = 256,
    AT_CLIENT_WAITS = 320,
    AT_SERVER_WAITS = 384
};

/* How long to look for an answer before sleeping. Falling asleep and being woken costs about as much. */
#define SPIN_NS 20000
/* Looks between two looks at the clock. */
#define SPIN_LOOKS 64

/* What a reply to a request for a region takes, and more. */
#define INBOX_LEN 2048
/* How often the socket is read before anything else is looked at, the clock above all: a node may send wake-ups as
 * fast as they are read. */
#define DRAIN_TURNS 64

struct ring_transport {
    struct transport base;
    struct transport *socket;
    uint8_t *session;
    size_t session_len;
    uint64_t capacity;
    uint64_t written; /* requests, our own count */
    uint64_t read;    /* answers, our own count */
    int spins;        /* whether another processor could answer meanwhile */
    int has_ended;    /* the socket has */
    /* The part of a frame that has come by the socket, and its descriptor. */
    uint8_t inbox[INBOX_LEN];
    size_t inbox_len;
    int inbox_fd;
    struct ring_region region;
    int has_region;
};

static struct ring_transport *of(struct transport *transport) {
    return (struct ring_transport *)transport;
}

static _Atomic uint64_t *count_at(const struct ring_transport *self, size_t at) {
    return (_Atomic uint64_t *)(void *)(self->session + at);
}

static _Atomic uint32_t *flag_at(const struct ring_transport *self, size_t at) {
    return (_Atomic uint32_t *)(void *)(self->session + at);
}

/* Wakes the node if it sleeps. Called after something was published. A socket that is full of such bytes wakes as
 * well. */
static void wake_node(struct ring_transport *self) {
    atomic_thread_fence(memory_order_seq_cst);
    _Atomic uint32_t *waits = flag_at(self, AT_SERVER_WAITS);
    if (atomic_load_explicit(waits, memory_order_relaxed) != 0 && atomic_exchange(waits, 0) != 0) {
        static const char WAKE = 0;
        (void)send(socket_descriptor(self->socket), &WAKE, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
}

/* Copies between a ring, from a count on, and a buffer. */
static void copy_out(const struct ring_transport *self, uint64_t count, uint8_t *into, size_t len) {
    const uint8_t *ring = self->session + RING_CONTROL_LEN + self->capacity;
    size_t at = (size_t)(count & (self->capacity - 1));
    size_t first = len < self->capacity - at ? len : (size_t)self->capacity - at;
    memcpy(into, ring + at, first);
    memcpy(into + first, ring, len - first);
}

static void copy_in(const struct ring_transport *self, uint64_t count, const uint8_t *from, size_t len) {
    uint8_t *ring = self->session + RING_CONTROL_LEN;
    size_t at = (size_t)(count & (self->capacity - 1));
    size_t first = len < self->capacity - at ? len : (size_t)self->capacity - at;
    memcpy(ring + at, from, first);
    memcpy(ring, from + first, len - first);
}

/* Bytes that the node has sent and we have not read. */
static uint64_t readable(const struct ring_transport *self) {
    return atomic_load_explicit(count_at(self, AT_ANSWERS_WRITTEN), memory_order_acquire) - self->read;
}

/* Bytes that there is room for. */
static uint64_t writable(const struct ring_transport *self) {
    uint64_t unread = self->written - atomic_load_explicit(count_at(self, AT_REQUESTS_READ), memory_order_acquire);
    return unread > self->capacity ? UINT64_MAX : self->capacity - unread;
}

/* Whether the session is there still. A node that ends it takes its memory back: then all of it is zeros, and so may be
 * what was copied before this was asked. */
static int is_there(const struct ring_transport *self) {
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(flag_at(self, AT_MAGIC), memory_order_relaxed) == SESSION_MAGIC;
}

/* What `read` and `write` say of counts that cannot be. */
static ssize_t impossible(const struct ring_transport *self) {
    if (!is_there(self)) {
        return TRANSPORT_CLOSED;
    }
    errno = EPROTO;
    return TRANSPORT_FAILED;
}

static size_t length_of(const struct iovec *parts, int count) {
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        len += parts[i].iov_len;
    }
    return len;
}

/* Reads what is there into the parts; 0: nothing is. */
static ssize_t take(struct ring_transport *self, const struct iovec *parts, int count) {
    uint64_t left = readable(self);
    size_t taken = 0;
    if (left > self->capacity) {
        return impossible(self);
    }
    for (int i = 0; i < count && left > 0; i++) {
        size_t len = parts[i].iov_len < left ? parts[i].iov_len : (size_t)left;
        copy_out(self, self->read, parts[i].iov_base, len);
        self->read += len;
        left -= len;
        taken += len;
    }
    if (taken > 0 && !is_there(self)) {
        return TRANSPORT_CLOSED;
    }
    if (taken > 0) {
        atomic_store_explicit(count_at(self, AT_ANSWERS_READ), self->read, memory_order_release);
        wake_node(self);
    }
    return (ssize_t)taken;
}

/* Takes the complete reply from the front of the inbox, if there is one. */
static int take_reply(struct ring_transport *self) {
    struct frame_header header;
    struct frame_fields fields;
    if (self->inbox_len < FRAME_HEADER_LEN) {
        return 0;
    }
    if (frame_header_decode(self->inbox, &header) != NULL || header.kind != FRAME_REPLY || header.data_len != 0 ||
        header.fields_len > INBOX_LEN - FRAME_HEADER_LEN || self->has_region) {
        errno = EPROTO;
        return -1;
    }
    size_t len = FRAME_HEADER_LEN + header.fields_len;
    if (self->inbox_len < len) {
        return 0;
    }
    if (frame_fields_decode(self->inbox + FRAME_HEADER_LEN, header.fields_len, &fields) != NULL) {
        errno = EPROTO;
        return -1;
    }
    self->region.id = header.id;
    self->region.status = frame_number(&fields, TAG_STATUS, STATUS_INTERNAL);
    self->region.fd = self->inbox_fd;
    self->has_region = 1;
    self->inbox_fd = -1;
    self->inbox_len -= len;
    memmove(self->inbox, self->inbox + len, self->inbox_len);
    return 1;
}

/* Keeps of what came by the socket what is no wake-up. */
static int sort_in(struct ring_transport *self, const uint8_t *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (self->inbox_len == 0 && bytes[i] == 0) {
            continue;
        }
        if (self->inbox_len == INBOX_LEN) {
            errno = EPROTO;
            return -1;
        }
        self->inbox[self->inbox_len++] = bytes[i];
        if (take_reply(self) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Keeps the descriptor that came with a message. One at a time is asked for; any other is closed. */
static void keep_descriptor(struct ring_transport *self, struct msghdr *message) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        for (size_t at = 0; at + sizeof(int) <= part->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
            if (self->inbox_fd >= 0) {
                close(self->inbox_fd);
            }
            self->inbox_fd = fd;
        }
    }
}

/* Reads what has come by the socket. */
static int drain(struct ring_transport *self) {
    for (int turn = 0; turn < DRAIN_TURNS && !self->has_ended; turn++) {
        uint8_t bytes[256];
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(2 * sizeof(int))];
        } control;
        struct iovec part = {bytes, sizeof bytes};
        struct msghdr message = {0};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        ssize_t got = recvmsg(socket_descriptor(self->socket), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got > 0) {
            keep_descriptor(self, &message);
            if (sort_in(self, bytes, (size_t)got) < 0) {
                return -1;
            }
        } else if (got < 0 && errno == EINTR) {
            continue;
        } else if (got < 0 && errno == EAGAIN) {
            return 0;
        } else {
            self->has_ended = 1;
        }
    }
    return 0;
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

enum side { TO_READ = 1, TO_WRITE = 2, TO_MAP = 4 };

static int is_ready(const struct ring_transport *self, unsigned sides) {
    int may_read = (sides & TO_READ) && readable(self) != 0;
    int may_write = (sides & TO_WRITE) && writable(self) != 0;
    return self->has_region || may_read || may_write;
}

/* Looks for a moment whether the node is quick. */
static int spin(const struct ring_transport *self, unsigned sides, int64_t deadline_ns) {
    int64_t began_ns = clock_now_ns();
    int64_t end_ns = deadline_ns - began_ns < SPIN_NS ? deadline_ns : began_ns + SPIN_NS;
    do {
        for (int look = 0; look < SPIN_LOOKS; look++) {
            if (is_ready(self, sides)) {
                return 1;
            }
            relax();
        }
    } while (clock_now_ns() < end_ns);
    return 0;
}

/* What there is to say without waiting: 1, a side is ready; 0, none is; below 0, what `read` says. */
static int look(struct ring_transport *self, unsigned sides) {
    if (is_ready(self, sides)) {
        return 1;
    }
    if (drain(self) < 0) {
        return TRANSPORT_FAILED;
    }
    if (is_ready(self, sides)) {
        return 1;
    }
    return self->has_ended ? TRANSPORT_CLOSED : 0;
}

/* Sleeps until there is something to say, or the deadline has passed: what `look` says. */
static int sleep_until(struct ring_transport *self, unsigned sides, int64_t deadline_ns) {
    for (;;) {
        struct pollfd entry = {socket_descriptor(self->socket), POLLIN, 0};
        atomic_store(flag_at(self, AT_CLIENT_WAITS), 1);
        atomic_thread_fence(memory_order_seq_cst);
        if (is_ready(self, sides)) {
            return 1;
        }
        int left_ms = clock_left_ms(deadline_ns);
        (void)poll(&entry, 1, left_ms);
        int seen = look(self, sides);
        if (seen != 0 || left_ms == 0) {
            return seen;
        }
    }
}

/* Waits until one of the sides is ready or the node has gone. 0: the deadline passed; below 0: what `read` says. A
 * deadline of 0 is to look and not to wait. */
static int await(struct ring_transport *self, unsigned sides, int64_t deadline_ns) {
    if (deadline_ns == 0) {
        return look(self, sides);
    }
    if (is_ready(self, sides) || (self->spins && spin(self, sides, deadline_ns))) {
        return 1;
    }
    int seen = sleep_until(self, sides, deadline_ns);
    /* Or the node would wake nobody. */
    atomic_store_explicit(flag_at(self, AT_CLIENT_WAITS), 0, memory_order_relaxed);
    return seen;
}

static ssize_t ring_read(struct transport *transport, const struct iovec *parts, int count, int64_t deadline_ns) {
    struct ring_transport *self = of(transport);
    /* Without room it is a region that is waited for. */
    unsigned side = length_of(parts, count) > 0 ? TO_READ : TO_MAP;
    for (;;) {
        ssize_t taken = take(self, parts, count);
        if (taken != 0 || self->has_region) {
            return taken;
        }
        int ready = await(self, side, deadline_ns);
        if (ready <= 0) {
            return ready == 0 ? TRANSPORT_TIMEOUT : ready;
        }
    }
}

static ssize_t ring_write(struct transport *transport, const struct iovec *parts, int count) {
    struct ring_transport *self = of(transport);
    uint64_t room = writable(self);
    size_t given = 0;
    if (room == UINT64_MAX) {
        return impossible(self);
    }
    for (int i = 0; i < count && room > 0; i++) {
        size_t len = parts[i].iov_len < room ? parts[i].iov_len : (size_t)room;
        copy_in(self, self->written, parts[i].iov_base, len);
        self->written += len;
        room -= len;
        given += len;
    }
    if (given > 0) {
        atomic_store_explicit(count_at(self, AT_REQUESTS_WRITTEN), self->written, memory_order_release);
        wake_node(self);
    } else if (drain(self) < 0) {
        return TRANSPORT_FAILED;
    }
    return given == 0 && self->has_ended ? TRANSPORT_CLOSED : (ssize_t)given;
}

static int ring_wait(struct transport *transport, int64_t deadline_ns) {
    return await(of(transport), TO_READ | TO_WRITE, deadline_ns) != 0;
}

static int ring_is_alive(struct transport *transport) {
    struct ring_transport *self = of(transport);
    return self->socket->ops->is_alive(self->socket);
}

/* The socket carries next to nothing. */
static void ring_set_buffers(struct transport *transport, size_t receive, size_t send) {
    (void)transport;
    (void)receive;
    (void)send;
}

static void ring_close(struct transport *transport) {
    struct ring_transport *self = of(transport);
    if (self->inbox_fd >= 0) {
        close(self->inbox_fd);
    }
    if (self->has_region && self->region.fd >= 0) {
        close(self->region.fd);
    }
    munmap(self->session, self->session_len);
    self->socket->ops->close(self->socket);
    free(self);
}

static const struct transport_ops RING_OPS = {
    .read = ring_read,
    .write = ring_write,
    .wait = ring_wait,
    .is_alive = ring_is_alive,
    .set_buffers = ring_set_buffers,
    .close = ring_close,
};

/* Whether the memory is a session with rings. */
static int is_session(struct ring_transport *self) {
    uint32_t magic[2];
    memcpy(magic, self->session, sizeof magic);
    self->capacity = atomic_load(count_at(self, AT_CAPACITY));
    int is_power = (self->capacity & (self->capacity - 1)) == 0;
    return magic[0] == SESSION_MAGIC && magic[1] == SESSION_LAYOUT && is_power && self->capacity >= RING_MIN &&
           self->capacity <= RING_MAX && self->session_len >= RING_CONTROL_LEN + 2 * self->capacity;
}

/* Maps a session, and looks whether it is one. */
static int map_session(struct ring_transport *self, int fd) {
    self->session = memory_map(fd, RING_CONTROL_LEN, 1, &self->session_len);
    if (self->session == NULL) {
        return -1;
    }
    if (!is_session(self)) {
        munmap(self->session, self->session_len);
        errno = EPROTO;
        return -1;
    }
    return 0;
}

struct transport *ring_begin(struct transport *socket, int session_fd) {
    struct ring_transport *self = calloc(1, sizeof *self);
    if (self == NULL) {
        close(session_fd);
        errno = ENOMEM;
        return NULL;
    }
    if (map_session(self, session_fd) != 0) {
        int reason = errno;
        free(self);
        errno = reason;
        return NULL;
    }
    self->base.ops = &RING_OPS;
    self->socket = socket;
    self->inbox_fd = -1;
    self->spins = sysconf(_SC_NPROCESSORS_ONLN) > 1;
    return &self->base;
}

uint8_t *ring_session(struct transport *transport) {
    return of(transport)->session;
}

int ring_take_region(struct transport *transport, struct ring_region *region) {
    struct ring_transport *self = of(transport);
    if (!self->has_region) {
        return 0;
    }
    *region = self->region;
    self->has_region = 0;
    return 1;
}
