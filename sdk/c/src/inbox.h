/* The half of a connection that reads: bytes become frames, and frames go to their requests. */
#ifndef ELCACHE_INBOX_H
#define ELCACHE_INBOX_H

#include "connection.h"

/* Reads once, waiting until the deadline for the first byte, and handles all that has come. Does not read if
 * something can be handled that had come before. 0: nothing came in time. */
int inbox_read(struct connection *connection, int64_t deadline_ns);

#endif
