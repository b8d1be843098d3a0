#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "clock.h"
#include "places.h"

/* --- Lifecycle --- */

/* Enough for names that nobody repeats by chance; nobody is kept from repeating them on purpose. */
static void make_seed(elcache_client_t *client) {
    if (getrandom(client->seed, sizeof client->seed, GRND_NONBLOCK) == (ssize_t)sizeof client->seed) {
        return;
    }
    /* Only before the system has gathered its first randomness. */
    frame_store_u64(client->seed, (uint64_t)clock_now_ns());
    frame_store_u64(client->seed + 8, (uint64_t)getpid() << 32 ^ (uint64_t)(uintptr_t)client);
}

elcache_client_t *elcache_client_create(void) {
    elcache_client_t *client = malloc(sizeof *client);
    if (client == NULL) {
        return NULL;
    }
    /* All but the connection, of which the buffers are long. */
    memset(client, 0, offsetof(struct elcache_client, connection));
    client->timeout_ms = ELCACHE_DEFAULT_TIMEOUT_MS;
    client->recv_buffer = CLIENT_RECV_BUFFER;
    client->send_buffer = CLIENT_SEND_BUFFER;
    make_seed(client);
    connection_init(&client->connection);
    return client;
}

void elcache_client_destroy(elcache_client_t *client) {
    if (client == NULL) {
        return;
    }
    elcache_client_disconnect(client);
    for (struct stream *stream = client->streams; stream != NULL; stream = stream->next) {
        stream->client = NULL;
    }
    free(client);
}

void elcache_client_disconnect(elcache_client_t *client) {
    if (client == NULL) {
        return;
    }
    /* So that the node hears of uploads that were given up. */
    connection_flush(&client->connection);
    connection_break(&client->connection, ELCACHE_ERR_CONNECTION, "the client was disconnected");
    client->is_wanted = 0;
}

int elcache_client_is_connected(elcache_client_t *client) {
    if (client == NULL || client->connection.transport == NULL) {
        return 0;
    }
    struct transport *transport = client->connection.transport;
    return transport->ops->is_alive(transport) != 0;
}

static elcache_error_t connect_error(int number) {
    switch (number) {
    case ETIMEDOUT:
        return ELCACHE_ERR_TIMEOUT;
    case ENOMEM:
        return ELCACHE_ERR_OUT_OF_MEMORY;
    default:
        return ELCACHE_ERR_CONNECTION;
    }
}

static elcache_error_t no_socket(elcache_client_t *client, int number) {
    char text[128];
    /* strerror would share its text with other threads. */
    if (strerror_r(number, text, sizeof text) != 0) {
        snprintf(text, sizeof text, "error %d of the system", number);
    }
    snprintf(client->connection.reason, sizeof client->connection.reason, "%s: %s", client->path, text);
    return connect_error(number);
}

/* A socket says when it is written to that the node has died; a ring takes what nobody will read. */
static void notice_death(struct connection *connection) {
    struct transport *transport = connection->transport;
    if (connection->share != NULL && share_has_ended(connection->share) && !transport->ops->is_alive(transport)) {
        connection_break(connection, ELCACHE_ERR_CONNECTION, "the node has closed the connection");
    }
}

elcache_error_t client_connect(elcache_client_t *client, int64_t deadline_ns) {
    struct connection *connection = &client->connection;
    notice_death(connection);
    if (connection->transport != NULL) {
        return ELCACHE_OK;
    }
    if (!client->is_wanted) {
        snprintf(connection->reason, sizeof connection->reason, "the client is not connected");
        return ELCACHE_ERR_CONNECTION;
    }
    struct transport *transport = socket_connect(client->path, deadline_ns);
    if (transport == NULL) {
        return no_socket(client, errno);
    }
    transport->ops->set_buffers(transport, client->kernel_recv, client->kernel_send);
    uint64_t features = client->is_shared ? FRAME_FEATURE_SHARED : 0;
    elcache_error_t error = connection_open(connection, transport, features, deadline_ns);
    if (error != ELCACHE_OK || !client->is_shared) {
        return error;
    }
    if (!(connection->features & FRAME_FEATURE_SHARED)) {
        connection_break(connection, ELCACHE_ERR_PROTOCOL, "the node shares no memory");
        return ELCACHE_ERR_PROTOCOL;
    }
    return places_share(connection, deadline_ns);
}

static elcache_error_t connect_to(elcache_client_t *client, const char *path, int is_shared) {
    if (client == NULL) {
        return ELCACHE_ERR_INVALID_ARG;
    }
    if (path == NULL || path[0] == '\0' || strlen(path) >= sizeof client->path) {
        return client_fail(client, "connect", ELCACHE_ERR_INVALID_ARG, "a path of 1 to 107 bytes is needed");
    }
    elcache_client_disconnect(client);
    memcpy(client->path, path, strlen(path) + 1);
    client->is_wanted = 1;
    client->is_shared = is_shared;
    int64_t deadline_ns = clock_now_ns() + client->timeout_ms * NS_PER_MS;
    elcache_error_t error = client_connect(client, deadline_ns);
    return error == ELCACHE_OK ? ELCACHE_OK : client_fail(client, "connect", error, client->connection.reason);
}

