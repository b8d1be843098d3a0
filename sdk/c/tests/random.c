/* Random operations against a model, on a node that is stopped, killed and started again between and during them,
 * beside another client that does the same on keys of its own until it is killed.
 * Arguments: the program elcached, the transport (unix or shm), a seed, a number of operations, and how many of them
 * lie between two disturbances. The same arguments do the same, but for the moments at which something is killed. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "held.h"
#include "model.h"
#include "node.h"
#include "watch.h"

enum { KEYS = 24, STREAMS = 3, LEN_MAX = 6 << 20, TIMEOUT_MS = 20000, SHORT_TIMEOUT_MS = 150 };

/* A read stream that is open: it gives what its key held when it began. */
struct reading {
    elcache_read_stream_t *stream;
    struct state state;
    size_t key;
    size_t at;
};

static struct node node;
static struct holdings without_clients;
static char prefix[32] = "random"; /* of all keys */
static elcache_client_t *client;
static struct model models[KEYS];
static struct reading readings[STREAMS];
static uint64_t rng;
static int is_disturbed; /* the node is stopped, dead, or about to be: calls may fail */
static uint8_t written[LEN_MAX];
static uint8_t expected[LEN_MAX];
static uint8_t got[LEN_MAX];
static struct {
    uint64_t ok;
    uint64_t failed;
    uint64_t restarts;
    uint64_t killed; /* clients */
} counts;

static uint64_t below(uint64_t limit) {
    return random_next(&rng) % limit;
}

static size_t random_len(size_t most) {
    static const size_t CLASSES[] = {2, 100, 5000, 70000, 300000, LEN_MAX};
    /* Large ones are rare: each next class is half as likely. */
    size_t class = 0;
    while (class < 5 && below(2)) {
        class ++;
    }
    size_t limit = CLASSES[class] < most ? CLASSES[class] : most;
    return limit == 0 ? 0 : (size_t)below(limit + 1);
}

static size_t key_of(size_t key, char *text) {
    return (size_t)sprintf(text, "%s/%zu", prefix, key);
}

/* Anything but this is a failure that only a node which is disturbed may cause. */
static int is_expected_failure(elcache_error_t error) {
    if (is_disturbed &&
        (error == ELCACHE_ERR_CONNECTION || error == ELCACHE_ERR_TIMEOUT || error == ELCACHE_ERR_BUSY)) {
        counts.failed++;
        return 1;
    }
    fprintf(stderr, "error %d: %s\n", error, elcache_client_last_error(client));
    return 0;
}

/* --- Writing --- */

static struct state random_value(void) {
    struct state state = {1, random_next(&rng), random_len(LEN_MAX), (uint32_t)below(3)};
    fill_bytes(written, state.len, state.seed);
    return state;
}

static void note_write(size_t key, struct state state, elcache_error_t error) {
    if (error == ELCACHE_OK) {
        counts.ok++;
        model_wrote(&models[key], state);
        return;
    }
    CHECK(is_expected_failure(error));
    model_may_write(&models[key], state);
}

static void do_put(size_t key) {
    char text[32];
    struct state state = random_value();
    elcache_put_options_t options = ELCACHE_PUT_OPTIONS_INIT;
    options.flags = state.flags;
    options.no_memory = below(4) == 0;
    options.ttl_seconds = below(4) == 0 ? 100000 : 0;
    note_write(key, state, elcache_client_put(client, text, key_of(key, text), written, state.len, &options));
}

static void do_write_stream(size_t key) {
    char text[32];
    struct state state = random_value();
    elcache_put_options_t options = ELCACHE_PUT_OPTIONS_INIT;
    elcache_write_stream_t *stream = NULL;
    options.flags = state.flags;
    uint64_t total = below(2) ? state.len : 0;
    elcache_error_t error =
        elcache_client_write_stream_start(client, text, key_of(key, text), total, &options, &stream);
    if (error != ELCACHE_OK) {
        CHECK(is_expected_failure(error));
        return;
    }
    for (size_t at = 0; at < state.len && error == ELCACHE_OK;) {
        size_t piece = random_len(state.len - at);
        error = elcache_write_stream_write(stream, written + at, piece);
        at += piece;
    }
    if (below(4) == 0) {
        CHECK(elcache_write_stream_abort(stream) == ELCACHE_OK);
        return;
    }
    note_write(key, state, elcache_write_stream_finish(stream));
}

