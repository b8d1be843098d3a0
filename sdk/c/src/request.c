#include "request.h"

#include <string.h>

struct command command_new(enum frame_kind kind, unsigned flags, const void *key, size_t key_len) {
    struct command command;
    command.kind = kind;
    command.flags = flags;
    command.key = key;
    command.key_len = key_len;
    command.number_count = 0;
    command.has_operation = 0;
    command.has_deadline = 1;
    command.is_read_only = 0;
    return command;
}

void command_add(struct command *command, enum frame_tag tag, uint64_t value) {
    struct command_number *number = &command->numbers[command->number_count++];
    number->tag = tag;
    number->value = value;
}

uint64_t command_number(const struct command *command, enum frame_tag tag) {
    for (size_t i = 0; i < command->number_count; i++) {
        if (command->numbers[i].tag == tag) {
            return command->numbers[i].value;
        }
    }
    return 0;
}

void answer_decode(const struct frame_fields *fields, struct answer *answer) {
    answer->status = frame_number(fields, TAG_STATUS, STATUS_INTERNAL);
    answer->size = frame_number(fields, TAG_SIZE, 0);
    answer->length = frame_number(fields, TAG_LENGTH, 0);
    answer->chunks = frame_number(fields, TAG_CHUNKS, 0);
    answer->modified_ms = frame_number(fields, TAG_MODIFIED, 0);
    answer->expires_ms = frame_number(fields, TAG_EXPIRES, 0);
    answer->user_flags = frame_number(fields, TAG_USER_FLAGS, 0);
    answer->covered = frame_number(fields, TAG_COVERED, 0);
    if (frame_has(fields, TAG_DIGEST)) {
        memcpy(answer->digest, fields->spans[TAG_DIGEST].bytes, FRAME_DIGEST_LEN);
    } else {
        memset(answer->digest, 0, FRAME_DIGEST_LEN);
    }
}

elcache_metadata_t answer_metadata(const struct answer *answer) {
    elcache_metadata_t metadata;
    metadata.total_size = answer->size;
    metadata.chunk_count = answer->chunks;
    metadata.created_at = (int64_t)(answer->modified_ms / 1000);
    metadata.expires_at = (int64_t)(answer->expires_ms / 1000);
    metadata.flags = (uint32_t)answer->user_flags;
    return metadata;
}

elcache_error_t status_error(uint64_t status) {
    switch (status) {
    case STATUS_OK:
        return ELCACHE_OK;
    case STATUS_PARTIAL:
    case STATUS_INCOMPLETE:
        return ELCACHE_ERR_PARTIAL;
    case STATUS_NOT_FOUND:
        return ELCACHE_ERR_NOT_FOUND;
    case STATUS_INVALID:
    case STATUS_RANGE:
        return ELCACHE_ERR_INVALID_ARG;
    case STATUS_KEY_TOO_LARGE:
        return ELCACHE_ERR_KEY_TOO_LARGE;
    case STATUS_VALUE_TOO_LARGE:
        return ELCACHE_ERR_VALUE_TOO_LARGE;
    case STATUS_NO_ROOM:
        return ELCACHE_ERR_NO_ROOM;
    case STATUS_BUSY:
        return ELCACHE_ERR_BUSY;
    case STATUS_TIMEOUT:
        return ELCACHE_ERR_TIMEOUT;
    case STATUS_CONDITION:
    case STATUS_CONFLICT:
        return ELCACHE_ERR_CONFLICT;
    case STATUS_UNSUPPORTED:
    case STATUS_PROTOCOL:
        return ELCACHE_ERR_PROTOCOL;
    default: /* a status that is not known is INTERNAL */
        return ELCACHE_ERR_INTERNAL;
    }
}

void request_reset(struct request *request, const struct command *command, struct sink *sink, uint64_t window) {
    request->id = 0;
    request->kind = command->kind;
    request->offset = command_number(command, TAG_OFFSET);
    request->length = command_number(command, TAG_LENGTH);
    request->state = REQUEST_WAITING;
    request->error = ELCACHE_OK;
    request->is_sent = 0;
    request->is_answered = 0;
    request->is_broken = 0;
    request->is_stale = 0;
    request->may_keep = 0;
    request->sink = sink;
    request->received = 0;
    request->window = window;
    request->credit = 0;
    request->credit_due = 0;
    request->message[0] = '\0';
    memset(&request->answer, 0, sizeof request->answer);
    request->answer.status = STATUS_INTERNAL;
}

void request_end(struct request *request, elcache_error_t error, const char *message, size_t message_len) {
    size_t len = message_len < FRAME_MESSAGE_MAX ? message_len : FRAME_MESSAGE_MAX;
    request->state = REQUEST_OVER;
    request->error = error;
    if (len > 0) {
        memcpy(request->message, message, len);
    }
    request->message[len] = '\0';
}

static elcache_error_t buffer_begin(struct sink *sink, const struct answer *answer) {
    struct buffer_sink *self = (struct buffer_sink *)sink;
    self->len = 0;
    return answer->length > self->capacity ? ELCACHE_ERR_BUFFER_TOO_SMALL : ELCACHE_OK;
}

uint8_t *buffer_sink_space(struct sink *sink, size_t *len) {
    struct buffer_sink *self = (struct buffer_sink *)sink;
    *len = self->capacity - self->len;
    return self->bytes + self->len;
}

void buffer_sink_filled(struct sink *sink, size_t len) {
    ((struct buffer_sink *)sink)->len += len;
}

static const struct sink_ops BUFFER_OPS = {buffer_begin, buffer_sink_space, buffer_sink_filled};

void buffer_sink_init(struct buffer_sink *sink, void *bytes, size_t capacity) {
    sink->base.ops = &BUFFER_OPS;
    sink->bytes = bytes;
    sink->capacity = capacity;
    sink->len = 0;
}
