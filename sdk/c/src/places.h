/* Answers that say where their bytes lie: they are copied from there to where the request wants them. */
#ifndef ELCACHE_PLACES_H
#define ELCACHE_PLACES_H

#include "connection.h"

/* Goes on over shared memory. When that fails the connection is broken, and `reason` says why. */
elcache_error_t places_share(struct connection *connection, int64_t deadline_ns);

/* A frame of places has begun, of this request, of which data are expected. */
void places_begin(struct connection *connection, struct request *request, const struct frame_header *header);

/* Copies what the next place of the frame holds. 0: nothing more can be done before something has been read. */
int places_take(struct connection *connection);

/* A region has come that was asked for, or not. */
void places_map(struct connection *connection);

#endif