static void do_delete(size_t key) {
    char text[32];
    struct state none = {0};
    elcache_error_t error = elcache_client_delete(client, text, key_of(key, text));
    /* That there was nothing is one of the things that may have been. */
    note_write(key, none, error == ELCACHE_ERR_NOT_FOUND ? ELCACHE_OK : error);
}

/* Gives up an upload that an earlier failure left open: the API cannot. */
static void drop_upload(const char *key) {
    char output[16];
    char arguments[128];
    snprintf(arguments, sizeof arguments, "-o /dev/null -X DELETE $B/sparse/%s", key);
    node_curl(&node, output, sizeof output, arguments);
}

static void do_sparse(size_t key) {
    char text[32];
    size_t key_len = key_of(key, text);
    struct state state = random_value();
    elcache_put_options_t options = ELCACHE_PUT_OPTIONS_INIT;
    options.flags = state.flags;
    elcache_error_t error = elcache_client_create_sparse(client, text, key_len, state.len, &options);
    if (error == ELCACHE_ERR_CONFLICT && !is_disturbed) {
        drop_upload(text);
        error = elcache_client_create_sparse(client, text, key_len, state.len, &options);
    }
    if (error != ELCACHE_OK) {
        CHECK((is_disturbed && error == ELCACHE_ERR_CONFLICT) || is_expected_failure(error));
        return;
    }
    /* From the end to the beginning, with overlaps. */
    for (size_t end = state.len; end > 0 && error == ELCACHE_OK;) {
        size_t len = 1 + random_len(end - 1);
        size_t over = state.len - end < 10 ? state.len - end : (size_t)below(10);
        error = elcache_client_write_range(client, text, key_len, end - len, written + end - len, len + over);
        end -= len;
    }
    if (error != ELCACHE_OK) {
        CHECK(is_expected_failure(error));
        return;
    }
    error = elcache_client_finalize(client, text, key_len);
    /* The node died between, and had not kept the ranges: `process` keeps what was acknowledged, so that it had to. */
    note_write(key, state, error);
}

/* --- Reading --- */

struct seen {
    elcache_error_t error;
    uint64_t offset;
    size_t len;         /* of the bytes in `got` */
    uint64_t most;      /* that were asked for; 0: to the end */
    int has_metadata;
    elcache_metadata_t metadata;
};

static int fits(const struct state *state, void *argument) {
    const struct seen *seen = argument;
    if (seen->error == ELCACHE_ERR_NOT_FOUND) {
        return !state->exists;
    }
    if (!state->exists) {
        return 0;
    }
    if (seen->has_metadata) {
        return seen->metadata.total_size == state->len && seen->metadata.flags == state->flags;
    }
    if (seen->error == ELCACHE_ERR_INVALID_ARG) {
        return seen->offset > state->len;
    }
    if (seen->offset > state->len) {
        return 0;
    }
    uint64_t left = state->len - seen->offset;
    uint64_t len = seen->most != 0 && seen->most < left ? seen->most : left;
    if (seen->len != len) {
        return 0;
    }
    fill_bytes(expected, state->len, state->seed);
    return memcmp(got, expected + seen->offset, seen->len) == 0;
}

static void note_read(size_t key, struct seen *seen) {
    int is_answer = seen->error == ELCACHE_OK || seen->error == ELCACHE_ERR_NOT_FOUND ||
                    (seen->error == ELCACHE_ERR_INVALID_ARG && seen->offset > 0);
    if (!is_answer) {
        CHECK(is_expected_failure(seen->error));
        return;
    }
    counts.ok++;
    if (!model_saw(&models[key], fits, seen)) {
        fprintf(stderr, "key %zu: %d, %zu bytes from %llu on, which it cannot hold\n", key, seen->error, seen->len,
                (unsigned long long)seen->offset);
        abort();
    }
}

