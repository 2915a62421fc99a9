// SPDX-License-Identifier: MIT
// Rules S1-S5 of scheduler.h, without a model: sequences "compute" by being planned.
#include "base/mem.h"
#include "engine/infer/scheduler.h"
#include "tests/unit/test.h"

static const struct model_config small = {.n_layer = 1, .n_head = 1, .n_kv_head = 1, .head_size = 16, .n_embd = 16};
enum { BLOCK_BYTES = KV_BLOCK * 32 * 4, MAX_RUNNING = 4, STEP_ROWS = 64 };

struct fixture {
    struct kv_cache *kv;
    struct scheduler s;
    struct sequence *plan[MAX_RUNNING];
    size_t n, rows;
};

static void begin(struct fixture *f, size_t n_blocks) {
    f->kv = kv_cache_create(&small, n_blocks * BLOCK_BYTES, NULL);
    scheduler_init(&f->s, f->kv, MAX_RUNNING, STEP_ROWS);
}
static void end(struct fixture *f) {
    kv_cache_check(f->kv);
    scheduler_finish(&f->s);
    kv_cache_destroy(f->kv);
}

static struct sequence *sequence(uint64_t id, uint64_t group, size_t n_prompt, size_t max_tokens, uint32_t fill) {
    struct sequence *q = mem_new(struct sequence);
    *q = (struct sequence){.id = id, .group = group, .n_prompt = n_prompt, .n_tokens = n_prompt, .max_tokens = max_tokens};
    q->tokens = mem_alloc(n_prompt + max_tokens, sizeof *q->tokens);
    q->blocks = mem_alloc((n_prompt + max_tokens) / KV_BLOCK + 1, sizeof *q->blocks);
    for (size_t i = 0; i < n_prompt; i++) q->tokens[i] = fill;
    return q;
}
static void sequence_free(struct sequence *q) {
    free(q->tokens), free(q->blocks), free(q);
}

// Plans a step, pretends to compute it; whoever computed its last token gets a next one. Returns rows.
static size_t step(struct fixture *f) {
    f->n = scheduler_plan(&f->s, f->plan, &f->rows);
    size_t row = 0;
    for (size_t i = 0; i < f->n; i++) {
        CHECK_INT(f->plan[i]->step_row, row); // consecutive
        row += f->plan[i]->step_rows;
        CHECK(f->plan[i]->n_blocks * KV_BLOCK >= f->plan[i]->n_computed + f->plan[i]->step_rows);
    }
    CHECK_INT(row, f->rows);
    scheduler_done(&f->s, f->plan, f->n);
    for (size_t i = 0; i < f->n; i++) {
        struct sequence *q = f->plan[i];
        if (q->n_computed == q->n_tokens && q->n_tokens < q->n_prompt + q->max_tokens) q->tokens[q->n_tokens++] = (uint32_t)q->id;
    }
    return f->rows;
}

TEST(rows_of_an_adapter_are_neighbours) {
    struct fixture f;
    begin(&f, 64);
    struct sequence *q[4];
    static const uint64_t adapters[] = {7, 0, 7, 0};
    for (size_t i = 0; i < 4; i++) {
        q[i] = sequence(i, 1, 40, 9, 5); // one request, one prompt: held back for their own adapter's alone
        q[i]->adapter = adapters[i];
        scheduler_add(&f.s, q[i]);
    }
    step(&f);
    CHECK(f.n == 2 && f.plan[0] == q[1] && f.plan[1] == q[0]);
    for (int i = 0; i < 2; i++) step(&f);
    CHECK(f.n == 4 && f.plan[0] == q[1] && f.plan[1] == q[3] && f.plan[2] == q[0] && f.plan[3] == q[2]); // then by admission
    for (size_t i = 0; i < 4; i++) scheduler_remove(&f.s, q[i]);
    CHECK_INT(q[2]->n_cached, KV_BLOCK);
    for (size_t i = 0; i < 4; i++) sequence_free(q[i]);
    end(&f);
}

TEST(prompts_are_read_in_chunks_then_decoded) {
    struct fixture f;
    begin(&f, 64);
    struct sequence *q = sequence(1, 1, 150, 3, 5);
    scheduler_add(&f.s, q);
    CHECK_INT(step(&f), 64);
    CHECK_INT(step(&f), 64);
    CHECK_INT(step(&f), 22);
    CHECK_INT(step(&f), 1);
    CHECK_INT(q->n_tokens, 152);
    scheduler_remove(&f.s, q);
    CHECK_INT(step(&f), 0);
    CHECK_INT(kv_cache_available(f.kv), 64);
    sequence_free(q);
    end(&f);
}

