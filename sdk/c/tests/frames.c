/* The codec: against the examples of docs/protocol.md (argument 1), its own round trip, and bytes that mean
 * nothing. */
#include "../src/frame.h"
#include "check.h"

enum { EXAMPLES = 6, EXAMPLE_MAX = 256 };

struct example {
    uint8_t bytes[EXAMPLE_MAX];
    size_t len;
};

static struct example examples[EXAMPLES];

/* The ```hex blocks, in order. */
static void read_examples(const char *path) {
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    char line[4096];
    int is_open = 0;
    size_t count = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "```", 3) == 0) {
            count += (size_t)(is_open != 0);
            is_open = strncmp(line, "```hex", 6) == 0;
            continue;
        }
        char *at = line;
        unsigned byte;
        int used;
        while (is_open && sscanf(at, "%2x%n", &byte, &used) == 1) {
            CHECK(count < EXAMPLES && examples[count].len < EXAMPLE_MAX);
            examples[count].bytes[examples[count].len++] = (uint8_t)byte;
            at += used;
        }
    }
    CHECK(count == EXAMPLES);
    fclose(file);
}

static struct frame_writer writer_on(uint8_t *bytes, size_t capacity) {
    struct frame_writer writer = {0};
    writer.bytes = bytes;
    writer.capacity = capacity;
    memset(bytes, 0, capacity);
    return writer;
}

static void expect_example(const struct frame_writer *writer, size_t example) {
    CHECK(!writer->overflow);
    CHECK(writer->len == examples[example].len);
    CHECK(memcmp(writer->bytes, examples[example].bytes, writer->len) == 0);
}

static void examples_are_what_is_written(void) {
    uint8_t bytes[EXAMPLE_MAX];
    struct frame_writer writer = writer_on(bytes, sizeof bytes);
    frame_begin(&writer, FRAME_HELLO, 0, 0);
    frame_add_number(&writer, TAG_VERSION_MIN, 1);
    frame_add_number(&writer, TAG_VERSION_MAX, 1);
    frame_add_number(&writer, TAG_FEATURES, 1);
    frame_finish(&writer, 0);
    expect_example(&writer, 0);

    writer = writer_on(bytes, sizeof bytes);
    frame_begin(&writer, FRAME_GET, 0, 7);
    frame_add_bytes(&writer, TAG_KEY, "a/b", 3);
    frame_add_number(&writer, TAG_OFFSET, 2);
    frame_add_number(&writer, TAG_LENGTH, 3);
    frame_finish(&writer, 0);
    expect_example(&writer, 1);

    writer = writer_on(bytes, sizeof bytes);
    frame_begin(&writer, FRAME_PUT, FRAME_END, 8);
    frame_add_bytes(&writer, TAG_KEY, "a/b", 3);
    frame_add_number(&writer, TAG_SIZE, 2);
    frame_add_number(&writer, TAG_TTL, 60);
    frame_finish(&writer, 2);
    memcpy(writer.bytes + writer.len, "hi", 2);
    writer.len += 2;
    expect_example(&writer, 3);

    writer = writer_on(bytes, sizeof bytes);
    frame_begin(&writer, FRAME_CREDIT, 0, 8);
    frame_add_number(&writer, TAG_WINDOW, 1048576);
    frame_finish(&writer, 0);
    expect_example(&writer, 4);

    writer = writer_on(bytes, sizeof bytes);
    frame_begin(&writer, FRAME_CANCEL, 0, 9);
    frame_finish(&writer, 0);
    expect_example(&writer, 5);
}

static void examples_are_understood(void) {
    struct frame_header header;
    struct frame_fields fields;
    const struct example *answer = &examples[2];
    CHECK(frame_header_decode(answer->bytes, &header) == NULL);
    CHECK(header.kind == FRAME_REPLY && header.flags == FRAME_END && header.id == 7 && header.data_len == 3);
    CHECK(frame_fields_decode(answer->bytes + FRAME_HEADER_LEN, header.fields_len, &fields) == NULL);
    CHECK(frame_number(&fields, TAG_STATUS, 99) == STATUS_OK);
    CHECK(frame_number(&fields, TAG_SIZE, 99) == 5 && frame_number(&fields, TAG_LENGTH, 99) == 3);
    CHECK(!frame_has(&fields, TAG_DIGEST) && frame_number(&fields, TAG_CHUNKS, 99) == 99);
    CHECK(memcmp(answer->bytes + FRAME_HEADER_LEN + header.fields_len, "llo", 3) == 0);
    for (size_t i = 0; i < EXAMPLES; i++) {
        CHECK(frame_header_decode(examples[i].bytes, &header) == NULL);
        CHECK(FRAME_HEADER_LEN + header.fields_len + header.data_len == examples[i].len);
        CHECK(frame_fields_decode(examples[i].bytes + FRAME_HEADER_LEN, header.fields_len, &fields) == NULL);
    }
}

static void add_field(uint8_t *bytes, size_t *len, unsigned tag, size_t field_len) {
    bytes[(*len)++] = (uint8_t)tag;
    bytes[(*len)++] = (uint8_t)(tag >> 8);
    bytes[(*len)++] = (uint8_t)field_len;
    bytes[(*len)++] = (uint8_t)(field_len >> 8);
    memset(bytes + *len, 'x', field_len);
    *len += field_len;
}

static const char *decode_field(unsigned tag, size_t field_len) {
    static uint8_t bytes[70000];
    struct frame_fields fields;
    size_t len = 0;
    add_field(bytes, &len, tag, field_len);
    return frame_fields_decode(bytes, len, &fields);
}

