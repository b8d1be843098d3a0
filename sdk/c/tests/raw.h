/* A connection that need not keep to the protocol: bytes as they are, over the socket and, once it shares, over a ring. Nothing here
 * fails a test: a node may close the connection of a client that attacks it, at any moment. */
#ifndef ELCACHE_TESTS_RAW_H
#define ELCACHE_TESTS_RAW_H

#include <stddef.h>
#include <stdint.h>

/* The offsets of a session that an attacker has use for. */
enum {
    RAW_CONTROL_LEN = 4096,
    RAW_REQUESTS_WRITTEN = 64,
    RAW_REQUESTS_READ = 128,
    RAW_ANSWERS_WRITTEN = 192,
    RAW_ANSWERS_READ = 256,
    RAW_CLIENT_WAITS = 320,
    RAW_SERVER_WAITS = 384,
    RAW_USES = 448,
    RAW_USED = 512
};

struct raw {
    int fd;
    int session_fd; /* -1: it shares nothing */
    int watch_fd;
    uint8_t *session;
    size_t session_len;
    uint64_t capacity;
    uint64_t written; /* to the ring */
    uint64_t last_id;
};

/* These are 1, or 0 when the node does not go along. */
int raw_connect(struct raw *raw, const char *path);
int raw_greet(struct raw *raw);
int raw_share(struct raw *raw, uint64_t ring);
/* All three. */
int raw_open(struct raw *raw, const char *path, uint64_t ring);
void raw_close(struct raw *raw);

/* Over the socket, waiting for room at most so long. */
int raw_send(struct raw *raw, const void *bytes, size_t len, int limit_ms);
/* Over the socket, with a descriptor, so many times. */
int raw_send_fd(struct raw *raw, const void *bytes, size_t len, int fd, size_t times);
/* Over the ring, waiting for room at most so long. */
int raw_put(struct raw *raw, const void *bytes, size_t len, int limit_ms);
/* Reads a frame from the socket and keeps the descriptors that come with it, at most two, -1 for none. Its length, without more than fits, or 0. */
size_t raw_receive(struct raw *raw, uint8_t *bytes, size_t size, int fds[2], int limit_ms);

/* A word of the session. */
volatile uint64_t *raw_count(const struct raw *raw, size_t at);

#endif
