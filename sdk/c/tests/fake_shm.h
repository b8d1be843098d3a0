/* The fake node's half of a session over shared memory. It keeps to the protocol, except where a test reaches into
 * its memory or says something that is not so. */
#ifndef ELCACHE_TESTS_FAKE_SHM_H
#define ELCACHE_TESTS_FAKE_SHM_H

#include "../src/share.h"
#include "fake.h"

enum {
    SHM_RING = 65536,
    SHM_WORDS = 16,
    SHM_GENERATION = 5, /* what all words hold at first */
    SHM_REGION = 7,     /* the number of the only region */
    SHM_REGION_LEN = 1048576
};

/* Where things lie in a session. */
enum {
    SHM_AT_LAYOUT = 4,
    SHM_AT_CAPACITY = 8,
    SHM_AT_REQUESTS_WRITTEN = 64,
    SHM_AT_REQUESTS_READ = 128,
    SHM_AT_ANSWERS_WRITTEN = 192,
    SHM_AT_ANSWERS_READ = 256,
    SHM_AT_CLIENT_WAITS = 320
};

struct fake_memory {
    int fd;
    size_t len;
    uint8_t *bytes;
};

struct fake_shm {
    int fd; /* of the connection */
    struct fake_memory session;
    struct fake_memory watch;
    struct fake_memory region;
    uint64_t read;    /* requests, its own count */
    uint64_t written; /* answers, its own count */
    int lies;         /* the counts in the session are spoilt, so what follows from them may be anything */
};

/* Makes the memory, as it should be but not sealed, and the region's bytes are `fill`. */
void shm_make(struct fake_shm *shm, int fd, int fill);
/* Seals what is not against shrinking. */
void shm_seal(const struct fake_memory *memory);
/* Hello, and the request for memory, of which the number is given back. 0: the client has gone. */
uint64_t shm_greet(struct fake *fake, int fd);
/* Sends session and watch. */
void shm_grant(const struct fake_shm *shm, uint64_t id);
/* All of the above; 0: the client has gone, and there is nothing to end. */
int shm_begin(struct fake_shm *shm, struct fake *fake, int fd, int fill);
void shm_end(struct fake_shm *shm);
/* Gives the session's memory back to the system, from under whoever has mapped it. */
void shm_take_back(const struct fake_shm *shm);

_Atomic uint64_t *shm_count(const struct fake_shm *shm, size_t at);
_Atomic uint64_t *shm_word(const struct fake_shm *shm, uint32_t watch);

/* Reads a request as fake_read does. */
int shm_read(struct fake_shm *shm, struct fake_frame *frame);
/* Wakes the client, whether it sleeps or not. */
void shm_wake(const struct fake_shm *shm);
/* Writes answers, and wakes the client. 0: it has gone. */
int shm_write(struct fake_shm *shm, const void *bytes, size_t len);
int shm_reply(struct fake_shm *shm, uint64_t id, unsigned flags, uint64_t status, uint64_t length, const void *data,
              size_t len);
int shm_data(struct fake_shm *shm, uint64_t id, unsigned flags, const void *data, size_t len);
int shm_places(struct fake_shm *shm, uint64_t id, unsigned flags, const struct place *places, size_t count);
/* So many bytes of the region from `offset` on, under the word `watch`, which are good. */
struct place shm_place(uint32_t watch, uint64_t offset, uint64_t length);
void shm_encode_place(uint8_t *bytes, const struct place *place);
/* Answers a request for a region, with so many descriptors. */
void shm_map(const struct fake_shm *shm, uint64_t id, uint64_t status, size_t fd_count);

#endif