static void fields_have_lengths(void) {
    CHECK(decode_field(TAG_STATUS, 8) == NULL && decode_field(TAG_STATUS, 7) != NULL);
    CHECK(decode_field(TAG_STATUS, 9) != NULL && decode_field(TAG_STATUS, 0) != NULL);
    CHECK(decode_field(TAG_KEY, 1) == NULL && decode_field(TAG_KEY, 8192) == NULL);
    CHECK(decode_field(TAG_KEY, 0) != NULL && decode_field(TAG_KEY, 8193) != NULL);
    CHECK(decode_field(TAG_DIGEST, 32) == NULL && decode_field(TAG_DIGEST, 31) != NULL);
    CHECK(decode_field(TAG_MESSAGE, 0) == NULL && decode_field(TAG_MESSAGE, 1025) != NULL);
    CHECK(decode_field(TAG_OPERATION, 64) == NULL && decode_field(TAG_OPERATION, 65) != NULL);
}

static void unknown_fields_are_passed_over_unless_they_have_to_be_known(void) {
    CHECK(decode_field(20, 3) == NULL && decode_field(39, 3) == NULL && decode_field(0x7fff, 0) == NULL);
    CHECK(decode_field(0, 3) == NULL);
    CHECK(decode_field(0x8000, 3) != NULL && decode_field(0xffff, 0) != NULL);
}

static void a_field_comes_once(void) {
    uint8_t bytes[64];
    struct frame_fields fields;
    size_t len = 0;
    add_field(bytes, &len, TAG_SIZE, 8);
    add_field(bytes, &len, TAG_SIZE, 8);
    CHECK(frame_fields_decode(bytes, len, &fields) != NULL);
    for (size_t cut = 1; cut < 12; cut++) {
        CHECK(frame_fields_decode(bytes, cut, &fields) != NULL);
    }
    CHECK(frame_fields_decode(bytes, 12, &fields) == NULL && frame_fields_decode(bytes, 0, &fields) == NULL);
}

static void headers_have_limits(void) {
    uint8_t bytes[FRAME_HEADER_LEN] = {FRAME_VERSION, FRAME_DATA};
    struct frame_header header;
    CHECK(frame_header_decode(bytes, &header) == NULL);
    bytes[6] = 1;
    CHECK(frame_header_decode(bytes, &header) == NULL && header.fields_len == FRAME_FIELDS_MAX);
    bytes[4] = 1;
    CHECK(frame_header_decode(bytes, &header) != NULL);
    memset(bytes + 4, 0, 4);
    bytes[18] = 0x80;
    CHECK(frame_header_decode(bytes, &header) == NULL && header.data_len == FRAME_DATA_MAX);
    bytes[16] = 1;
    CHECK(frame_header_decode(bytes, &header) != NULL);
    memset(bytes + 16, 0xff, 8);
    CHECK(frame_header_decode(bytes, &header) != NULL);
    memset(bytes + 16, 0, 8);
    bytes[0] = 2;
    CHECK(frame_header_decode(bytes, &header) != NULL);
}

/* A writer of every size: never a byte behind its end, and overflow exactly where the frame does not fit. */
static void what_does_not_fit_is_not_written(void) {
    enum { LEN = FRAME_HEADER_LEN + 12 + 7 };
    for (size_t capacity = 0; capacity <= LEN; capacity++) {
        uint8_t *bytes = malloc(capacity > 0 ? capacity : 1);
        CHECK(bytes != NULL);
        struct frame_writer writer = writer_on(bytes, capacity);
        frame_begin(&writer, FRAME_GET, 0, 1);
        frame_add_number(&writer, TAG_OFFSET, 1);
        frame_add_bytes(&writer, TAG_KEY, "abc", 3);
        frame_finish(&writer, 0);
        CHECK(writer.overflow == (capacity < LEN));
        CHECK(writer.len <= capacity);
        free(bytes);
    }
}

/* Each input lies in memory of exactly its length, so that the address sanitizer sees a read behind it. */
static void bytes_that_mean_nothing_are_refused_or_harmless(void) {
    uint64_t state = 1;
    for (int round = 0; round < 200000; round++) {
        size_t len = random_next(&state) % 96;
        uint8_t *bytes = malloc(len > 0 ? len : 1);
        CHECK(bytes != NULL);
        fill_bytes(bytes, len, random_next(&state));
        for (size_t at = 0; at < len; at++) {
            /* Small numbers, so that tags and lengths are often possible ones. */
            bytes[at] = random_next(&state) % 4 == 0 ? bytes[at] : (uint8_t)(bytes[at] % 16);
        }
        struct frame_fields fields;
        if (frame_fields_decode(bytes, len, &fields) == NULL) {
            for (unsigned tag = 0; tag < TAG_COUNT; tag++) {
                if (frame_has(&fields, (enum frame_tag)tag)) {
                    CHECK(fields.spans[tag].bytes >= bytes);
                    CHECK(fields.spans[tag].bytes + fields.spans[tag].len <= bytes + len);
                }
            }
        }
        struct frame_header header;
        if (len >= FRAME_HEADER_LEN && frame_header_decode(bytes, &header) == NULL) {
            CHECK(header.fields_len <= FRAME_FIELDS_MAX && header.data_len <= FRAME_DATA_MAX);
        }
        free(bytes);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    read_examples(argv[1]);
    RUN(examples_are_what_is_written);
    RUN(examples_are_understood);
    RUN(fields_have_lengths);
    RUN(unknown_fields_are_passed_over_unless_they_have_to_be_known);
    RUN(a_field_comes_once);
    RUN(headers_have_limits);
    RUN(what_does_not_fit_is_not_written);
    RUN(bytes_that_mean_nothing_are_refused_or_harmless);
    return 0;
}
