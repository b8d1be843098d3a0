#define _GNU_SOURCE
#include "raw.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../src/clock.h"
#include "../src/frame.h"

enum { FDS_MAX = 32, PATIENCE_MS = 5000 };

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

int raw_connect(struct raw *raw, const char *path) {
    struct sockaddr_un address = {0};
    memset(raw, 0, sizeof *raw);
    raw->session_fd = raw->watch_fd = -1;
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    raw->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return raw->fd >= 0 && connect(raw->fd, (struct sockaddr *)&address, sizeof address) == 0;
}

static int wait_for(int fd, short events, int64_t deadline_ns) {
    struct pollfd entry = {fd, events, 0};
    return poll(&entry, 1, clock_left_ms(deadline_ns)) > 0;
}

int raw_send(struct raw *raw, const void *bytes, size_t len, int limit_ms) {
    int64_t deadline_ns = clock_now_ns() + limit_ms * NS_PER_MS;
    const uint8_t *next = bytes;
    while (len > 0) {
        ssize_t sent = send(raw->fd, next, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            next += sent;
            len -= (size_t)sent;
        } else if (errno != EAGAIN || !wait_for(raw->fd, POLLOUT, deadline_ns)) {
            return 0;
        }
    }
    return 1;
}

int raw_send_fd(struct raw *raw, const void *bytes, size_t len, int fd, size_t times) {
    union control control = {.bytes = {0}};
    struct iovec part = {(void *)(uintptr_t)bytes, len};
    struct msghdr message = {0};
    times = times < FDS_MAX ? times : FDS_MAX;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(times * sizeof fd);
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(times * sizeof fd);
    for (size_t i = 0; i < times; i++) {
        memcpy(CMSG_DATA(rights) + i * sizeof fd, &fd, sizeof fd);
    }
    return sendmsg(raw->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

static void keep_descriptors(struct msghdr *message, int fds[2]) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; part->cmsg_type == SCM_RIGHTS && i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            int *place = fds[0] < 0 ? &fds[0] : &fds[1];
            if (*place >= 0) {
                close(fd);
            } else {
                *place = fd;
            }
        }
    }
}

/* Reads so many bytes, no more. */
static int receive_all(struct raw *raw, uint8_t *bytes, size_t len, int fds[2], int64_t deadline_ns) {
    while (len > 0) {
        union control control;
        struct iovec part = {bytes, len};
        struct msghdr message = {0};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        ssize_t got = recvmsg(raw->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got > 0) {
            keep_descriptors(&message, fds);
            bytes += got;
            len -= (size_t)got;
        } else if (got == 0 || errno != EAGAIN || !wait_for(raw->fd, POLLIN, deadline_ns)) {
            return 0;
        }
    }
    return 1;
}

size_t raw_receive(struct raw *raw, uint8_t *bytes, size_t size, int fds[2], int limit_ms) {
    int64_t deadline_ns = clock_now_ns() + limit_ms * NS_PER_MS;
    struct frame_header header;
    fds[0] = fds[1] = -1;
    /* What wakes a client is no frame. */
    do {
        if (!receive_all(raw, bytes, 1, fds, deadline_ns)) {
            return 0;
        }
    } while (bytes[0] == 0);
    if (!receive_all(raw, bytes + 1, FRAME_HEADER_LEN - 1, fds, deadline_ns) ||
        frame_header_decode(bytes, &header) != NULL || header.fields_len + header.data_len > size - FRAME_HEADER_LEN) {
        return 0;
    }
    size_t rest = header.fields_len + (size_t)header.data_len;
    return receive_all(raw, bytes + FRAME_HEADER_LEN, rest, fds, deadline_ns) ? FRAME_HEADER_LEN + rest : 0;
}

