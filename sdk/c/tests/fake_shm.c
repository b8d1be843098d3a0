#define _GNU_SOURCE
#include "fake_shm.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

enum { CONTROL_LEN = 4096, AT_LIFE = 64, AT_UNTIL = 72, PATIENCE_S = 20 };

/* --- Memory --- */

static struct fake_memory make(const char *name, size_t len) {
    struct fake_memory memory = {memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), len, NULL};
    CHECK(memory.fd >= 0 && ftruncate(memory.fd, (off_t)len) == 0);
    memory.bytes = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, memory.fd, 0);
    CHECK(memory.bytes != MAP_FAILED);
    return memory;
}

void shm_seal(const struct fake_memory *memory) {
    CHECK(fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
}

void shm_make(struct fake_shm *shm, int fd, int fill) {
    memset(shm, 0, sizeof *shm);
    shm->fd = fd;
    shm->session = make("fake-session", CONTROL_LEN + 2 * SHM_RING);
    shm->watch = make("fake-watch", CONTROL_LEN + 8 * SHM_WORDS);
    shm->region = make("fake-region", SHM_REGION_LEN);
    memcpy(shm->session.bytes, "ELSM\1", 5);
    frame_store_u64(shm->session.bytes + SHM_AT_CAPACITY, SHM_RING);
    memcpy(shm->watch.bytes, "ELWT\1", 5);
    frame_store_u64(shm->watch.bytes + 8, SHM_WORDS);
    frame_store_u64(shm->watch.bytes + AT_LIFE, 1);
    frame_store_u64(shm->watch.bytes + AT_UNTIL, UINT64_MAX);
    for (uint32_t word = 0; word < SHM_WORDS; word++) {
        atomic_store(shm_word(shm, word), SHM_GENERATION);
    }
    memset(shm->region.bytes, fill, SHM_REGION_LEN);
}

static void give_back(struct fake_memory *memory) {
    munmap(memory->bytes, memory->len);
    close(memory->fd);
}

void shm_end(struct fake_shm *shm) {
    give_back(&shm->session);
    give_back(&shm->watch);
    give_back(&shm->region);
}

void shm_take_back(const struct fake_shm *shm) {
    int how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    CHECK(fallocate(shm->session.fd, how, 0, (off_t)shm->session.len) == 0);
}

_Atomic uint64_t *shm_count(const struct fake_shm *shm, size_t at) {
    return (_Atomic uint64_t *)(void *)(shm->session.bytes + at);
}

_Atomic uint64_t *shm_word(const struct fake_shm *shm, uint32_t watch) {
    return (_Atomic uint64_t *)(void *)(shm->watch.bytes + CONTROL_LEN + 8 * (size_t)watch);
}

/* --- Beginning --- */

static void send_descriptors(int fd, const void *bytes, size_t len, const int *fds, size_t fd_count) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control = {0};
    struct iovec part = {(void *)(uintptr_t)bytes, len};
    struct msghdr message = {0};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    CHECK(fd_count <= 4);
    if (fd_count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
    }
    (void)sendmsg(fd, &message, MSG_NOSIGNAL);
}

uint64_t shm_greet(struct fake *fake, int fd) {
    struct fake_frame frame = {0};
    fake_greet_with(fake, fd, FRAME_FEATURE_SHARED);
    uint64_t id = 0;
    if (fake_read(fd, &frame)) {
        CHECK(frame.header.kind == FRAME_SHARE);
        id = frame.header.id;
    }
    free(frame.bytes);
    return id;
}

void shm_grant(const struct fake_shm *shm, uint64_t id) {
    const struct fake_number numbers[] = {{TAG_STATUS, STATUS_OK}, {TAG_RING, SHM_RING}};
    const int fds[] = {shm->session.fd, shm->watch.fd};
    uint8_t bytes[FAKE_HEAD_LEN];
    send_descriptors(shm->fd, bytes, fake_encode(bytes, FRAME_REPLY, FRAME_END, id, numbers, 2, 0), fds, 2);
}

int shm_begin(struct fake_shm *shm, struct fake *fake, int fd, int fill) {
    uint64_t id = shm_greet(fake, fd);
    if (id == 0) {
        return 0;
    }
    shm_make(shm, fd, fill);
    shm_seal(&shm->session);
    shm_seal(&shm->watch);
    shm_seal(&shm->region);
    shm_grant(shm, id);
    return 1;
}

/* --- The rings --- */

/* Sleeps for a moment; 0: the client has gone, or nothing has moved for longer than any test takes. */
static int idle(const struct fake_shm *shm, int64_t since_ns) {
    static const struct timespec MOMENT = {0, 20000};
    uint8_t wakes[256];
    ssize_t got = recv(shm->fd, wakes, sizeof wakes, MSG_DONTWAIT);
    nanosleep(&MOMENT, NULL);
    return got != 0 && clock_now_ns() - since_ns < PATIENCE_S * NS_PER_S;
}

