/* What a client counts, and how long its calls take. */
#ifndef ELCACHE_STATS_H
#define ELCACHE_STATS_H

#include "elcache/elcache_sdk.h"

enum {
    /* Each power of two of nanoseconds is cut into so many buckets, so a percentile is off by less than 1/64 of
     * itself. */
    STATS_STEPS = 64,
    STATS_POWERS = 37, /* up to 2^43 ns, which is more than two hours; what takes longer counts as that */
    STATS_BUCKETS = STATS_STEPS * (STATS_POWERS + 1)
};

struct stats {
    elcache_stats_t counts; /* its latencies are computed when they are asked for */
    uint64_t calls;
    uint64_t total_ns;
    uint64_t buckets[STATS_BUCKETS];
};

void stats_reset(struct stats *stats);
void stats_record(struct stats *stats, int64_t latency_ns);
/* Microseconds that `percent` of 100 calls took no longer than. 0: there were none. */
double stats_percentile_us(const struct stats *stats, unsigned percent);
elcache_stats_t stats_read(const struct stats *stats);

#endif
