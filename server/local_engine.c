// SPDX-License-Identifier: MIT
// See local_engine.h.
#include "server/local_engine.h"

#include "base/file.h"
#include "base/mem.h"
#include "engine/model/adapter.h"
#include "server/completions.h"

#include <assert.h>

enum { STEP_ROWS = 256, BLOCK_SLACK = 128 }; // BLOCK_SLACK: positions, for the cache's rounding up to blocks

static bool kv_bytes_of(const struct model_config *c, size_t sequences, size_t n, size_t *bytes) {
    size_t per_position = 2 * sizeof(float) * c->n_layer * c->n_kv_head * ((c->head_size + 15) / 16 * 16), positions;
    return size_mul(n + BLOCK_SLACK, sequences, &positions) && size_mul(positions, per_position, bytes);
}

static bool engine_open(struct local_engine *l, size_t sequences, size_t n, struct err *err) {
    const struct model_config *c = model_config(l->model);
    size_t kv_bytes;
    if (!kv_bytes_of(c, sequences, n ? n : c->n_ctx, &kv_bytes))
        return err_set(err, ERR_TOO_LARGE, "so many sequences do not fit in memory");
    const struct engine_config config = {
        .pool = l->pool, .max_running = sequences, .step_rows = MAX(STEP_ROWS, sequences)};
    l->engine = engine_create(&config, err);
    return l->engine && engine_add_model(l->engine, l->model, kv_bytes, err);
}

bool local_engine_open(struct local_engine *l, const char *path, const char *adapter, const char *weights, size_t threads,
                       size_t sequences, size_t n, struct err *err) {
    enum weights_mode mode;
    bool known = weights_mode_parse(weights, &mode);
    assert(known); // the option table allows nothing else
    *l = (struct local_engine){.pool = pool_create(threads ? threads : pool_cpu_count(), err)};
    struct model_file *file = l->pool ? model_file_open_adapted(path, adapter, err) : NULL;
    l->model = file ? model_create(file, mode, l->pool, err) : NULL;
    if (l->model && engine_open(l, sequences, n, err)) return true;
    local_engine_close(l);
    return false;
}

void local_engine_close(struct local_engine *l) {
    engine_destroy(l->engine);
    model_release(l->model);
    pool_destroy(l->pool);
    *l = (struct local_engine){0};
}

bool local_tokenizer_open(struct local_tokenizer *s, const char *path, struct err *err) {
    if (dir_exists(path)) {
        s->tokenizer = s->owned = tokenizer_load_dir(path, err);
        return s->owned != NULL;
    }
    s->model = model_file_open(path, err);
    if (!s->model) return false;
    s->tokenizer = model_file_tokenizer(s->model);
    return s->tokenizer || err_set(err, ERR_NOT_FOUND, "the model has no tokenizer");
}

void local_tokenizer_close(struct local_tokenizer *s) {
    tokenizer_destroy(s->owned);
    model_file_close(s->model);
    *s = (struct local_tokenizer){0};
}

bool local_prompt_encode(const struct tokenizer *t, const char *text, size_t len, struct ids *out, struct err *err) {
    if (tokenizer_add_bos(t) && tokenizer_bos(t) >= 0) ids_add(out, (uint32_t)tokenizer_bos(t));
    tokenizer_encode(t, text, len, true, out);
    return out->len || prompt_add_stand_in(t, out) || err_set(err, ERR_INVALID, "the prompt has no tokens");
}