static int read_ring(struct fake_shm *shm, uint8_t *into, size_t len) {
    int64_t since_ns = clock_now_ns();
    const uint8_t *ring = shm->session.bytes + CONTROL_LEN;
    while (len > 0) {
        uint64_t there = atomic_load(shm_count(shm, SHM_AT_REQUESTS_WRITTEN)) - shm->read;
        CHECK(there <= SHM_RING || shm->lies);
        if (there == 0 || there > SHM_RING) {
            if (!idle(shm, since_ns)) {
                return 0;
            }
            continue;
        }
        for (; there > 0 && len > 0; there--, len--) {
            *into++ = ring[shm->read++ % SHM_RING];
        }
        atomic_store(shm_count(shm, SHM_AT_REQUESTS_READ), shm->read);
        since_ns = clock_now_ns();
    }
    return 1;
}

/* What is wrong with a request that the fake itself has spoilt is nobody's fault. */
static int is_right(const struct fake_shm *shm, const char *wrong) {
    CHECK(wrong == NULL || shm->lies);
    return wrong == NULL;
}

int shm_read(struct fake_shm *shm, struct fake_frame *frame) {
    uint8_t header[FRAME_HEADER_LEN];
    free(frame->bytes);
    frame->bytes = NULL;
    if (!read_ring(shm, header, sizeof header) || !is_right(shm, frame_header_decode(header, &frame->header))) {
        return 0;
    }
    size_t len = frame->header.fields_len + (size_t)frame->header.data_len;
    frame->bytes = malloc(len + 1);
    CHECK(frame->bytes != NULL);
    if (read_ring(shm, frame->bytes, len) &&
        is_right(shm, frame_fields_decode(frame->bytes, frame->header.fields_len, &frame->fields))) {
        return 1;
    }
    free(frame->bytes);
    frame->bytes = NULL;
    return 0;
}

void shm_wake(const struct fake_shm *shm) {
    static const char WAKE = 0;
    (void)send(shm->fd, &WAKE, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int shm_write(struct fake_shm *shm, const void *bytes, size_t len) {
    int64_t since_ns = clock_now_ns();
    const uint8_t *from = bytes;
    uint8_t *ring = shm->session.bytes + CONTROL_LEN + SHM_RING;
    while (len > 0) {
        uint64_t unread = shm->written - atomic_load(shm_count(shm, SHM_AT_ANSWERS_READ));
        CHECK(unread <= SHM_RING || shm->lies);
        if (unread >= SHM_RING) {
            if (!idle(shm, since_ns)) {
                return 0;
            }
            continue;
        }
        for (; unread < SHM_RING && len > 0; unread++, len--) {
            ring[shm->written++ % SHM_RING] = *from++;
        }
        atomic_store(shm_count(shm, SHM_AT_ANSWERS_WRITTEN), shm->written);
        shm_wake(shm);
        since_ns = clock_now_ns();
    }
    return 1;
}

/* --- Answers --- */

int shm_reply(struct fake_shm *shm, uint64_t id, unsigned flags, uint64_t status, uint64_t length, const void *data,
              size_t len) {
    const struct fake_number numbers[] = {{TAG_STATUS, status}, {TAG_SIZE, length}, {TAG_LENGTH, length}};
    uint8_t bytes[FAKE_HEAD_LEN];
    return shm_write(shm, bytes, fake_encode(bytes, FRAME_REPLY, flags, id, numbers, 3, len)) &&
           shm_write(shm, data, len);
}

int shm_data(struct fake_shm *shm, uint64_t id, unsigned flags, const void *data, size_t len) {
    uint8_t bytes[FAKE_HEAD_LEN];
    return shm_write(shm, bytes, fake_encode(bytes, FRAME_DATA, flags, id, NULL, 0, len)) && shm_write(shm, data, len);
}

struct place shm_place(uint32_t watch, uint64_t offset, uint64_t length) {
    struct place place = {SHM_REGION, watch, SHM_GENERATION, offset, length, 1};
    return place;
}

void shm_encode_place(uint8_t *bytes, const struct place *place) {
    frame_store_u64(bytes, place->region | (uint64_t)place->watch << 32);
    frame_store_u64(bytes + 8, place->generation);
    frame_store_u64(bytes + 16, place->offset);
    frame_store_u64(bytes + 24, place->length);
    frame_store_u64(bytes + 32, place->record);
}

int shm_places(struct fake_shm *shm, uint64_t id, unsigned flags, const struct place *places, size_t count) {
    uint8_t head[FAKE_HEAD_LEN];
    uint8_t bytes[8 * PLACE_LEN];
    CHECK(count <= 8);
    for (size_t i = 0; i < count; i++) {
        shm_encode_place(bytes + i * PLACE_LEN, &places[i]);
    }
    size_t len = count * PLACE_LEN;
    return shm_write(shm, head, fake_encode(head, FRAME_PLACES, flags, id, NULL, 0, len)) && shm_write(shm, bytes, len);
}

void shm_map(const struct fake_shm *shm, uint64_t id, uint64_t status, size_t fd_count) {
    const struct fake_number number = {TAG_STATUS, status};
    const int fds[] = {shm->region.fd, shm->watch.fd, shm->session.fd, shm->region.fd};
    uint8_t bytes[FAKE_HEAD_LEN];
    send_descriptors(shm->fd, bytes, fake_encode(bytes, FRAME_REPLY, FRAME_END, id, &number, 1, 0), fds, fd_count);
}
