/* A real node as a child process, with a socket and directories of its own. */
#ifndef ELCACHE_TESTS_NODE_H
#define ELCACHE_TESTS_NODE_H

#include <sys/types.h>

#include "elcache/elcache_sdk.h"

struct node {
    const char *binary;
    int is_shared;      /* its clients speak to it over shared memory */
    const char *memory; /* as -m takes it */
    const char *disk;   /* as -D takes it; "0": none */
    char folder[64];
    char socket[96];
    int http_port;
    pid_t pid; /* 0: it does not run */
};

/* Makes a folder and starts a node in it. `transport`: unix or shm. */
void node_start(struct node *node, const char *binary, const char *transport, const char *memory, const char *disk);
/* Ends it with a signal and waits for it. */
void node_end(struct node *node, int signal);
/* Stops it where it is, with SIGSTOP, and lets it go on. */
void node_pause(const struct node *node);
void node_resume(const struct node *node);
/* Starts it again on what it left. */
void node_restart(struct node *node);
/* Ends it and removes its folder. */
void node_remove(struct node *node);

/* Connects a client to it. */
elcache_error_t node_connect(const struct node *node, elcache_client_t *client);
/* A client that is connected to it. */
elcache_client_t *node_client(const struct node *node);

/* Runs curl with these arguments, in which $B stands for the node's URL; keeps what it prints. Fails the test if
 * curl fails. */
void node_curl(const struct node *node, char *output, size_t size, const char *arguments);

#endif
