// SPDX-License-Identifier: MIT
// Training against PyTorch: tests/golden/train (made by make_train.py there) holds tiny random models, their gradients, and what ten steps of
// AdamW make of them. COUPLET_TRAIN_PARITY_DIR names another set of the same layout.
//
// Bounds: f32 against f32 summed in another order. A gradient differs from PyTorch's by rounding, 1e-4 of its norm at most; losses of ten steps by
// 1e-5. AdamW divides by sqrt(v), so where the true gradient is zero (the key third of c_attn.bias: softmax ignores it) it scales rounding up to
// steps of size lr; those elements are not compared.
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/model/adapter.h"
#include "engine/model/model_internal.h"
#include "engine/model/tensor.h"
#include "engine/train/network.h"
#include "engine/train/optimizer.h"
#include "tests/unit/test.h"

#ifndef GOLDEN_DIR
#define GOLDEN_DIR "tests/golden"
#endif
enum { MAX_TOKENS = 256, STEPS = 10 };

struct run { // adamw_10, lora_10
    double losses[STEPS], norms[STEPS], last_loss;
    bool present;
};
struct golden { // one model of expected.json
    uint32_t ids[MAX_TOKENS], starts[MAX_TOKENS + 1];
    int32_t targets[MAX_TOKENS], masked[MAX_TOKENS];
    size_t n_rows, n_segments;
    double loss, masked_loss, norm, masked_norm;
    struct run adamw, lora;
};

static const char *golden_dir(void) {
    const char *d = getenv("COUPLET_TRAIN_PARITY_DIR");
    return d ? d : GOLDEN_DIR "/train";
}

static char *golden_path(const char *model, const char *suffix) {
    struct buf b = {0};
    buf_printf(&b, "%s/%s%s", golden_dir(), model, suffix);
    return buf_detach(&b);
}

// ---- expected.json ------------------------------------------------------------------------------------------------------

// [[n, ...], ...] flattened; starts (may be NULL) gets where each row begins.
static bool read_rows(struct json *j, int64_t *out, uint32_t *starts, size_t *n_rows, size_t *n_segments, struct err *err) {
    size_t n = 0, segments = 0;
    bool ok = json_open(j, '[', err);
    while (ok && json_next_item(j, err)) {
        if (starts) starts[segments] = (uint32_t)n;
        segments++;
        ok = json_open(j, '[', err);
        while (ok && n < MAX_TOKENS && json_next_item(j, err)) ok = json_read_int(j, &out[n++], err);
    }
    if (starts) starts[segments] = (uint32_t)n;
    *n_rows = n;
    *n_segments = segments;
    return ok && !j->failed;
}

static bool read_batch(struct json *j, struct golden *g, struct err *err) {
    struct buf key = {0};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) {
        int64_t v[MAX_TOKENS] = {0};
        size_t n = 0, segments;
        bool is_ids = buf_is(&key, "input_ids"), is_masked = buf_is(&key, "masked_target_ids");
        ok = read_rows(j, v, is_ids ? g->starts : NULL, &n, &segments, err);
        if (is_ids) g->n_rows = n, g->n_segments = segments;
        for (size_t i = 0; i < n; i++) {
            if (is_ids) g->ids[i] = (uint32_t)v[i];
            else (is_masked ? g->masked : g->targets)[i] = (int32_t)v[i];
        }
    }
    buf_finish(&key);
    return ok && !j->failed;
}

static bool read_ten(struct json *j, double *out, struct err *err) {
    bool ok = json_open(j, '[', err);
    for (size_t i = 0; ok && json_next_item(j, err); i++) ok = i < STEPS && json_read_double(j, &out[i], err);
    return ok && !j->failed;
}

static bool read_run(struct json *j, struct run *r, struct err *err) {
    struct buf key = {0};
    bool ok = json_open(j, '{', err);
    r->present = true;
    while (ok && json_next_key(j, &key, err))
        ok = buf_is(&key, "loss_before_each_step")  ? read_ten(j, r->losses, err)
             : buf_is(&key, "grad_norm_before_clip") ? read_ten(j, r->norms, err)
             : buf_is(&key, "loss_after_last_step")  ? json_read_double(j, &r->last_loss, err)
                                                     : json_skip(j, err);
    buf_finish(&key);
    return ok && !j->failed;
}

