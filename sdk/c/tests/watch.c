#include "watch.h"

#include <dirent.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

enum { LIMIT_MS = 30000, CONTROL_LEN = 4096, RING_MIN = 65536 };

/* Whether memory of this length is that of a session. The watch looks like one, and is always there. */
static int is_session(long len) {
    long ring = (len - CONTROL_LEN) / 2;
    return ring >= RING_MIN && (ring & (ring - 1)) == 0 && len == CONTROL_LEN + 2 * ring;
}

static void count_descriptors(const struct node *node, struct holdings *holdings, long *all) {
    char folder[64];
    snprintf(folder, sizeof folder, "/proc/%d/fd", node->pid);
    DIR *entries = opendir(folder);
    CHECK(entries != NULL);
    for (struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
        char path[340];
        char name[64] = {0};
        struct stat status;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        /* One that is closed meanwhile is none. */
        if (readlink(path, name, sizeof name - 1) <= 0 || stat(path, &status) != 0) {
            continue;
        }
        ++*all;
        holdings->sockets += strncmp(name, "socket:", 7) == 0;
        holdings->sessions += strncmp(name, "/memfd:elcache", 14) == 0 && is_session((long)status.st_size);
    }
    closedir(entries);
}

static long mapped_sessions(const struct node *node) {
    char path[64];
    char line[512];
    long count = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", node->pid);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long begin = 0;
        unsigned long end = 0;
        CHECK(sscanf(line, "%lx-%lx", &begin, &end) == 2);
        count += strstr(line, "memfd:elcache") != NULL && is_session((long)(end - begin));
    }
    fclose(file);
    return count;
}

static long metric(const char *page, const char *series) {
    const char *line = strstr(page, series);
    return line == NULL ? 0 : atol(line + strlen(series));
}

struct holdings watch_holdings(const struct node *node) {
    static char page[262144];
    struct holdings holdings = {0};
    long all = 0;
    node_curl(node, page, sizeof page, "$B/metrics");
    holdings.unix_connections = metric(page, "\nelcache_connections{transport=\"unix\"} ");
    holdings.shm_connections = metric(page, "\nelcache_connections{transport=\"shm\"} ");
    count_descriptors(node, &holdings, &all);
    holdings.mapped_sessions = mapped_sessions(node);
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
    struct holdings holdings = {0};
    long all = 0;
    count_descriptors(node, &holdings, &all);
    return all;
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
