#include <elcache/elcache_sdk.h>
#include <stdio.h>

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "/var/run/elcache/elcache.sock";
    elcache_client_t *client = elcache_client_create();
    elcache_put_options_t options = ELCACHE_PUT_OPTIONS_INIT;
    options.ttl_seconds = 3600;
    char value[100];
    size_t len = 0;

    elcache_error_t error = elcache_client_connect_unix(client, path);
    if (error == ELCACHE_OK) {
        error = elcache_client_put(client, "greeting", 8, "Hello, cache", 12, &options);
    }
    if (error == ELCACHE_OK) {
        error = elcache_client_get(client, "greeting", 8, value, sizeof value, &len, NULL);
    }
    if (error == ELCACHE_OK) {
        printf("%.*s\n", (int)len, value);
    } else {
        fprintf(stderr, "%s\n", elcache_client_last_error(client));
    }
    elcache_client_destroy(client);
    return error == ELCACHE_OK ? 0 : 1;
}
