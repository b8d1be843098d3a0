/* What a node's process has, as /proc tells. */
#ifndef ELCACHE_TESTS_WATCH_H
#define ELCACHE_TESTS_WATCH_H

#include "node.h"

/* What clients may bring into a node, and what has to be gone when they are. */
struct holdings {
    long sockets;
    long sessions;        /* descriptors of memory that is shared with a client, */
    long mapped_sessions; /* and mappings of such memory */
    long unix_connections;
    long shm_connections;
};

struct holdings watch_holdings(const struct node *node);
/* Waits until they are what they were; fails the test, and says what is left, if that takes too long. */
void watch_until(const struct node *node, const struct holdings *expected);
/* All descriptors that it has. */
long watch_descriptors(const struct node *node);
/* The most resident memory that it has had, in MiB. */
long watch_peak_mib(const struct node *node);
/* Milliseconds of processor time that it takes in so many. */
long watch_busy_ms(const struct node *node, int ms);

#endif
