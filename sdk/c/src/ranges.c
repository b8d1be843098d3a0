/* Reading a range, and what of a range is there. */
#include <stdlib.h>
#include <string.h>

#include "values.h"

enum {
    RUNS_LEN = FRAME_RUNS_MAX * FRAME_RUN_LEN,
    /* How often a value may be replaced while it is being looked at. */
    LOOKS_MAX = 4
};

/* A value has no more pieces, and there is no more than one range for each. */
#define CHUNKS_MAX (ELCACHE_MAX_VALUE_LEN / 4194304)

elcache_error_t elcache_client_read_range(elcache_client_t *client, const void *key, size_t key_len, uint64_t offset,
                                          void *buffer, size_t buffer_size, size_t *bytes_read) {
    elcache_error_t error = client_check_key(client, "read_range", key, key_len);
    if (bytes_read != NULL) {
        *bytes_read = 0;
    }
    if (error != ELCACHE_OK) {
        return error;
    }
    if (bytes_read == NULL || (buffer == NULL && buffer_size > 0)) {
        return client_fail(client, "read_range", ELCACHE_ERR_INVALID_ARG, "there is no place for the result");
    }
    elcache_get_options_t wanted = ELCACHE_GET_OPTIONS_INIT;
    wanted.offset = offset;
    /* No length means all: so an empty buffer asks for a byte, and is then told that it is too small for it. */
    wanted.length = buffer_size > 0 ? buffer_size : 1;
    struct call call = call_new(client, "read_range", 0);
    struct command command = get_command(key, key_len, &wanted, wanted.length);
    struct request request;
    error = read_into(&call, &command, buffer, buffer_size, bytes_read, &request);
    if (buffer_size == 0 && error == ELCACHE_ERR_BUFFER_TOO_SMALL) {
        *bytes_read = 0;
        error = ELCACHE_OK;
    }
    call_count_read(&call, error, *bytes_read);
    return call_end(&call, error, request.message);
}

/* --- Availability --- */

/* Ranges that are found one behind the other. */
struct ranges {
    elcache_range_t *items;
    size_t count;
    size_t capacity;
};

static elcache_error_t add_range(struct ranges *ranges, uint64_t begin, uint64_t end) {
    if (begin == end) {
        return ELCACHE_OK;
    }
    elcache_range_t *last = ranges->count > 0 ? &ranges->items[ranges->count - 1] : NULL;
    if (last != NULL && last->offset + last->length == begin) {
        last->length += end - begin;
        return ELCACHE_OK;
    }
    if (ranges->count == ranges->capacity) {
        size_t capacity = ranges->capacity == 0 ? 16 : ranges->capacity * 2;
        elcache_range_t *items =
            capacity <= SIZE_MAX / sizeof *items ? realloc(ranges->items, capacity * sizeof *items) : NULL;
        if (items == NULL) {
            return ELCACHE_ERR_OUT_OF_MEMORY;
        }
        ranges->items = items;
        ranges->capacity = capacity;
    }
    ranges->items[ranges->count].offset = begin;
    ranges->items[ranges->count].length = end - begin;
    ranges->count++;
    return ELCACHE_OK;
}

/* One look at a value: it goes on from answer to answer until `at` is `end`. */
struct look {
    const void *key;
    size_t key_len;
    uint64_t at;
    uint64_t end; /* known after the first answer */
    int is_first;
    uint8_t digest[FRAME_DIGEST_LEN];
    struct ranges there;
    struct ranges missing;
    uint64_t chunks; /* of the value */
    uint8_t *runs; /* RUNS_LEN bytes */
};

/* The runs of an answer, checked: they are in order, and within what it tells of, and no more than there can be. */
static elcache_error_t add_runs(struct look *look, size_t runs_len, uint64_t covered) {
    for (size_t i = 0; i + FRAME_RUN_LEN <= runs_len; i += FRAME_RUN_LEN) {
        uint64_t begin = frame_load_u64(look->runs + i);
        uint64_t len = frame_load_u64(look->runs + i + 8);
        if (begin < look->at || begin > covered || len > covered - begin) {
            return ELCACHE_ERR_PROTOCOL;
        }
        elcache_error_t error = add_range(&look->missing, look->at, begin);
        error = error == ELCACHE_OK ? add_range(&look->there, begin, begin + len) : error;
        if (error != ELCACHE_OK) {
            return error;
        }
        if (look->there.count + look->missing.count > look->chunks) {
            return ELCACHE_ERR_PROTOCOL;
        }
        look->at = begin + len;
    }
    elcache_error_t error = add_range(&look->missing, look->at, covered);
    look->at = covered;
    return error;
}