static void do_get(size_t key) {
    char text[32];
    size_t key_len = key_of(key, text);
    struct seen seen = {0};
    elcache_get_options_t options = ELCACHE_GET_OPTIONS_INIT;
    options.offset = below(2) ? 0 : random_len(LEN_MAX);
    options.length = below(2) ? 0 : random_len(LEN_MAX);
    options.allow_partial = (int)below(2);
    seen.offset = options.offset;
    seen.most = options.length;
    if (below(2)) {
        seen.error = elcache_client_get(client, text, key_len, got, sizeof got, &seen.len, &options);
    } else {
        void *bytes = NULL;
        seen.error = elcache_client_get_alloc(client, text, key_len, &bytes, &seen.len, &options);
        CHECK(seen.error != ELCACHE_OK || bytes != NULL);
        memcpy(got, bytes != NULL ? bytes : got, seen.len);
        elcache_free(bytes);
    }
    note_read(key, &seen);
}

static void read_whole(size_t key) {
    char text[32];
    struct seen seen = {0};
    seen.error = elcache_client_get(client, text, key_of(key, text), got, sizeof got, &seen.len, NULL);
    note_read(key, &seen);
}

static void do_read_range(size_t key) {
    char text[32];
    struct seen seen = {0};
    seen.offset = random_len(LEN_MAX);
    seen.most = 1 + random_len(LEN_MAX - 1);
    size_t size = (size_t)seen.most;
    seen.error = elcache_client_read_range(client, text, key_of(key, text), seen.offset, got, size, &seen.len);
    note_read(key, &seen);
}

static void do_small_buffer(size_t key) {
    char text[32];
    size_t len = 0;
    struct seen seen = {0};
    seen.error = elcache_client_get(client, text, key_of(key, text), got, 10, &len, NULL);
    seen.len = len;
    if (seen.error == ELCACHE_ERR_BUFFER_TOO_SMALL) {
        CHECK(len > 10);
        counts.ok++;
        return;
    }
    note_read(key, &seen);
}

static void do_look(size_t key) {
    char text[32];
    size_t key_len = key_of(key, text);
    struct seen seen = {0};
    elcache_availability_t availability;
    int exists = 0;
    switch (below(3)) {
    case 0:
        seen.has_metadata = 1;
        seen.error = elcache_client_metadata(client, text, key_len, &seen.metadata);
        break;
    case 1:
        seen.has_metadata = 1;
        seen.error = elcache_client_check_availability(client, text, key_len, 0, 0, &availability);
        seen.metadata = availability.metadata;
        if (seen.error == ELCACHE_OK) {
            CHECK(availability.missing_count == 0 && availability.available_count <= 1);
            seen.error = availability.exists ? ELCACHE_OK : ELCACHE_ERR_NOT_FOUND;
        }
        elcache_availability_free(&availability);
        break;
    default:
        seen.error = elcache_client_exists(client, text, key_len, &exists);
        if (seen.error != ELCACHE_OK || exists) {
            CHECK(seen.error == ELCACHE_OK || is_expected_failure(seen.error));
            return;
        }
        seen.error = ELCACHE_ERR_NOT_FOUND;
    }
    note_read(key, &seen);
}

/* --- Read streams, which stay open from one operation to another --- */

static void close_reading(struct reading *reading) {
    elcache_read_stream_close(reading->stream);
    reading->stream = NULL;
}

static void do_open_reading(size_t key) {
    char text[32];
    struct state state;
    struct reading *reading = &readings[below(STREAMS)];
    if (reading->stream != NULL) {
        close_reading(reading);
    }
    if (!model_is_certain(&models[key], &state)) {
        return;
    }
    elcache_error_t error = elcache_client_read_stream_start(client, text, key_of(key, text), NULL, &reading->stream);
    if (error == ELCACHE_ERR_NOT_FOUND) {
        CHECK(!state.exists);
    } else if (error != ELCACHE_OK) {
        CHECK(is_expected_failure(error));
    } else {
        CHECK(state.exists && elcache_read_stream_total_size(reading->stream) == state.len);
        reading->state = state;
        reading->key = key;
        reading->at = 0;
    }
}

