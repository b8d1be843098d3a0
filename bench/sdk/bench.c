/*
 * The C SDK beside Redis, memcached, and a bare pair of sockets. Started by run.sh, which starts the servers, each pinned to the
 * second processor; this process is on the first one.
 *
 * Everything is measured in turn, round by round; what is printed are medians over the rounds and ratios of those.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <elcache/elcache_sdk.h>

/* The library keeps answers of some thousand keys: of MANY keys it has to ask for each. */
enum { ROUNDS = 7, SMALL = 1024, LARGE = 4 << 20, KEYS = 1000, MANY = 20000, DEPTH = 16, READ_LEN = 256 << 10 };

/* How long each thing is measured in a round. */
static double round_seconds = 0.5;

static void fail(const char *what) {
    fprintf(stderr, "bench-sdk: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void pin(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) {
        fail("pin to a processor");
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values) {
    double sorted[ROUNDS];
    memcpy(sorted, values, sizeof sorted);
    qsort(sorted, ROUNDS, sizeof *sorted, by_value);
    return sorted[ROUNDS / 2];
}

static int key_of(char *key, unsigned number) {
    return sprintf(key, "bench:%04u", number);
}

static void fill(char *value, size_t len, unsigned seed) {
    for (size_t i = 0; i < len; i++) {
        value[i] = (char)(seed * 31 + i * 7 + (i >> 8));
    }
}

/* ---- Through the SDK, one call at a time ---- */

static void check(elcache_client_t *client, elcache_error_t error, const char *what) {
    if (error != ELCACHE_OK) {
        fprintf(stderr, "bench-sdk: %s: %s (%s)\n", what, elcache_error_string(error), elcache_client_last_error(client));
        exit(1);
    }
}

/* Gets a second of the keys, and looks at one byte of each value. */
static double sdk_small(elcache_client_t *client, unsigned keys) {
    static char value[SMALL];
    char key[32];
    unsigned count = 0;
    double began = now(), ended;
    do {
        for (int batch = 0; batch < 64; batch++, count++) {
            size_t len = 0;
            unsigned number = count % keys;
            int key_len = key_of(key, number);
            check(client, elcache_client_get(client, key, (size_t)key_len, value, sizeof value, &len, NULL), "get");
            if (len != SMALL || value[SMALL - 1] != (char)(number * 31 + (SMALL - 1) * 7 + ((SMALL - 1) >> 8))) {
                fprintf(stderr, "bench-sdk: a wrong value\n");
                exit(1);
            }
        }
        ended = now();
    } while (ended - began < round_seconds);
    return count / (ended - began);
}

static double sdk_large(elcache_client_t *client) {
    static char value[LARGE];
    unsigned count = 0;
    double began = now(), ended;
    do {
        size_t len = 0;
        check(client, elcache_client_get(client, "bench:large", 11, value, sizeof value, &len, NULL), "get");
        if (len != LARGE) {
            fprintf(stderr, "bench-sdk: a short value\n");
            exit(1);
        }
        count++;
        ended = now();
    } while (ended - began < round_seconds);
    return count / (ended - began);
}

/* ---- A pair of sockets, two processes on one processor ---- */

static void read_all(int fd, char *into, size_t len) {
    while (len > 0) {
        ssize_t got = read(fd, into, len);
        if (got <= 0) {
            fail("read");
        }
        into += got;
        len -= (size_t)got;
    }
}

static void write_all(int fd, const char *from, size_t len) {
    while (len > 0) {
        ssize_t sent = send(fd, from, len, MSG_NOSIGNAL);
        if (sent <= 0) {
            fail("write");
        }
        from += sent;
        len -= (size_t)sent;
    }
}

/* The request is as long as the smallest one could be: the key. */
static double ping_pong(void) {
    static char answer[SMALL];
    char key[32];
    int key_len = key_of(key, 0), pair[2];
    unsigned count = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
        fail("socketpair");
    }
    pid_t child = fork();
    if (child == 0) {
        close(pair[0]);
        while (read(pair[1], key, (size_t)key_len) == key_len && write(pair[1], answer, SMALL) == SMALL) {
        }
        _exit(0);
    }
    close(pair[1]);
    double began = now(), ended;
    do {
        for (int batch = 0; batch < 64; batch++, count++) {
            write_all(pair[0], key, (size_t)key_len);
            read_all(pair[0], answer, SMALL);
        }
        ended = now();
    } while (ended - began < round_seconds);
    close(pair[0]);
    waitpid(child, NULL, 0);
    return count / (ended - began);
}

