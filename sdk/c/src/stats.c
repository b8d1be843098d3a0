#include "stats.h"

#include <string.h>

enum { STEP_BITS = 6 };

void stats_reset(struct stats *stats) {
    memset(stats, 0, sizeof *stats);
}

/* Numbers below 64 have a bucket each; above, the highest bit names the group and the six below it the bucket in
 * it. */
static size_t bucket_of(uint64_t ns) {
    if (ns < STATS_STEPS) {
        return (size_t)ns;
    }
    unsigned shift = (unsigned)(63 - __builtin_clzll(ns)) - STEP_BITS;
    size_t bucket = (size_t)(shift + 1) * STATS_STEPS + (size_t)(ns >> shift) - STATS_STEPS;
    return bucket < STATS_BUCKETS ? bucket : STATS_BUCKETS - 1;
}

/* The middle of what a bucket stands for. */
static double middle_ns(size_t bucket) {
    if (bucket < STATS_STEPS) {
        return (double)bucket;
    }
    unsigned shift = (unsigned)(bucket / STATS_STEPS) - 1;
    uint64_t first = (uint64_t)(bucket % STATS_STEPS + STATS_STEPS) << shift;
    return (double)first + (double)((UINT64_C(1) << shift) - 1) / 2.0;
}

void stats_record(struct stats *stats, int64_t latency_ns) {
    uint64_t ns = latency_ns > 0 ? (uint64_t)latency_ns : 0;
    stats->calls++;
    stats->total_ns += ns;
    stats->buckets[bucket_of(ns)]++;
}

double stats_percentile_us(const struct stats *stats, unsigned percent) {
    /* The smallest rank that `percent` of all calls do not exceed, counted from 1. */
    uint64_t rank = stats->calls / 100 * percent + (stats->calls % 100 * percent + 99) / 100;
    uint64_t seen = 0;
    for (size_t bucket = 0; bucket < STATS_BUCKETS && rank > 0; bucket++) {
        seen += stats->buckets[bucket];
        if (seen >= rank) {
            return middle_ns(bucket) / 1000.0;
        }
    }
    return 0.0;
}

elcache_stats_t stats_read(const struct stats *stats) {
    elcache_stats_t result = stats->counts;
    result.latency_us_avg = stats->calls == 0 ? 0.0 : (double)stats->total_ns / (double)stats->calls / 1000.0;
    result.latency_us_p99 = stats_percentile_us(stats, 99);
    return result;
}
