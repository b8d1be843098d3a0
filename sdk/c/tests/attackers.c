#define _GNU_SOURCE
#include "attackers.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../src/client.h"
#include "../src/ring.h"
#include "check.h"
#include "raw.h"

enum { LIMIT_MS = 300, HELD_MAX = 256, KEYS = 12, VALUE_MAX = 300000 };

static uint8_t bytes[1 << 20];

static uint64_t below(uint64_t *rng, uint64_t limit) {
    return random_next(rng) % limit;
}

static void nap(uint64_t most_ms, uint64_t *rng) {
    poll(NULL, 0, (int)below(rng, most_ms + 1));
}

/* --- Bytes --- */

static void send_noise(const char *socket, uint64_t *rng) {
    struct raw raw;
    int is_open = raw_connect(&raw, socket) && (below(rng, 2) || raw_greet(&raw));
    for (uint64_t times = is_open ? below(rng, 30) : 0; times > 0; times--) {
        size_t len = 1 + (size_t)below(rng, 20000);
        fill_bytes(bytes, len, random_next(rng));
        if (!raw_send(&raw, bytes, len, LIMIT_MS)) {
            break;
        }
    }
    nap(20, rng);
    raw_close(&raw);
}

/* --- Frames --- */

/* A number as an attacker likes it: small, about a power of two, or anything. */
static uint64_t odd_number(uint64_t *rng) {
    uint64_t power = UINT64_C(1) << below(rng, 64);
    uint64_t numbers[] = {below(rng, 10), power, power - 1, power + 1, 0 - below(rng, 10), random_next(rng)};
    return numbers[below(rng, 6)];
}

/* A frame that is right more often than not. Some of the keys are those of others. */
static void write_frame(struct frame_writer *writer, uint64_t *id, uint64_t *rng) {
    static const uint8_t KINDS[] = {FRAME_PING,         FRAME_GET,          FRAME_GET,    FRAME_STAT,
                                    FRAME_PUT,          FRAME_PUT,          FRAME_DELETE, FRAME_SPARSE_OPEN,
                                    FRAME_SPARSE_WRITE, FRAME_SPARSE_ABORT, FRAME_SHARE,  FRAME_MAP,
                                    FRAME_DATA,         FRAME_CREDIT,       FRAME_CANCEL, FRAME_SPARSE_FINALIZE};
    static const enum frame_tag NUMBERS[] = {TAG_OFFSET, TAG_LENGTH, TAG_SIZE, TAG_WINDOW, TAG_DEADLINE, TAG_TTL};
    uint8_t kind = KINDS[below(rng, sizeof KINDS)];
    char key[32];
    int is_begun = kind == FRAME_DATA || kind == FRAME_CREDIT || kind == FRAME_CANCEL;
    int has_data = kind == FRAME_PUT || kind == FRAME_DATA || kind == FRAME_SPARSE_WRITE;
    size_t len = has_data ? (size_t)below(rng, below(rng, 4) ? 300 : 60000) : 0;
    frame_begin(writer, kind, (unsigned)below(rng, 8), is_begun ? 1 + below(rng, *id + 1) : ++*id);
    if (kind == FRAME_CREDIT || kind == FRAME_MAP || kind == FRAME_SHARE) {
        enum frame_tag tag = kind == FRAME_MAP ? TAG_REGION : kind == FRAME_SHARE ? TAG_RING : TAG_WINDOW;
        frame_add_number(writer, tag, below(rng, 2) ? 1 : odd_number(rng));
    } else if (!is_begun && kind != FRAME_PING) {
        int key_len = snprintf(key, sizeof key, below(rng, 8) ? "bad/%d" : "good/1/%d", (int)below(rng, KEYS));
        int is_theirs = key[0] == 'g' && kind != FRAME_GET && kind != FRAME_STAT;
        frame_add_bytes(writer, TAG_KEY, is_theirs ? "bad" : key, is_theirs ? 3 : (size_t)key_len);
    }
    for (uint64_t more = is_begun ? 0 : below(rng, 3); more > 0; more--) {
        frame_add_number(writer, NUMBERS[below(rng, 6)], below(rng, 2) ? below(rng, 100000) : odd_number(rng));
    }
    frame_finish(writer, len);
    if (!writer->overflow && writer->capacity - writer->len >= len) {
        fill_bytes(writer->bytes + writer->len, len, *rng);
        writer->len += len;
    }
}