/* ---- Sixteen requests on their way, over a Unix socket ---- */

struct peer {
    const char *name;
    int fd;
    size_t (*request)(char *into, const char *key, int key_len, uint64_t id);
    /* Bytes of an answer. */
    size_t answer_len;
};

static size_t redis_request(char *into, const char *key, int key_len, uint64_t id) {
    (void)id;
    return (size_t)sprintf(into, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", key_len, key);
}

static size_t memcached_request(char *into, const char *key, int key_len, uint64_t id) {
    (void)id;
    (void)key_len;
    return (size_t)sprintf(into, "get %s\r\n", key);
}

static char *put_number(char *into, uint64_t number, int bytes) {
    for (int i = 0; i < bytes; i++) {
        *into++ = (char)(number >> 8 * i);
    }
    return into;
}

static char *frame(char *into, int kind, size_t fields_len, uint64_t id) {
    into = put_number(into, 1, 1);
    into = put_number(into, (uint64_t)kind, 1);
    into = put_number(into, 0, 2);
    into = put_number(into, fields_len, 4);
    into = put_number(into, id, 8);
    return put_number(into, 0, 8);
}

static size_t elcache_request(char *into, const char *key, int key_len, uint64_t id) {
    char *end = frame(into, 16, 4 + (size_t)key_len, id);
    end = put_number(put_number(end, 1, 2), (uint64_t)key_len, 2);
    memcpy(end, key, (size_t)key_len);
    return (size_t)(end + key_len - into);
}

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        fail(path);
    }
    return fd;
}

/* How long one frame of the node is. */
static size_t read_frame(int fd) {
    static char rest[READ_LEN];
    unsigned char header[24];
    size_t len = 0;
    read_all(fd, (char *)header, sizeof header);
    for (int i = 3; i >= 0; i--) {
        len = len << 8 | header[4 + i];
    }
    len += header[16] | (size_t)header[17] << 8 | (size_t)header[18] << 16;
    read_all(fd, rest, len);
    return sizeof header + len;
}

/* Says hello, and asks for one value to know how long an answer is. */
static void greet(struct peer *peer) {
    char bytes[256], key[32], *end = bytes;
    memcpy(end, "ELCACHE\n", 8);
    end = frame(end + 8, 1, 24, 0);
    for (int tag = 32; tag <= 33; tag++) {
        end = put_number(put_number(put_number(end, (uint64_t)tag, 2), 8, 2), 1, 8);
    }
    write_all(peer->fd, bytes, (size_t)(end - bytes));
    read_frame(peer->fd);
    size_t len = elcache_request(bytes, key, key_of(key, 0), 1);
    write_all(peer->fd, bytes, len);
    peer->answer_len = read_frame(peer->fd);
}

/* Keeps sixteen requests on their way: for each answer that has come, another one is sent. */
static double deep(struct peer *peer, uint64_t *id) {
    static char answers[READ_LEN];
    char requests[DEPTH * 128], key[32];
    unsigned sent = 0;
    size_t received = 0, due = DEPTH;
    double began = now(), ended = began;
    while (due > 0) {
        size_t len = 0;
        for (; due > 0; due--) {
            len += peer->request(requests + len, key, key_of(key, sent++ % KEYS), ++*id);
        }
        write_all(peer->fd, requests, len);
        ssize_t got = read(peer->fd, answers, sizeof answers);
        if (got <= 0) {
            fail(peer->name);
        }
        size_t before = received / peer->answer_len;
        received += (size_t)got;
        due = received / peer->answer_len - before;
        if (due == 0) {
            /* A part of an answer: wait for the rest of it. */
            size_t rest = peer->answer_len - received % peer->answer_len;
            read_all(peer->fd, answers, rest);
            received += rest;
            due = 1;
        }
        if (sent % 1024 < DEPTH) {
            ended = now();
            if (ended - began >= round_seconds) {
                break;
            }
        }
    }
    size_t count = received / peer->answer_len;
    /* What is still on its way belongs to this round. */
    for (size_t rest = sent * peer->answer_len - received; rest > 0;) {
        size_t part = rest < sizeof answers ? rest : sizeof answers;
        read_all(peer->fd, answers, part);
        rest -= part;
    }
    return (double)count / (ended - began);
}

