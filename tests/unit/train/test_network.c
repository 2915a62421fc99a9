// SPDX-License-Identifier: MIT
// The network against itself (batches split, packed, recomputed, on other thread counts), against differences of its own loss, and
// against the serving transformer. Against PyTorch: test_train_golden.c.
#include "tests/unit/test.h"

#include "engine/infer/transformer.h"
#include "engine/train/network_internal.h"
#include "tests/unit/train/tiny.h"

static const size_t lengths[] = {9, 1, 20, 33, 2};
static const size_t n_lengths = ARRAY_LEN(lengths);

static const struct network_config no_dropout = {.max_rows = TINY_ROWS, .max_segment = 64};
static const struct network_config with_dropout = {.max_rows = TINY_ROWS, .max_segment = 64, .dropout_embedding = 0.1f, .dropout_attention = 0.2f,
                                                   .dropout_residual = 0.1f, .dropout_lora = 0.3f, .dropout_seed = 77};
static const struct params_options full = {0}, lora = {.method = TRAIN_LORA, .lora = {.rank = 3, .alpha = 7}};
static const struct params_options freeze = {.method = TRAIN_FREEZE, .trained_layers = 1};

struct setup {
    struct params *p;
    struct network *n;
    struct pool *pool;
};

static void setup_init(struct setup *s, enum tiny_kind kind, const struct params_options *o, const struct network_config *c, size_t threads) {
    struct err err = {0};
    s->pool = pool_create(threads, &err);
    s->p = tiny_params(kind, o);
    s->n = network_create(s->p, c, s->pool, &err);
    if (!s->n) TEST_FAIL("%s", err.message), exit(1);
}

static void setup_finish(struct setup *s) {
    network_destroy(s->n);
    params_destroy(s->p);
    pool_destroy(s->pool);
}

static float *grads_copy(const struct params *p) {
    float *g = mem_alloc(p->n_trained, sizeof *g);
    memcpy(g, p->grads, p->n_trained * sizeof *g);
    return g;
}

static double norm_of(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sqrt(sum);
}

// ||a - b|| / ||b|| of the whole gradient; *worst: of the worst array. a as p->grads lies.
static double grads_difference(const struct params *p, const float *a, double *worst) {
    double all = 0;
    *worst = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct param *item = &p->items[i];
        if (!item->grad) continue;
        double difference = 0, whole = norm_of(p->grads, p->n_trained) * 1e-3; // an array that should be zero is measured by all of them
        for (size_t k = 0; k < item->n; k++) {
            double d = (double)a[item->grad - p->grads + k] - item->grad[k];
            difference += d * d;
        }
        all += difference;
        *worst = fmax(*worst, sqrt(difference) / fmax(norm_of(item->grad, item->n), whole));
    }
    return sqrt(all) / norm_of(p->grads, p->n_trained);
}

// ---- numbers against numbers --------------------------------------------------------------------------------------------

// One batch of all segments against the same segments in batches of their own whose gradients add up: mean loss, every token's loss, the whole
// gradient and every array's. Bits are not equal: a weight's gradient sums over a batch's rows in one product's order.
static void check_split(enum tiny_kind kind, const struct params_options *o, const struct network_config *c, const size_t *of, size_t n) {
    struct setup s;
    struct tiny_batch all, part;
    struct loss_sums whole, sums, split = {0};
    float together[TINY_ROWS], alone[TINY_ROWS];
    setup_init(&s, kind, o, c, 2);
    tiny_batch_init(&all, of, n, 3);
    network_evaluate(s.n, &all.b, &sums, together);
    CHECK_INT(sums.n_targets, all.b.n_supervised);
    network_train(s.n, &all.b, 0.01f, true, 5, &whole);
    float *expected = grads_copy(s.p);
    for (size_t i = 0; i < s.p->n_trained; i++) s.p->grads[i] = NAN; // fresh must not read them
    for (size_t i = 0; i < n; i++) {
        tiny_batch_part(&part, &all, i, 1);
        network_evaluate(s.n, &part.b, &sums, alone);
        for (size_t r = 0; r < part.b.n_rows; r++) CHECK_NEAR(alone[r], together[all.starts[i] + r], 1e-6 * fmax(alone[r], 1));
        network_train(s.n, &part.b, 0.01f, i == 0, 5, &sums);
        split.loss += sums.loss, split.n_targets += sums.n_targets, split.n_correct += sums.n_correct;
    }
    CHECK_INT(split.n_targets, whole.n_targets);
    CHECK_INT(split.n_correct, whole.n_correct);
    CHECK_NEAR(split.loss / whole.loss, 1, 1e-6);
    for (size_t i = 0; i < s.p->n_items; i++) // the gaps between arrays are nobody's
        for (size_t k = s.p->items[i].n; s.p->items[i].grad && k % 16; k++) s.p->items[i].grad[k] = 0;
    double worst;
    CHECK_NEAR(grads_difference(s.p, expected, &worst), 0, 1e-6);
    CHECK_NEAR(worst, 0, 1e-5);
    free(expected);
    setup_finish(&s);
}