/* Frames one behind the other, of which some are spoiled; how many bytes. */
static size_t write_frames(uint64_t *id, uint64_t *rng) {
    struct frame_writer writer = {bytes, 200000, 0, 0, 0};
    for (uint64_t count = 1 + below(rng, 30); count > 0 && writer.len < 100000; count--) {
        size_t begin = writer.len;
        write_frame(&writer, id, rng);
        if (below(rng, 200) == 0) {
            frame_store_u64(bytes + begin + 8 * below(rng, 3), odd_number(rng));
        }
        if (below(rng, 200) == 0 && writer.len > begin) {
            bytes[begin + below(rng, writer.len - begin)] = (uint8_t)below(rng, 256);
        }
        if (below(rng, 300) == 0) {
            writer.len -= below(rng, writer.len - begin + 1);
        }
    }
    return writer.len;
}

/* Takes what has come, by the socket and by the ring. */
static void take_all(struct raw *raw) {
    static uint8_t sink[65536];
    while (recv(raw->fd, sink, sizeof sink, MSG_DONTWAIT) > 0) {
    }
    if (raw->session != NULL) {
        *raw_count(raw, RAW_ANSWERS_READ) = *raw_count(raw, RAW_ANSWERS_WRITTEN);
    }
}

static void send_spoiled_frames(const char *socket, uint64_t *rng) {
    struct raw raw;
    int shares = below(rng, 2) == 0;
    int takes = below(rng, 4) != 0;
    int is_open = raw_connect(&raw, socket) && raw_greet(&raw) && (!shares || raw_share(&raw, 65536));
    uint64_t id = raw.last_id;
    for (int round = 0; is_open && round < 100; round++) {
        size_t len = write_frames(&id, rng);
        is_open = shares ? raw_put(&raw, bytes, len, LIMIT_MS) : raw_send(&raw, bytes, len, LIMIT_MS);
        if (takes) {
            take_all(&raw);
        }
    }
    raw_close(&raw);
}

/* --- Floods --- */

/* Requests without end whose answers nobody takes. */
void attack_with_answers_that_nobody_takes(const char *socket, uint64_t *rng) {
    static struct raw raws[HELD_MAX];
    int shares = below(rng, 2) == 0;
    size_t count = 1 + (size_t)below(rng, 40);
    size_t open = 0;
    while (open < count && raw_connect(&raws[open], socket) && raw_greet(&raws[open]) &&
           (!shares || raw_share(&raws[open], 65536))) {
        open++;
    }
    for (int round = 0; round < 8; round++) {
        for (size_t i = 0; i < open; i++) {
            struct frame_writer writer = {bytes, sizeof bytes, 0, 0, 0};
            char key[32];
            uint64_t id = raws[i].last_id + 1;
            while (writer.len < 100000) {
                frame_begin(&writer, below(rng, 3) ? FRAME_GET : FRAME_PING, shares ? FRAME_GET_COPY : 0, id++);
                int len = snprintf(key, sizeof key, "large/%d", (int)below(rng, KEYS));
                frame_add_bytes(&writer, TAG_KEY, key, (size_t)len);
                frame_finish(&writer, 0);
            }
            raws[i].last_id = id - 1;
            (void)(shares ? raw_put(&raws[i], bytes, writer.len, 0) : raw_send(&raws[i], bytes, writer.len, 0));
        }
    }
    nap(1500, rng);
    for (size_t i = 0; i < open; i++) {
        raw_close(&raws[i]);
    }
}

