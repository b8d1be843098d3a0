/* The half of a connection that reads: bytes become frames, and frames go to their requests. */
#ifndef ELCACHE_INBOX_H
#define ELCACHE_INBOX_H

#include "connection.h"

/* Reads once, waiting until the deadline for the first byte, and handles all that has come. 0: nothing came in
 * time. */
int inbox_read(struct connection *connection, int64_t deadline_ns);

/* Breaks the connection as the transport said: TRANSPORT_CLOSED or TRANSPORT_FAILED. */
void connection_break_as(struct connection *connection, ssize_t outcome);

/* Takes an open request out of the table. */
void connection_forget(struct connection *connection, uint64_t id);

#endif