static void check_splits(const size_t *of, size_t n) {
    for (enum tiny_kind kind = TINY_GPT2; kind <= TINY_LLAMA_BIASED; kind++) {
        check_split(kind, &full, &no_dropout, of, n);
        check_split(kind, &full, &with_dropout, of, n);
        check_split(kind, &lora, &with_dropout, of, n);
        check_split(kind, &freeze, &no_dropout, of, n);
    }
}

TEST(packed_is_unpacked) { check_splits(lengths, n_lengths); }
TEST(batch_of_8_is_8_batches_of_1) { check_splits((const size_t[]){16, 16, 16, 16, 16, 16, 16, 16}, 8); }

// Bits: other thread counts, activations computed again.
static void check_bits(enum tiny_kind kind, const struct params_options *o) {
    struct tiny_batch t;
    struct loss_sums sums[4];
    float *grads[4];
    size_t n = 0;
    tiny_batch_init(&t, lengths, n_lengths, 5);
    for (size_t i = 0; i < 4; i++) {
        struct setup s;
        struct network_config c = with_dropout;
        c.recompute = i == 3;
        setup_init(&s, kind, o, &c, i == 3 ? 2 : i + 1);
        network_train(s.n, &t.b, 0.02f, true, 9, &sums[i]);
        network_train(s.n, &t.b, 0.01f, false, 10, &sums[i]);
        grads[i] = grads_copy(s.p);
        n = s.p->n_trained;
        setup_finish(&s);
    }
    for (size_t i = 1; i < 4; i++) {
        CHECK(memcmp(grads[i], grads[0], n * sizeof(float)) == 0);
        CHECK(sums[i].loss == sums[0].loss && sums[i].n_correct == sums[0].n_correct);
    }
    for (size_t i = 0; i < 4; i++) free(grads[i]);
}

TEST(equal_bits) {
    for (enum tiny_kind kind = TINY_GPT2; kind <= TINY_LLAMA_BIASED; kind++) check_bits(kind, &full), check_bits(kind, &lora);
}

TEST(inference_network) {
    for (enum tiny_kind kind = TINY_GPT2; kind <= TINY_LLAMA; kind += 2) {
        struct setup train, infer;
        struct tiny_batch t;
        struct loss_sums a, b;
        struct network_config c = no_dropout;
        c.inference = true;
        setup_init(&train, kind, &full, &with_dropout, 2);
        setup_init(&infer, kind, &(struct params_options){.inference = true}, &c, 2);
        CHECK_INT(infer.p->n_trained, 0);
        CHECK(network_bytes(infer.p, &c) < network_bytes(train.p, &with_dropout));
        tiny_batch_init(&t, lengths, n_lengths, 6);
        network_evaluate(train.n, &t.b, &a, NULL);
        network_evaluate(infer.n, &t.b, &b, NULL);
        CHECK(a.loss == b.loss && a.n_correct == b.n_correct);
        setup_finish(&train);
        setup_finish(&infer);
    }
}

TEST(ignored_targets_only) {
    struct setup s;
    struct tiny_batch t;
    struct loss_sums sums;
    setup_init(&s, TINY_GPT2, &full, &no_dropout, 2);
    tiny_batch_init(&t, lengths, n_lengths, 6);
    network_train(s.n, &t.b, 1, true, 1, &sums);
    float *before = grads_copy(s.p);
    for (size_t r = 0; r < t.b.n_rows; r++) t.targets[r] = TARGET_IGNORED;
    t.b.n_supervised = 0;
    network_train(s.n, &t.b, 1, false, 1, &sums);
    CHECK(sums.loss == 0 && sums.n_targets == 0);
    CHECK(memcmp(before, s.p->grads, s.p->n_trained * sizeof *before) == 0);
    network_train(s.n, &t.b, 1, true, 1, &sums);
    CHECK(norm_of(s.p->grads, s.p->n_trained) == 0);
    free(before);
    setup_finish(&s);
}

