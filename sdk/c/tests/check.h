/* What all tests use: a check that says where it failed, and a list of tests. */
#ifndef ELCACHE_TESTS_CHECK_H
#define ELCACHE_TESTS_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/clock.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* An outcome, with the client's words for it where it is another. */
#define CHECK_OUTCOME(client, call, expected)                                                                          \
    do {                                                                                                               \
        elcache_error_t outcome_ = (call);                                                                             \
        if (outcome_ != (expected)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s is %d, not %d: %s\n", __FILE__, __LINE__, #call, outcome_, (expected),          \
                    elcache_client_last_error(client));                                                                \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#define CHECK_OK(client, call) CHECK_OUTCOME(client, call, ELCACHE_OK)

#define RUN(test)                                                                                                      \
    do {                                                                                                               \
        int64_t begin_ns_ = clock_now_ns();                                                                            \
        printf("  %s", #test);                                                                                         \
        fflush(stdout);                                                                                                \
        test();                                                                                                        \
        printf(" %lld ms\n", (long long)((clock_now_ns() - begin_ns_) / NS_PER_MS));                                   \
    } while (0)

/* Numbers that follow from a seed: splitmix64. */
static inline uint64_t random_next(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Bytes that differ from place to place, so that a byte in a wrong place is seen. */
static inline void fill_bytes(uint8_t *bytes, size_t len, uint64_t seed) {
    for (size_t i = 0; i < len; i++) {
        if (i % 8 == 0) {
            uint64_t word = random_next(&seed);
            size_t left = len - i < 8 ? len - i : 8;
            memcpy(bytes + i, &word, left);
        }
    }
}

#endif
