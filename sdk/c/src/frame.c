#include "frame.h"

#include <string.h>

enum { FIELD_HEADER_LEN = 4, TAG_HAS_TO_BE_KNOWN = 0x8000 };

/* What a known tag carries. A number is 8 bytes long; of the others the length has bounds. */
struct tag_type {
    uint16_t len_min;
    uint16_t len_max;
};

#define NUMBER {8, 8}

static const struct tag_type TAG_TYPES[TAG_COUNT] = {
    [TAG_KEY] = {1, 8192},
    [TAG_OFFSET] = NUMBER,
    [TAG_LENGTH] = NUMBER,
    [TAG_SIZE] = NUMBER,
    [TAG_WINDOW] = NUMBER,
    [TAG_DEADLINE] = NUMBER,
    [TAG_TTL] = NUMBER,
    [TAG_USER_FLAGS] = NUMBER,
    [TAG_STATUS] = NUMBER,
    [TAG_DIGEST] = {FRAME_DIGEST_LEN, FRAME_DIGEST_LEN},
    [TAG_CHUNKS] = NUMBER,
    [TAG_MODIFIED] = NUMBER,
    [TAG_EXPIRES] = NUMBER,
    [TAG_TIER] = NUMBER,
    [TAG_MESSAGE] = {0, FRAME_MESSAGE_MAX},
    [TAG_OPERATION] = {1, FRAME_OPERATION_MAX},
    [TAG_CREATED] = NUMBER,
    [TAG_AVAILABLE] = NUMBER,
    [TAG_COVERED] = NUMBER,
    [TAG_VERSION_MIN] = NUMBER,
    [TAG_VERSION_MAX] = NUMBER,
    [TAG_FEATURES] = NUMBER,
    [TAG_NAME] = {0, UINT16_MAX},
    [TAG_REQUESTS] = NUMBER,
    [TAG_REGION] = NUMBER,
    [TAG_RING] = NUMBER,
};

/* Byte by byte, so that neither alignment nor the machine's byte order matters; compilers make one load of it. */
static uint64_t load(const uint8_t *bytes, size_t len) {
    uint64_t value = 0;
    for (size_t i = 0; i < len; i++) {
        value |= (uint64_t)bytes[i] << (8 * i);
    }
    return value;
}

static void store(uint8_t *bytes, size_t len, uint64_t value) {
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
}

uint64_t frame_load_u64(const uint8_t *bytes) {
    return load(bytes, 8);
}

void frame_store_u64(uint8_t *bytes, uint64_t value) {
    store(bytes, 8, value);
}

const char *frame_header_decode(const uint8_t *bytes, struct frame_header *header) {
    if (bytes[0] != FRAME_VERSION) {
        return "a frame of another version";
    }
    header->kind = bytes[1];
    header->flags = (uint16_t)load(bytes + 2, 2);
    header->fields_len = (uint32_t)load(bytes + 4, 4);
    header->id = load(bytes + 8, 8);
    header->data_len = load(bytes + 16, 8);
    if (header->fields_len > FRAME_FIELDS_MAX) {
        return "fields longer than a frame may have";
    }
    if (header->data_len > FRAME_DATA_MAX) {
        return "more data than a frame may have";
    }
    return NULL;
}

static const char *add_field(struct frame_fields *fields, uint16_t tag, const uint8_t *bytes, uint16_t len) {
    if (tag >= TAG_COUNT || TAG_TYPES[tag].len_max == 0) {
        return tag >= TAG_HAS_TO_BE_KNOWN ? "a field that has to be known and is not" : NULL;
    }
    if (len < TAG_TYPES[tag].len_min || len > TAG_TYPES[tag].len_max) {
        return "a field of a length that it cannot have";
    }
    if (frame_has(fields, (enum frame_tag)tag)) {
        return "a field that comes twice";
    }
    fields->present |= UINT64_C(1) << tag;
    fields->spans[tag].bytes = bytes;
    fields->spans[tag].len = len;
    return NULL;
}

const char *frame_fields_decode(const uint8_t *bytes, size_t len, struct frame_fields *fields) {
    fields->present = 0;
    size_t at = 0;
    while (at < len) {
        if (len - at < FIELD_HEADER_LEN) {
            return "a field that is cut off";
        }
        uint16_t tag = (uint16_t)load(bytes + at, 2);
        uint16_t field_len = (uint16_t)load(bytes + at + 2, 2);
        at += FIELD_HEADER_LEN;
        if (len - at < field_len) {
            return "a field that is cut off";
        }
        const char *wrong = add_field(fields, tag, bytes + at, field_len);
        if (wrong != NULL) {
            return wrong;
        }
        at += field_len;
    }
    return NULL;
}

int frame_has(const struct frame_fields *fields, enum frame_tag tag) {
    return (int)(fields->present >> tag & 1);
}

uint64_t frame_number(const struct frame_fields *fields, enum frame_tag tag, uint64_t otherwise) {
    return frame_has(fields, tag) ? load(fields->spans[tag].bytes, 8) : otherwise;
}

/* Room for so many bytes more; NULL, and the writer is spoilt, if there is none. */
static uint8_t *room(struct frame_writer *writer, size_t len) {
    if (writer->overflow || writer->capacity - writer->len < len) {
        writer->overflow = 1;
        return NULL;
    }
    uint8_t *at = writer->bytes + writer->len;
    writer->len += len;
    return at;
}

void frame_begin(struct frame_writer *writer, enum frame_kind kind, unsigned flags, uint64_t id) {
    writer->frame = writer->len;
    uint8_t *at = room(writer, FRAME_HEADER_LEN);
    if (at == NULL) {
        return;
    }
    at[0] = FRAME_VERSION;
    at[1] = (uint8_t)kind;
    store(at + 2, 2, flags);
    store(at + 8, 8, id);
}

void frame_add_number(struct frame_writer *writer, enum frame_tag tag, uint64_t value) {
    uint8_t bytes[8];
    store(bytes, 8, value);
    frame_add_bytes(writer, tag, bytes, sizeof bytes);
}

void frame_add_bytes(struct frame_writer *writer, enum frame_tag tag, const void *bytes, size_t len) {
    uint8_t *at = len <= UINT16_MAX ? room(writer, FIELD_HEADER_LEN + len) : NULL;
    if (at == NULL) {
        writer->overflow = 1;
        return;
    }
    store(at, 2, (uint64_t)tag);
    store(at + 2, 2, len);
    memcpy(at + FIELD_HEADER_LEN, bytes, len);
}

void frame_finish(struct frame_writer *writer, uint64_t data_len) {
    if (writer->overflow) {
        return;
    }
    uint8_t *header = writer->bytes + writer->frame;
    store(header + 4, 4, writer->len - writer->frame - FRAME_HEADER_LEN);
    store(header + 16, 8, data_len);
}
