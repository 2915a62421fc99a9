// SPDX-License-Identifier: MIT
// The worked attention examples of a teaching notebook ("Your journey starts with one step", six words in three numbers each) through the very operations that
// training uses. tests/golden/train/attention_vectors.txt holds inputs, what float32 gives and, where the notebook stored it, what it printed.
// The dropout masks are torch's own random numbers: taken from dropout_ones, whose values are then those of the dropout kernel.
#include "base/mem.h"
#include "engine/train/attention.h"
#include "engine/train/gemm.h"
#include "tests/unit/test.h"

enum { MAX_VALUES = 64, MAX_ARRAYS = 200 };
struct matrix {
    char example[48], name[32];
    size_t rows, columns;
    float v[MAX_VALUES];
};
static struct matrix golden[MAX_ARRAYS];
static size_t n_golden;

static bool load_golden(void) {
    FILE *f = fopen(GOLDEN_DIR "/train/attention_vectors.txt", "r");
    bool ok = f != NULL;
    n_golden = 0;
    for (struct matrix *m = golden; ok && fscanf(f, "%47s %31s %zu %zu", m->example, m->name, &m->rows, &m->columns) == 4; m++, n_golden++) {
        ok = n_golden + 1 < MAX_ARRAYS && m->rows * m->columns <= MAX_VALUES;
        for (size_t i = 0; ok && i < m->rows * m->columns; i++) ok = fscanf(f, "%f", &m->v[i]) == 1;
    }
    if (f) fclose(f);
    return ok && n_golden > 0;
}

static const struct matrix *find(const char *example, const char *name) {
    for (size_t i = 0; i < n_golden; i++)
        if (strcmp(golden[i].example, example) == 0 && strcmp(golden[i].name, name) == 0) return &golden[i];
    return NULL;
}
static const struct matrix *need(const char *example, const char *name) {
    const struct matrix *m = find(example, name);
    if (!m) {
        fprintf(stderr, "the golden file lacks %s of %s\n", name, example);
        abort();
    }
    return m;
}

// ---- the operations -----------------------------------------------------------------------------------------------------

static const struct train_kernels *kernels;

static struct matrix product(const struct matrix *a, const struct matrix *b, bool trans_b, const float *bias) {
    struct matrix c = {.rows = a->rows, .columns = trans_b ? b->rows : b->columns};
    gemm_part(&(struct gemm){.trans_b = trans_b, .m = c.rows, .n = c.columns, .k = a->columns, .alpha = 1, .a = a->v, .lda = a->columns, .b = b->v,
                             .ldb = b->columns, .c = c.v, .ldc = c.columns, .bias = bias});
    return c;
}
static struct matrix row_of(const struct matrix *m, size_t r) {
    struct matrix row = {.rows = 1, .columns = m->columns};
    memcpy(row.v, m->v + r * m->columns, m->columns * sizeof *row.v);
    return row;
}
static struct matrix softmax_rows(struct matrix m, float scale, bool causal) {
    for (size_t r = 0; r < m.rows; r++) {
        size_t n = causal ? r + 1 : m.columns;
        kernels->softmax(m.v + r * m.columns, n, scale);
        memset(m.v + r * m.columns + n, 0, (m.columns - n) * sizeof *m.v);
    }
    return m;
}
static struct matrix row_sums(const struct matrix *m) {
    struct matrix sums = {.rows = m->rows, .columns = 1};
    float ones[MAX_VALUES];
    for (size_t i = 0; i < m->columns; i++) ones[i] = 1;
    for (size_t r = 0; r < m->rows; r++) sums.v[r] = kernels->dot(m->v + r * m->columns, ones, m->columns);
    return sums;
}
static struct matrix normalised(struct matrix m) {
    struct matrix sums = row_sums(&m);
    for (size_t r = 0; r < m.rows; r++) kernels->scale(m.v + r * m.columns, 1 / sums.v[r], m.columns);
    return m;
}
static struct matrix masked(struct matrix m, const struct matrix *mask) {
    for (size_t i = 0; i < m.rows * m.columns; i++) m.v[i] *= mask->v[i];
    return m;
}

// Self-attention without a mask: softmax(Q K^T / sqrt(d)) V; the weights where v is NULL.
static struct matrix self_attention(const struct matrix *q, const struct matrix *k, const struct matrix *v) {
    struct matrix w = softmax_rows(product(q, k, true, NULL), 1 / sqrtf((float)q->columns), false);
    return v ? product(&w, v, false, NULL) : w;
}

// Causal attention of training: two segments of six rows, heads side by side in q, k and v.
static struct matrix causal_attention(const struct matrix *q, const struct matrix *k, const struct matrix *v, size_t n_head) {
    struct matrix out = {.rows = q->rows, .columns = q->columns};
    float lse[MAX_VALUES], scratch[4096];
    uint32_t starts[] = {0, 6, 12};
    struct attention_shape s = {.n_head = n_head, .n_kv_head = n_head, .head_size = q->columns / n_head};
    s.scale = 1 / sqrtf((float)s.head_size);
    struct attention_arrays a = {.q = q->v, .k = k->v, .v = v->v, .qkv_stride = q->columns, .out = out.v, .lse = lse};
    struct batch b = {.n_rows = 12, .n_segments = 2, .starts = starts};
    CHECK(attention_scratch(&s, 6) <= ARRAY_LEN(scratch));
    attention_forward(&s, &a, &b, &(struct attention_dropout){0}, kernels, scratch, NULL);
    return out;
}

