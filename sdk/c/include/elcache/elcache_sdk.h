/*
 * The C SDK of ElCache.
 *
 *     elcache_client_t *client = elcache_client_create();
 *     if (elcache_client_connect_unix(client, "/var/run/elcache/elcache.sock") == ELCACHE_OK) {
 *         elcache_client_put(client, "key", 3, "value", 5, NULL);
 *     }
 *     elcache_client_destroy(client);
 *
 * Threads: a client, and the streams of it, belong to one thread at a time; different clients have nothing in common.
 * Keys: any bytes, 1 to 8192. Values: any bytes, up to 20 TB (20 x 2^40); every call takes any size.
 * Time: a call ends within the time-out of its client (30 s at first) or of its options, whatever the server does; it
 *     is counted from the beginning of the call to its end, for all of the value. For more than that, set more, or
 *     use streams, of which each single call has the time-out.
 * Connections: they are made again when a call finds them broken. A call that was broken off says
 *     ELCACHE_ERR_CONNECTION, unless it could be repeated without doubt; the next one connects again. No signal is
 *     raised and no signal handler is set.
 * Memory: what the library allocates for the caller is given back with elcache_free or elcache_availability_free.
 * Arguments: results are written in every case for which there is a place, as nothing (0, NULL) where a call fails and
 *     nothing else is said.
 */
#ifndef ELCACHE_SDK_H
#define ELCACHE_SDK_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define ELCACHE_API __attribute__((visibility("default")))
#else
#define ELCACHE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ELCACHE_VERSION_MAJOR 1
#define ELCACHE_VERSION_MINOR 0
#define ELCACHE_VERSION_PATCH 0

#define ELCACHE_MAX_KEY_LEN 8192
#define ELCACHE_MAX_VALUE_LEN (UINT64_C(20) << 40)
#define ELCACHE_DEFAULT_TIMEOUT_MS 30000

/* A connection to a node, its settings and its statistics. */
typedef struct elcache_client elcache_client_t;
/* A value on its way to the node. */
typedef struct elcache_write_stream elcache_write_stream_t;
/* A value on its way from the node. */
typedef struct elcache_read_stream elcache_read_stream_t;

typedef enum elcache_error {
    ELCACHE_OK = 0,
    ELCACHE_ERR_INVALID_ARG = -1,      /* an argument that cannot be; an offset behind the end of the value */
    ELCACHE_ERR_NOT_FOUND = -2,        /* no such value, or no such upload */
    ELCACHE_ERR_PARTIAL = -3,          /* some of the bytes are not there */
    ELCACHE_ERR_TIMEOUT = -4,          /* a write may have taken place or not */
    ELCACHE_ERR_CONNECTION = -5,       /* no connection, or it broke; a write may have taken place or not */
    ELCACHE_ERR_PROTOCOL = -6,         /* the other side speaks something else */
    ELCACHE_ERR_BUFFER_TOO_SMALL = -7, /* the size that is needed is told */
    ELCACHE_ERR_KEY_TOO_LARGE = -8,
    ELCACHE_ERR_VALUE_TOO_LARGE = -9,
    ELCACHE_ERR_OUT_OF_MEMORY = -10, /* in this process */
    ELCACHE_ERR_INTERNAL = -11,      /* the node failed */
    ELCACHE_ERR_NO_ROOM = -12,       /* the value does not fit into the node's tiers */
    ELCACHE_ERR_BUSY = -13,          /* the node, or this connection, has too much to do: try again */
    ELCACHE_ERR_CONFLICT = -14       /* another upload of this key is open */
} elcache_error_t;

/* How a value is stored. Begin with ELCACHE_PUT_OPTIONS_INIT; NULL means the same. */
typedef struct elcache_put_options {
    int64_t ttl_seconds; /* from now on; 0: for ever; below 0: ELCACHE_ERR_INVALID_ARG */
    uint32_t flags;      /* the caller's own, given back with the metadata */
    int no_memory;       /* not 0: keep it out of the memory tier */
    int no_disk;         /* not 0: keep it off the disk */
    int no_cluster;      /* not 0: keep it on this node */
} elcache_put_options_t;