int raw_greet(struct raw *raw) {
    uint8_t bytes[4096];
    int fds[2];
    struct frame_writer writer = {bytes + FRAME_PREAMBLE_LEN, sizeof bytes - FRAME_PREAMBLE_LEN, 0, 0, 0};
    memcpy(bytes, FRAME_PREAMBLE, FRAME_PREAMBLE_LEN);
    frame_begin(&writer, FRAME_HELLO, 0, 0);
    frame_add_number(&writer, TAG_VERSION_MIN, 1);
    frame_add_number(&writer, TAG_VERSION_MAX, 1);
    frame_add_number(&writer, TAG_FEATURES, FRAME_FEATURE_SHARED);
    frame_finish(&writer, 0);
    return raw_send(raw, bytes, FRAME_PREAMBLE_LEN + writer.len, PATIENCE_MS) &&
           raw_receive(raw, bytes, sizeof bytes, fds, PATIENCE_MS) > 0 && bytes[1] == FRAME_HELLO;
}

static int map_session(struct raw *raw) {
    struct stat status;
    if (fstat(raw->session_fd, &status) != 0) {
        return 0;
    }
    raw->session_len = (size_t)status.st_size;
    raw->session = mmap(NULL, raw->session_len, PROT_READ | PROT_WRITE, MAP_SHARED, raw->session_fd, 0);
    if (raw->session == MAP_FAILED) {
        raw->session = NULL;
        return 0;
    }
    raw->capacity = frame_load_u64(raw->session + 8);
    return 1;
}

int raw_share(struct raw *raw, uint64_t ring) {
    uint8_t bytes[4096];
    int fds[2];
    struct frame_writer writer = {bytes, sizeof bytes, 0, 0, 0};
    frame_begin(&writer, FRAME_SHARE, 0, ++raw->last_id);
    frame_add_number(&writer, TAG_RING, ring);
    frame_finish(&writer, 0);
    if (!raw_send(raw, bytes, writer.len, PATIENCE_MS) ||
        raw_receive(raw, bytes, sizeof bytes, fds, PATIENCE_MS) == 0) {
        return 0;
    }
    raw->session_fd = fds[0];
    raw->watch_fd = fds[1];
    return fds[1] >= 0 && map_session(raw);
}

int raw_open(struct raw *raw, const char *path, uint64_t ring) {
    return raw_connect(raw, path) && raw_greet(raw) && raw_share(raw, ring);
}

void raw_close(struct raw *raw) {
    int fds[] = {raw->fd, raw->session_fd, raw->watch_fd};
    if (raw->session != NULL) {
        munmap(raw->session, raw->session_len);
    }
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    raw->session = NULL;
    raw->fd = raw->session_fd = raw->watch_fd = -1;
}

volatile uint64_t *raw_count(const struct raw *raw, size_t at) {
    return (volatile uint64_t *)(void *)(raw->session + at);
}

static void wake_node(struct raw *raw) {
    _Atomic uint32_t *waits = (_Atomic uint32_t *)(void *)(raw->session + RAW_SERVER_WAITS);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_exchange(waits, 0) != 0) {
        (void)send(raw->fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
}

int raw_put(struct raw *raw, const void *bytes, size_t len, int limit_ms) {
    int64_t deadline_ns = clock_now_ns() + limit_ms * NS_PER_MS;
    const uint8_t *next = bytes;
    while (len > 0) {
        uint64_t unread = raw->written - *raw_count(raw, RAW_REQUESTS_READ);
        uint64_t room = unread > raw->capacity ? 0 : raw->capacity - unread;
        if (room == 0) {
            if (clock_now_ns() > deadline_ns || wait_for(raw->fd, POLLRDHUP, clock_now_ns())) {
                return 0;
            }
            poll(NULL, 0, 1);
            continue;
        }
        size_t at = (size_t)(raw->written & (raw->capacity - 1));
        size_t run = raw->capacity - at < room ? (size_t)(raw->capacity - at) : (size_t)room;
        run = run < len ? run : len;
        memcpy(raw->session + RAW_CONTROL_LEN + at, next, run);
        raw->written += run;
        next += run;
        len -= run;
        atomic_store_explicit((_Atomic uint64_t *)(void *)(raw->session + RAW_REQUESTS_WRITTEN), raw->written,
                              memory_order_release);
        wake_node(raw);
    }
    return 1;
}
