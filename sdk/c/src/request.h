/*
 * One request: what is asked, what was answered, and where the bytes of the answer go.
 *
 * A request lives where its call or its stream lives. While it is open its connection points to it.
 */
#ifndef ELCACHE_REQUEST_H
#define ELCACHE_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "elcache/elcache_sdk.h"
#include "frame.h"
#include "share.h"

enum { COMMAND_NUMBERS_MAX = 6, OPERATION_LEN = 24 };

/* What is asked, in a form that can be sent again. */
struct command {
    enum frame_kind kind;
    unsigned flags;
    const void *key;
    size_t key_len;
    struct command_number {
        enum frame_tag tag;
        uint64_t value;
    } numbers[COMMAND_NUMBERS_MAX];
    size_t number_count;
    uint8_t operation[OPERATION_LEN];
    int has_operation;
    int has_deadline;  /* the node is told when the caller goes */
    int is_read_only;  /* it may be sent again when the connection broke, whatever became of it */
};

struct command command_new(enum frame_kind kind, unsigned flags, const void *key, size_t key_len);
void command_add(struct command *command, enum frame_tag tag, uint64_t value);
/* The number of this tag; 0: it was not added. */
uint64_t command_number(const struct command *command, enum frame_tag tag);

/* The fields of a reply. */
struct answer {
    uint64_t status;
    uint64_t size;
    uint64_t length; /* bytes of data in all */
    uint64_t chunks;
    uint64_t modified_ms;
    uint64_t expires_ms; /* 0: never */
    uint64_t user_flags;
    uint64_t covered;
    uint8_t digest[FRAME_DIGEST_LEN];
};

void answer_decode(const struct frame_fields *fields, struct answer *answer);
elcache_metadata_t answer_metadata(const struct answer *answer);
elcache_error_t status_error(uint64_t status);

/* Where bytes of an answer go. It always has space for what the node was told that it may send. */
struct sink {
    const struct sink_ops {
        /* The answer begins: makes space for the window, or says why the bytes are not wanted. */
        elcache_error_t (*begin)(struct sink *sink, const struct answer *answer);
        /* Where the next bytes belong, and how many may be put there; as long as the window is open there is a
         * place. */
        uint8_t *(*space)(struct sink *sink, size_t *len);
        /* So many bytes were put there. */
        void (*filled)(struct sink *sink, size_t len);
    } *ops;
};

enum request_state {
    REQUEST_WAITING,  /* nothing has come yet */
    REQUEST_ANSWERED, /* the reply is there, bytes are to follow */
    REQUEST_OVER      /* `error` says how it ended */
};

struct request {
    uint64_t id;
    enum frame_kind kind;
    uint64_t offset; /* of the first byte that is asked for */
    uint64_t length; /* how many are; 0: all */
    enum request_state state;
    elcache_error_t error;
    int is_sent;     /* its last byte went out: until then the node has done nothing */
    int is_answered; /* some bytes of an answer came */
    int is_broken;   /* it ended because its connection did */
    int is_stale;    /* it ended because what was read in place changed meanwhile */
    int may_keep;    /* the answer is current, and `kept` says what of it can be kept */
    struct kept kept;
    struct answer answer;
    struct sink *sink;   /* NULL: the answer has no data */
    uint64_t received;   /* bytes of data that came, since it was sent last */
    uint64_t window;     /* bytes that the node may send still */
    uint64_t credit;     /* bytes that may be sent to the node still */
    uint64_t credit_due; /* bytes by which the node is to be told that the window grew */
    char message[FRAME_MESSAGE_MAX + 1];
};

/* Makes it ready to be sent, for the first time or again. */
void request_reset(struct request *request, const struct command *command, struct sink *sink, uint64_t window);

/* Ends it with an error and the reason for it. */
void request_end(struct request *request, elcache_error_t error, const char *message, size_t message_len);

/* Bytes that lie one behind the other in memory of a fixed size. */
struct buffer_sink {
    struct sink base;
    uint8_t *bytes;
    size_t capacity;
    size_t len;
};

/* Takes `capacity` bytes, and answers that are longer not at all (ELCACHE_ERR_BUFFER_TOO_SMALL). */
void buffer_sink_init(struct buffer_sink *sink, void *bytes, size_t capacity);

uint8_t *buffer_sink_space(struct sink *sink, size_t *len);
void buffer_sink_filled(struct sink *sink, size_t len);

#endif