static bool read_model(struct json *j, struct golden *g, struct err *err) {
    struct buf key = {0};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err))
        ok = buf_is(&key, "batch")                   ? read_batch(j, g, err)
             : buf_is(&key, "loss")                  ? json_read_double(j, &g->loss, err)
             : buf_is(&key, "masked_loss")           ? json_read_double(j, &g->masked_loss, err)
             : buf_is(&key, "grad_global_l2")        ? json_read_double(j, &g->norm, err)
             : buf_is(&key, "masked_grad_global_l2") ? json_read_double(j, &g->masked_norm, err)
             : buf_is(&key, "adamw_10")              ? read_run(j, &g->adamw, err)
             : buf_is(&key, "lora_10")               ? read_run(j, &g->lora, err)
                                                     : json_skip(j, err);
    buf_finish(&key);
    return ok && !j->failed;
}

static bool golden_read(const char *model, struct golden *g) {
    struct err err = {0};
    size_t len;
    char *path = golden_path("expected.json", ""), *text = file_read(path, 16 << 20, &len, &err);
    struct buf key = {0};
    struct json j;
    *g = (struct golden){0};
    json_init(&j, text ? text : "", text ? len : 0);
    bool ok = text && json_open(&j, '{', &err);
    while (ok && json_next_key(&j, &key, &err)) ok = buf_is(&key, model) ? read_model(&j, g, &err) : json_skip(&j, &err);
    ok = ok && !j.failed && g->n_rows > 0;
    if (!ok) TEST_FAIL("%s: %s", path, err.message);
    buf_finish(&key);
    free(text);
    free(path);
    return ok;
}

// ---- the run ------------------------------------------------------------------------------------------------------------

struct fixture {
    struct golden g;
    struct pool *pool;
    struct params *p;
    struct network *n;
    struct batch b;
};

static void fixture_finish(struct fixture *f) {
    network_destroy(f->n);
    params_destroy(f->p);
    pool_destroy(f->pool);
}

static bool fixture_init(struct fixture *f, const char *model, const struct params_options *o) {
    struct err err = {0};
    *f = (struct fixture){0};
    if (!golden_read(model, &f->g)) return false;
    char *path = golden_path(model, "");
    struct model_file *file = model_file_open(path, &err);
    free(path);
    f->pool = pool_create(2, &err);
    f->p = file ? params_from_file(file, o, f->pool, &err) : NULL;
    model_file_close(file);
    struct network_config c = {.max_rows = f->g.n_rows, .max_segment = f->g.n_rows / f->g.n_segments};
    f->n = f->p ? network_create(f->p, &c, f->pool, &err) : NULL;
    f->b = (struct batch){.n_rows = f->g.n_rows, .ids = f->g.ids, .targets = f->g.targets, .n_segments = f->g.n_segments, .starts = f->g.starts,
                          .n_supervised = f->g.n_rows};
    if (!f->n) {
        TEST_FAIL("%s: %s", model, err.message);
        fixture_finish(f);
    }
    return f->n != NULL;
}

// A file of tensors named as the model's own, read as if it were that model's.
static struct model_file *tensors_open(const char *model, const char *suffix, struct file_map *map) {
    struct err err = {0};
    size_t len;
    char *config_path = golden_path(model, "/config.json"), *path = golden_path(model, suffix);
    char *config = file_read(config_path, 1 << 20, &len, &err);
    *map = (struct file_map){0};
    struct model_file *f = config && file_map_open(map, path, &err) ? model_file_open_hf_memory(config, len, map->data, map->len, &err) : NULL;
    if (!f) TEST_FAIL("%s: %s", path, err.message);
    free(config);
    free(config_path);
    free(path);
    return f;
}

