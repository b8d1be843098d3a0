#include "node.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { START_LIMIT_MS = 30000, STOP_LIMIT_MS = 40000 };

static void exec_node(const struct node *node, const char *log) {
    char disk[96];
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    snprintf(disk, sizeof disk, "%s/disk", node->folder);
    /* A test that fails takes its node with it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(fd, STDERR_FILENO);
    dup2(fd, STDOUT_FILENO);
    setenv("ELCACHE__NETWORK__BIND_ADDRESS", "127.0.0.1", 1);
    setenv("ELCACHE__NETWORK__HTTP_PORT", "0", 1);
    unsetenv("LD_PRELOAD");
    execl(node->binary, node->binary, "-m", node->memory, "-d", disk, "-D", node->disk, "-u", node->socket,
          (char *)NULL);
    perror(node->binary);
    _exit(127);
}

/* The port that the log says; 0: it does not say one yet. */
static int port_in(const char *log) {
    char line[1024];
    int port = 0;
    FILE *file = fopen(log, "r");
    while (file != NULL && port == 0 && fgets(line, sizeof line, file) != NULL) {
        const char *address = strstr(line, "listening") != NULL ? strstr(line, "127.0.0.1:") : NULL;
        port = address != NULL ? atoi(address + strlen("127.0.0.1:")) : 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return port;
}

static int takes_connections(const char *path) {
    struct sockaddr_un address = {0};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int is_open = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return is_open;
}

static void show(const char *log) {
    char line[1024];
    FILE *file = fopen(log, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        fputs(line, stderr);
    }
    if (file != NULL) {
        fclose(file);
    }
}

void node_restart(struct node *node) {
    char log[96];
    snprintf(log, sizeof log, "%s/log", node->folder);
    unlink(log);
    CHECK(node->pid == 0);
    node->pid = fork();
    CHECK(node->pid >= 0);
    if (node->pid == 0) {
        exec_node(node, log);
    }
    for (int waited_ms = 0; waited_ms < START_LIMIT_MS; waited_ms += 5) {
        node->http_port = port_in(log);
        if (node->http_port != 0 && takes_connections(node->socket)) {
            return;
        }
        CHECK(waitpid(node->pid, NULL, WNOHANG) == 0 || (show(log), 0));
        poll(NULL, 0, 5);
    }
    show(log);
    CHECK(!"the node listens");
}

void node_start(struct node *node, const char *binary, const char *transport, const char *memory, const char *disk) {
    memset(node, 0, sizeof *node);
    CHECK(strcmp(transport, "unix") == 0 || strcmp(transport, "shm") == 0);
    node->is_shared = strcmp(transport, "shm") == 0;
    node->binary = binary;
    node->memory = memory;
    node->disk = disk;
    strcpy(node->folder, "/tmp/elcache-c-XXXXXX");
    CHECK(mkdtemp(node->folder) != NULL);
    snprintf(node->socket, sizeof node->socket, "%s/socket", node->folder);
    node_restart(node);
}

void node_end(struct node *node, int signal) {
    CHECK(node->pid > 0 && kill(node->pid, signal) == 0);
    if (signal == SIGTERM) {
        int is_over = 0;
        for (int waited_ms = 0; waited_ms < STOP_LIMIT_MS && !is_over; waited_ms += 5) {
            is_over = waitpid(node->pid, NULL, WNOHANG) == node->pid;
            poll(NULL, 0, is_over ? 0 : 5);
        }
        CHECK(is_over);
    } else {
        CHECK(waitpid(node->pid, NULL, 0) == node->pid);
    }
    node->pid = 0;
}

void node_pause(const struct node *node) {
    int status = 0;
    CHECK(kill(node->pid, SIGSTOP) == 0);
    /* Its threads stop one after the other. */
    CHECK(waitpid(node->pid, &status, WUNTRACED) == node->pid && WIFSTOPPED(status));
}

void node_resume(const struct node *node) {
    CHECK(kill(node->pid, SIGCONT) == 0);
}

void node_remove(struct node *node) {
    char command[128];
    if (node->pid > 0) {
        node_end(node, SIGKILL);
    }
    snprintf(command, sizeof command, "rm -rf '%s'", node->folder);
    CHECK(system(command) == 0);
}

elcache_error_t node_connect(const struct node *node, elcache_client_t *client) {
    return node->is_shared ? elcache_client_connect_shm(client, node->socket)
                           : elcache_client_connect_unix(client, node->socket);
}

elcache_client_t *node_client(const struct node *node) {
    elcache_client_t *client = elcache_client_create();
    CHECK(client != NULL);
    CHECK_OK(client, node_connect(node, client));
    return client;
}

void node_curl(const struct node *node, char *output, size_t size, const char *arguments) {
    char command[2048];
    snprintf(command, sizeof command, "B=http://127.0.0.1:%d; curl -sS -m 20 %s", node->http_port, arguments);
    FILE *pipe = popen(command, "r");
    CHECK(pipe != NULL);
    size_t len = fread(output, 1, size - 1, pipe);
    output[len] = '\0';
    CHECK(pclose(pipe) == 0);
}
