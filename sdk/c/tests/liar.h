/* A part of tests/shared.c. */
#ifndef ELCACHE_TESTS_LIAR_H
#define ELCACHE_TESTS_LIAR_H

void a_liar_over_shared_memory_harms_nobody(void);

#endif