TEST(decoding_goes_first_and_keeps_its_pace_beside_a_long_prompt) {
    struct fixture f;
    begin(&f, 64);
    f.s.busy_rows = 20;
    struct sequence *a = sequence(1, 1, 4, 100, 5), *b = sequence(2, 2, 500, 10, 6);
    scheduler_add(&f.s, a);
    step(&f);
    scheduler_add(&f.s, b);
    for (int i = 0; i < 10; i++) {
        CHECK_INT(step(&f), 20);
        CHECK(f.plan[0] == a && a->step_rows == 1 && b->step_rows == 19);
    }
    scheduler_remove(&f.s, a);
    CHECK_INT(step(&f), 64); // alone again: full speed
    scheduler_remove(&f.s, b);
    sequence_free(a), sequence_free(b);
    end(&f);
}

TEST(admission_is_in_order_and_bounded) {
    struct fixture f;
    begin(&f, 64);
    struct sequence *q[6];
    for (size_t i = 0; i < 6; i++) scheduler_add(&f.s, q[i] = sequence(i, i, 3, 50, (uint32_t)i));
    step(&f);
    CHECK_INT(f.n, MAX_RUNNING);
    CHECK_INT(f.s.n_waiting, 2);
    scheduler_remove(&f.s, q[2]);
    step(&f);
    CHECK(q[4]->state == SEQUENCE_RUNNING && q[5]->state == SEQUENCE_WAITING);
    for (size_t i = 0; i < 6; i++) {
        if (i != 2) scheduler_remove(&f.s, q[i]);
        sequence_free(q[i]);
    }
    CHECK_INT(f.s.n_waiting + f.s.n_running, 0);
    end(&f);
}

TEST(a_known_prefix_is_not_computed_again) {
    struct fixture f;
    begin(&f, 64);
    struct sequence *a = sequence(1, 1, 100, 2, 5), *b = sequence(2, 2, 100, 2, 5), *c = sequence(3, 3, 100, 2, 5);
    scheduler_add(&f.s, a);
    while (step(&f) > 1) continue;
    scheduler_remove(&f.s, a);
    scheduler_add(&f.s, b);
    CHECK_INT(step(&f), 100 - 96);
    CHECK_INT(b->n_cached, 96);
    scheduler_remove(&f.s, b);
    c->score_prompt = true; // every row's logits are wanted: computed in full
    scheduler_add(&f.s, c);
    CHECK_INT(step(&f), 64);
    CHECK_INT(c->n_cached, 0);
    scheduler_remove(&f.s, c);
    sequence_free(a), sequence_free(b), sequence_free(c);
    end(&f);
}

TEST(a_whole_prompt_in_the_cache_still_computes_its_last_token) {
    struct fixture f;
    begin(&f, 8);
    struct sequence *a = sequence(1, 1, 64, 2, 5), *b = sequence(2, 2, 64, 2, 5);
    scheduler_add(&f.s, a);
    step(&f);
    scheduler_remove(&f.s, a);
    scheduler_add(&f.s, b);
    CHECK_INT(step(&f), 32);
    scheduler_remove(&f.s, b);
    sequence_free(a), sequence_free(b);
    end(&f);
}

TEST(equal_prompts_of_a_group_are_computed_once) {
    struct fixture f;
    begin(&f, 64);
    struct sequence *a = sequence(1, 9, 150, 5, 5), *b = sequence(2, 9, 150, 5, 5), *other = sequence(3, 4, 10, 5, 7);
    scheduler_add(&f.s, a), scheduler_add(&f.s, b), scheduler_add(&f.s, other);
    step(&f);
    CHECK(b->state == SEQUENCE_WAITING && other->state == SEQUENCE_RUNNING); // held back, overtaken
    while (b->n_tokens < 155) step(&f);
    CHECK_INT(b->n_cached, 128);
    scheduler_remove(&f.s, a), scheduler_remove(&f.s, b), scheduler_remove(&f.s, other);
    sequence_free(a), sequence_free(b), sequence_free(other);
    end(&f);
}