// ---- gradients against differences --------------------------------------------------------------------------------------

TEST(gradient_check) {
    for (enum tiny_kind kind = TINY_GPT2; kind <= TINY_LLAMA_BIASED; kind++)
        for (size_t i = 0; i < 3; i++) {
            struct setup s;
            struct tiny_batch t;
            struct gradient_check check;
            setup_init(&s, kind, (const struct params_options *[]){&full, &lora, &freeze}[i], &with_dropout, 2);
            tiny_batch_init(&t, lengths, n_lengths, 8);
            network_check_gradients(s.n, &t.b, 3, 1, &check);
            CHECK(check.n_checked > 0);
            CHECK_INT(check.n_failed, 0);
            if (check.n_failed) TEST_FAIL("kind %d, method %zu: %s: %g", kind, i, check.worst, check.worst_error);
            setup_finish(&s);
        }
}

// With dropout the loss at a step is a function of the weights still: its slope along each array's gradient is that gradient's norm.
static void check_slopes(enum tiny_kind kind, const struct params_options *o) {
    struct setup s;
    struct tiny_batch t;
    struct loss_sums sums, ahead, behind;
    setup_init(&s, kind, o, &with_dropout, 2);
    tiny_batch_init(&t, lengths, n_lengths, 11);
    network_train(s.n, &t.b, 1, true, 3, &sums);
    float *grads = grads_copy(s.p);
    for (size_t i = 0; i < s.p->n_items; i++) {
        struct param *item = &s.p->items[i];
        if (!item->grad) continue;
        const float *g = grads + (item->grad - s.p->grads);
        double norm = norm_of(g, item->n), step = fmin(2e-2, 0.1 / norm);
        CHECK(norm > 1e-3);
        float *kept = mem_alloc(item->n, sizeof *kept);
        memcpy(kept, item->w, item->n * sizeof *kept);
        for (size_t k = 0; k < item->n; k++) item->w[k] = kept[k] + (float)(step / norm) * g[k];
        network_train(s.n, &t.b, 1, true, 3, &ahead);
        for (size_t k = 0; k < item->n; k++) item->w[k] = kept[k] - (float)(step / norm) * g[k];
        network_train(s.n, &t.b, 1, true, 3, &behind);
        memcpy(item->w, kept, item->n * sizeof *kept);
        double slope = (ahead.loss - behind.loss) / (2 * step);
        CHECK_NEAR(slope / norm, 1, 1e-2);
        if (fabs(slope / norm - 1) > 1e-2) TEST_FAIL("%s: slope %g, norm %g", item->name, slope, norm);
        free(kept);
    }
    free(grads);
    setup_finish(&s);
}

TEST(slopes_with_dropout) {
    check_slopes(TINY_GPT2, &full);
    check_slopes(TINY_LLAMA_BIASED, &full);
    check_slopes(TINY_GPT2_SEED, &lora);
    check_slopes(TINY_LLAMA, &lora);
}

// ---- dropout ------------------------------------------------------------------------------------------------------------

TEST(dropout_rate) {
    struct setup s, plain;
    struct tiny_batch t;
    struct loss_sums a, b, c;
    struct network_config config = no_dropout;
    config.dropout_embedding = 0.25f;
    config.dropout_seed = 5;
    setup_init(&s, TINY_GPT2, &full, &config, 2);
    setup_init(&plain, TINY_GPT2, &full, &no_dropout, 2);
    tiny_batch_init(&t, lengths, n_lengths, 12);
    network_train(plain.n, &t.b, 1, true, 1, &a);
    network_train(s.n, &t.b, 1, true, 1, &a);
    size_t n = t.b.n_rows * s.p->config.n_embd, zeros = 0;
    for (size_t i = 0; i < n; i++) {
        float x = s.n->layers[0].x[i], whole = plain.n->layers[0].x[i];
        zeros += x == 0;
        if (x != 0) CHECK_NEAR(x, whole / 0.75f, 1e-6);
    }
    CHECK_NEAR((double)zeros / (double)n, 0.25, 4 * sqrt(0.25 * 0.75 / (double)n));
    network_train(s.n, &t.b, 1, true, 1, &b);
    network_train(s.n, &t.b, 1, true, 2, &c);
    CHECK(a.loss == b.loss);
    CHECK(a.loss != c.loss);
    network_evaluate(s.n, &t.b, &a, NULL);
    network_evaluate(plain.n, &t.b, &b, NULL);
    CHECK(a.loss == b.loss);
    setup_finish(&s);
    setup_finish(&plain);
}

