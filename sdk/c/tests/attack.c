/* Clients that mean harm, against a real node, beside clients that behave. Arguments: the program elcached, for how many seconds, a seed.
 * The same seed sends the same bytes, at other moments. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../src/frame.h"
#include "attackers.h"
#include "check.h"
#include "defenders.h"
#include "raw.h"
#include "watch.h"

enum {
    BUDGET_MIB = 64,
    ALLOWANCE_MIB = 64, /* what a node may take beyond its budget */
    LARGE_LEN = 3 << 20,
    LARGE_COUNT = 12,
    SLOTS = 6,
    KILLS_A_SECOND_MIN = 5,
    NOBODY = 65534
};

static const char *program;
static int seconds;
static uint64_t seed;
static struct node node;

static void start(void) {
    static uint8_t large[LARGE_LEN];
    char key[32];
    node_start(&node, program, "unix", "64", "0");
    elcache_client_t *client = node_client(&node);
    for (int i = 0; i < LARGE_COUNT; i++) {
        int len = snprintf(key, sizeof key, "large/%d", i);
        fill_bytes(large, sizeof large, (uint64_t)i);
        CHECK_OK(client, elcache_client_put(client, key, (size_t)len, large, sizeof large, NULL));
    }
    elcache_client_destroy(client);
}

/* --- What an attacker's process does --- */

static pid_t begin(const struct attacker *attacker, uint64_t rng) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* It is the node that is tried, not how the system shares processors that are too few. */
        (void)nice(5);
        for (;;) {
            attacker->attack(node.socket, &rng);
        }
    }
    return pid;
}

/* It must not have ended by itself: then it would not have attacked. */
static void end(pid_t pid) {
    int status = 0;
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* --- What may only be read --- */

/* The descriptor of some region of the cache. */
static int region_of(struct raw *raw) {
    uint8_t bytes[4096];
    for (uint64_t number = 0; number < 64; number++) {
        int fds[2];
        struct frame_writer writer = {bytes, sizeof bytes, 0, 0, 0};
        frame_begin(&writer, FRAME_MAP, 0, ++raw->last_id);
        frame_add_number(&writer, TAG_REGION, number);
        frame_finish(&writer, 0);
        CHECK(raw_put(raw, bytes, writer.len, 1000));
        CHECK(raw_receive(raw, bytes, sizeof bytes, fds, 5000) > 0);
        if (fds[0] >= 0) {
            return fds[0];
        }
    }
    CHECK(!"there is a region");
    return -1;
}

/* What nobody can do who was given a descriptor: by its mode it cannot write, and the seals hold for root as well. */
static void expect_no_way_to_write(int fd) {
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
    CHECK(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
    void *mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(mapped != MAP_FAILED && mprotect(mapped, 4096, PROT_READ | PROT_WRITE) != 0 && errno == EACCES);
    CHECK(madvise(mapped, 4096, MADV_REMOVE) != 0);
    CHECK(munmap(mapped, 4096) == 0);
    CHECK(pwrite(fd, "", 1, 0) < 0 && errno == EBADF);
    CHECK(ftruncate(fd, 0) != 0 && ftruncate(fd, INT64_C(1) << 40) != 0);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) != 0 && fallocate(fd, 0, 0, 4096) != 0);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) != 0);
}

/* Whoever can open the file anew to write, as root and the node's own user can, cannot change its length or seal it. */
static void expect_seals(int fd) {
    CHECK(ftruncate(fd, 0) != 0 && errno == EPERM);
    CHECK(ftruncate(fd, INT64_C(1) << 40) != 0 && errno == EPERM);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0 && errno == EPERM);
}

static int open_anew(int fd) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