// Worst ||a - b|| / ||b|| over all parameters, or with `absolute` the worst element (key biases left out).
static double tensors_compare(const struct params *p, const struct model_file *expected, bool grads, bool absolute, const char **name) {
    double worst = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct param *item = &p->items[i];
        const struct tensor *t = model_file_tensor(expected, item->name);
        CHECK(t != NULL);
        if (!t) continue;
        float *want = mem_alloc(item->n, sizeof *want);
        if (item->n_dims == 1) tensor_vector(t, want);
        for (size_t r = 0; item->n_dims == 2 && r < item->shape[0]; r++) tensor_row(t, r, want + r * item->shape[1]);
        const float *got = grads ? item->grad : item->w;
        bool key_bias = absolute && strstr(item->name, "attn.c_attn.bias");
        double difference = 0, square = 0, largest = 0;
        for (size_t k = 0; k < item->n; k++) {
            double d = (double)got[k] - want[k];
            difference += d * d;
            square += (double)want[k] * want[k];
            if (!(key_bias && k >= item->n / 3 && k < item->n / 3 * 2)) largest = fmax(largest, fabs(d));
        }
        double error = absolute ? largest : sqrt(difference / fmax(square, 1e-24));
        if (!(error <= worst)) worst = error, *name = item->name;
        free(want);
    }
    return worst;
}

static double grads_norm(const struct params *p) {
    double sum = 0;
    for (size_t i = 0; i < p->n_trained; i++) sum += (double)p->grads[i] * p->grads[i];
    return sqrt(sum);
}

static void check_gradients(const char *model) {
    struct fixture f;
    struct loss_sums sums;
    struct file_map map;
    if (!fixture_init(&f, model, &(struct params_options){0})) return;
    f.b.targets = f.g.masked;
    f.b.n_supervised = 0;
    for (size_t i = 0; i < f.g.n_rows; i++) f.b.n_supervised += f.g.masked[i] >= 0;
    network_train(f.n, &f.b, 1 / (float)f.b.n_supervised, true, 1, &sums);
    CHECK_NEAR(sums.loss / (double)sums.n_targets, f.g.masked_loss, 1e-5);
    CHECK_NEAR(grads_norm(f.p) / f.g.masked_norm, 1, 1e-5);
    f.b.targets = f.g.targets;
    f.b.n_supervised = f.g.n_rows;
    network_train(f.n, &f.b, 1 / (float)f.b.n_supervised, true, 1, &sums);
    CHECK_INT(sums.n_targets, f.g.n_rows);
    CHECK_NEAR(sums.loss / (double)sums.n_targets, f.g.loss, 1e-5);
    CHECK_NEAR(grads_norm(f.p) / f.g.norm, 1, 1e-5);
    struct model_file *expected = tensors_open(model, "_grads.safetensors", &map);
    const char *name = "";
    double worst = expected ? tensors_compare(f.p, expected, true, false, &name) : 0;
    CHECK_NEAR(worst, 0, 1e-4);
    if (getenv("COUPLET_TRAIN_PARITY_DIR"))
        printf("%s: loss %.2g, worst gradient %.2g of its norm (%s)\n", model, fabs(sums.loss / (double)sums.n_targets - f.g.loss), worst, name);
    model_file_close(expected);
    file_map_close(&map);
    fixture_finish(&f);
}

// Ten steps; returns the worst difference of a loss.
static double run_ten(struct fixture *f, const struct run *want) {
    struct optimizer_config c = {.kind = OPTIMIZER_ADAMW, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f, .clip = 1};
    struct optimizer o;
    struct loss_sums sums;
    double worst = 0;
    CHECK(optimizer_init(&o, &c, f->p, f->pool, NULL));
    for (uint32_t step = 0; step < STEPS; step++) {
        network_train(f->n, &f->b, 1 / (float)f->g.n_rows, true, step, &sums);
        double norm = optimizer_grad_norm(&o), loss = sums.loss / (double)sums.n_targets;
        worst = fmax(worst, fabs(loss - want->losses[step]));
        CHECK_NEAR(norm / want->norms[step], 1, 1e-4);
        optimizer_step(&o, 1e-3, norm);
    }
    network_evaluate(f->n, &f->b, &sums, NULL);
    worst = fmax(worst, fabs(sums.loss / (double)sums.n_targets - want->last_loss));
    CHECK_NEAR(worst, 0, 1e-5);
    optimizer_finish(&o);
    return worst;
}