/* Zeros on the socket, as fast as they go. */
void attack_with_wakes(const char *socket, uint64_t *rng) {
    struct raw raw;
    memset(bytes, 0, sizeof bytes);
    for (int is_open = raw_open(&raw, socket, 65536); is_open;) {
        is_open = raw_send(&raw, bytes, 1 + (size_t)below(rng, sizeof bytes), LIMIT_MS);
    }
    raw_close(&raw);
}

/* A ring full of frames that come to nothing, of which there are always more. */
void attack_with_an_endless_ring(const char *socket, uint64_t *rng) {
    enum { LEN = 64 };
    struct raw raw;
    int is_open = raw_open(&raw, socket, below(rng, 2) ? 16 << 20 : 65536);
    struct frame_writer writer = {bytes, sizeof bytes, 0, 0, 0};
    uint64_t id = ++raw.last_id;
    /* The first three frames fill two places. */
    frame_begin(&writer, FRAME_PING, 0, id);
    frame_finish(&writer, 0);
    for (size_t len = 2 * LEN - 2 * FRAME_HEADER_LEN; writer.len + LEN < 65536; len = LEN - FRAME_HEADER_LEN) {
        frame_begin(&writer, FRAME_DATA, 0, id);
        frame_finish(&writer, len);
        writer.len += len;
    }
    for (uint64_t left = is_open ? raw.capacity + 65536 : 0; left > 0 && is_open;) {
        size_t skip = left > raw.capacity ? 0 : 2 * LEN;
        size_t len = writer.len - skip < left ? writer.len - skip : (size_t)left;
        is_open = raw_put(&raw, bytes + skip, len, LIMIT_MS);
        left -= len;
    }
    for (uint64_t round = 1; is_open; round++) {
        uint64_t end = (*raw_count(&raw, RAW_REQUESTS_READ) + raw.capacity) & ~(uint64_t)(LEN - 1);
        raw.written = end > raw.written ? end : raw.written;
        *raw_count(&raw, RAW_REQUESTS_WRITTEN) = raw.written;
        if (atomic_exchange((_Atomic uint32_t *)(void *)(raw.session + RAW_SERVER_WAITS), 0) != 0) {
            is_open = send(raw.fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
        }
    }
    raw_close(&raw);
}

/* --- What is begun and held --- */

/* One of the ways to leave something in the node. */
static size_t write_beginning(uint64_t *rng) {
    struct frame_writer writer = {bytes, sizeof bytes, 0, 0, 0};
    uint64_t way = below(rng, 3);
    uint64_t id = 0;
    memset(bytes, 0, FRAME_HEADER_LEN + FRAME_FIELDS_MAX);
    if (way == 0) {
        frame_begin(&writer, FRAME_GET, 0, 1);
        frame_finish(&writer, 0);
        bytes[4] = bytes[5] = 0xff; /* 65,535 bytes of fields, the last of which does not come */
        return FRAME_HEADER_LEN + 65534;
    }
    while (id < 64) {
        char key[32];
        frame_begin(&writer, way == 1 ? FRAME_GET : FRAME_PUT, FRAME_GET_COPY * (way == 1), ++id);
        int len = snprintf(key, sizeof key, way == 1 ? "large/%d" : "bad/%d", (int)(id % KEYS));
        frame_add_bytes(&writer, TAG_KEY, key, (size_t)len);
        frame_add_number(&writer, way == 1 ? TAG_WINDOW : TAG_SIZE, way == 1 ? 1 : UINT64_C(1) << 40);
        frame_finish(&writer, way == 1 ? 0 : 5000);
        writer.len += way == 1 ? 0 : 5000;
    }
    return writer.len;
}

void attack_with_frames_that_do_not_end(const char *socket, uint64_t *rng) {
    static struct raw raws[HELD_MAX];
    size_t count = 1 + (size_t)below(rng, HELD_MAX);
    size_t open = 0;
    while (open < count && raw_connect(&raws[open], socket) && raw_greet(&raws[open])) {
        (void)raw_send(&raws[open], bytes, write_beginning(rng), 0);
        open++;
    }
    nap(2000, rng);
    for (size_t i = 0; i < open; i++) {
        raw_close(&raws[i]);
    }
}

/* Asks for what nobody takes: memory, and descriptors. */
static void ask_for_descriptors(const char *socket, uint64_t *rng) {
    struct raw raw;
    int is_open = raw_open(&raw, socket, below(rng, 2) ? odd_number(rng) : 65536);
    for (int round = 0; is_open && round < 40; round++) {
        struct frame_writer writer = {bytes, sizeof bytes, 0, 0, 0};
        for (int i = 0; i < 20; i++) {
            frame_begin(&writer, FRAME_MAP, 0, ++raw.last_id);
            frame_add_number(&writer, TAG_REGION, 1 + below(rng, 3));
            frame_finish(&writer, 0);
        }
        is_open = raw_put(&raw, bytes, writer.len, LIMIT_MS);
        if (below(rng, 4) == 0) {
            take_all(&raw);
        }
    }
    nap(100, rng);
    raw_close(&raw);
}

/* Gives the node descriptors that it has not asked for, in every state of a connection. */
static void give_descriptors(const char *socket, uint64_t *rng) {
    struct raw raw;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int stage = (int)below(rng, 3);
    int is_open = raw_connect(&raw, socket) && (stage < 1 || raw_greet(&raw)) && (stage < 2 || raw_share(&raw, 65536));
    memset(bytes, 0, 100);
    memcpy(bytes, FRAME_PREAMBLE, stage == 0 ? FRAME_PREAMBLE_LEN : 0);
    for (int round = 0; is_open && round < 300; round++) {
        size_t len = stage == 0 ? 1 : 1 + (size_t)below(rng, 20);
        const uint8_t *begin = stage == 0 && round < FRAME_PREAMBLE_LEN ? bytes + round : bytes + 50;
        struct frame_writer writer = {bytes, 50, 0, 0, 0};
        if (stage == 1) {
            frame_begin(&writer, FRAME_PING, 0, ++raw.last_id);
            frame_finish(&writer, 0);
        }
        is_open = raw_send_fd(&raw, stage == 1 ? bytes : begin, stage == 1 ? writer.len : len, fd, 1 + below(rng, 30));
        if (stage != 0) {
            take_all(&raw);
        }
    }
    nap(20, rng);
    raw_close(&raw);
    close(fd);
}

/* --- Memory that is shared --- */

/* The session of a client, mapped once more, in which a thread scribbles. */
struct scribbler {
    uint8_t *session;
    size_t len;
    uint64_t rng;
    int way;
    atomic_int is_over;
};

static void scribble_count(struct scribbler *self) {
    static const size_t PLACES[] = {RAW_REQUESTS_WRITTEN, RAW_ANSWERS_READ,    RAW_REQUESTS_READ,
                                    RAW_ANSWERS_WRITTEN,  RAW_REQUESTS_WRITTEN};
    size_t at = PLACES[below(&self->rng, 5)];
    volatile uint64_t *count = (volatile uint64_t *)(void *)(self->session + at);
    uint64_t capacity = (self->len - RAW_CONTROL_LEN) / 2;
    uint64_t ends[] = {*count + 1,        *count - 1, *count + capacity, *count + capacity + 1,
                       *count - capacity, 0,          UINT64_MAX,        odd_number(&self->rng)};
    *count = ends[below(&self->rng, 8)];
}

/* Changes the frames that the node is about to read, or has begun to. */
static void scribble_frame(struct scribbler *self) {
    uint64_t capacity = (self->len - RAW_CONTROL_LEN) / 2;
    uint64_t read = *(volatile uint64_t *)(void *)(self->session + RAW_REQUESTS_READ);
    uint64_t at = (read + below(&self->rng, 200)) & (capacity - 1);
    *(volatile uint8_t *)(self->session + RAW_CONTROL_LEN + at) = (uint8_t)below(&self->rng, 256);
}

static void scribble_word(struct scribbler *self, size_t from, size_t to) {
    size_t at = from + (size_t)below(&self->rng, (to - from) / 8) * 8;
    *(volatile uint64_t *)(void *)(self->session + at) = odd_number(&self->rng);
}

static void *scribble(void *context) {
    struct scribbler *self = context;
    while (!atomic_load(&self->is_over)) {
        for (uint64_t burst = 1 + below(&self->rng, 300); burst > 0; burst--) {
            switch (self->way) {
            case 0:
                scribble_word(self, 0, self->len);
                break;
            case 1:
                scribble_word(self, RAW_CONTROL_LEN, self->len);
                break;
            case 2:
                scribble_count(self);
                burst = 1;
                break;
            case 3:
                scribble_word(self, RAW_CLIENT_WAITS, RAW_SERVER_WAITS + 8);
                break;
            case 4:
                scribble_word(self, RAW_USES, RAW_CONTROL_LEN);
                break;
            case 5:
                scribble_word(self, 0, RAW_REQUESTS_WRITTEN);
                break;
            default:
                scribble_frame(self);
            }
        }
        usleep((useconds_t)below(&self->rng, 2000));
    }
    return NULL;
}

/* Uses its client as it is meant to be used. Whatever comes of it is of no interest. */
static void use(elcache_client_t *client, uint64_t *rng) {
    static uint8_t value[VALUE_MAX];
    char key[32];
    size_t key_len = (size_t)snprintf(key, sizeof key, below(rng, 4) ? "bad/%d" : "good/1/%d", (int)below(rng, KEYS));
    size_t len = (size_t)below(rng, below(rng, 4) ? 3000 : VALUE_MAX);
    uint64_t what = key[0] == 'g' ? 0 : below(rng, 8);
    if (what < 5) {
        (void)elcache_client_get(client, key, key_len, value, sizeof value, &len, NULL);
    } else if (what < 7) {
        (void)elcache_client_put(client, key, key_len, value, len, NULL);
    } else {
        (void)elcache_client_delete(client, key, key_len);
    }
}

static void scribble_while_in_use(const char *socket, uint64_t *rng) {
    struct scribbler scribbler = {NULL, 0, random_next(rng), (int)below(rng, 7), 0};
    pthread_t thread;
    elcache_client_t *client = elcache_client_create();
    CHECK(client != NULL);
    (void)elcache_client_set_timeout(client, LIMIT_MS);
    if (elcache_client_connect_shm(client, socket) == ELCACHE_OK) {
        uint8_t *session = ring_session(client->connection.transport);
        uint64_t capacity = frame_load_u64(session + 8);
        scribbler.len = RAW_CONTROL_LEN + 2 * (size_t)capacity;
        /* A second mapping of the same memory, which stays when the client gives up the first. */
        scribbler.session = mremap(session, 0, scribbler.len, MREMAP_MAYMOVE);
        CHECK(scribbler.session != MAP_FAILED);
        for (uint64_t i = below(rng, 50); i > 0; i--) {
            use(client, rng);
        }
        CHECK(pthread_create(&thread, NULL, scribble, &scribbler) == 0);
        for (int i = 0; i < 300 && elcache_client_is_connected(client); i++) {
            use(client, rng);
        }
        atomic_store(&scribbler.is_over, 1);
        pthread_join(thread, NULL);
        munmap(scribbler.session, scribbler.len);
    }
    elcache_client_destroy(client);
}

const struct attacker ATTACKERS[] = {
    {"noise", send_noise},
    {"spoiled frames", send_spoiled_frames},
    {"answers that nobody takes", attack_with_answers_that_nobody_takes},
    {"wakes", attack_with_wakes},
    {"an endless ring", attack_with_an_endless_ring},
    {"frames that do not end", attack_with_frames_that_do_not_end},
    {"asking for descriptors", ask_for_descriptors},
    {"giving descriptors", give_descriptors},
    {"scribbling", scribble_while_in_use},
};
const int ATTACKER_COUNT = sizeof ATTACKERS / sizeof *ATTACKERS;
