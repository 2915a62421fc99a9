// SPDX-License-Identifier: MIT
// The promise of batch invariance: a sequence's tokens, logprobs and text do not depend on what runs beside it, on chunking, cache
// hits, preemption, threads. And the engine's bookkeeping: cancel, full queue, shutdown. Run once per instruction set.
#include "base/file.h"
#include "base/mem.h"
#include "engine/infer/engine.h"
#include "engine/kernels/kernels.h"
#include "tests/unit/test.h"

#include <sched.h>

enum { N = 16, PROMPT = 70, NEW = 24 };

struct answer {
    uint32_t ids[NEW + PROMPT];
    float logprobs[NEW + PROMPT], tops[NEW + PROMPT][3];
    size_t n, n_cached;
    int finishes;
    enum finish_reason finish;
};

static struct model *model;
static struct pool *pool_of_two;

static bool setup(void) {
    if (model) return true;
    struct err err = {0};
    struct model_file *f = model_file_open(GOLDEN_DIR "/parity/llama", &err);
    pool_of_two = pool_create(2, &err);
    model = f ? model_create(f, WEIGHTS_AUTO, pool_of_two, &err) : NULL;
    if (!model) TEST_FAIL("%s", err.message);
    return model;
}

static uint32_t prompts[N][PROMPT];
static struct sequence_request request(size_t i) {
    size_t n = 1 + (i * 37) % PROMPT;
    for (size_t k = 0; k < n; k++) prompts[i][k] = (uint32_t)((k < 40 ? k * 11 : k * 7 + i) % 250); // shared beginnings
    struct sampling_params p = {.max_tokens = NEW, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .seed = i, .ignore_eos = true,
                                .n_logprobs = 3, .prompt_logprobs = i % 5 == 4};
    if (i % 2) p.temperature = 0.8f, p.top_k = 40, p.top_p = 0.95f;
    if (i % 3 == 1) p.repetition_penalty = 1.2f, p.presence_penalty = 0.3f;
    return (struct sequence_request){.id = 100 + i, .group = i, .model = model, .prompt = prompts[i], .n_prompt = n, .params = p};
}

static void collect(struct engine *e, struct answer *answers) {
    for (struct engine_event *v = engine_take_events(e); v;) {
        struct answer *a = &answers[v->id - 100];
        for (size_t i = 0; i < v->n_tokens; i++) {
            const struct token_record *t = &v->tokens[i];
            a->ids[a->n] = t->id;
            a->logprobs[a->n] = t->has_logprob ? t->logprob : 0;
            for (size_t k = 0; k < t->n_top; k++) a->tops[a->n][k] = t->top[k].logprob;
            a->n++;
        }
        if (v->kind == EVENT_FINISH) a->finishes++, a->finish = v->finish, a->n_cached = v->n_cached;
        struct engine_event *next = v->next;
        engine_event_free(v);
        v = next;
    }
}

static struct engine *engine_with(struct pool *pool, size_t max_running, size_t step_rows, size_t kv_bytes) {
    struct engine_config c = {.pool = pool, .max_running = max_running, .max_waiting = 32, .step_rows = step_rows};
    struct err err = {0};
    struct engine *e = engine_create(&c, &err);
    if (e && engine_add_model(e, model, kv_bytes, &err)) return e;
    TEST_FAIL("%s", err.message);
    abort();
}

static struct answer alone[N];
static void answers_alone(void) {
    for (size_t i = 0; i < N && !alone[N - 1].finishes; i++) {
        struct engine *e = engine_with(NULL, 1, 128, 1 << 22);
        struct sequence_request r = request(i);
        CHECK(engine_submit(e, &r, 1, NULL));
        while (engine_step(e)) continue;
        collect(e, alone);
        engine_destroy(e);
        CHECK(alone[i].finishes == 1 && alone[i].finish == FINISH_LENGTH);
    }
}

static bool same(const struct answer *a, const struct answer *b) {
    return a->n == b->n && a->finish == b->finish && memcmp(a->ids, b->ids, sizeof a->ids) == 0 &&
           memcmp(a->logprobs, b->logprobs, sizeof a->logprobs) == 0 && memcmp(a->tops, b->tops, sizeof a->tops) == 0;
}