/* clang-format off */
#define ELCACHE_PUT_OPTIONS_INIT { 0, 0, 0, 0, 0 }

/* What of a value is read. Begin with ELCACHE_GET_OPTIONS_INIT; NULL means the same. */
typedef struct elcache_get_options {
    uint64_t offset;   /* of the first byte; the value's size reads nothing, more is ELCACHE_ERR_INVALID_ARG */
    uint64_t length;   /* in bytes; 0, or more than there are: to the end */
    int allow_partial; /* not 0: bytes before the first missing one are delivered, with ELCACHE_ERR_PARTIAL; 0: none */
    int timeout_ms;    /* of this call, or each of the stream; 0: the client's; below 0: ELCACHE_ERR_INVALID_ARG */
} elcache_get_options_t;

#define ELCACHE_GET_OPTIONS_INIT { 0, 0, 1, 0 }
/* clang-format on */

typedef struct elcache_metadata {
    uint64_t total_size;  /* of the value, in bytes */
    uint64_t chunk_count; /* pieces of 4 MiB that the node keeps it in */
    int64_t created_at;   /* seconds since 1970 */
    int64_t expires_at;   /* seconds since 1970; 0: never */
    uint32_t flags;       /* those of the put options */
} elcache_metadata_t;

typedef struct elcache_range {
    uint64_t offset;
    uint64_t length;
} elcache_range_t;

/* What of a range is there. The ranges are disjoint, not adjacent, and in order. */
typedef struct elcache_availability {
    int exists;                  /* 0: there is no such value, and nothing else is set */
    elcache_metadata_t metadata; /* of the value */
    elcache_range_t *available_ranges;
    size_t available_count;
    elcache_range_t *missing_ranges;
    size_t missing_count;
} elcache_availability_t;

/* What this client has done since it was made, or since elcache_client_reset_stats. */
typedef struct elcache_stats {
    uint64_t hits;          /* reads that got all of what they asked for */
    uint64_t misses;        /* reads that found no value */
    uint64_t partial_hits;  /* reads that found a part of it */
    uint64_t bytes_read;    /* of values */
    uint64_t bytes_written; /* of values */
    double latency_us_avg;  /* microseconds from the beginning of a call to its end */
    double latency_us_p99;  /* 99 of 100 calls took no longer; within 2 % */
} elcache_stats_t;

/* --- Lifecycle --- */

/* A client that is not connected; NULL: no memory. */
ELCACHE_API elcache_client_t *elcache_client_create(void);

/* Ends its streams and its connection, and frees it. Of streams that are still open only close, finish and abort
 * may be called after that. NULL is allowed. */
ELCACHE_API void elcache_client_destroy(elcache_client_t *client);

/* Connects to the Unix socket at `path`. The path is kept for connecting again, also if this fails. */
ELCACHE_API elcache_error_t elcache_client_connect_unix(elcache_client_t *client, const char *path);

/* The same, and then speaks over memory that is shared with the node. Where that cannot be the client is not connected,
 * and elcache_client_connect_unix is what works: ELCACHE_ERR_PROTOCOL, the node shares none, or in another way than
 * this library knows; ELCACHE_ERR_NO_ROOM, all that it shares is taken. ELCACHE_ERR_BUSY: it can share none at
 * the moment, or takes no more connections of either kind. */
ELCACHE_API elcache_error_t elcache_client_connect_shm(elcache_client_t *client, const char *path);

/* Ends streams and connection. Calls fail with ELCACHE_ERR_CONNECTION until the client is connected again. */
ELCACHE_API void elcache_client_disconnect(elcache_client_t *client);

/* 1 if there is a connection which the node has not closed; asks nobody. */
ELCACHE_API int elcache_client_is_connected(elcache_client_t *client);

/* --- Values --- */

/* Reads a value, or the part of it that the options name, into `buffer`; `*value_len` is how much came.
 * ELCACHE_ERR_BUFFER_TOO_SMALL: `*value_len` is how much is needed; what the buffer holds is not the value.
 * ELCACHE_ERR_PARTIAL: `*value_len` bytes, up to the first that is missing, came (none without allow_partial). */
