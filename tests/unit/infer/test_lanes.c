// SPDX-License-Identifier: MIT
// Models that come and go while the engine runs: under load from several threads, with sequences in hand, a thousand times.
#include "base/mem.h"
#include "engine/infer/engine.h"
#include "engine/kernels/kernels.h"
#include "tests/unit/infer/odd_model.h"
#include "tests/unit/test.h"

#include "engine/model/adapter.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

static struct pool *pool_of_two;
static const struct shape small = {true, 1, 2, 1, 8, 16, 24, 40, 128};

static struct model *model_make(struct odd_model *m) {
    struct err err = {0};
    if (!odd_model_make(m, &small, 0.3f, NULL, &err)) TEST_FAIL("%s", err.message);
    return m->model;
}

// One module's factors, of rank 1.
static struct model *adapted_make(struct model *base, float b) {
    const struct model_config *c = model_config(base);
    float *ones = mem_alloc(c->n_embd + c->n_inner, sizeof *ones);
    for (size_t i = 0; i < c->n_embd + c->n_inner; i++) ones[i] = i < c->n_embd ? 0.1f : b;
    struct adapter_module module = {.name = (char[]){"model.layers.0.mlp.up_proj"}, .a = ones, .b = ones + c->n_embd, .r = 1, .n_in = c->n_embd,
                                    .n_out = c->n_inner, .scale = 1};
    struct err err = {0};
    struct model *m = model_create_adapted(base, &(struct adapter){.modules = &module, .n = 1}, &err);
    if (!m) TEST_FAIL("%s", err.message);
    free(ones);
    return m;
}

static struct sequence_request request(struct model *m, uint64_t id, size_t n_new) {
    static const uint32_t prompt[] = {1, 2, 3, 4, 5, 6, 7};
    struct sampling_params p = {.max_tokens = n_new, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .ignore_eos = true, .n_logprobs = -1};
    return (struct sequence_request){.id = id, .group = id, .model = m, .prompt = prompt, .n_prompt = 7, .params = p};
}

// Frees what came; adds up the ends of one kind.
static size_t ends_take(struct engine *e, enum finish_reason wanted) {
    size_t n = 0;
    for (struct engine_event *v = engine_take_events(e), *next; v; v = next) {
        n += v->kind == EVENT_FINISH && v->finish == wanted;
        next = v->next;
        engine_event_free(v);
    }
    return n;
}

TEST(a_removed_model_finishes_what_it_has) {
    struct odd_model kept_model, gone_model;
    struct model *kept = model_make(&kept_model), *gone = model_make(&gone_model), *adapted = adapted_make(gone, 0.2f);
    struct engine *e = engine_create(&(struct engine_config){.pool = pool_of_two, .max_running = 4, .max_waiting = 8, .step_rows = 16}, NULL);
    struct err err = {0};
    REQUIRE(e && engine_add_model(e, kept, 1 << 20, NULL) && engine_add_model(e, gone, 1 << 20, NULL));
    CHECK(!engine_add_model(e, gone, 1 << 20, &err)); // twice
    CHECK_INT(err.code, ERR_INVALID);
    struct sequence_request r[4] = {request(gone, 1, 20), request(kept, 2, 20), request(adapted, 3, 20), request(gone, 4, 20)};
    CHECK(engine_submit(e, r, 3, NULL));
    for (int i = 0; i < 4; i++) CHECK(engine_step(e));
    CHECK(engine_submit(e, r + 3, 1, NULL)); // still in the mailbox
    engine_remove_model(e, adapted);         // it has no lane: nothing happens
    engine_remove_model(e, gone);
    engine_remove_model(e, gone);
    for (int i = 0; i < 3; i++) {
        struct sequence_request late[2] = {request(kept, 9, 1), request(i == 1 ? adapted : gone, 10, 1)};
        CHECK(!engine_submit(e, late, 2, &err));
        CHECK_INT(err.code, ERR_NOT_FOUND);
    }
    model_release(adapted); // a sequence of it holds it
    model_release(gone);
    gone_model.model = NULL;
    struct engine_stats before, after;
    engine_stats(e, &before);
    while (engine_step(e)) continue;
    CHECK_INT(ends_take(e, FINISH_LENGTH), 4);
    engine_stats(e, &after);
    CHECK(after.kv_blocks_total > 0 && after.kv_blocks_total < before.kv_blocks_total);
    CHECK_INT(after.generated_tokens, 80); // of lanes that went as well
    CHECK(after.steps > before.steps && after.prompt_tokens == 28);
    engine_destroy(e);
    odd_model_finish(&gone_model);
    odd_model_finish(&kept_model);
}

TEST(a_model_may_come_back_while_it_leaves) {
    struct odd_model made;
    struct model *m = model_make(&made);
    struct engine *e = engine_create(&(struct engine_config){.max_running = 4, .max_waiting = 8, .step_rows = 16}, NULL);
    REQUIRE(e && engine_add_model(e, m, 1 << 20, NULL));
    struct sequence_request r[2] = {request(m, 1, 20), request(m, 2, 20)};
    CHECK(engine_submit(e, r, 1, NULL) && engine_step(e));
    engine_remove_model(e, m);
    CHECK(engine_add_model(e, m, 1 << 20, NULL));
    CHECK(engine_submit(e, r + 1, 1, NULL));
    engine_cancel(e, 1); // frees the old lane at the next step
    while (engine_step(e)) continue;
    CHECK_INT(ends_take(e, FINISH_LENGTH), 1);
    struct sequence_request again = request(m, 3, 2);
    CHECK(engine_submit(e, &again, 1, NULL));
    engine_destroy(e); // with a message in the mailbox
    odd_model_finish(&made);
}

