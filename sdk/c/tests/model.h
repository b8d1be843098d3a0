/* What a key may hold, as far as its only writer can know. */
#ifndef ELCACHE_TESTS_MODEL_H
#define ELCACHE_TESTS_MODEL_H

#include <stddef.h>
#include <stdint.h>

enum { MODEL_STATES_MAX = 16 };

/* A value, or that there is none. Its bytes follow from its seed. */
struct state {
    int exists;
    uint64_t seed;
    size_t len;
    uint32_t flags;
};

struct states {
    struct state items[MODEL_STATES_MAX];
    size_t count;
};

/* `now`: one of these is what the key holds. `late`: writes whose outcome is not known and that may still take
 * place, until the node that has them is dead. */
struct model {
    struct states now;
    struct states late;
};

/* Whether two states are the same. */
int model_same(const struct state *a, const struct state *b);

void model_init(struct model *model);
/* A write was acknowledged. */
void model_wrote(struct model *model, struct state state);
/* A write may have taken place, may take place later, or never. */
void model_may_write(struct model *model, struct state state);
/* The node that had the late writes is dead. */
void model_settle(struct model *model);
/* Whether so many late writes are about that the node has to be restarted before the next. */
int model_is_crowded(const struct model *model);

/* A test of what was seen. */
typedef int (*model_fits)(const struct state *state, void *seen);
/* Something was seen of the key: keeps the states that fit. 0: none does. */
int model_saw(struct model *model, model_fits fits, void *seen);
/* Whether it is certain what the key holds; it is `*state` then. */
int model_is_certain(const struct model *model, struct state *state);

#endif
