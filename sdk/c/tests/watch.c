#include "watch.h"

#include <poll.h>
#include <unistd.h>

#include "check.h"
#include "held.h"

enum { LIMIT_MS = 30000 };

static const char SESSION[] = "/memfd:elcache-session";

static long metric(const char *page, const char *series) {
    const char *line = strstr(page, series);
    return line == NULL ? 0 : atol(line + strlen(series));
}

struct holdings watch_holdings(const struct node *node) {
    static char page[262144];
    struct holdings holdings = {0};
    node_curl(node, page, sizeof page, "$B/metrics");
    holdings.unix_connections = metric(page, "\nelcache_connections{transport=\"unix\"} ");
    holdings.shm_connections = metric(page, "\nelcache_connections{transport=\"shm\"} ");
    holdings.sockets = held_descriptors(node->pid, "socket:");
    holdings.sessions = held_descriptors(node->pid, SESSION);
    holdings.mapped_sessions = held_mappings(node->pid, SESSION);
    return holdings;
}

void watch_until(const struct node *node, const struct holdings *expected) {
    struct holdings now = {0};
    for (int waited_ms = 0; waited_ms < LIMIT_MS; waited_ms += 50) {
        now = watch_holdings(node);
        if (memcmp(&now, expected, sizeof now) == 0) {
            return;
        }
        poll(NULL, 0, 50);
    }
    fprintf(stderr, "sockets %ld, sessions %ld, mapped %ld, unix %ld, shm %ld; expected %ld, %ld, %ld, %ld, %ld\n",
            now.sockets, now.sessions, now.mapped_sessions, now.unix_connections, now.shm_connections,
            expected->sockets, expected->sessions, expected->mapped_sessions, expected->unix_connections,
            expected->shm_connections);
    CHECK(!"nothing is left of clients that have gone");
}

long watch_descriptors(const struct node *node) {
    return held_descriptors(node->pid, "");
}

long watch_peak_mib(const struct node *node) {
    char path[64];
    char line[256];
    long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", node->pid);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        (void)sscanf(line, "VmHWM: %ld", &kib);
    }
    fclose(file);
    CHECK(kib > 0);
    return kib / 1024;
}

static long busy_ticks(const struct node *node) {
    char path[64];
    char line[1024] = {0};
    long user = 0;
    long system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", node->pid);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL && fgets(line, sizeof line, file) != NULL);
    fclose(file);
    const char *fields = strrchr(line, ')');
    CHECK(fields != NULL && sscanf(fields + 2, "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %ld %ld", &user, &system) == 2);
    return user + system;
}

long watch_busy_ms(const struct node *node, int ms) {
    long before = busy_ticks(node);
    poll(NULL, 0, ms);
    return (busy_ticks(node) - before) * 1000 / sysconf(_SC_CLK_TCK);
}
