/*
 * Copies a file of any size into the cache, or a value into a file, with a buffer of 64 KiB.
 *
 *     copy SOCKET put KEY < FILE
 *     copy SOCKET get KEY > FILE
 */
#include <elcache/elcache_sdk.h>
#include <stdio.h>
#include <string.h>

static char buffer[65536];

static elcache_error_t put(elcache_client_t *client, const char *key) {
    elcache_write_stream_t *stream;
    /* A size of 0: what comes out of a pipe is not known beforehand. */
    elcache_error_t error = elcache_client_write_stream_start(client, key, strlen(key), 0, NULL, &stream);
    if (error != ELCACHE_OK) {
        return error;
    }
    size_t len;
    while (error == ELCACHE_OK && (len = fread(buffer, 1, sizeof buffer, stdin)) > 0) {
        error = elcache_write_stream_write(stream, buffer, len);
    }
    if (error != ELCACHE_OK || ferror(stdin)) {
        /* Half of a file is no value: readers go on seeing what was there before. */
        elcache_write_stream_abort(stream);
        return error != ELCACHE_OK ? error : ELCACHE_ERR_INVALID_ARG;
    }
    return elcache_write_stream_finish(stream);
}

static elcache_error_t get(elcache_client_t *client, const char *key) {
    elcache_read_stream_t *stream;
    elcache_error_t error = elcache_client_read_stream_start(client, key, strlen(key), NULL, &stream);
    if (error != ELCACHE_OK) {
        return error;
    }
    size_t len = 1;
    while (error == ELCACHE_OK && len > 0 && !ferror(stdout)) {
        error = elcache_read_stream_read(stream, buffer, sizeof buffer, &len);
        fwrite(buffer, 1, len, stdout);
    }
    elcache_read_stream_close(stream);
    return error;
}

int main(int argc, char **argv) {
    if (argc != 4 || (strcmp(argv[2], "put") != 0 && strcmp(argv[2], "get") != 0)) {
        fprintf(stderr, "usage: copy SOCKET put|get KEY\n");
        return 2;
    }
    elcache_client_t *client = elcache_client_create();
    elcache_error_t error = elcache_client_connect_unix(client, argv[1]);
    if (error == ELCACHE_OK) {
        error = argv[2][0] == 'p' ? put(client, argv[3]) : get(client, argv[3]);
    }
    if (error != ELCACHE_OK) {
        fprintf(stderr, "copy: %s\n", elcache_client_last_error(client));
    }
    elcache_client_destroy(client);
    /* The last bytes may not be written yet, and the disk be full. */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "copy: the value could not be written to standard output\n");
        return 1;
    }
    return error == ELCACHE_OK ? 0 : 1;
}