ELCACHE_API elcache_error_t elcache_client_get(elcache_client_t *client, const void *key, size_t key_len, void *buffer,
                                               size_t buffer_size, size_t *value_len,
                                               const elcache_get_options_t *options);

/* The same into memory that the library allocates: `*value`, to be freed with elcache_free. Never NULL with
 * ELCACHE_OK, also for an empty value; with ELCACHE_ERR_PARTIAL it is what came, or NULL. */
ELCACHE_API elcache_error_t elcache_client_get_alloc(elcache_client_t *client, const void *key, size_t key_len,
                                                     void **value, size_t *value_len,
                                                     const elcache_get_options_t *options);

/* Stores a value in place of what was there. It is visible, whole, when this returns ELCACHE_OK. */
ELCACHE_API elcache_error_t elcache_client_put(elcache_client_t *client, const void *key, size_t key_len,
                                               const void *value, size_t value_len,
                                               const elcache_put_options_t *options);

/* Deletes a value. ELCACHE_ERR_NOT_FOUND: there was none. */
ELCACHE_API elcache_error_t elcache_client_delete(elcache_client_t *client, const void *key, size_t key_len);

/* `*exists` is 1 or 0. */
ELCACHE_API elcache_error_t elcache_client_exists(elcache_client_t *client, const void *key, size_t key_len,
                                                  int *exists);

/* What is known of a value, without its bytes. */
ELCACHE_API elcache_error_t elcache_client_metadata(elcache_client_t *client, const void *key, size_t key_len,
                                                    elcache_metadata_t *metadata);

/* --- Ranges --- */

/* Reads bytes from `offset` on, as many as the buffer takes or there are; `*bytes_read` is how many came.
 * ELCACHE_ERR_PARTIAL: that many, up to the first that is missing. */
ELCACHE_API elcache_error_t elcache_client_read_range(elcache_client_t *client, const void *key, size_t key_len,
                                                      uint64_t offset, void *buffer, size_t buffer_size,
                                                      size_t *bytes_read);

/* Tells what of `length` bytes from `offset` on (0: to the end) is there. A key without value is ELCACHE_OK with
 * `exists` 0. To be freed with elcache_availability_free. ELCACHE_ERR_BUSY: the value was replaced while it was
 * being looked at, again and again. */
ELCACHE_API elcache_error_t elcache_client_check_availability(elcache_client_t *client, const void *key, size_t key_len,
                                                              uint64_t offset, uint64_t length,
                                                              elcache_availability_t *availability);

/* Frees the ranges, not the struct. NULL is allowed, and so is a second time. */
ELCACHE_API void elcache_availability_free(elcache_availability_t *availability);

/* --- Parallel writes: a value put together from ranges, in any order, by any number of clients --- */

/* Opens an upload of `total_size` bytes. ELCACHE_ERR_CONFLICT: one is open for this key. */
ELCACHE_API elcache_error_t elcache_client_create_sparse(elcache_client_t *client, const void *key, size_t key_len,
                                                         uint64_t total_size, const elcache_put_options_t *options);

/* Writes a range of it. Ranges may overlap: the last writer of a byte wins. ELCACHE_ERR_NOT_FOUND: no upload is
 * open. */
ELCACHE_API elcache_error_t elcache_client_write_range(elcache_client_t *client, const void *key, size_t key_len,
                                                       uint64_t offset, const void *data, size_t data_len);

/* Makes it visible. ELCACHE_ERR_PARTIAL: bytes are missing, and the upload stays open. */
ELCACHE_API elcache_error_t elcache_client_finalize(elcache_client_t *client, const void *key, size_t key_len);

/* --- Streams: several may be open beside calls of the same client; a slow one holds up no other --- */

/* Begins a value of `total_size` bytes (0: not known beforehand). Until it is finished readers see what was there
 * before. */