static void be_nobody(void) {
    CHECK(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    /* So that /proc/self is its own: it is by the file's mode that it is kept out. */
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
}

static void try_to_write(int is_nobody, int session, int watch, int region) {
    const int fds[] = {watch, region};
    if (is_nobody) {
        be_nobody();
        int own = open_anew(session);
        CHECK(own >= 0 && close(own) == 0);
    }
    for (int i = 0; i < 2; i++) {
        expect_no_way_to_write(fds[i]);
        int writable = open_anew(fds[i]);
        if (is_nobody) {
            CHECK(writable < 0 && errno == EACCES);
            CHECK(fchmod(fds[i], 0666) != 0 && errno == EPERM);
        } else if (geteuid() == 0) {
            CHECK(writable >= 0);
            expect_seals(writable);
            close(writable);
        } else {
            CHECK(writable < 0 && errno == EACCES);
        }
    }
    expect_seals(session);
}

static void what_is_for_reading_cannot_be_written(void) {
    struct raw raw;
    CHECK(raw_open(&raw, node.socket, 65536));
    int region = region_of(&raw);
    /* Only root can be somebody else. */
    for (int is_nobody = 0; is_nobody <= (geteuid() == 0); is_nobody++) {
        int status = -1;
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            try_to_write(is_nobody, raw.session_fd, raw.watch_fd, region);
            _exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    close(region);
    raw_close(&raw);
}

/* The memory of a session goes with it, so that nobody keeps it. What was said last was gone before a client could read it. */
static void last_answers_wait_to_be_read(void) {
    struct raw raw;
    uint8_t bytes[256] = {0};
    struct frame_writer writer = {bytes, sizeof bytes, 0, 0, 0};
    CHECK(raw_open(&raw, node.socket, 65536));
    frame_begin(&writer, FRAME_PING, 0, ++raw.last_id);
    frame_finish(&writer, 0);
    /* A frame of version 0 ends the connection. */
    CHECK(raw_put(&raw, bytes, writer.len + FRAME_HEADER_LEN, 1000));
    poll(NULL, 0, 200);
    const uint8_t *answers = raw.session + RAW_CONTROL_LEN + raw.capacity;
    CHECK(*raw_count(&raw, RAW_ANSWERS_WRITTEN) > 2 * FRAME_HEADER_LEN);
    CHECK(answers[0] == 1 && answers[1] == FRAME_REPLY);
    *raw_count(&raw, RAW_ANSWERS_READ) = *raw_count(&raw, RAW_ANSWERS_WRITTEN);
    for (int waited_ms = 0; answers[0] != 0; waited_ms += 10) {
        CHECK(waited_ms < 5000);
        poll(NULL, 0, 10);
    }
    raw_close(&raw);
}

/* --- Descriptors --- */

static void descriptors_that_nobody_asked_for_are_not_kept(void) {
    enum { CONNECTIONS = 20, TIMES = 30 };
    struct raw raws[CONNECTIONS];
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct holdings before = watch_holdings(&node);
    long had = watch_descriptors(&node);
    for (int i = 0; i < CONNECTIONS; i++) {
        CHECK(raw_connect(&raws[i], node.socket) && raw_greet(&raws[i]));
        CHECK(i % 2 == 0 || raw_share(&raws[i], 65536));
        for (int time = 0; time < TIMES; time++) {
            /* Wakes, or the beginning of a frame that never ends. */
            CHECK(raw_send_fd(&raws[i], i % 2 ? "" : "\1", 1, fd, 30) || errno == EAGAIN);
            if (i % 2 == 0 && time == 0) {
                uint8_t rest[FRAME_HEADER_LEN] = {FRAME_GET, 0, 0, 0xff, 0xff};
                CHECK(raw_send(&raws[i], rest, FRAME_HEADER_LEN - 1, 1000));
            }
        }
    }
    poll(NULL, 0, 200);
    CHECK(watch_descriptors(&node) <= had + 2 * CONNECTIONS);
    for (int i = 0; i < CONNECTIONS; i++) {
        raw_close(&raws[i]);
    }
    watch_until(&node, &before);
    close(fd);
}

/* Asks for a region again and again, and takes none. */
static void leave_descriptors(struct raw *raw) {
    uint8_t bytes[4096];
    CHECK(raw_open(raw, node.socket, 65536));
    for (int i = 0; i < 300; i++) {
        struct frame_writer writer = {bytes, sizeof bytes, 0, 0, 0};
        frame_begin(&writer, FRAME_MAP, 0, ++raw->last_id);
        frame_add_number(&writer, TAG_REGION, 1);
        frame_finish(&writer, 0);
        (void)raw_put(raw, bytes, writer.len, 0);
        poll(NULL, 0, i < 20 ? 1 : 0);
    }
}

static void try_to_use_up_descriptors(void) {
    enum { CONNECTIONS = 16 };
    static struct raw raws[CONNECTIONS];
    static uint8_t value[LARGE_LEN];
    size_t len = 0;
    struct rlimit few = {256, 256};
    /* The system lets who is allowed to ignore that have as many as he likes. */
    (void)prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE);
    (void)prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN);
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    start();
    node.is_shared = 1;
    elcache_client_t *early = node_client(&node);
    for (int i = 0; i < CONNECTIONS; i++) {
        leave_descriptors(&raws[i]);
    }
    elcache_client_t *late = node_client(&node);
    CHECK_OK(late, elcache_client_get(late, "large/0", 7, value, sizeof value, &len, NULL));
    CHECK_OK(early, elcache_client_get(early, "large/0", 7, value, sizeof value, &len, NULL));
    CHECK(elcache_client_is_connected(early));
    for (int i = 0; i < CONNECTIONS; i++) {
        raw_close(&raws[i]);
    }
    elcache_client_destroy(early);
    elcache_client_destroy(late);
    node_end(&node, SIGTERM);
    node_remove(&node);
}

