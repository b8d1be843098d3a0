/* The statistics' percentiles against sorted samples. */
#include "../src/stats.h"
#include "check.h"

static struct stats stats;

static int compare(const void *a, const void *b) {
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* The true percentile: the smallest sample that so many of 100 samples do not exceed. */
static double true_us(int64_t *samples, size_t count, unsigned percent) {
    qsort(samples, count, sizeof *samples, compare);
    size_t rank = (count * percent + 99) / 100;
    return (double)samples[rank - 1] / 1000.0;
}

static int is_near(double value, double expected) {
    double off = value > expected ? value - expected : expected - value;
    return off <= expected * 0.02 + 0.001;
}

static void percentiles_are_within_two_percent(void) {
    enum { MOST = 5000 };
    static int64_t samples[MOST];
    uint64_t state = 42;
    for (int round = 0; round < 200; round++) {
        stats_reset(&stats);
        size_t count = 1 + random_next(&state) % MOST;
        unsigned spread = 1 + (unsigned)(random_next(&state) % 38);
        double total_us = 0;
        for (size_t i = 0; i < count; i++) {
            samples[i] = (int64_t)(random_next(&state) >> (64 - 1 - random_next(&state) % spread));
            stats_record(&stats, samples[i]);
            total_us += (double)samples[i] / 1000.0;
        }
        CHECK(is_near(stats_percentile_us(&stats, 50), true_us(samples, count, 50)));
        CHECK(is_near(stats_percentile_us(&stats, 99), true_us(samples, count, 99)));
        CHECK(is_near(stats_percentile_us(&stats, 100), true_us(samples, count, 100)));
        elcache_stats_t read = stats_read(&stats);
        CHECK(is_near(read.latency_us_avg, total_us / (double)count));
        CHECK(is_near(read.latency_us_p99, true_us(samples, count, 99)));
    }
}

static void without_calls_there_is_no_latency(void) {
    stats_reset(&stats);
    elcache_stats_t read = stats_read(&stats);
    CHECK(read.latency_us_avg == 0.0 && read.latency_us_p99 == 0.0);
}

static void one_slow_call_in_a_hundred_is_not_in_the_p99_and_two_are(void) {
    stats_reset(&stats);
    for (int i = 0; i < 99; i++) {
        stats_record(&stats, 1000);
    }
    stats_record(&stats, 1000000);
    CHECK(is_near(stats_percentile_us(&stats, 99), 1.0));
    stats_record(&stats, 1000000);
    CHECK(is_near(stats_percentile_us(&stats, 99), 1000.0));
}

static void what_takes_for_ever_has_a_place(void) {
    stats_reset(&stats);
    stats_record(&stats, INT64_MAX);
    stats_record(&stats, -1);
    stats_record(&stats, 0);
    CHECK(stats.calls == 3 && stats.buckets[STATS_BUCKETS - 1] == 1 && stats.buckets[0] == 2);
}

int main(void) {
    RUN(percentiles_are_within_two_percent);
    RUN(without_calls_there_is_no_latency);
    RUN(one_slow_call_in_a_hundred_is_not_in_the_p99_and_two_are);
    RUN(what_takes_for_ever_has_a_place);
    return 0;
}
