/* What the node shares. */
#define _GNU_SOURCE
#include "share.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "memory.h"

enum {
    WATCH_MAGIC = 0x54574c45, /* "ELWT" */
    WATCH_LAYOUT = 1,
    WATCH_HEAD_LEN = 4096,
    AT_WORDS = 8,
    AT_LIFE = 64,
    AT_UNTIL = 72,
    /* In the session. */
    AT_USES = 448,
    AT_HITS = 456,
    AT_HIT_BYTES = 464,
    AT_USED = 512,
    USES = 256
};

/* Set by the kernel when the node has died. */
#define OWNER_DIED 0x40000000u

/* Regions that are mapped at once: 64 MiB of addresses each. */
#define REGIONS 256
/* Answers that are kept: sets, answers in each, and the longest key of one. */
#define SETS 1024
#define WAYS 4
#define KEPT_KEY_MAX 160

struct region {
    uint32_t number; /* 0: none */
    uint8_t *base;
    size_t len;
};

struct entry {
    uint64_t hash;
    uint16_t key_len; /* 0: none */
    struct kept kept;
    uint8_t key[KEPT_KEY_MAX];
};

struct share {
    uint8_t *session;
    uint8_t *watch;
    size_t watch_len;
    uint64_t words;
    uint64_t uses;
    struct region regions[REGIONS];
    size_t turn; /* which answer of a full set goes next */
    struct entry entries[SETS][WAYS];
};

void place_decode(const uint8_t *bytes, struct place *place) {
    uint64_t names = frame_load_u64(bytes);
    place->region = (uint32_t)names;
    place->watch = (uint32_t)(names >> 32);
    place->generation = frame_load_u64(bytes + 8);
    place->offset = frame_load_u64(bytes + 16);
    place->length = frame_load_u64(bytes + 24);
    place->record = frame_load_u64(bytes + 32);
}

static const _Atomic uint64_t *word_at(const struct share *share, size_t at) {
    return (const _Atomic uint64_t *)(const void *)(share->watch + at);
}

/* Whether the memory is a watch. */
static int is_watch(struct share *share) {
    uint32_t magic[2];
    memcpy(magic, share->watch, sizeof magic);
    share->words = frame_load_u64(share->watch + AT_WORDS);
    return magic[0] == WATCH_MAGIC && magic[1] == WATCH_LAYOUT &&
           share->words <= (share->watch_len - WATCH_HEAD_LEN) / 8;
}

struct share *share_begin(uint8_t *session, int watch_fd) {
    struct share *share = calloc(1, sizeof *share);
    if (share == NULL) {
        close(watch_fd);
        errno = ENOMEM;
        return NULL;
    }
    share->session = session;
    share->watch = memory_map(watch_fd, WATCH_HEAD_LEN, 0, &share->watch_len);
    if (share->watch != NULL && is_watch(share)) {
        return share;
    }
    int reason = share->watch == NULL ? errno : EPROTO;
    if (share->watch != NULL) {
        munmap(share->watch, share->watch_len);
    }
    free(share);
    errno = reason;
    return NULL;
}

void share_end(struct share *share) {
    if (share == NULL) {
        return;
    }
    for (size_t i = 0; i < REGIONS; i++) {
        if (share->regions[i].number != 0) {
            munmap(share->regions[i].base, share->regions[i].len);
        }
    }
    munmap(share->watch, share->watch_len);
    free(share);
}

static struct region *find_region(struct share *share, uint32_t number) {
    /* Numbers rise by one, so that as many as there is room for collide with none. */
    struct region *region = &share->regions[number % REGIONS];
    return number != 0 && region->number == number ? region : NULL;
}

const uint8_t *share_bytes(struct share *share, const struct place *place) {
    const struct region *region = find_region(share, place->region);
    if (region == NULL || place->offset > region->len || place->length > region->len - place->offset) {
        return NULL;
    }
    return region->base + place->offset;
}

int share_map(struct share *share, uint32_t number, int fd) {
    struct region *region = &share->regions[number % REGIONS];
    size_t len = 0;
    uint8_t *base = memory_map(fd, 1, 0, &len);
    if (base == NULL) {
        return -1;
    }
    if (region->number != 0) {
        munmap(region->base, region->len);
    }
    region->number = number;
    region->base = base;
    region->len = len;
    return 0;
}

int share_is_good(const struct share *share, const struct place *place) {
    if (place->watch >= share->words) {
        return 0;
    }
    /* After a copy: what was copied was read before the word is. */
    atomic_thread_fence(memory_order_acquire);
    const _Atomic uint64_t *word = word_at(share, WATCH_HEAD_LEN + 8 * (size_t)place->watch);
    return atomic_load_explicit(word, memory_order_acquire) == place->generation;
}

