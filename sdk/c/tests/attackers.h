/* Clients that mean harm. Each runs in a process of its own, from a seed, until it is killed. */
#ifndef ELCACHE_TESTS_ATTACKERS_H
#define ELCACHE_TESTS_ATTACKERS_H

#include <stdint.h>

struct attacker {
    const char *name;
    /* Attacks once, or for as long as it likes; it is called again when it returns. */
    void (*attack)(const char *socket, uint64_t *rng);
};

extern const struct attacker ATTACKERS[];
extern const int ATTACKER_COUNT;

/* The two that a node of one thread has to bear. */
void attack_with_wakes(const char *socket, uint64_t *rng);
void attack_with_an_endless_ring(const char *socket, uint64_t *rng);
/* Those that leave as much in the node as they can, and hold on to it. */
void attack_with_frames_that_do_not_end(const char *socket, uint64_t *rng);
void attack_with_answers_that_nobody_takes(const char *socket, uint64_t *rng);

#endif
