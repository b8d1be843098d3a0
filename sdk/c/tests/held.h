/* What a process holds, by /proc. */
#ifndef ELCACHE_TESTS_HELD_H
#define ELCACHE_TESTS_HELD_H

#include <sys/types.h>

/* Descriptors, and mappings, of what has a name that begins so. */
int held_descriptors(pid_t pid, const char *name);
int held_mappings(pid_t pid, const char *name);

#endif
