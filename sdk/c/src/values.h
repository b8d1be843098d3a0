/* What the calls that read have in common. */
#ifndef ELCACHE_VALUES_H
#define ELCACHE_VALUES_H

#include "call.h"

/* The defaults where the caller gave no options. */
elcache_get_options_t get_options(const elcache_get_options_t *options);

/* A GET of what the options name. */
struct command get_command(const void *key, size_t key_len, const elcache_get_options_t *options, uint64_t window);

/* Adds what the options say of a value; ELCACHE_ERR_INVALID_ARG, with the reason kept, if they cannot be. */
elcache_error_t put_command(elcache_client_t *client, const char *call, const elcache_put_options_t *options,
                            struct command *command);

/* Reads into a buffer of the caller's. `*len` is how much came, or how much is needed. */
elcache_error_t read_into(struct call *call, const struct command *command, void *buffer, size_t buffer_size,
                          size_t *len, struct request *request);

#endif