static void check_together(struct engine *e, const char *how) {
    static struct answer together[N];
    memset(together, 0, sizeof together);
    for (size_t i = 0; i < N; i++) {
        struct sequence_request r = request(i);
        CHECK(engine_submit(e, &r, 1, NULL));
        if (i % 3 == 0) engine_step(e); // arrivals while others run
    }
    while (engine_step(e)) continue;
    collect(e, together);
    for (size_t i = 0; i < N; i++) {
        CHECK_INT(together[i].finishes, 1);
        if (!same(&alone[i], &together[i])) TEST_FAIL("%s: sequence %zu differs from its run alone", how, i);
    }
}

TEST(together_equals_alone) {
    REQUIRE(setup());
    answers_alone();
    struct { const char *how; struct pool *pool; size_t running, rows, kv; } ways[] = {
        {"one thread", NULL, 16, 64, 1 << 22}, {"two threads", pool_of_two, 16, 128, 1 << 22},   {"small chunks", pool_of_two, 5, 7, 1 << 22},
        {"full cache", pool_of_two, 16, 64, 9 * 2 * 2 * 32 * 16 * 4 * 2}, {"two at a time", NULL, 2, 33, 1 << 22},
    };
    for (size_t w = 0; w < ARRAY_LEN(ways); w++) {
        struct engine *e = engine_with(ways[w].pool, ways[w].running, ways[w].rows, ways[w].kv);
        check_together(e, ways[w].how);
        check_together(e, "warm prefix cache");
        struct engine_stats s;
        engine_stats(e, &s);
        CHECK(s.running == 0 && s.waiting == 0 && s.kv_blocks_used == 0);
        CHECK(s.prefix_hits > 0);
        if (strcmp(ways[w].how, "full cache") == 0) CHECK(s.preemptions > 0);
        engine_destroy(e);
    }
}

TEST(cancel_frees_within_a_step_and_disturbs_nobody) {
    REQUIRE(setup());
    answers_alone();
    static struct answer answers[N];
    struct engine *e = engine_with(pool_of_two, 8, 16, 1 << 22);
    memset(answers, 0, sizeof answers);
    for (size_t i = 0; i < N; i++) {
        struct sequence_request r = request(i);
        CHECK(engine_submit(e, &r, 1, NULL));
    }
    engine_cancel(e, 100); // still in the mailbox
    for (int step = 0; engine_step(e); step++) {
        if (step < 5) engine_cancel(e, 101 + 2 * (uint64_t)step); // running, waiting, or reading its prompt
        engine_cancel(e, 9999);
    }
    collect(e, answers);
    for (size_t i = 0; i < N; i++) {
        bool cancelled = i == 0 || (i % 2 && i < 10);
        CHECK_INT(answers[i].finishes, 1);
        CHECK_INT(answers[i].finish, cancelled ? FINISH_CANCELLED : FINISH_LENGTH);
        if (!cancelled) CHECK(same(&alone[i], &answers[i]));
    }
    struct engine_stats s;
    engine_stats(e, &s);
    CHECK(s.running == 0 && s.waiting == 0 && s.kv_blocks_used == 0);
    engine_destroy(e);
}

TEST(a_full_queue_takes_all_of_a_request_or_nothing) {
    REQUIRE(setup());
    struct engine_config c = {.max_running = 2, .max_waiting = 3, .step_rows = 16};
    struct engine *e = engine_create(&c, NULL);
    REQUIRE(e && engine_add_model(e, model, 1 << 22, NULL));
    struct sequence_request r[4];
    struct err err = {0};
    for (size_t i = 0; i < 4; i++) r[i] = request(i);
    CHECK(engine_submit(e, r, 4, NULL));
    CHECK(!engine_submit(e, r, 2, &err));
    CHECK_INT(err.code, ERR_BUSY);
    CHECK(engine_submit(e, &r[0], 1, NULL));
    CHECK(!engine_submit(e, &r[0], 1, NULL));
    while (engine_step(e)) continue;
    CHECK(engine_submit(e, r, 4, NULL)); // room again
    engine_destroy(e);                   // with work in hand
}

TEST(more_than_the_cache_can_hold_is_refused) {
    REQUIRE(setup());
    struct engine *e = engine_with(NULL, 2, 16, 1);
    struct sequence_request r = request(15);
    struct err err = {0};
    CHECK(!engine_submit(e, &r, 1, &err));
    CHECK_INT(err.code, ERR_TOO_LARGE);
    engine_destroy(e);
}

