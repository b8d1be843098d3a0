/* Memory that the node shares, as a file. */
#ifndef ELCACHE_MEMORY_H
#define ELCACHE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Maps all of a file of at least so many bytes (1 or more), for reading, and for writing too if it `is_writable`, and
 * tells its length. Closes the descriptor. NULL: errno says why, EPROTO if it is too short, or if it could become
 * shorter: who touches what is no longer there is ended by the system. */
uint8_t *memory_map(int fd, size_t least, int is_writable, size_t *len);

#endif