elcache_error_t elcache_client_connect_unix(elcache_client_t *client, const char *path) {
    return connect_to(client, path, 0);
}

elcache_error_t elcache_client_connect_shm(elcache_client_t *client, const char *path) {
    return connect_to(client, path, 1);
}

/* --- Settings --- */

elcache_error_t elcache_client_set_timeout(elcache_client_t *client, int timeout_ms) {
    if (client == NULL) {
        return ELCACHE_ERR_INVALID_ARG;
    }
    if (timeout_ms < 1) {
        return client_fail(client, "set_timeout", ELCACHE_ERR_INVALID_ARG, "a millisecond is the least");
    }
    client->timeout_ms = timeout_ms;
    return ELCACHE_OK;
}

static elcache_error_t set_buffer(elcache_client_t *client, const char *call, size_t bytes, size_t *own,
                                  size_t *kernel) {
    if (bytes < CLIENT_BUFFER_MIN || bytes > CLIENT_BUFFER_MAX) {
        return client_fail(client, call, ELCACHE_ERR_INVALID_ARG, "a buffer has 4096 bytes to 1 GiB");
    }
    *own = bytes;
    *kernel = bytes;
    struct transport *transport = client->connection.transport;
    if (transport != NULL) {
        transport->ops->set_buffers(transport, client->kernel_recv, client->kernel_send);
    }
    return ELCACHE_OK;
}

elcache_error_t elcache_client_set_recv_buffer(elcache_client_t *client, size_t bytes) {
    if (client == NULL) {
        return ELCACHE_ERR_INVALID_ARG;
    }
    return set_buffer(client, "set_recv_buffer", bytes, &client->recv_buffer, &client->kernel_recv);
}

elcache_error_t elcache_client_set_send_buffer(elcache_client_t *client, size_t bytes) {
    if (client == NULL) {
        return ELCACHE_ERR_INVALID_ARG;
    }
    return set_buffer(client, "set_send_buffer", bytes, &client->send_buffer, &client->kernel_send);
}

/* --- Diagnostics --- */

elcache_error_t elcache_client_stats(elcache_client_t *client, elcache_stats_t *stats) {
    if (stats != NULL) {
        memset(stats, 0, sizeof *stats);
    }
    if (client == NULL || stats == NULL) {
        return ELCACHE_ERR_INVALID_ARG;
    }
    *stats = stats_read(&client->stats);
    return ELCACHE_OK;
}

void elcache_client_reset_stats(elcache_client_t *client) {
    if (client != NULL) {
        stats_reset(&client->stats);
    }
}

const char *elcache_client_last_error(const elcache_client_t *client) {
    return client != NULL ? client->last_error : "there is no client";
}

/* --- For the calls --- */

elcache_error_t client_fail(elcache_client_t *client, const char *call, elcache_error_t error, const char *detail) {
    const char *between = detail[0] != '\0' ? ": " : "";
    snprintf(client->last_error, sizeof client->last_error, "%s: %s%s%s", call, elcache_error_string(error), between,
             detail);
    return error;
}

elcache_error_t client_check_key(elcache_client_t *client, const char *call, const void *key, size_t key_len) {
    if (client == NULL) {
        return ELCACHE_ERR_INVALID_ARG;
    }
    if (key == NULL || key_len == 0) {
        return client_fail(client, call, ELCACHE_ERR_INVALID_ARG, "a key has at least one byte");
    }
    if (key_len > ELCACHE_MAX_KEY_LEN) {
        return client_fail(client, call, ELCACHE_ERR_KEY_TOO_LARGE, "a key has at most 8192 bytes");
    }
    return ELCACHE_OK;
}

void client_name_operation(elcache_client_t *client, struct command *command) {
    memcpy(command->operation, client->seed, CLIENT_SEED_LEN);
    frame_store_u64(command->operation + CLIENT_SEED_LEN, ++client->operations);
    command->has_operation = 1;
}

void client_add_stream(elcache_client_t *client, struct stream *stream) {
    stream->client = client;
    stream->previous = NULL;
    stream->next = client->streams;
    if (client->streams != NULL) {
        client->streams->previous = stream;
    }
    client->streams = stream;
}

void client_remove_stream(struct stream *stream) {
    if (stream->client == NULL) {
        return;
    }
    if (stream->previous != NULL) {
        stream->previous->next = stream->next;
    } else {
        stream->client->streams = stream->next;
    }
    if (stream->next != NULL) {
        stream->next->previous = stream->previous;
    }
}
