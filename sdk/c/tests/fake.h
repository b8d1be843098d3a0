/* A node that does what a test wants: a thread that listens on a socket of its own and runs a function for each
 * connection, one after the other. */
#ifndef ELCACHE_TESTS_FAKE_H
#define ELCACHE_TESTS_FAKE_H

#include <pthread.h>
#include <stdatomic.h>

#include "../src/frame.h"
#include "elcache/elcache_sdk.h"

struct fake;

/* Serves a connection; returns when it is to be closed. */
typedef void (*fake_serve)(struct fake *fake, int fd);

struct fake {
    char folder[64];
    char path[96];
    int listener;
    pthread_t thread;
    fake_serve serve;
    atomic_int connections; /* so many were accepted */
    uint64_t window;        /* what hello grants */
    int variant;            /* for the test's own use */
    atomic_int seen;        /* the same */
};

/* Starts listening. `window` and `variant` are what `serve` finds. */
void fake_start(struct fake *fake, fake_serve serve, uint64_t window, int variant);
/* Stops listening, waits for the connection that is being served, and removes the socket. */
void fake_stop(struct fake *fake);

/* A frame as it came. */
struct fake_frame {
    struct frame_header header;
    struct frame_fields fields;
    uint8_t *bytes; /* fields, then data */
};

/* Reads a frame; 0 at the end of the connection. It is freed by the next call with the same place. */
int fake_read(int fd, struct fake_frame *frame);
/* Reads the preamble and the client's hello, and answers with the fake's. */
void fake_greet(struct fake *fake, int fd);
/* The same, and offers these features. */
void fake_greet_with(struct fake *fake, int fd, uint64_t features);
/* Hello, then the next frame. */
int fake_greet_and_read(struct fake *fake, int fd, struct fake_frame *frame);

/* A field that is a number. */
struct fake_number {
    enum frame_tag tag;
    uint64_t value;
};

enum { FAKE_HEAD_LEN = 256 };

/* Writes a frame that has these fields, without the data that are to follow it, into FAKE_HEAD_LEN bytes. Gives its
 * length. */
size_t fake_encode(uint8_t *bytes, enum frame_kind kind, unsigned flags, uint64_t id, const struct fake_number *numbers,
                   size_t count, uint64_t data_len);

/* Writes all of it; 0 if the client has gone. */
int fake_write(int fd, const void *bytes, size_t len);
/* A reply with a status, a size and a length, and data behind it. */
int fake_reply(int fd, uint64_t id, unsigned flags, uint64_t status, uint64_t length, const void *data, size_t len);
/* A reply with these fields. */
int fake_tell(int fd, uint64_t id, unsigned flags, const struct fake_number *numbers, size_t count, const void *data,
              size_t len);
int fake_data(int fd, uint64_t id, unsigned flags, const void *data, size_t len);
int fake_credit(int fd, uint64_t id, uint64_t window);
/* Waits for the client to go. */
void fake_linger(int fd);
void fake_sleep_ms(int ms);

#endif