static void do_go_on_reading(void) {
    struct reading *reading = &readings[below(STREAMS)];
    if (reading->stream == NULL) {
        return;
    }
    size_t wanted = random_len(LEN_MAX);
    size_t len = 0;
    elcache_error_t error = elcache_read_stream_read(reading->stream, got, wanted, &len);
    fill_bytes(expected, reading->state.len, reading->state.seed);
    CHECK(len <= reading->state.len - reading->at && memcmp(got, expected + reading->at, len) == 0);
    reading->at += len;
    if (error == ELCACHE_ERR_CONNECTION) {
        /* Its node has died since. A call between may have connected anew, so that nothing else tells. */
        close_reading(reading);
        return;
    }
    if (error == ELCACHE_ERR_PARTIAL) {
        /* The node keeps a value that was replaced for those who read it, but not for one who rests over it: this client has been
         * stopped, or turned to other streams for seconds. What the key still holds does not go like that. */
        struct state state;
        CHECK(!model_is_certain(&models[reading->key], &state) || !model_same(&state, &reading->state));
        close_reading(reading);
        return;
    }
    CHECK(error == ELCACHE_OK || is_expected_failure(error));
    if (error == ELCACHE_OK && len < wanted && elcache_read_stream_eof(reading->stream)) {
        CHECK(reading->at == reading->state.len);
        close_reading(reading);
    }
}

/* --- What happens to the other client --- */

static void one_operation(void);

/* The other client, a program of its own, so that it has no descriptor of this one. */
static pid_t other;

static void start_other(void) {
    char number[16];
    char seed[24];
    /* Read, and not executed itself: of a program under valgrind that would be valgrind's own. */
    char program[512];
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    CHECK(len > 0);
    program[len] = '\0';
    snprintf(number, sizeof number, "%d", (int)(counts.killed % 64));
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)random_next(&rng));
    other = fork();
    CHECK(other >= 0);
    if (other == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(program, "random", "other", node.socket, node.is_shared ? "shm" : "unix", seed, number,
              (char *)NULL);
        _exit(127);
    }
}

static void kill_other(void) {
    int status = 0;
    CHECK(kill(other, SIGKILL) == 0 && waitpid(other, &status, 0) == other);
    /* One that has failed has said why; one that does not know what any of its keys holds has ended. */
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    counts.killed++;
}

static void replace_other(void) {
    kill_other();
    start_other();
}

/* Stops it where it is, with all that it holds, while this one goes on. */
static void stop_other_for_a_while(void) {
    CHECK(kill(other, SIGSTOP) == 0);
    for (int i = 0; i < 20; i++) {
        one_operation();
    }
    CHECK(kill(other, SIGCONT) == 0);
}

static int knows_a_key(void) {
    for (size_t key = 0; key < KEYS; key++) {
        if (!model_is_crowded(&models[key])) {
            return 1;
        }
    }
    return 0;
}

/* What the other client does: whatever it likes, on a node that may be stopped or dead at any time. */
static int be_the_other(char **arguments) {
    snprintf(node.socket, sizeof node.socket, "%s", arguments[0]);
    node.is_shared = strcmp(arguments[1], "shm") == 0;
    rng = strtoull(arguments[2], NULL, 10);
    snprintf(prefix, sizeof prefix, "other/%.10s", arguments[3]);
    is_disturbed = 1;
    client = elcache_client_create();
    CHECK(client != NULL);
    while (node_connect(&node, client) != ELCACHE_OK) {
        usleep(1000);
    }
    CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
    for (size_t key = 0; key < KEYS; key++) {
        char text[32];
        elcache_error_t error = ELCACHE_OK;
        do {
            error = elcache_client_delete(client, text, key_of(key, text));
        } while (error != ELCACHE_OK && error != ELCACHE_ERR_NOT_FOUND);
    }
    while (knows_a_key()) {
        one_operation();
    }
    return 0;
}

/* --- What happens to the node --- */

/* When no client is there any more, the node holds nothing of any. */
static void leave_nothing(void) {
    for (int i = 0; i < STREAMS; i++) {
        close_reading(&readings[i]);
    }
    elcache_client_disconnect(client);
    kill_other();
    watch_until(&node, &without_clients);
    CHECK(watch_peak_mib(&node) <= 64 + 64);
    CHECK_OK(client, node_connect(&node, client));
    start_other();
}

/* Nothing comes late any more: a look at each key says what became of what was not known. */
static void settle_all(void) {
    for (size_t key = 0; key < KEYS; key++) {
        struct state state;
        model_settle(&models[key]);
        if (!model_is_certain(&models[key], &state)) {
            read_whole(key);
        }
    }
}

static void restart(int signal) {
    if (!is_disturbed && below(2)) {
        leave_nothing();
    }
    for (int i = 0; i < STREAMS; i++) {
        /* A node that ends in order waits for those who read from it, for half a minute. */
        if (readings[i].stream != NULL && (signal == SIGTERM || below(2))) {
            close_reading(&readings[i]);
        }
    }
    node_end(&node, signal);
    is_disturbed = 1;
    for (uint64_t i = below(3); i > 0; i--) {
        one_operation();
    }
    is_disturbed = 0;
    node_restart(&node);
    counts.restarts++;
    settle_all();
}

