#include <stdlib.h>

#include "elcache/elcache_sdk.h"

const char *elcache_error_string(elcache_error_t error) {
    switch (error) {
    case ELCACHE_OK:
        return "Success";
    case ELCACHE_ERR_INVALID_ARG:
        return "Invalid argument";
    case ELCACHE_ERR_NOT_FOUND:
        return "Not found";
    case ELCACHE_ERR_PARTIAL:
        return "Partially available";
    case ELCACHE_ERR_TIMEOUT:
        return "Timed out";
    case ELCACHE_ERR_CONNECTION:
        return "Connection failed";
    case ELCACHE_ERR_PROTOCOL:
        return "Protocol violated";
    case ELCACHE_ERR_BUFFER_TOO_SMALL:
        return "Buffer too small";
    case ELCACHE_ERR_KEY_TOO_LARGE:
        return "Key too large";
    case ELCACHE_ERR_VALUE_TOO_LARGE:
        return "Value too large";
    case ELCACHE_ERR_OUT_OF_MEMORY:
        return "Out of memory";
    case ELCACHE_ERR_INTERNAL:
        return "Internal error";
    case ELCACHE_ERR_NO_ROOM:
        return "No room";
    case ELCACHE_ERR_BUSY:
        return "Busy";
    case ELCACHE_ERR_CONFLICT:
        return "Conflict";
    }
    return "Unknown error";
}

void elcache_free(void *value) {
    free(value);
}
