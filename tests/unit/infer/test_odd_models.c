// SPDX-License-Identifier: MIT
// Batch invariance and memory bounds on models whose every dimension is odd: widths off the vector width, one layer, one-float
// heads, contexts shorter than a cache block, a context length that nothing in the file pays for. Run once per instruction set.
#include "engine/infer/engine.h"
#include "engine/kernels/kernels.h"
#include "tests/unit/infer/odd_model.h"
#include "tests/unit/test.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

enum { SEQUENCES = 7, LONGEST = 80 };

struct answer {
    size_t n;
    uint32_t ids[LONGEST];
    float logprobs[LONGEST];
    int finishes;
    enum finish_reason finish;
};

static struct pool *pool_of_two;

// Sequence i: lengths from one token to the whole context, scored, generated, or both.
static struct sequence_request request(struct model *m, size_t i, uint32_t prompt[LONGEST]) {
    const struct model_config *c = model_config(m);
    size_t all = 1 + (i * 19 + 5) % MIN(c->n_ctx, (size_t)LONGEST), n = i % 3 == 0 ? 1 : i % 3 == 1 ? all : (all + 1) / 2;
    if (i == SEQUENCES - 1) n = all = MIN(c->n_ctx, (size_t)LONGEST);
    for (size_t k = 0; k < n; k++) prompt[k] = (uint32_t)((k < 40 ? k * 11 : k * 7 + i) % c->n_vocab);
    struct sampling_params p = {.max_tokens = all - n, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .seed = i, .ignore_eos = true,
                                .temperature = i % 2 ? 0.9f : 0, .prompt_logprobs = i % 2 == 0};
    return (struct sequence_request){.id = i, .group = i / 2, .model = m, .prompt = prompt, .n_prompt = n, .params = p};
}

static void collect(struct engine *e, struct answer *answers) {
    for (struct engine_event *v = engine_take_events(e), *next; v; v = next) {
        struct answer *a = &answers[v->id];
        for (size_t i = 0; i < v->n_tokens; i++, a->n++) {
            a->ids[a->n] = v->tokens[i].id;
            a->logprobs[a->n] = v->tokens[i].has_logprob ? v->tokens[i].logprob : 1;
        }
        if (v->kind == EVENT_FINISH) a->finishes++, a->finish = v->finish;
        next = v->next;
        engine_event_free(v);
    }
}

static void run(struct model *m, struct pool *pool, size_t max_running, size_t step_rows, size_t first, size_t n, struct answer *answers) {
    struct engine_config c = {.pool = pool, .max_running = max_running, .max_waiting = SEQUENCES, .step_rows = step_rows};
    struct engine *e = engine_create(&c, NULL);
    if (!e || !engine_add_model(e, m, 1 << 22, NULL)) abort();
    for (size_t i = first; i < first + n; i++) {
        uint32_t prompt[LONGEST];
        struct sequence_request r = request(m, i, prompt);
        CHECK(engine_submit(e, &r, 1, NULL));
    }
    while (engine_step(e)) continue;
    collect(e, answers);
    engine_destroy(e);
}

static const struct shape shapes[] = {
    {false, 1, 1, 1, 1, 1, 1, 1, 1}, // everything one
    {false, 1, 1, 1, 5, 5, 3, 33, 20},
    {false, 2, 7, 7, 1, 7, 29, 31, 32},
    {false, 1, 3, 3, 11, 33, 65, 257, 33},
    {false, 3, 1, 1, 67, 67, 31, 63, 77},
    {false, 2, 3, 3, 11, 33, 65, 129, 41, true},
    {true, 1, 1, 1, 2, 1, 1, 2, 3},
    {true, 1, 3, 1, 2, 5, 7, 17, 65},
    {true, 2, 6, 2, 18, 7, 9, 33, 71},
    {true, 1, 5, 5, 10, 31, 300, 129, 100},
    {true, 1, 17, 1, 6, 13, 15, 40, 90},
};

TEST(bits_do_not_depend_on_company) {
    const struct { struct pool *pool; size_t running, rows; } ways[] = {
        {NULL, 1, 1}, {pool_of_two, SEQUENCES, SEQUENCES}, {pool_of_two, 3, 5}, {pool_of_two, SEQUENCES, 200}, {NULL, 2, 2}};
    for (size_t k = 0; k < ARRAY_LEN(shapes); k++) {
        struct odd_model m;
        struct err err = {0};
        if (!odd_model_make(&m, &shapes[k], 0.3f, pool_of_two, &err)) TEST_FAIL("shape %zu: %s", k, err.message);
        struct answer alone[SEQUENCES] = {0};
        for (size_t i = 0; m.model && i < SEQUENCES; i++) run(m.model, NULL, 1, 128, i, 1, alone);
        for (size_t w = 0; m.model && w < ARRAY_LEN(ways); w++) {
            struct answer together[SEQUENCES] = {0};
            run(m.model, ways[w].pool, ways[w].running, ways[w].rows, 0, SEQUENCES, together);
            for (size_t i = 0; i < SEQUENCES; i++) {
                CHECK(together[i].finishes == 1 && together[i].finish == FINISH_LENGTH);
                if (memcmp(&alone[i], &together[i], sizeof alone[i]))
                    TEST_FAIL("shape %zu, way %zu: sequence %zu differs from its run alone", k, w, i);
            }
        }
        odd_model_finish(&m);
    }
}