static void stop_for_a_while(void) {
    is_disturbed = 1;
    node_pause(&node);
    CHECK_OK(client, elcache_client_set_timeout(client, SHORT_TIMEOUT_MS));
    for (uint64_t i = 1 + below(3); i > 0; i--) {
        one_operation();
    }
    node_resume(&node);
    CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
    is_disturbed = 0;
}

static void *kill_later(void *argument) {
    usleep(*(useconds_t *)argument);
    kill(node.pid, SIGKILL);
    return NULL;
}

/* Kills the node while operations run; when exactly is what no seed says. */
static void kill_in_the_middle(void) {
    pthread_t killer;
    useconds_t delay_us = (useconds_t)below(20000);
    is_disturbed = 1;
    CHECK(pthread_create(&killer, NULL, kill_later, &delay_us) == 0);
    for (int i = 0; i < 6; i++) {
        one_operation();
    }
    CHECK(pthread_join(killer, NULL) == 0);
    restart(SIGKILL);
}

static void disturb(void) {
    switch (below(6)) {
    case 0:
        restart(SIGTERM);
        break;
    case 1:
        restart(SIGKILL);
        break;
    case 2:
        stop_for_a_while();
        break;
    case 3:
        replace_other();
        break;
    case 4:
        stop_other_for_a_while();
        break;
    default:
        kill_in_the_middle();
    }
}

static void one_operation(void) {
    size_t key = (size_t)below(KEYS);
    if (model_is_crowded(&models[key])) {
        return;
    }
    switch (below(16)) {
    case 0:
    case 1:
    case 2:
        do_put(key);
        break;
    case 3:
        do_write_stream(key);
        break;
    case 4:
        do_sparse(key);
        break;
    case 5:
        do_delete(key);
        break;
    case 6:
        do_open_reading(key);
        break;
    case 7:
    case 8:
        do_go_on_reading();
        break;
    case 9:
        do_look(key);
        break;
    case 10:
        do_small_buffer(key);
        break;
    case 11:
    case 12:
        do_read_range(key);
        break;
    default:
        do_get(key);
    }
}

/* That the library kept nothing: no descriptor beyond those from before, and no memory of a node. */
static void check_nothing_is_held(int descriptors) {
    CHECK(held_descriptors(getpid(), "") == descriptors);
    CHECK(held_mappings(getpid(), "/memfd:elcache") == 0);
}

int main(int argc, char **argv) {
    CHECK(argc == 6);
    for (size_t key = 0; key < KEYS; key++) {
        model_init(&models[key]);
    }
    if (strcmp(argv[1], "other") == 0) {
        return be_the_other(argv + 2);
    }
    int descriptors = held_descriptors(getpid(), "");
    rng = strtoull(argv[3], NULL, 10);
    uint64_t operations = strtoull(argv[4], NULL, 10);
    uint64_t between = strtoull(argv[5], NULL, 10);
    node_start(&node, argv[1], argv[2], "64", "2");
    without_clients = watch_holdings(&node);
    client = node_client(&node);
    CHECK_OK(client, elcache_client_set_timeout(client, TIMEOUT_MS));
    start_other();
    for (uint64_t i = 0; i < operations; i++) {
        int is_crowded = 0;
        for (size_t key = 0; key < KEYS; key++) {
            is_crowded |= model_is_crowded(&models[key]);
        }
        if (is_crowded) {
            restart(SIGTERM);
        } else if (below(between) == 0) {
            disturb();
        } else {
            one_operation();
        }
    }
    printf("  %s, seed %s: %llu answers, %llu failures of a node that was disturbed, %llu restarts, "
           "%llu clients killed\n",
           argv[2], argv[3], (unsigned long long)counts.ok, (unsigned long long)counts.failed,
           (unsigned long long)counts.restarts, (unsigned long long)counts.killed);
    CHECK(counts.ok > operations / 2);
    leave_nothing();
    kill_other();
    elcache_client_destroy(client);
    check_nothing_is_held(descriptors);
    node_remove(&node);
    return 0;
}
