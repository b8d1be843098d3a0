/*
 * Puts a value together from ranges, as several programs could at once, and reads a part of it.
 *
 *     ranges SOCKET
 */
#include <elcache/elcache_sdk.h>
#include <stdio.h>
#include <string.h>

static const char KEY[] = "song";
static const char FIRST[] = "Row, row, row your boat, ";
static const char SECOND[] = "gently down the stream.";

static elcache_error_t assemble(elcache_client_t *client) {
    size_t first_len = strlen(FIRST);
    size_t second_len = strlen(SECOND);
    elcache_error_t error = elcache_client_create_sparse(client, KEY, strlen(KEY), first_len + second_len, NULL);
    if (error == ELCACHE_OK) {
        error = elcache_client_write_range(client, KEY, strlen(KEY), first_len, SECOND, second_len);
    }
    if (error == ELCACHE_OK) {
        error = elcache_client_write_range(client, KEY, strlen(KEY), 0, FIRST, first_len);
    }
    return error == ELCACHE_OK ? elcache_client_finalize(client, KEY, strlen(KEY)) : error;
}

static elcache_error_t show(elcache_client_t *client) {
    elcache_availability_t availability;
    elcache_error_t error = elcache_client_check_availability(client, KEY, strlen(KEY), 0, 0, &availability);
    if (error != ELCACHE_OK) {
        return error;
    }
    for (size_t i = 0; i < availability.available_count; i++) {
        printf("there: %llu bytes from %llu on\n", (unsigned long long)availability.available_ranges[i].length,
               (unsigned long long)availability.available_ranges[i].offset);
    }
    elcache_availability_free(&availability);

    char part[24];
    size_t len;
    error = elcache_client_read_range(client, KEY, strlen(KEY), strlen(FIRST), part, sizeof part, &len);
    printf("%.*s\n", (int)len, part);
    return error;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: ranges SOCKET\n");
        return 2;
    }
    elcache_client_t *client = elcache_client_create();
    elcache_error_t error = elcache_client_connect_unix(client, argv[1]);
    error = error == ELCACHE_OK ? assemble(client) : error;
    error = error == ELCACHE_OK ? show(client) : error;
    if (error != ELCACHE_OK) {
        fprintf(stderr, "ranges: %s\n", elcache_client_last_error(client));
    }
    elcache_client_destroy(client);
    return error == ELCACHE_OK ? 0 : 1;
}
