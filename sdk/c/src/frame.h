/*
 * The frames of docs/protocol.md: bytes to types and back. No I/O, no allocation; a decoder reads nothing behind the
 * length that it is given, whatever the bytes say.
 */
#ifndef ELCACHE_FRAME_H
#define ELCACHE_FRAME_H

#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_VERSION = 1,
    FRAME_HEADER_LEN = 24,
    FRAME_FIELDS_MAX = 65536,
    FRAME_DATA_MAX = 8388608,
    FRAME_OPERATION_MAX = 64,
    FRAME_DIGEST_LEN = 32,
    FRAME_MESSAGE_MAX = 1024,
    FRAME_RUNS_MAX = 4096,
    FRAME_RUN_LEN = 16
};

/* What a client says before its first frame. */
#define FRAME_PREAMBLE "ELCACHE\n"
#define FRAME_PREAMBLE_LEN 8

enum frame_kind {
    FRAME_HELLO = 1,
    FRAME_PING = 2,
    FRAME_GET = 16,
    FRAME_STAT = 17,
    FRAME_PUT = 18,
    FRAME_DELETE = 19,
    FRAME_SPARSE_OPEN = 20,
    FRAME_SPARSE_WRITE = 21,
    FRAME_SPARSE_FINALIZE = 22,
    FRAME_SPARSE_ABORT = 23,
    FRAME_SHARE = 48,
    FRAME_MAP = 49,
    FRAME_DATA = 64,
    FRAME_CREDIT = 65,
    FRAME_CANCEL = 66,
    FRAME_REPLY = 128,
    FRAME_PLACES = 129
};

/* Bits of TAG_FEATURES. */
enum { FRAME_FEATURE_SHARED = 1 };

enum frame_flag {
    FRAME_END = 1,
    FRAME_GET_PARTIAL = 2,
    FRAME_GET_COPY = 4,
    FRAME_STAT_RUNS = 2,
    FRAME_PUT_NO_MEMORY = 2,
    FRAME_PUT_NO_DISK = 4,
    FRAME_PUT_NO_CLUSTER = 8,
    FRAME_PUT_IF_ABSENT = 16,
    FRAME_PLACES_CURRENT = 2
};

enum frame_tag {
    TAG_KEY = 1,
    TAG_OFFSET = 2,
    TAG_LENGTH = 3,
    TAG_SIZE = 4,
    TAG_WINDOW = 5,
    TAG_DEADLINE = 6,
    TAG_TTL = 7,
    TAG_USER_FLAGS = 8,
    TAG_STATUS = 9,
    TAG_DIGEST = 10,
    TAG_CHUNKS = 11,
    TAG_MODIFIED = 12,
    TAG_EXPIRES = 13,
    TAG_TIER = 14,
    TAG_MESSAGE = 15,
    TAG_OPERATION = 16,
    TAG_CREATED = 17,
    TAG_AVAILABLE = 18,
    TAG_COVERED = 19,
    TAG_VERSION_MIN = 32,
    TAG_VERSION_MAX = 33,
    TAG_FEATURES = 34,
    TAG_NAME = 35,
    TAG_REQUESTS = 36,
    TAG_REGION = 37,
    TAG_RING = 38,
    TAG_COUNT = 39 /* one more than the highest that is known */
};

enum frame_status {
    STATUS_OK = 0,
    STATUS_PARTIAL = 1,
    STATUS_NOT_FOUND = 2,
    STATUS_INVALID = 3,
    STATUS_RANGE = 4,
    STATUS_KEY_TOO_LARGE = 5,
    STATUS_VALUE_TOO_LARGE = 6,
    STATUS_NO_ROOM = 7,
    STATUS_BUSY = 8,
    STATUS_TIMEOUT = 9,
    STATUS_CONDITION = 10,
    STATUS_CONFLICT = 11,
    STATUS_INCOMPLETE = 12,
    STATUS_CANCELLED = 13,
    STATUS_UNSUPPORTED = 14,
    STATUS_PROTOCOL = 15,
    STATUS_INTERNAL = 16
};

struct frame_header {
    uint8_t kind;
    uint16_t flags;
    uint32_t fields_len;
    uint64_t id;
    uint64_t data_len;
};

/* NULL, or what is wrong with the 24 bytes. */
const char *frame_header_decode(const uint8_t *bytes, struct frame_header *header);

/* The fields of a frame. They point into the bytes that were decoded. */
struct frame_fields {
    uint64_t present; /* a bit for each known tag */
    struct frame_span {
        const uint8_t *bytes;
        uint16_t len;
    } spans[TAG_COUNT]; /* set where `present` says so */
};

/* NULL, or what is wrong with them. */
const char *frame_fields_decode(const uint8_t *bytes, size_t len, struct frame_fields *fields);

int frame_has(const struct frame_fields *fields, enum frame_tag tag);

/* A field that is a number, or `otherwise` where it is absent. */
uint64_t frame_number(const struct frame_fields *fields, enum frame_tag tag, uint64_t otherwise);

/* Writes frames one behind the other into memory of a fixed size. What does not fit sets `overflow` and is not
 * written. */
struct frame_writer {
    uint8_t *bytes;
    size_t capacity;
    size_t len;
    size_t frame; /* where the frame begins that is being written */
    int overflow;
};

void frame_begin(struct frame_writer *writer, enum frame_kind kind, unsigned flags, uint64_t id);
void frame_add_number(struct frame_writer *writer, enum frame_tag tag, uint64_t value);
void frame_add_bytes(struct frame_writer *writer, enum frame_tag tag, const void *bytes, size_t len);
/* Completes the header; `data_len` bytes of data are to follow. */
void frame_finish(struct frame_writer *writer, uint64_t data_len);

uint64_t frame_load_u64(const uint8_t *bytes);
void frame_store_u64(uint8_t *bytes, uint64_t value);

#endif
