/*
 * The memory that the node shares: the regions in which its values lie, the words that say whether what was read there
 * is good, and the answers that are kept as long as they are. docs/protocol.md, "Places".
 */
#ifndef ELCACHE_SHARE_H
#define ELCACHE_SHARE_H

#include <stddef.h>
#include <stdint.h>

struct share;

/* A run of bytes in a region, as a frame of places has it. */
struct place {
    uint32_t region;
    uint32_t watch;
    uint64_t generation;
    uint64_t offset;
    uint64_t length;
    uint64_t record;
};

enum { PLACE_LEN = 40 };

void place_decode(const uint8_t *bytes, struct place *place);

/* Begins with this session and the watch, whose descriptor it takes. NULL: errno says why, EPROTO if it is no
 * watch. */
struct share *share_begin(uint8_t *session, int watch_fd);
void share_end(struct share *share);

/* Where the bytes of a place are; NULL: its region is not mapped, or the place does not lie in it. */
const uint8_t *share_bytes(struct share *share, const struct place *place);

/* Maps a region and closes the descriptor. -1: errno says why. */
int share_map(struct share *share, uint32_t region, int fd);

/* Whether the place is what it was when the node told of it. To be asked before the bytes are copied and after that;
 * only the copy of what was good both times is. */
int share_is_good(const struct share *share, const struct place *place);

/* Whether the node has died, or is about to stop. */
int share_has_ended(const struct share *share);

/* What is kept of a value besides its place. */
struct kept {
    struct place place;
    uint64_t size;
    uint64_t chunks;
    uint64_t user_flags;
    uint64_t modified_ms;
    uint64_t expires_ms; /* 0: never */
};

/* Keeps an answer that says that it is current. A long key is not kept. */
void share_keep(struct share *share, const void *key, size_t key_len, const struct kept *kept);

/* What is kept of a key and is good now; NULL: ask. */
const struct kept *share_find(const struct share *share, const void *key, size_t key_len);

/* Copies from a kept value, `length` bytes from `offset` on, which have to lie in it. 0: it is no longer good and the
 * copy is worth nothing. */
int share_copy(struct share *share, const struct kept *kept, uint64_t offset, void *buffer, size_t length);

#endif