// ---- against serving ----------------------------------------------------------------------------------------------------

static void serving_logits(struct model *m, const struct batch *b, struct pool *pool, float *out) {
    size_t stride;
    struct kv_cache *kv = kv_cache_create(model_config(m), 1 << 22, NULL);
    struct transformer *t = transformer_create(model_weights(m), b->n_rows, pool, NULL);
    uint32_t blocks[4], wanted[TINY_ROWS];
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++) CHECK(kv_cache_take(kv, &blocks[i]));
    for (size_t r = 0; r < b->n_rows; r++) wanted[r] = (uint32_t)r;
    struct step_sequence s = {.n_rows = b->n_rows, .blocks = blocks};
    struct step step = {.n_rows = b->n_rows, .ids = b->ids, .sequences = &s, .n_sequences = 1, .wanted = wanted, .n_wanted = b->n_rows};
    transformer_forward(t, kv, &step);
    for (size_t r = 0; r < b->n_rows; r += LOGIT_ROWS) {
        size_t n = MIN((size_t)LOGIT_ROWS, b->n_rows - r), V = model_config(m)->n_vocab;
        const float *logits = transformer_logits(t, r, n, &stride);
        for (size_t i = 0; i < n; i++) memcpy(out + (r + i) * V, logits + i * stride, V * sizeof *out);
    }
    transformer_destroy(t);
    kv_cache_destroy(kv);
}

// One op list, two sets of products: serving adds each output strictly in order of k, OpenBLAS in lanes. Logits here are of size 1; ten
// products and six norms deep, f32's rounding of 6e-8 a step stays below 2e-5 of them.
static void check_serving(const char *path) {
    struct err err = {0};
    struct pool *pool = pool_create(2, &err);
    struct model_file *file = model_file_open(path, &err);
    struct params *p = file ? params_from_file(file, &(struct params_options){.inference = true}, pool, &err) : NULL;
    struct model *m = p ? model_create(file, WEIGHTS_F32, pool, &err) : NULL;
    struct network_config c = {.max_rows = 40, .max_segment = 40, .inference = true};
    struct network *n = m ? network_create(p, &c, pool, &err) : NULL;
    if (!n) TEST_FAIL("%s: %s", path, err.message), exit(1);
    struct tiny_batch t;
    uint32_t wanted[TINY_ROWS];
    tiny_batch_init(&t, (size_t[]){40}, 1, 20);
    for (size_t r = 0; r < 40; r++) wanted[r] = (uint32_t)(39 - r); // any order
    size_t V = p->config.n_vocab;
    float *served = mem_alloc(40 * V, sizeof *served), *trained = mem_alloc(40 * V, sizeof *trained);
    serving_logits(m, &t.b, pool, served);
    network_logits(n, &t.b, wanted, 40, trained);
    double worst = 0, largest = 0;
    for (size_t r = 0; r < 40; r++)
        for (size_t v = 0; v < V; v++) {
            worst = fmax(worst, fabs((double)served[r * V + v] - trained[(39 - r) * V + v]));
            largest = fmax(largest, fabs((double)served[r * V + v]));
        }
    CHECK(largest > 0.1);
    CHECK_NEAR(worst / fmax(largest, 1), 0, 2e-5);
    free(served);
    free(trained);
    network_destroy(n);
    model_release(m);
    params_destroy(p);
    pool_destroy(pool);
}

TEST(serving_gpt2) { check_serving(GOLDEN_DIR "/parity/gpt2"); }
TEST(serving_llama) { check_serving(GOLDEN_DIR "/parity/llama"); }
TEST(serving_llama_bf16) { check_serving(GOLDEN_DIR "/parity/llama_bf16"); }

TEST_MAIN("network")