TEST(a_full_cache_preempts_the_last_admitted_and_all_finish) {
    struct fixture f;
    begin(&f, 8); // 256 positions for four sequences of 130
    struct sequence *q[4];
    size_t finished = 0;
    for (size_t i = 0; i < 4; i++) scheduler_add(&f.s, q[i] = sequence(i + 1, i, 30, 100, (uint32_t)i));
    for (int steps = 0; finished < 4 && steps < 2000; steps++) {
        struct sequence *oldest = f.s.n_running ? f.s.running[0] : NULL;
        size_t before = oldest ? oldest->n_computed : 0;
        CHECK(step(&f) > 0);
        if (oldest) CHECK(oldest->n_computed > before); // S4: the oldest always advances
        kv_cache_check(f.kv);
        for (size_t i = 0; i < 4; i++)
            if (q[i] && q[i]->n_tokens == 130) {
                for (size_t k = 30; k < 130; k++) CHECK_INT(q[i]->tokens[k], i + 1); // nothing lost
                scheduler_remove(&f.s, q[i]);
                sequence_free(q[i]);
                q[i] = NULL;
                finished++;
            }
    }
    CHECK_INT(finished, 4);
    CHECK(f.s.preemptions > 0);
    CHECK_INT(kv_cache_available(f.kv), 8);
    end(&f);
}

TEST(who_cannot_be_admitted_leaves_the_prefix_cache_alone) {
    struct fixture f;
    begin(&f, 8);
    struct sequence *known = sequence(1, 1, 97, 2, 5), *running = sequence(2, 2, 60, 4, 6), *big = sequence(3, 3, 250, 2, 7);
    scheduler_add(&f.s, known);
    while (step(&f) > 1) continue;
    scheduler_remove(&f.s, known); // three sealed blocks stay
    scheduler_add(&f.s, running);
    step(&f);
    scheduler_add(&f.s, big); // needs all eight blocks while two are held
    step(&f);
    CHECK_INT(big->state, SEQUENCE_WAITING);
    scheduler_remove(&f.s, big);
    known->n_computed = 0, known->admitted = 0, known->n_tokens = known->n_prompt;
    scheduler_add(&f.s, known);
    step(&f);
    CHECK_INT(known->n_cached, 96);
    scheduler_remove(&f.s, known), scheduler_remove(&f.s, running);
    sequence_free(known), sequence_free(running), sequence_free(big);
    end(&f);
}

TEST(too_long_for_the_cache_is_known_at_once) {
    struct fixture f;
    begin(&f, 4);
    CHECK(scheduler_fits(&f.s, 128));
    CHECK(!scheduler_fits(&f.s, 129));
    end(&f);
}

// Arrivals, groups, scoring and cancellations at random in a cache that is always too small: there is work in every step, the
// oldest advances, and whoever stays ends with the tokens it should have.
TEST(any_order_of_events_ends_well) {
    enum { LIVE = 12, BLOCKS = 9 };
    uint64_t state = 7;
    struct fixture f;
    begin(&f, BLOCKS);
    struct sequence *live[LIVE] = {0};
    size_t finished = 0;
    uint64_t id = 1;
    for (int round = 0; round < 20000; round++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        size_t r = (size_t)(state >> 33), slot = r % LIVE;
        if (!live[slot] && r / LIVE % 3 == 0) {
            size_t n = 1 + r / 64 % 200, fill = r / 16384 % 3, more = 1 + r / 512 % (BLOCKS * KV_BLOCK - n);
            live[slot] = sequence(id++, fill, n, more % 90 + 1, (uint32_t)fill);
            live[slot]->score_prompt = r / 4096 % 5 == 0;
            if (!scheduler_fits(&f.s, n + live[slot]->max_tokens)) sequence_free(live[slot]), live[slot] = NULL;
            else scheduler_add(&f.s, live[slot]);
        } else if (live[slot] && r / LIVE % 97 == 0) {
            scheduler_remove(&f.s, live[slot]);
            sequence_free(live[slot]), live[slot] = NULL;
        }
        bool work = f.s.n_running + f.s.n_waiting > 0;
        struct sequence *oldest = f.s.n_running ? f.s.running[0] : NULL;
        size_t before = oldest ? oldest->n_computed : 0;
        CHECK((step(&f) > 0) == work);
        if (oldest) CHECK(oldest->n_computed > before);
        for (size_t i = 0; i < LIVE; i++) {
            struct sequence *q = live[i];
            if (!q || q->n_tokens < q->n_prompt + q->max_tokens) continue;
            for (size_t k = q->n_prompt; k < q->n_tokens; k++) CHECK_INT(q->tokens[k], q->id);
            scheduler_remove(&f.s, q);
            sequence_free(q), live[i] = NULL;
            finished++;
        }
        if (round % 16 == 0) kv_cache_check(f.kv);
    }
    CHECK(finished > 200 && f.s.preemptions > 100 && f.s.prefix_hits > 0);
    for (size_t i = 0; i < LIVE; i++)
        if (live[i]) scheduler_remove(&f.s, live[i]), sequence_free(live[i]);
    CHECK_INT(kv_cache_available(f.kv), BLOCKS);
    end(&f);
}

TEST_MAIN("scheduler")
