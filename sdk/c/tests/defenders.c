#define _GNU_SOURCE
#include "defenders.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { KEYS = 10, LEN_MAX = 400000, TIMEOUT_MS = 10000, HEAD_LEN = 4096 };

const char *const DEFENDER_NAMES[DEFENDER_KINDS] = {"http", "unix", "shm"};

static uint8_t value[LEN_MAX];
static uint8_t got[LEN_MAX];

/* A way to write and to read. */
struct way {
    int kind;
    const struct node *node;
    elcache_client_t *client;
    int fd; /* of HTTP */
};

/* --- HTTP --- */

static void http_connect(struct way *way) {
    struct sockaddr_in address = {0};
    struct timeval limit = {TIMEOUT_MS / 1000, 0};
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)way->node->http_port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    way->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(way->fd >= 0 && connect(way->fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(setsockopt(way->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
    CHECK(setsockopt(way->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) == 0);
}

static void http_send(const struct way *way, const void *bytes, size_t len) {
    for (const uint8_t *next = bytes; len > 0;) {
        ssize_t sent = send(way->fd, next, len, MSG_NOSIGNAL);
        CHECK(sent > 0);
        next += sent;
        len -= (size_t)sent;
    }
}

/* An answer: its status, and its body in `got`. */
static int http_answer(const struct way *way, size_t *len) {
    char head[HEAD_LEN + 1] = {0};
    size_t have = 0;
    char *end = NULL;
    while (end == NULL) {
        ssize_t more = recv(way->fd, head + have, HEAD_LEN - have, 0);
        CHECK(more > 0);
        have += (size_t)more;
        end = strstr(head, "\r\n\r\n");
    }
    size_t head_len = (size_t)(end + 4 - head);
    const char *field = strcasestr(head, "\r\ncontent-length:");
    *len = field != NULL && field < end ? strtoul(field + 17, NULL, 10) : 0;
    CHECK(*len <= sizeof got && have - head_len <= *len);
    memcpy(got, head + head_len, have - head_len);
    for (size_t at = have - head_len; at < *len;) {
        ssize_t more = recv(way->fd, got + at, *len - at, 0);
        CHECK(more > 0);
        at += (size_t)more;
    }
    return atoi(head + 9);
}

static elcache_error_t http_outcome(int status) {
    CHECK(status == 200 || status == 201 || status == 204 || status == 404 || status == 503);
    return status == 404 ? ELCACHE_ERR_NOT_FOUND : status == 503 ? ELCACHE_ERR_BUSY : ELCACHE_OK;
}

/* --- One way for all kinds --- */

static elcache_error_t put(struct way *way, const char *key, size_t len) {
    char head[256];
    if (way->kind != DEFENDER_HTTP) {
        return elcache_client_put(way->client, key, strlen(key), value, len, NULL);
    }
    int head_len = snprintf(head, sizeof head, "PUT /cache/%s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", key, len);
    http_send(way, head, (size_t)head_len);
    http_send(way, value, len);
    return http_outcome(http_answer(way, &(size_t){0}));
}

static elcache_error_t get(struct way *way, const char *key, size_t *len) {
    char head[256];
    if (way->kind != DEFENDER_HTTP) {
        return elcache_client_get(way->client, key, strlen(key), got, sizeof got, len, NULL);
    }
    int head_len = snprintf(head, sizeof head, "GET /cache/%s HTTP/1.1\r\nHost: a\r\n\r\n", key);
    http_send(way, head, (size_t)head_len);
    return http_outcome(http_answer(way, len));
}

static void way_begin(struct way *way, const struct node *node, int kind) {
    struct node as = *node;
    memset(way, 0, sizeof *way);
    way->kind = kind;
    way->node = node;
    if (kind == DEFENDER_HTTP) {
        http_connect(way);
        return;
    }
    as.is_shared = kind == DEFENDER_SHM;
    way->client = elcache_client_create();
    CHECK(way->client != NULL);
    CHECK_OK(way->client, elcache_client_set_timeout(way->client, TIMEOUT_MS));
    CHECK_OK(way->client, node_connect(&as, way->client));
}

/* --- What one does --- */

static void note(struct defender *self, int64_t began_ns) {
    unsigned long took_us = (unsigned long)((clock_now_ns() - began_ns) / 1000);
    int bucket = 0;
    while (bucket < DEFENDER_BUCKETS - 1 && took_us >> bucket != 0) {
        bucket++;
    }
    atomic_fetch_add(&self->took[bucket], 1);
    if (took_us > atomic_load(&self->slowest_us)) {
        atomic_store(&self->slowest_us, took_us);
    }
}

/* Counts what is no success; anything that overload does not explain fails the test. */
static int is_good(struct defender *self, const struct way *way, const char *call, elcache_error_t error) {
    if (error == ELCACHE_OK) {
        return 1;
    }
    if (error == ELCACHE_ERR_BUSY) {
        atomic_fetch_add(&self->busy, 1);
    } else if (error == ELCACHE_ERR_NOT_FOUND) {
        atomic_fetch_add(&self->gone, 1);
    } else {
        fprintf(stderr, "%s over %s: %s\n", call, DEFENDER_NAMES[way->kind], elcache_client_last_error(way->client));
        CHECK(!"a client that behaves is served");
    }
    return 0;
}

static void one_round(struct defender *self, struct way *way, uint64_t *rng) {
    char key[32];
    uint64_t seed = random_next(rng);
    size_t len = (size_t)(random_next(rng) % (seed % 4 == 0 ? LEN_MAX : 2000));
    snprintf(key, sizeof key, "good/%d/%d", way->kind, (int)(seed % KEYS));
    fill_bytes(value, len, seed);
    int64_t began_ns = clock_now_ns();
    elcache_error_t error = put(way, key, len);
    note(self, began_ns);
    if (!is_good(self, way, "put", error)) {
        return;
    }
    for (int i = 0; i < 4; i++) {
        size_t got_len = 0;
        began_ns = clock_now_ns();
        error = get(way, key, &got_len);
        note(self, began_ns);
        if (is_good(self, way, "get", error)) {
            CHECK(got_len == len && memcmp(got, value, len) == 0);
            atomic_fetch_add(&self->good, 1);
        }
    }
}

static void defend(struct defender *self, const struct node *node, int kind, uint64_t seed) {
    struct way way;
    way_begin(&way, node, kind);
    while (!atomic_load(&self->is_over)) {
        one_round(self, &way, &seed);
    }
    elcache_client_destroy(way.client);
    if (kind == DEFENDER_HTTP) {
        close(way.fd);
    }
}

struct defender *defenders_start(const struct node *node, uint64_t seed) {
    size_t len = DEFENDER_KINDS * sizeof(struct defender);
    struct defender *defenders = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(defenders != MAP_FAILED);
    for (int kind = 0; kind < DEFENDER_KINDS; kind++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            defend(&defenders[kind], node, kind, seed + (uint64_t)kind);
            _exit(0);
        }
        defenders[kind].pid = pid;
    }
    return defenders;
}

void defenders_stop(struct defender *defenders) {
    for (int kind = 0; kind < DEFENDER_KINDS; kind++) {
        struct defender *one = &defenders[kind];
        int status = -1;
        atomic_store(&one->is_over, 1);
        CHECK(waitpid(one->pid, &status, 0) == one->pid);
        printf("    %s: %lu answers as they should be, %lu busy, %lu gone; half of the calls below %lu us, 99 %% below %lu, "
               "the slowest %lu\n",
               DEFENDER_NAMES[kind], one->good, one->busy, one->gone, defender_quantile_us(one, 50),
               defender_quantile_us(one, 99), one->slowest_us);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

unsigned long defender_quantile_us(const struct defender *defender, unsigned long percent) {
    unsigned long all = 0;
    unsigned long so_far = 0;
    int bucket = 0;
    for (int i = 0; i < DEFENDER_BUCKETS; i++) {
        all += defender->took[i];
    }
    while (bucket < DEFENDER_BUCKETS - 1 && (so_far += defender->took[bucket]) * 100 < all * percent) {
        bucket++;
    }
    return 1ul << bucket;
}