// torch.manual_seed(seed); torch.rand(n): MT19937, 24 bits a number.
static struct matrix torch_rand(uint32_t seed, size_t rows, size_t columns) {
    uint32_t s[624];
    struct matrix m = {.rows = rows, .columns = columns};
    s[0] = seed;
    for (uint32_t i = 1; i < 624; i++) s[i] = 1812433253u * (s[i - 1] ^ s[i - 1] >> 30) + i;
    for (size_t i = 0; i < rows * columns; i++) { // fewer than 227 numbers: the state's first words need no wrapping round
        uint32_t y = (s[i] & 0x80000000u) | (s[i + 1] & 0x7fffffffu);
        y = s[i + 397] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        y ^= y >> 11;
        y ^= y << 7 & 0x9d2c5680u;
        y ^= y << 15 & 0xefc60000u;
        m.v[i] = (float)((y ^ y >> 18) & 0xffffff) * 0x1p-24f;
    }
    return m;
}

// ---- the examples -------------------------------------------------------------------------------------------------------

static size_t n_agree, n_printed;

// Against float32's numbers and, where the notebook stored some, against its four decimals.
static void check(const char *example, const struct matrix *got) {
    const struct matrix *expected = need(example, "expected"), *printed = find(example, "printed");
    size_t n = got->rows * got->columns, wrong = n != expected->rows * expected->columns;
    for (size_t i = 0; !wrong && i < n; i++) {
        bool infinite = got->v[i] == expected->v[i] && (!printed || got->v[i] == printed->v[i]);
        if (infinite) continue;
        wrong += !(fabsf(got->v[i] - expected->v[i]) <= 1e-6f) || (printed && !(fabsf(got->v[i] - printed->v[i]) <= 5.1e-5f));
    }
    if (wrong) TEST_FAIL("%s (%s kernels): %zu numbers differ", example, kernels->name, wrong);
    n_agree += !wrong && printed;
    n_printed += printed != NULL;
}
#define CHECK_EXAMPLE(example, ...)          \
    do {                                     \
        struct matrix got_ = __VA_ARGS__;    \
        check(example, &got_);               \
    } while (0)

static void check_simple_attention(void) {
    const struct matrix *x = need("simple_scores_query2", "x"), *scores = need("softmax", "scores");
    struct matrix x2 = row_of(x, 1);
    CHECK_EXAMPLE("simple_scores_query2", product(&x2, x, true, NULL));
    CHECK_EXAMPLE("simple_weights_sum_normalised", normalised(row_of(need("simple_weights_sum_normalised", "scores"), 0)));
    CHECK_EXAMPLE("softmax_naive", softmax_rows(*need("softmax_naive", "scores"), 1, false));
    CHECK_EXAMPLE("softmax", softmax_rows(*scores, 1, false));
    CHECK_EXAMPLE("simple_context_2", product(need("simple_context_2", "weights"), need("simple_context_2", "x"), false, NULL));
    CHECK_EXAMPLE("simple_scores_all_loop", product(x, x, true, NULL));
    CHECK_EXAMPLE("simple_scores_all_matmul", product(x, x, true, NULL));
    CHECK_EXAMPLE("simple_weights_all", softmax_rows(*need("simple_weights_all", "scores"), 1, false));
    CHECK_EXAMPLE("simple_weights_row_sums", row_sums(need("simple_weights_row_sums", "weights")));
    CHECK_EXAMPLE("simple_context_all", product(need("simple_context_all", "weights"), x, false, NULL));
}

static void check_trained_weights(void) {
    const struct matrix *x = need("keys", "x"), *q2 = need("score_22", "query_2"), *keys = need("score_22", "keys");
    struct matrix k2 = row_of(keys, 1);
    CHECK_EXAMPLE("w_query_matrix", torch_rand(123, 3, 2));
    CHECK_EXAMPLE("query_2", product(need("query_2", "x_2"), need("query_2", "w_query"), false, NULL));
    CHECK_EXAMPLE("keys", product(x, need("keys", "w_key"), false, NULL));
    CHECK_EXAMPLE("values", product(x, need("values", "w_value"), false, NULL));
    CHECK_EXAMPLE("score_22", (struct matrix){.rows = 1, .columns = 1, .v = {kernels->dot(q2->v, k2.v, 2)}});
    CHECK_EXAMPLE("scores_2", product(q2, keys, true, NULL));
    CHECK_EXAMPLE("scaled_weights_2", softmax_rows(*need("scaled_weights_2", "scores"), 1 / sqrtf(2), false));
    CHECK_EXAMPLE("context_2", product(need("context_2", "weights"), need("context_2", "values"), false, NULL));
}

