/* Clients that behave, one of each kind, each in a process of its own: they write values, read them, and compare. */
#ifndef ELCACHE_TESTS_DEFENDERS_H
#define ELCACHE_TESTS_DEFENDERS_H

#include <stdatomic.h>
#include <sys/types.h>

#include "node.h"

enum defender_kind { DEFENDER_HTTP, DEFENDER_UNIX, DEFENDER_SHM, DEFENDER_KINDS };

enum { DEFENDER_BUCKETS = 40 };

/* What one has seen, in memory that it shares with the test. */
struct defender {
    pid_t pid;
    atomic_int is_over; /* set by the test */
    atomic_ulong good;
    atomic_ulong busy; /* refused for want of room */
    atomic_ulong gone; /* a value that was evicted before it was read */
    atomic_ulong slowest_us;
    atomic_ulong took[DEFENDER_BUCKETS]; /* calls that took below 2^n us */
};

extern const char *const DEFENDER_NAMES[DEFENDER_KINDS];

/* DEFENDER_KINDS of them, which have begun. */
struct defender *defenders_start(const struct node *node, uint64_t seed);
/* Ends them and says what they have seen. */
void defenders_stop(struct defender *defenders);
/* What so many of a hundred calls did not exceed, as a power of two. */
unsigned long defender_quantile_us(const struct defender *defender, unsigned long percent);

#endif
