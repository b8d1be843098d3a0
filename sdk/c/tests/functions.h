/* The parts of tests/functions.c. */
#ifndef ELCACHE_TESTS_FUNCTIONS_H
#define ELCACHE_TESTS_FUNCTIONS_H

#include "node.h"

enum { LARGE = 25 * 1048576 + 12345 /* seven chunks, the last not whole */ };

/* Memory and disk, with room for everything that the tests store. */
extern struct node node;
/* LARGE bytes, each place different. */
extern uint8_t *large;

/* Reads a whole value and compares it. */
void expect_value(elcache_client_t *client, const char *key, const void *value, size_t len);

void test_streams(void);
void test_sparse(void);

#endif