TEST(scoring_alone_generates_nothing) {
    REQUIRE(setup());
    struct engine *e = engine_with(NULL, 2, 16, 1 << 22);
    static struct answer a[N];
    memset(a, 0, sizeof a);
    for (size_t i = 0; i < 2; i++) {
        struct sequence_request r = request(4);
        r.id = 100 + i;
        r.params.max_tokens = 0;
        if (i == 1) r.n_prompt = 1;
        CHECK(engine_submit(e, &r, 1, NULL));
    }
    while (engine_step(e)) continue;
    collect(e, a);
    CHECK_INT(a[0].n, request(4).n_prompt);
    CHECK(memcmp(a[0].ids, prompts[4], a[0].n * sizeof *a[0].ids) == 0 && a[0].finish == FINISH_LENGTH);
    CHECK_INT(a[1].n, 1);
    CHECK_INT(a[1].finishes, 1);
    engine_destroy(e);
}

// A stop id breaks a character off; the U+FFFD that this leaves completes a stop string: one reason, not two.
TEST(an_end_has_one_reason) {
    REQUIRE(setup());
    struct err err = {0};
    struct model_file *f = model_file_open(GOLDEN_DIR "/gguf/llama_f16.gguf", &err); // has a tokenizer
    struct model *m = f ? model_create(f, WEIGHTS_AUTO, NULL, &err) : NULL;
    REQUIRE(m);
    const struct tokenizer *t = model_tokenizer(m);
    uint32_t lead = UINT32_MAX, plain = 0; // the byte 0xC3, and any other token
    for (uint32_t i = 0; i < tokenizer_size(t); i++) {
        size_t len;
        const char *bytes = tokenizer_bytes(t, i, &len);
        if (len == 1 && bytes[0] == '\xc3') lead = i;
        if (len == 1 && bytes[0] == 'a') plain = i;
    }
    REQUIRE(lead != UINT32_MAX);
    struct engine *e = engine_create(&(struct engine_config){.max_running = 1, .step_rows = 16}, NULL);
    REQUIRE(e && engine_add_model(e, m, 1 << 22, NULL));
    struct sequence_request r = request(0);
    r.model = m;
    r.params.max_tokens = 8;
    r.params.presence_penalty = 1000; // first `lead`, then `plain`
    r.params.logit_bias = (struct logit_bias[]){{lead, 2000}, {plain, 1500}}, r.params.n_logit_bias = 2;
    r.params.stop_ids = &plain, r.params.n_stop_ids = 1;
    r.params.stops = &(struct stop_string){"\xef\xbf\xbd", 3}, r.params.n_stops = 1;
    CHECK(engine_submit(e, &r, 1, NULL));
    while (engine_step(e)) continue;
    bool finished = false;
    for (struct engine_event *v = engine_take_events(e), *next; v; v = next) {
        if (v->kind == EVENT_FINISH) {
            finished = true;
            CHECK_INT(v->n_generated, 2);
            CHECK(v->stopped_by_string && !v->stopped_by_id);
        }
        next = v->next;
        engine_event_free(v);
    }
    CHECK(finished);
    engine_destroy(e);
    model_release(m);
}

static void count_wake(void *ctx) { ++*(int *)ctx; }

TEST(the_engine_thread_answers_and_stops) {
    REQUIRE(setup());
    answers_alone();
    int wakes = 0;
    struct engine_config c = {.pool = pool_of_two, .max_running = 8, .max_waiting = 32, .step_rows = 32, .wake = count_wake, .wake_ctx = &wakes};
    struct engine *e = engine_create(&c, NULL);
    REQUIRE(e && engine_add_model(e, model, 1 << 22, NULL) && engine_start(e, NULL));
    static struct answer answers[N];
    memset(answers, 0, sizeof answers);
    for (size_t i = 0; i < N; i++) {
        struct sequence_request r = request(i);
        CHECK(engine_submit(e, &r, 1, NULL));
    }
    for (size_t done = 0; done < N;) {
        collect(e, answers);
        done = 0;
        for (size_t i = 0; i < N; i++) done += (size_t)answers[i].finishes;
        sched_yield();
    }
    for (size_t i = 0; i < N; i++) CHECK(same(&alone[i], &answers[i]));
    struct sequence_request r = request(3);
    CHECK(engine_submit(e, &r, 1, NULL));
    engine_destroy(e); // while it works
    CHECK(wakes > 0);
}

int main(int argc, char **argv) {
    struct err err = {0};
    if (!kernels_get(&err)) {
        printf("engine: skipped, %s\n", err.message);
        return 77;
    }
    return test_main("engine", argc, argv);
}