// ---- from several threads -----------------------------------------------------------------------------------------------

enum { THREADS = 4, MODELS = 3, EACH = 150, CYCLES = 60 };

struct crowd {
    struct engine *engine;
    struct model *models[MODELS], *adapted[MODELS]; // models[0] stays
    atomic_size_t taken, refused, done;
};
struct member {
    struct crowd *crowd;
    size_t number;
};

static void *submit_all(void *ctx) {
    struct member *me = ctx;
    struct crowd *c = me->crowd;
    for (size_t i = 0; i < EACH; i++) {
        size_t k = (i * 7 + me->number) % MODELS;
        struct sequence_request r = request((i + me->number) % 2 ? c->models[k] : c->adapted[k], me->number * EACH + i + 1, 1 + i % 9);
        struct err err = {0};
        if (engine_submit(c->engine, &r, 1, &err)) {
            c->taken++;
            if (i % 11 == 0) engine_cancel(c->engine, r.id + 1);
        } else {
            if (err.code != ERR_NOT_FOUND && err.code != ERR_BUSY) TEST_FAIL("%s", err.message);
            c->refused++;
            sched_yield();
        }
    }
    c->done++;
    return NULL;
}

TEST(lanes_come_and_go_under_load) {
    struct odd_model made[MODELS];
    struct crowd c = {0};
    for (size_t i = 0; i < MODELS; i++) {
        c.models[i] = model_make(&made[i]);
        c.adapted[i] = adapted_make(c.models[i], 0.3f);
    }
    c.engine = engine_create(&(struct engine_config){.pool = pool_of_two, .max_running = 8, .max_waiting = 16, .step_rows = 32}, NULL);
    REQUIRE(c.engine && engine_add_model(c.engine, c.models[0], 1 << 20, NULL) && engine_start(c.engine, NULL));
    pthread_t threads[THREADS];
    struct member members[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        members[i] = (struct member){&c, i};
        REQUIRE(pthread_create(&threads[i], NULL, submit_all, &members[i]) == 0);
    }
    size_t ends = 0;
    uint64_t generated = 0;
    for (size_t i = 0; i < CYCLES || c.done < THREADS; i++) {
        struct model *m = c.models[1 + i % 2];
        bool added = engine_add_model(c.engine, m, 1 << 20, NULL);
        for (int k = 0; k < 20; k++) sched_yield();
        if (added) engine_remove_model(c.engine, m);
        ends += ends_take(c.engine, FINISH_LENGTH) + ends_take(c.engine, FINISH_CANCELLED);
        struct engine_stats s;
        engine_stats(c.engine, &s);
        CHECK(s.generated_tokens >= generated);
        generated = s.generated_tokens;
    }
    for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    struct engine_stats s = {.running = 1};
    while (s.running + s.waiting > 0) {
        sched_yield();
        engine_stats(c.engine, &s);
    }
    engine_destroy(c.engine);
    CHECK(c.taken > 0 && ends <= c.taken);
    for (size_t i = 0; i < MODELS; i++) {
        model_release(c.adapted[i]);
        odd_model_finish(&made[i]);
    }
}

// ---- memory -------------------------------------------------------------------------------------------------------------

static size_t mapped_pages(void) {
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%lu", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return pages;
}

TEST(a_thousand_comings_and_goings_leave_nothing) {
    struct odd_model made, base_made;
    struct model *m = model_make(&made), *base = model_make(&base_made);
    struct engine *e = engine_create(&(struct engine_config){.max_running = 4, .max_waiting = 8, .step_rows = 16}, NULL);
    REQUIRE(e && engine_add_model(e, base, 1 << 20, NULL));
    size_t early = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        struct model *adapted = adapted_make(base, 0.1f + (float)i);
        REQUIRE(engine_add_model(e, m, 1 << 20, NULL));
        struct sequence_request r[2] = {request(m, i, 2), request(adapted, 2000 + i, 2)};
        CHECK(engine_submit(e, r, 2, NULL));
        engine_remove_model(e, m);
        model_release(adapted);
        while (engine_step(e)) continue;
        CHECK_INT(ends_take(e, FINISH_LENGTH), 2);
        if (i == 100) early = mapped_pages();
    }
    size_t grown = mapped_pages() - early;
    if ((long)grown * sysconf(_SC_PAGESIZE) > 16 << 20) TEST_FAIL("%zu pages more", grown); // a leaked lane would be a gigabyte
    engine_destroy(e);
    odd_model_finish(&made);
    odd_model_finish(&base_made);
}

int main(int argc, char **argv) {
    struct err err = {0};
    pool_of_two = pool_create(2, &err);
    if (!pool_of_two) return 1;
    int failed = test_main("lanes", argc, argv);
    pool_destroy(pool_of_two);
    return failed;
}
