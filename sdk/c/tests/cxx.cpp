// The header as C++ sees it: every function is there under its name, the options begin as they should.
#include <elcache/elcache_sdk.h>

#include <cstring>

// So that the linker is asked for all of them; tests/packaging.sh sees to it that none is left out.
extern const void *const FUNCTIONS[];
const void *const FUNCTIONS[] = {
#define FUNCTION(name) reinterpret_cast<const void *>(&name)
    FUNCTION(elcache_client_create), FUNCTION(elcache_client_destroy), FUNCTION(elcache_client_connect_unix),
    FUNCTION(elcache_client_connect_shm), FUNCTION(elcache_client_disconnect), FUNCTION(elcache_client_is_connected),
    FUNCTION(elcache_client_get), FUNCTION(elcache_client_get_alloc), FUNCTION(elcache_client_put),
    FUNCTION(elcache_client_delete), FUNCTION(elcache_client_exists), FUNCTION(elcache_client_metadata),
    FUNCTION(elcache_client_read_range), FUNCTION(elcache_client_check_availability),
    FUNCTION(elcache_availability_free), FUNCTION(elcache_client_create_sparse), FUNCTION(elcache_client_write_range),
    FUNCTION(elcache_client_finalize), FUNCTION(elcache_client_write_stream_start),
    FUNCTION(elcache_write_stream_write), FUNCTION(elcache_write_stream_finish), FUNCTION(elcache_write_stream_abort),
    FUNCTION(elcache_client_read_stream_start), FUNCTION(elcache_read_stream_read),
    FUNCTION(elcache_read_stream_total_size), FUNCTION(elcache_read_stream_bytes_read),
    FUNCTION(elcache_read_stream_eof), FUNCTION(elcache_read_stream_close), FUNCTION(elcache_client_set_timeout),
    FUNCTION(elcache_client_set_recv_buffer), FUNCTION(elcache_client_set_send_buffer),
    FUNCTION(elcache_client_stats), FUNCTION(elcache_client_reset_stats), FUNCTION(elcache_client_last_error),
    FUNCTION(elcache_error_string), FUNCTION(elcache_free),
};

int main() {
    const elcache_put_options_t put = ELCACHE_PUT_OPTIONS_INIT;
    const elcache_get_options_t get = ELCACHE_GET_OPTIONS_INIT;
    bool good = put.ttl_seconds == 0 && put.flags == 0 && get.offset == 0 && get.allow_partial == 1;
    elcache_client_t *client = elcache_client_create();
    good = good && elcache_client_put(client, "a", 1, "b", 1, &put) == ELCACHE_ERR_CONNECTION;
    good = good && std::strlen(elcache_client_last_error(client)) > 0;
    elcache_client_destroy(client);
    return good ? 0 : 1;
}