static void check_adamw(const char *model) {
    struct fixture f;
    struct file_map map;
    if (!fixture_init(&f, model, &(struct params_options){0})) return;
    double loss = run_ten(&f, &f.g.adamw);
    struct model_file *expected = tensors_open(model, "_after_10_steps.safetensors", &map);
    const char *name = "";
    double worst = expected ? tensors_compare(f.p, expected, false, true, &name) : 0;
    CHECK_NEAR(worst, 0, 1e-4);
    if (getenv("COUPLET_TRAIN_PARITY_DIR")) printf("%s: ten steps of AdamW: worst loss %.2g, worst parameter %.2g (%s)\n", model, loss, worst, name);
    model_file_close(expected);
    file_map_close(&map);
    fixture_finish(&f);
}

static bool lora_read(const char *model, const char *suffix, struct adapter *a) {
    struct err err = {0};
    char *path = golden_path(model, suffix);
    bool ok = adapter_load(a, path, &err);
    if (!ok) TEST_FAIL("%s: %s", path, err.message);
    free(path);
    return ok;
}

static struct param *lora_factor(const struct params *p, const struct adapter_module *m, const char *factor) {
    struct buf name = {0};
    buf_printf(&name, "base_model.model.%s.%s.weight", m->name, factor);
    struct param *found = params_find(p, name.data);
    buf_finish(&name);
    return found;
}

static double worst_element(const float *a, const float *b, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)a[i] - b[i]));
    return worst;
}

static void check_lora(const char *model) {
    struct adapter init, final;
    struct fixture f;
    if (!lora_read(model, "_lora_init", &init)) return;
    if (!lora_read(model, "_lora_final", &final)) return;
    const char **targets = mem_alloc(init.n, sizeof *targets);
    for (size_t i = 0; i < init.n; i++) targets[i] = init.modules[i].name;
    struct params_options o = {.method = TRAIN_LORA, .lora = {init.rank, init.alpha, targets, init.n}};
    if (fixture_init(&f, model, &o)) {
        double worst = 0;
        for (size_t i = 0; i < init.n; i++) {
            struct param *a = lora_factor(f.p, &init.modules[i], "lora_A"), *b = lora_factor(f.p, &init.modules[i], "lora_B");
            CHECK(a && b && a->n == init.modules[i].r * init.modules[i].n_in && b->n == init.modules[i].n_out * init.modules[i].r);
            memcpy(a->w, init.modules[i].a, a->n * sizeof *a->w);
            memcpy(b->w, init.modules[i].b, b->n * sizeof *b->w);
        }
        double loss = run_ten(&f, &f.g.lora);
        for (size_t i = 0; i < final.n; i++) {
            struct param *a = lora_factor(f.p, &final.modules[i], "lora_A"), *b = lora_factor(f.p, &final.modules[i], "lora_B");
            worst = fmax(worst, fmax(worst_element(a->w, final.modules[i].a, a->n), worst_element(b->w, final.modules[i].b, b->n)));
        }
        CHECK_NEAR(worst, 0, 1e-4);
        if (getenv("COUPLET_TRAIN_PARITY_DIR")) printf("%s: ten steps of LoRA: worst loss %.2g, worst factor %.2g\n", model, loss, worst);
        fixture_finish(&f);
    }
    free(targets);
    adapter_finish(&init);
    adapter_finish(&final);
}

TEST(gradients_gpt2) { check_gradients("gpt2"); }
TEST(gradients_llama) { check_gradients("llama"); }
TEST(adamw_gpt2) { check_adamw("gpt2"); }
TEST(adamw_llama) { check_adamw("llama"); }
TEST(lora_gpt2) { check_lora("gpt2"); }
TEST(lora_llama) {
    struct golden g;
    if (golden_read("llama", &g) && g.lora.present) check_lora("llama");
}

TEST_MAIN("train_golden")