int share_has_ended(const struct share *share) {
    const _Atomic uint32_t *life = (const _Atomic uint32_t *)(const void *)(share->watch + AT_LIFE);
    uint32_t alive = atomic_load_explicit(life, memory_order_acquire);
    return alive == 0 || (alive & OWNER_DIED) != 0;
}

/* Whether the node lives, and lets answers be kept. */
static int may_keep(const struct share *share) {
    if (share_has_ended(share)) {
        return 0;
    }
    uint64_t until_ns = atomic_load_explicit(word_at(share, AT_UNTIL), memory_order_acquire);
    if (until_ns == UINT64_MAX) {
        return 1;
    }
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec < until_ns;
}

static int is_expired(const struct kept *kept) {
    struct timespec now;
    if (kept->expires_ms == 0) {
        return 0;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 >= kept->expires_ms;
}

static uint64_t hash(const uint8_t *bytes, size_t len) {
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15) ^ len;
    for (; len >= 8; bytes += 8, len -= 8) {
        state = (state ^ frame_load_u64(bytes)) * UINT64_C(0xff51afd7ed558ccd);
        state ^= state >> 32;
    }
    for (; len > 0; bytes++, len--) {
        state = (state ^ *bytes) * UINT64_C(0x100000001b3);
    }
    state *= UINT64_C(0xc4ceb9fe1a85ec53);
    return state ^ state >> 29;
}

static int is_of(const struct entry *entry, uint64_t hashed, const void *key, size_t key_len) {
    return entry->hash == hashed && entry->key_len == key_len && memcmp(entry->key, key, key_len) == 0;
}

/* Where to keep an answer: in the place of the same key's, of one that is worth nothing, or of another. */
static struct entry *place_for(struct share *share, uint64_t hashed, const void *key, size_t key_len) {
    struct entry *set = share->entries[hashed % SETS];
    for (size_t way = 0; way < WAYS; way++) {
        if (is_of(&set[way], hashed, key, key_len)) {
            return &set[way];
        }
    }
    for (size_t way = 0; way < WAYS; way++) {
        if (set[way].key_len == 0 || !share_is_good(share, &set[way].kept.place)) {
            return &set[way];
        }
    }
    return &set[share->turn++ % WAYS];
}

void share_keep(struct share *share, const void *key, size_t key_len, const struct kept *kept) {
    if (key_len == 0 || key_len > KEPT_KEY_MAX || kept->size != kept->place.length) {
        return;
    }
    uint64_t hashed = hash(key, key_len);
    struct entry *entry = place_for(share, hashed, key, key_len);
    entry->hash = hashed;
    entry->key_len = (uint16_t)key_len;
    entry->kept = *kept;
    memcpy(entry->key, key, key_len);
}

const struct kept *share_find(const struct share *share, const void *key, size_t key_len) {
    if (key_len == 0 || key_len > KEPT_KEY_MAX) {
        return NULL;
    }
    uint64_t hashed = hash(key, key_len);
    const struct entry *set = share->entries[hashed % SETS];
    for (size_t way = 0; way < WAYS; way++) {
        const struct entry *entry = &set[way];
        if (is_of(entry, hashed, key, key_len)) {
            int is_good = share_is_good(share, &entry->kept.place) && !is_expired(&entry->kept) && may_keep(share);
            return is_good ? &entry->kept : NULL;
        }
    }
    return NULL;
}

/* Tells the node that a value was used, without asking it anything. */
static void note_use(struct share *share, uint64_t record, uint64_t bytes) {
    _Atomic uint64_t *counts = (_Atomic uint64_t *)(void *)(share->session + AT_USES);
    _Atomic uint64_t *used = (_Atomic uint64_t *)(void *)(share->session + AT_USED);
    atomic_store_explicit(&used[share->uses % USES], record, memory_order_relaxed);
    share->uses++;
    atomic_store_explicit(&counts[0], share->uses, memory_order_release);
    atomic_store_explicit(&counts[1], share->uses, memory_order_relaxed);
    uint64_t total = atomic_load_explicit(&counts[2], memory_order_relaxed) + bytes;
    atomic_store_explicit(&counts[2], total, memory_order_relaxed);
}

int share_copy(struct share *share, const struct kept *kept, uint64_t offset, void *buffer, size_t length) {
    const uint8_t *bytes = share_bytes(share, &kept->place);
    if (bytes == NULL || !share_is_good(share, &kept->place)) {
        return 0;
    }
    if (length > 0) {
        memcpy(buffer, bytes + offset, length); /* for nothing there need be no buffer */
    }
    if (!share_is_good(share, &kept->place) || is_expired(kept) || !may_keep(share)) {
        return 0;
    }
    note_use(share, kept->place.record, length);
    return 1;
}