static size_t resident_mib_peak(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (size_t)u.ru_maxrss >> 10;
}

TEST(a_declared_context_costs_no_memory_until_it_is_used) {
    struct shape s = {true, 1, 1, 1, 16, 16, 16, 17, 1 << 23}; // a file of 8 KB
    struct odd_model m;
    struct err err = {0};
    size_t before = resident_mib_peak();
    if (!odd_model_make(&m, &s, 0.3f, NULL, &err)) TEST_FAIL("%s", err.message);
    struct answer a[SEQUENCES] = {0};
    if (m.model) run(m.model, NULL, 1, 16, 1, 1, a);
    CHECK_INT(a[1].finishes, 1);
    size_t grown = resident_mib_peak() - before;
    if (grown >= 64) TEST_FAIL("%zu MiB for a file of %zu bytes", grown, m.file.len);
    odd_model_finish(&m);
}

// ---- memory that the system refuses ----

// A sanitizer's own mappings make a limit on addresses meaningless.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

// Lets the process map `more` bytes from now on; SIZE_MAX: as many as it likes.
static void limit_addresses(size_t more) {
    struct rlimit l;
    getrlimit(RLIMIT_AS, &l);
    l.rlim_cur = l.rlim_max;
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (more < SIZE_MAX && f && fscanf(f, "%lu", &pages) == 1) l.rlim_cur = pages * (size_t)sysconf(_SC_PAGESIZE) + more;
    if (f) fclose(f);
    setrlimit(RLIMIT_AS, &l);
}

// Loads, makes an engine and submits, with so many more bytes to map for the first two and for the last.
static bool try_everything(struct odd_model *m, size_t load, size_t submit, struct err *err) {
    limit_addresses(load);
    struct engine *e = engine_create(&(struct engine_config){.pool = pool_of_two, .max_running = 4, .step_rows = 64}, err);
    bool ok = odd_model_open(m, pool_of_two, err) && engine_add_model(e, m->model, 16u << 20, err);
    if (!ok) {
        limit_addresses(SIZE_MAX);
        engine_destroy(e);
        model_release(m->model);
        m->model = NULL;
        return false;
    }
    uint32_t prompt[LONGEST];
    struct sequence_request r = request(m->model, 2, prompt);
    r.params.max_tokens = model_config(m->model)->n_ctx - r.n_prompt;
    r.params.presence_penalty = 1; // wants counts
    limit_addresses(submit);
    ok = engine_submit(e, &r, 1, err);
    limit_addresses(SIZE_MAX);
    engine_destroy(e);
    model_release(m->model);
    m->model = NULL;
    return ok;
}

TEST(refused_memory_is_an_error_wherever_it_happens) {
    if (SANITIZED) return;
    mallopt(M_TOP_PAD, 16 << 20); // what is small and may abort comes from here
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    mallopt(M_MMAP_THRESHOLD, 256 << 10);
    free(mem_alloc(1, 1 << 17));
    struct odd_model m;
    odd_model_write(&m, &(struct shape){true, 1, 2, 1, 2, 32, 1 << 16, 33, 1 << 17}, 0.3f);
    for (int at_submit = 0; at_submit < 2; at_submit++) {
        size_t limit = 0, step = at_submit ? 256 << 10 : 2 << 20, refusals = 0;
        for (bool ok = false; !ok && limit < 512 << 20; limit += step) {
            struct err err = {0};
            ok = try_everything(&m, at_submit ? SIZE_MAX : limit, at_submit ? limit : SIZE_MAX, &err);
            refusals += !ok;
            if (!ok) CHECK_INT(err.code, ERR_NO_MEMORY);
        }
        CHECK(refusals > 5 && limit < 512 << 20);
    }
    odd_model_finish(&m);
}

TEST(weights_in_memory_are_bounded_by_their_file) {
    struct odd_model m;
    struct err err = {0};
    CHECK(!odd_model_make(&m, &(struct shape){true, 1, 1, 1, 2, 1, 1 << 20, 2, 8}, 0.3f, NULL, &err)); // panels of one output
    CHECK_INT(err.code, ERR_TOO_LARGE);
    odd_model_finish(&m);
}

int main(int argc, char **argv) {
    struct err err = {0};
    if (!kernels_get(&err)) {
        printf("odd_models: skipped, %s\n", err.message);
        return 77;
    }
    pool_of_two = pool_create(2, &err);
    if (!pool_of_two) return 1;
    int failed = test_main("odd_models", argc, argv);
    pool_destroy(pool_of_two);
    return failed;
}