static struct matrix project(const char *example, const char *input, const char *weight, bool linear) { // linear: nn.Linear's [out][in]
    return product(need(example, input), need(example, weight), linear, NULL);
}

static void check_self_attention_classes(void) {
    const char *classes[] = {"self_attention_v1", "self_attention_v2_as_stored", "self_attention_v2_correct", "v2_attn_weights"};
    for (size_t i = 0; i < 4; i++) {
        const char *e = classes[i];
        struct matrix q = project(e, "x", "w_query", i > 0), k = project(e, "x", "w_key", i > 0), v = project(e, "x", "w_value", i > 0);
        const struct matrix *global = find(e, "global_values_cell31"); // the notebook's slip: an earlier cell's values
        CHECK_EXAMPLE(e, self_attention(&q, &k, i == 3 ? NULL : global ? global : &v));
    }
}

static void check_causal_mask(void) {
    struct matrix ones = {.rows = 6, .columns = 6}, q = project("v2_scores", "x", "w_query", true), k = project("v2_scores", "x", "w_key", true);
    const struct matrix *mask = need("masked_weights", "mask"), *kept = need("dropout_ones", "expected");
    struct matrix scores = product(&q, &k, true, NULL), hidden = scores, dropped;
    for (size_t i = 0; i < 36; i++) ones.v[i] = i % 6 <= i / 6;
    CHECK_EXAMPLE("causal_mask", ones);
    CHECK_EXAMPLE("masked_weights", masked(*need("masked_weights", "weights"), mask));
    CHECK_EXAMPLE("masked_row_sums", row_sums(need("masked_row_sums", "masked")));
    CHECK_EXAMPLE("masked_renormalised", normalised(*need("masked_renormalised", "masked")));
    CHECK_EXAMPLE("v2_scores", scores);
    for (size_t i = 0; i < 36; i++)
        if (i % 6 > i / 6) hidden.v[i] = -INFINITY;
    CHECK_EXAMPLE("scores_masked_inf", hidden);
    CHECK_EXAMPLE("causal_weights", softmax_rows(*need("causal_weights", "scores_masked"), 1 / sqrtf(2), true));
    dropped = *kept;
    for (size_t i = 0; i < 36; i++) { // what the kernel keeps of ones is what torch keeps of them: 2; found by looking for a counter that keeps it
        struct dropout_row d = {.p = need("dropout_ones", "p")->v[0]};
        float one = 1, y = 0;
        while (kept->v[i] != 0 && y == 0) {
            kernels->dropout(&y, &one, 1, &d);
            d.row++;
        }
        dropped.v[i] = y;
    }
    CHECK_EXAMPLE("dropout_ones", dropped);
    CHECK_EXAMPLE("dropout_causal_weights", masked(*need("dropout_causal_weights", "weights"), &dropped));
}

static void check_causal_classes(void) {
    const char *one = "causal_attention_class", *split = "multi_head_split", *wrappers[] = {"multi_head_wrapper", "multi_head_wrapper_again"};
    struct matrix q = project(one, "batch", "w_query", true), k = project(one, "batch", "w_key", true), v = project(one, "batch", "w_value", true);
    CHECK_EXAMPLE(one, causal_attention(&q, &k, &v, 1));
    for (size_t w = 0; w < 2; w++) {
        static const char *const names[2][3] = {{"head0_w_query", "head0_w_key", "head0_w_value"}, {"head1_w_query", "head1_w_key", "head1_w_value"}};
        struct matrix qkv[3];
        for (size_t i = 0; i < 3; i++) { // both heads' rows of weights one below the other give their columns side by side
            struct matrix both = {.rows = 4, .columns = 3};
            for (size_t h = 0; h < 2; h++) memcpy(both.v + 6 * h, need(wrappers[w], names[h][i])->v, 6 * sizeof(float));
            qkv[i] = product(need(wrappers[w], "batch"), &both, true, NULL);
        }
        CHECK_EXAMPLE(wrappers[w], causal_attention(&qkv[0], &qkv[1], &qkv[2], 2));
    }
    q = project(split, "batch", "W_query.weight", true), k = project(split, "batch", "W_key.weight", true), v = project(split, "batch", "W_value.weight", true);
    struct matrix context = causal_attention(&q, &k, &v, 2);
    CHECK_EXAMPLE(split, product(&context, need(split, "out_proj.weight"), true, need(split, "out_proj.bias")->v));
}

TEST(the_notebooks_examples_agree) {
    REQUIRE(load_golden());
    const char *isas[] = {"c", "avx2", "avx512"};
    for (size_t i = 0; i < 3; i++) {
        kernels = train_kernels_by_name(isas[i], NULL);
        if (!kernels) continue; // this processor lacks it
        n_agree = n_printed = 0;
        check_simple_attention();
        check_trained_weights();
        check_self_attention_classes();
        check_causal_mask();
        check_causal_classes();
        CHECK_INT(n_printed, 32);
        CHECK_INT(n_agree, 32);
    }
}

TEST_MAIN("attention_examples")