static void load(elcache_client_t *client, const struct peer *redis, const struct peer *memcached) {
    static char small[SMALL], large[LARGE];
    char key[32], command[SMALL + 128], answer[64];
    for (unsigned number = 0; number < MANY; number++) {
        int key_len = key_of(key, number);
        fill(small, SMALL, number);
        check(client, elcache_client_put(client, key, (size_t)key_len, small, SMALL, NULL), "put");
        if (number >= KEYS) {
            continue;
        }
        int head = sprintf(command, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n", key_len, key, SMALL);
        memcpy(command + head, small, SMALL);
        memcpy(command + head + SMALL, "\r\n", 2);
        write_all(redis->fd, command, (size_t)head + SMALL + 2);
        read_all(redis->fd, answer, 5);
        head = sprintf(command, "set %s 0 0 %d\r\n", key, SMALL);
        memcpy(command + head, small, SMALL);
        memcpy(command + head + SMALL, "\r\n", 2);
        write_all(memcached->fd, command, (size_t)head + SMALL + 2);
        read_all(memcached->fd, answer, 8);
    }
    fill(large, LARGE, 1);
    check(client, elcache_client_put(client, "bench:large", 11, large, LARGE, NULL), "put");
}

static void row(const char *what, const double *values) {
    double sorted[ROUNDS];
    memcpy(sorted, values, sizeof sorted);
    qsort(sorted, ROUNDS, sizeof *sorted, by_value);
    printf("  %-44s %12.0f   (%.0f to %.0f)\n", what, sorted[ROUNDS / 2], sorted[0], sorted[ROUNDS - 1]);
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: bench ELCACHE_SOCKET REDIS_SOCKET MEMCACHED_SOCKET [SECONDS]\n");
        return 2;
    }
    if (argc > 4) {
        round_seconds = atof(argv[4]);
    }
    pin(0);
    elcache_client_t *local = elcache_client_create(), *shared = elcache_client_create();
    check(local, elcache_client_connect_unix(local, argv[1]), "connect_unix");
    check(shared, elcache_client_connect_shm(shared, argv[1]), "connect_shm");
    struct peer peers[] = {
        {"elcached", connect_to(argv[1]), elcache_request, 0},
        {"redis", connect_to(argv[2]), redis_request, 7 + SMALL + 2},
        {"memcached", connect_to(argv[3]), memcached_request, 6 + 10 + 9 + SMALL + 2 + 5},
    };
    load(local, &peers[1], &peers[2]);
    greet(&peers[0]);

    enum { SHM, ASKED, UNIX, PAIR, DEEP, SHM_LARGE = DEEP + 3, UNIX_LARGE, THINGS };
    static double rates[THINGS][ROUNDS];
    uint64_t id = 1;
    for (int round = 0; round < ROUNDS; round++) {
        rates[SHM][round] = sdk_small(shared, KEYS);
        rates[ASKED][round] = sdk_small(shared, MANY);
        rates[UNIX][round] = sdk_small(local, KEYS);
        rates[PAIR][round] = ping_pong();
        for (int peer = 0; peer < 3; peer++) {
            rates[DEEP + peer][round] = deep(&peers[peer], &id);
        }
        rates[SHM_LARGE][round] = sdk_large(shared);
        rates[UNIX_LARGE][round] = sdk_large(local);
    }
    printf("1 KiB, one at a time, in a second: median of %d rounds (lowest to highest)\n", ROUNDS);
    row("shared memory, keys read before", rates[SHM]);
    row("shared memory, the node asked each time", rates[ASKED]);
    row("Unix socket", rates[UNIX]);
    row("pair of sockets, one processor", rates[PAIR]);
    printf("1 KiB, %d on their way over a Unix socket, in a second\n", DEPTH);
    for (int peer = 0; peer < 3; peer++) {
        row(peers[peer].name, rates[DEEP + peer]);
    }
    printf("4 MiB, one at a time, in a second\n");
    row("shared memory", rates[SHM_LARGE]);
    row("Unix socket", rates[UNIX_LARGE]);
    double shm = median(rates[SHM]), asked = median(rates[ASKED]), deep_rate = median(rates[DEEP]);
    printf("shared memory / Unix socket %.1f; / pair of sockets %.1f\n", shm / median(rates[UNIX]), shm / median(rates[PAIR]));
    printf("asked each time / Unix socket %.1f; / pair of sockets %.1f\n", asked / median(rates[UNIX]), asked / median(rates[PAIR]));
    printf("16 deep: / redis %.2f; / memcached %.2f\n", deep_rate / median(rates[DEEP + 1]), deep_rate / median(rates[DEEP + 2]));
    printf("4 MiB: shared memory / Unix socket %.2f\n", median(rates[SHM_LARGE]) / median(rates[UNIX_LARGE]));
    elcache_client_destroy(local);
    elcache_client_destroy(shared);
    return 0;
}