/* Those that are under way are counted for the user that sent them, whoever it is that does not take them. */
static void descriptors_that_nobody_takes_do_not_keep_them_from_others(void) {
    int status = -1;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        try_to_use_up_descriptors();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* --- A node of one thread --- */

/* Four at once, which are more than there are threads; how long a call of another client takes. */
static void expect_to_be_served_beside(const struct attacker *attacker) {
    pid_t pids[4];
    elcache_client_t *client = node_client(&node);
    CHECK_OK(client, elcache_client_set_timeout(client, 3000));
    for (int i = 0; i < 4; i++) {
        pids[i] = begin(attacker, seed + (uint64_t)i);
    }
    poll(NULL, 0, 300);
    for (int i = 0; i < 100; i++) {
        CHECK_OK(client, elcache_client_put(client, "key", 3, "value", 5, NULL));
    }
    for (int i = 0; i < 4; i++) {
        end(pids[i]);
    }
    elcache_client_destroy(client);
}

static void who_never_rests_holds_up_nobody_on_a_node_of_one_thread(void) {
    const struct attacker floods[] = {{"", attack_with_an_endless_ring}, {"", attack_with_wakes}};
    setenv("ELCACHE__PERFORMANCE__WORKER_THREADS", "1", 1);
    start();
    unsetenv("ELCACHE__PERFORMANCE__WORKER_THREADS");
    struct holdings before = watch_holdings(&node);
    for (int i = 0; i < 2; i++) {
        expect_to_be_served_beside(&floods[i]);
        watch_until(&node, &before);
    }
    node_end(&node, SIGTERM);
    node_remove(&node);
}

/* --- Memory --- */

static void what_clients_leave_in_a_node_is_within_its_budget(void) {
    const struct attacker hoarders[] = {{"", attack_with_frames_that_do_not_end},
                                        {"", attack_with_answers_that_nobody_takes}};
    for (int i = 0; i < 2; i++) {
        pid_t pids[12];
        start();
        struct holdings before = watch_holdings(&node);
        for (int n = 0; n < 12; n++) {
            pids[n] = begin(&hoarders[i], seed + (uint64_t)n);
        }
        poll(NULL, 0, 3500);
        for (int n = 0; n < 12; n++) {
            end(pids[n]);
        }
        watch_until(&node, &before);
        printf(" %ld MiB", watch_peak_mib(&node));
        CHECK(watch_peak_mib(&node) < BUDGET_MIB + ALLOWANCE_MIB);
        node_end(&node, SIGTERM);
        node_remove(&node);
    }
}

/* --- All at once --- */

/* Kills attackers in the middle of what they do, and begins others, for as long as wanted; how many. */
static long besiege(pid_t pids[SLOTS], uint64_t *rng) {
    int64_t end_ns = clock_now_ns() + seconds * NS_PER_S;
    long kills = 0;
    for (int i = 0; i < SLOTS; i++) {
        pids[i] = begin(&ATTACKERS[i % ATTACKER_COUNT], random_next(rng));
    }
    while (clock_now_ns() < end_ns) {
        pid_t *victim = &pids[random_next(rng) % SLOTS];
        poll(NULL, 0, (int)(random_next(rng) % 60));
        if (random_next(rng) % 4 == 0) {
            /* Stopped for a while, until its turn comes. */
            CHECK(kill(*victim, SIGSTOP) == 0);
            continue;
        }
        end(*victim);
        *victim = begin(&ATTACKERS[random_next(rng) % (uint64_t)ATTACKER_COUNT], random_next(rng));
        kills++;
    }
    return kills;
}

static void clients_that_behave_notice_nothing(void) {
    pid_t pids[SLOTS];
    uint64_t rng = seed;
    start();
    struct holdings before = watch_holdings(&node);
    struct defender *defenders = defenders_start(&node, seed);
    long kills = besiege(pids, &rng);
    printf("\n    seed %llu: %ld attackers killed\n", (unsigned long long)seed, kills);
    defenders_stop(defenders);
    for (int i = 0; i < SLOTS; i++) {
        CHECK(kill(pids[i], SIGSTOP) == 0);
    }
    poll(NULL, 0, 1000);
    long busy_ms = watch_busy_ms(&node, 1000);
    printf("    beside clients that are stopped the node is busy for %ld ms in a second\n", busy_ms);
    CHECK(busy_ms < 300);
    for (int i = 0; i < SLOTS; i++) {
        end(pids[i]);
    }
    watch_until(&node, &before);
    printf("    at most %ld MiB of memory were in use\n   ", watch_peak_mib(&node));
    CHECK(watch_peak_mib(&node) < BUDGET_MIB + ALLOWANCE_MIB);
    CHECK(kills >= seconds * KILLS_A_SECOND_MIN);
    for (int kind = 0; kind < DEFENDER_KINDS; kind++) {
        const struct defender *one = &defenders[kind];
        CHECK(one->good > 100 && (one->busy + one->gone) * 50 < one->good);
        CHECK(defender_quantile_us(one, 99) <= 1ul << 20 && one->slowest_us < 5000000);
    }
    node_end(&node, SIGTERM);
    node_remove(&node);
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    program = argv[1];
    seconds = atoi(argv[2]);
    seed = strtoull(argv[3], NULL, 10);
    setenv("ELCACHE__LIMITS__HEADER_TIMEOUT", "2s", 1);
    setenv("ELCACHE__LIMITS__BODY_STALL_TIMEOUT", "2s", 1);
    start();
    RUN(what_is_for_reading_cannot_be_written);
    RUN(last_answers_wait_to_be_read);
    RUN(descriptors_that_nobody_asked_for_are_not_kept);
    node_end(&node, SIGTERM);
    node_remove(&node);
    RUN(descriptors_that_nobody_takes_do_not_keep_them_from_others);
    RUN(who_never_rests_holds_up_nobody_on_a_node_of_one_thread);
    RUN(what_clients_leave_in_a_node_is_within_its_budget);
    RUN(clients_that_behave_notice_nothing);
    return 0;
}