/* Begins with the first answer; a later one has to be of the same value. ELCACHE_ERR_CONFLICT: it is not. */
static elcache_error_t same_value(struct look *look, const struct answer *answer, uint64_t length) {
    if (!look->is_first) {
        return memcmp(look->digest, answer->digest, sizeof look->digest) == 0 ? ELCACHE_OK : ELCACHE_ERR_CONFLICT;
    }
    if (look->at > answer->size) {
        return ELCACHE_ERR_INVALID_ARG;
    }
    uint64_t left = answer->size - look->at;
    look->end = length == 0 || length > left ? answer->size : look->at + length;
    look->is_first = 0;
    look->chunks = answer->chunks < CHUNKS_MAX ? answer->chunks : CHUNKS_MAX;
    memcpy(look->digest, answer->digest, sizeof look->digest);
    return ELCACHE_OK;
}

static elcache_error_t ask_runs(struct call *call, struct look *look, uint64_t length, struct request *request) {
    struct command command = command_new(FRAME_STAT, FRAME_STAT_RUNS, look->key, look->key_len);
    command.is_read_only = 1;
    command_add(&command, TAG_OFFSET, look->at);
    if (length > 0) {
        command_add(&command, TAG_LENGTH, look->is_first ? length : look->end - look->at);
    }
    struct buffer_sink sink;
    buffer_sink_init(&sink, look->runs, RUNS_LEN);
    struct exchange exchange = {0};
    exchange.request = request;
    exchange.sink = &sink.base;
    exchange.window = RUNS_LEN;
    exchange.until = REQUEST_OVER;
    elcache_error_t error = call_run(call, &command, &exchange);
    if (error != ELCACHE_OK && error != ELCACHE_ERR_PARTIAL) {
        return error;
    }
    error = same_value(look, &request->answer, length);
    if (error != ELCACHE_OK || look->at == look->end) {
        return error;
    }
    uint64_t covered = request->answer.covered;
    /* An answer that tells of nothing would be asked for for ever. */
    if (sink.len % FRAME_RUN_LEN != 0 || covered <= look->at || covered > look->end) {
        return ELCACHE_ERR_PROTOCOL;
    }
    return add_runs(look, sink.len, covered);
}

static elcache_error_t look_once(struct call *call, struct look *look, uint64_t offset, uint64_t length,
                                 struct request *request) {
    look->at = offset;
    look->is_first = 1;
    look->there.count = 0;
    look->missing.count = 0;
    do {
        elcache_error_t error = ask_runs(call, look, length, request);
        if (error != ELCACHE_OK) {
            return error;
        }
    } while (look->at < look->end);
    return ELCACHE_OK;
}

/* Looks until a look has met one value only. */
static elcache_error_t look_through(struct call *call, struct look *look, uint64_t offset, uint64_t length,
                                    struct request *request) {
    for (int looks = 0; looks < LOOKS_MAX; looks++) {
        elcache_error_t error = look_once(call, look, offset, length, request);
        if (error != ELCACHE_ERR_CONFLICT) {
            return error;
        }
    }
    return ELCACHE_ERR_BUSY;
}

static void fill(elcache_availability_t *availability, const struct look *look, const struct answer *answer) {
    availability->exists = 1;
    availability->metadata = answer_metadata(answer);
    availability->available_ranges = look->there.items;
    availability->available_count = look->there.count;
    availability->missing_ranges = look->missing.items;
    availability->missing_count = look->missing.count;
}

elcache_error_t elcache_client_check_availability(elcache_client_t *client, const void *key, size_t key_len,
                                                  uint64_t offset, uint64_t length,
                                                  elcache_availability_t *availability) {
    elcache_error_t error = client_check_key(client, "check_availability", key, key_len);
    if (availability != NULL) {
        memset(availability, 0, sizeof *availability);
    }
    if (error != ELCACHE_OK) {
        return error;
    }
    if (availability == NULL) {
        return client_fail(client, "check_availability", ELCACHE_ERR_INVALID_ARG, "there is no place for the result");
    }
    struct call call = call_new(client, "check_availability", 0);
    struct request request;
    request.message[0] = '\0';
    struct look look = {0};
    look.key = key;
    look.key_len = key_len;
    look.runs = malloc(RUNS_LEN);
    error = look.runs == NULL ? ELCACHE_ERR_OUT_OF_MEMORY : look_through(&call, &look, offset, length, &request);
    free(look.runs);
    if (error == ELCACHE_OK) {
        fill(availability, &look, &request.answer);
    } else {
        free(look.there.items);
        free(look.missing.items);
    }
    return call_end(&call, error == ELCACHE_ERR_NOT_FOUND ? ELCACHE_OK : error, request.message);
}

void elcache_availability_free(elcache_availability_t *availability) {
    if (availability == NULL) {
        return;
    }
    free(availability->available_ranges);
    free(availability->missing_ranges);
    memset(availability, 0, sizeof *availability);
}
