#include "model.h"

#include "check.h"

int model_same(const struct state *a, const struct state *b) {
    return a->exists == b->exists &&
           (!a->exists || (a->seed == b->seed && a->len == b->len && a->flags == b->flags));
}

static void add(struct states *states, const struct state *state) {
    for (size_t i = 0; i < states->count; i++) {
        if (model_same(&states->items[i], state)) {
            return;
        }
    }
    CHECK(states->count < MODEL_STATES_MAX);
    states->items[states->count++] = *state;
}

void model_init(struct model *model) {
    struct state none = {0};
    memset(model, 0, sizeof *model);
    add(&model->now, &none);
}

void model_wrote(struct model *model, struct state state) {
    model->now.count = 0;
    add(&model->now, &state);
}

void model_may_write(struct model *model, struct state state) {
    add(&model->late, &state);
}

void model_settle(struct model *model) {
    for (size_t i = 0; i < model->late.count; i++) {
        add(&model->now, &model->late.items[i]);
    }
    model->late.count = 0;
}

int model_is_crowded(const struct model *model) {
    return model->late.count >= MODEL_STATES_MAX / 4;
}

int model_saw(struct model *model, model_fits fits, void *seen) {
    struct states fitting = {0};
    for (size_t i = 0; i < model->now.count; i++) {
        if (fits(&model->now.items[i], seen)) {
            add(&fitting, &model->now.items[i]);
        }
    }
    for (size_t i = 0; i < model->late.count; i++) {
        if (fits(&model->late.items[i], seen)) {
            add(&fitting, &model->late.items[i]);
        }
    }
    if (fitting.count == 0) {
        return 0;
    }
    model->now = fitting;
    return 1;
}

int model_is_certain(const struct model *model, struct state *state) {
    *state = model->now.items[0];
    return model->now.count == 1 && model->late.count == 0;
}