ELCACHE_API elcache_error_t elcache_client_write_stream_start(elcache_client_t *client, const void *key, size_t key_len,
                                                              uint64_t total_size, const elcache_put_options_t *options,
                                                              elcache_write_stream_t **stream);

/* Takes all of `data`, or fails; after a failure the stream is good for finish and abort only, except that more
 * than `total_size` is ELCACHE_ERR_INVALID_ARG and takes nothing. Small pieces are gathered before they are sent. */
ELCACHE_API elcache_error_t elcache_write_stream_write(elcache_write_stream_t *stream, const void *data, size_t len);

/* Ends the value and frees the stream, in every case. With ELCACHE_OK the value is visible. */
ELCACHE_API elcache_error_t elcache_write_stream_finish(elcache_write_stream_t *stream);

/* Gives the value up and frees the stream: what was there before stays. */
ELCACHE_API elcache_error_t elcache_write_stream_abort(elcache_write_stream_t *stream);

/* Begins to read. All bytes are of one value, also if it is replaced meanwhile. The node ends a stream of which
 * nothing is read for half a minute (limits.body_stall_timeout): reading then says ELCACHE_ERR_TIMEOUT each time. */
ELCACHE_API elcache_error_t elcache_client_read_stream_start(elcache_client_t *client, const void *key, size_t key_len,
                                                             const elcache_get_options_t *options,
                                                             elcache_read_stream_t **stream);

/* Fills the buffer. Fewer bytes than it takes, with ELCACHE_OK, are what had come when the time-out passed, the last
 * ones, or those before a failure that the next call tells: only `*bytes_read` 0 with ELCACHE_OK is the end. With an
 * error no bytes come. ELCACHE_ERR_PARTIAL: the next byte is missing. ELCACHE_ERR_TIMEOUT: none came in time, and the
 * stream is as it was. */
ELCACHE_API elcache_error_t elcache_read_stream_read(elcache_read_stream_t *stream, void *buffer, size_t buffer_size,
                                                     size_t *bytes_read);

/* Size of the whole value, whatever part of it is read. */
ELCACHE_API uint64_t elcache_read_stream_total_size(const elcache_read_stream_t *stream);

/* Bytes that elcache_read_stream_read has given so far. */
ELCACHE_API uint64_t elcache_read_stream_bytes_read(const elcache_read_stream_t *stream);

/* 1 if all bytes that were asked for have been read. */
ELCACHE_API int elcache_read_stream_eof(const elcache_read_stream_t *stream);

/* Ends the stream, wherever it is, and frees it. NULL is allowed. */
ELCACHE_API void elcache_read_stream_close(elcache_read_stream_t *stream);

/* --- Settings --- */

/* For calls from now on; milliseconds, from 1 on. */
ELCACHE_API elcache_error_t elcache_client_set_timeout(elcache_client_t *client, int timeout_ms);

/* Bytes of a read stream that wait for the caller at most (1 MiB at first), for streams from now on, and SO_RCVBUF;
 * 4096 to 1 GiB. */
ELCACHE_API elcache_error_t elcache_client_set_recv_buffer(elcache_client_t *client, size_t bytes);

/* Bytes of a write stream that are gathered before they are sent (64 KiB at first), for streams from now on, and
 * SO_SNDBUF; 4096 to 1 GiB. */
ELCACHE_API elcache_error_t elcache_client_set_send_buffer(elcache_client_t *client, size_t bytes);

/* --- Diagnostics --- */

ELCACHE_API elcache_error_t elcache_client_stats(elcache_client_t *client, elcache_stats_t *stats);
ELCACHE_API void elcache_client_reset_stats(elcache_client_t *client);

/* What failed last, in words: the call, the reason, and what the node said. "" if nothing has. Good until the next
 * call. */
ELCACHE_API const char *elcache_client_last_error(const elcache_client_t *client);

/* A code in words: "Success", "Not found", ... Static; never NULL. */
ELCACHE_API const char *elcache_error_string(elcache_error_t error);

/* Frees what elcache_client_get_alloc gave. NULL is allowed. */
ELCACHE_API void elcache_free(void *value);

#ifdef __cplusplus
}
#endif

#endif
