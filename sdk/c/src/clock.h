/* Time that only goes forwards. */
#ifndef ELCACHE_CLOCK_H
#define ELCACHE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

/* Nanoseconds since some moment in the past. */
static inline int64_t clock_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* What is left until `deadline_ns` in milliseconds, rounded up; 0 when it has passed. */
static inline int clock_left_ms(int64_t deadline_ns) {
    int64_t left_ns = deadline_ns - clock_now_ns();
    int64_t left_ms = left_ns <= 0 ? 0 : (left_ns + NS_PER_MS - 1) / NS_PER_MS;
    return left_ms > INT32_MAX ? INT32_MAX : (int)left_ms;
}

#endif
