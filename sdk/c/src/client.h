/* A client: settings, statistics, a connection, and the streams that are open. */
#ifndef ELCACHE_CLIENT_H
#define ELCACHE_CLIENT_H

#include "connection.h"
#include "stats.h"

enum {
    CLIENT_PATH_LEN = 108, /* that of a socket's address */
    CLIENT_RECV_BUFFER = 1048576,
    CLIENT_SEND_BUFFER = 65536,
    CLIENT_BUFFER_MIN = 4096,
    CLIENT_BUFFER_MAX = 1 << 30,
    CLIENT_SEED_LEN = 16,
    CLIENT_ERROR_LEN = FRAME_MESSAGE_MAX + 256
};

/* The first member of every stream. */
struct stream {
    elcache_client_t *client; /* NULL: it was destroyed before the stream was closed */
    struct stream *next;
    struct stream *previous;
};

struct elcache_client {
    char path[CLIENT_PATH_LEN];
    int is_wanted; /* connected by the caller, and not disconnected: a call that finds no connection makes one */
    int is_shared; /* by elcache_client_connect_shm */
    int timeout_ms;
    size_t recv_buffer;
    size_t send_buffer;
    size_t kernel_recv; /* what was set for the kernel's; 0: nothing */
    size_t kernel_send;
    uint8_t seed[CLIENT_SEED_LEN]; /* operations are told from all others' by it, */
    uint64_t operations;           /* and from each other by this */
    struct stream *streams;
    struct stats stats;
    char last_error[CLIENT_ERROR_LEN];
    struct connection connection;
};

/* Connects if there is no connection. When that fails `connection.reason` says why. */
elcache_error_t client_connect(elcache_client_t *client, int64_t deadline_ns);

/* Keeps what failed: `call: error: detail`. The detail may be empty. */
elcache_error_t client_fail(elcache_client_t *client, const char *call, elcache_error_t error, const char *detail);

/* Checks a key before anything is sent. */
elcache_error_t client_check_key(elcache_client_t *client, const char *call, const void *key, size_t key_len);

/* Names a write, so that the node recognises it when it is sent twice. */
void client_name_operation(elcache_client_t *client, struct command *command);

void client_add_stream(elcache_client_t *client, struct stream *stream);
void client_remove_stream(struct stream *stream);

#endif
