// SPDX-License-Identifier: MIT
// `couplet convert`: a model in any format that model_file_open reads, written as a Hugging Face directory or as GGUF, opened again and
// compared with its source. One thread but for the kernels.
//
// Everything is made in a work directory beside the target, which is replaced by renaming once the result was read back.
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/infer/transformer.h"
#include "engine/model/adapter.h"
#include "engine/model/model_write.h"
#include "server/commands.h"
#include "server/options.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PROBE_TOKENS = 32 };

struct convert_options {
    const char *from, *to, *adapter, *type;
    size_t threads;
    bool force, json;
};

#define FIELD(name) offsetof(struct convert_options, name)
static const struct option_spec specs[] = {
    {"--from", 0, OPTION_STRING, FIELD(from), "PATH", "model to read: directory, .gguf, .pth or an adapter's directory", .required = true},
    {"--to", 0, OPTION_STRING, FIELD(to), "PATH", "what to write: a name ending in .gguf, or a directory", .required = true},
    {"--type", 0, OPTION_STRING, FIELD(type), "TYPE", "precision of the weights (f32); q8_0 for .gguf only",
     .choices = "f32|f16|bf16|q8_0"},
    {"--adapter", 0, OPTION_STRING, FIELD(adapter), "DIR", "LoRA adapter to merge into the weights"},
    {"--threads", 0, OPTION_SIZE, FIELD(threads), "N", "threads of the comparison (one a processor)", .min = 1, .max = 1024},
    {"--force", 0, OPTION_FLAG, FIELD(force), NULL, "replace the model that --to names"},
    {"--json", 0, OPTION_FLAG, FIELD(json), NULL, "the report as one JSON object"},
};

static const struct option_command command = {
    .name = "convert",
    .synopsis = "--from PATH --to PATH [OPTIONS]",
    .summary = "Writes a model in another format or precision and says how far its logits moved.",
    .options = specs,
    .n_options = ARRAY_LEN(specs),
};

static bool ends_with(const char *s, const char *suffix) {
    const size_t n = strlen(s), m = strlen(suffix);
    return n > m && strcmp(s + n - m, suffix) == 0;
}

static bool is_gguf(const struct convert_options *o) { return ends_with(o->to, ".gguf"); }

// ---- the target ----

static bool options_check(const struct convert_options *o, struct err *err) {
    static const char *const others[] = {".pth", ".pt", ".bin", ".ckpt", ".safetensors"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (ends_with(o->to, others[i]))
            return err_set_param(err, ERR_INVALID, "--to", "%s files are not written: give --to a name ending in .gguf, or a directory", others[i]);
    if (!*o->to) return err_set_param(err, ERR_INVALID, "--to", "--to is empty");
    if (!is_gguf(o) && strcmp(o->type, "q8_0") == 0)
        return err_set_param(err, ERR_INVALID, "--type", "--type q8_0 needs a --to that ends in .gguf");
    return true;
}

// What lies in a directory. *model: config.json is there and nothing but files.
static bool dir_look(const char *path, bool *empty, bool *model, struct err *err) {
    DIR *d = opendir(path);
    if (!d) return err_set(err, ERR_IO, "cannot open %s: %s", path, strerror(errno));
    bool config = false, nested = false;
    *empty = true;
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *child = path_join(path, e->d_name);
        *empty = false;
        config = config || strcmp(e->d_name, "config.json") == 0;
        nested = nested || dir_exists(child);
        free(child);
    }
    closedir(d);
    *model = config && !nested;
    return true;
}

// May the target be written? A directory that is no model's is never replaced, since all that is in it would go.
static bool target_check(const struct convert_options *o, struct err *err) {
    struct stat st;
    bool empty = false, model = false;
    if (stat(o->to, &st) < 0) return true;
    if (is_gguf(o) ? !S_ISREG(st.st_mode) : !S_ISDIR(st.st_mode))
        return err_set(err, ERR_INVALID, "%s is there and is not a %s", o->to, is_gguf(o) ? "file" : "directory");
    if (!is_gguf(o) && !dir_look(o->to, &empty, &model, err)) return false;
    if (is_gguf(o) ? st.st_size == 0 : empty) return true;
    if (!o->force) return err_set(err, ERR_INVALID, "%s is there already: --force replaces it", o->to);
    return is_gguf(o) || model || err_set(err, ERR_INVALID, "%s is not a model's directory and is not replaced", o->to);
}

struct work { // beside the target, on its file system
    char *to, *parent, *dir, *made, *old;
};

static bool work_open(struct work *w, const char *to, struct err *err) {
    size_t len = strlen(to);
    while (len > 1 && to[len - 1] == '/') len--;
    w->to = mem_strndup(to, len);
    const char *slash = strrchr(w->to, '/');
    w->parent = slash ? mem_strndup(w->to, slash == w->to ? 1 : (size_t)(slash - w->to)) : mem_strdup(".");
    if (!dir_make(w->parent, err)) return false;
    char *dir = path_join(w->parent, ".convert-XXXXXX");
    if (!mkdtemp(dir)) {
        free(dir);
        return err_set(err, ERR_IO, "cannot write in %s: %s", w->parent, strerror(errno));
    }
    w->dir = dir;
    w->made = path_join(dir, ends_with(w->to, ".gguf") ? "new.gguf" : "new");
    w->old = path_join(dir, "old");
    return true;
}

static bool work_publish(const struct work *w, struct err *err) {
    if (dir_exists(w->to) && rename(w->to, w->old) < 0) return err_set(err, ERR_IO, "cannot replace %s: %s", w->to, strerror(errno));
    if (rename(w->made, w->to) == 0) return dir_sync(w->parent, err);
    const int error = errno;
    if (dir_exists(w->old) && rename(w->old, w->to) < 0) // then the work directory keeps it
        return err_set(err, ERR_IO, "cannot replace %s; what was there is %s", w->to, w->old);
    return err_set(err, ERR_IO, "cannot write %s: %s", w->to, strerror(error));
}

static void work_close(struct work *w, bool published) {
    struct err ignored;
    const bool keep = w->dir && !published && dir_exists(w->old);
    if (w->dir && !keep && !dir_remove(w->dir, &ignored)) fprintf(stderr, "couplet convert: %s\n", ignored.message);
    free(w->to), free(w->parent), free(w->dir), free(w->made), free(w->old);
}

// ---- writing, with progress ----

struct progress {
    uint64_t done, total, shown_ns; // elements
    bool on;
};
struct watched { // a tensor_out that counts what is read of it
    struct tensor_out from;
    struct progress *progress;
};

static void watched_fill(void *ctx, const struct tensor_out *t, size_t row, size_t n_rows, float *out) {
    struct watched *w = ctx;
    struct progress *p = w->progress;
    w->from.fill(w->from.ctx, &w->from, row, n_rows, out);
    p->done += (uint64_t)n_rows * (t->n_dims == 2 ? t->shape[1] : t->shape[0]);
    const uint64_t now = clock_ns();
    if (!p->on || (now - p->shown_ns < 200000000 && p->done < p->total)) return;
    p->shown_ns = now;
    fprintf(stderr, "\rwriting %3.0f %%%s", 100 * (double)p->done / (double)p->total, p->done < p->total ? "" : "\n");
}

static enum write_type type_parse(const char *name) {
    static const char *const names[] = {[WRITE_F32] = "f32", [WRITE_F16] = "f16", [WRITE_BF16] = "bf16", [WRITE_Q8_0] = "q8_0"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0) return (enum write_type)i;
    assert(!"the option table allows nothing else");
    return WRITE_F32;
}

static bool model_write(const struct convert_options *o, const struct model_file *f, const char *to, struct err *err) {
    size_t n;
    struct tensor_out *tensors = model_file_tensors_out(f, &n);
    struct watched *watched = mem_alloc(n, sizeof(*watched));
    struct progress progress = {.total = model_file_parameters(f), .shown_ns = clock_ns(), .on = isatty(STDERR_FILENO)};
    for (size_t i = 0; i < n; i++) {
        watched[i] = (struct watched){tensors[i], &progress};
        tensors[i].fill = watched_fill;
        tensors[i].ctx = &watched[i];
    }
    const struct model_config *c = model_file_config(f);
    const struct tokenizer *t = model_file_tokenizer(f);
    char *name = path_stem(o->from);
    const bool ok = is_gguf(o) ? gguf_write(to, c, tensors, n, type_parse(o->type), t, name, err)
                               : hf_dir_write(to, c, tensors, n, type_parse(o->type), t, err);
    free(name);
    free(watched);
    free(tensors);
    return ok;
}

// ---- the comparison ----

struct side { // of the report
    const char *format;
    uint64_t bytes; // of the tensors
    size_t n_tensors, n_tokens, n_logits;
    float *logits; // [n_tokens][V]
};

static bool probe_run(const struct model *m, struct pool *pool, struct side *s, struct err *err) {
    const struct model_config *c = model_config(m);
    const size_t n = MIN((size_t)PROBE_TOKENS, c->n_ctx);
    uint32_t ids[PROBE_TOKENS], wanted[PROBE_TOKENS], blocks[PROBE_TOKENS];
    struct kv_cache *kv = kv_cache_create(c, (size_t)2 * PROBE_TOKENS * c->n_layer * c->n_kv_head * (c->head_size + 16) * 2 * sizeof(float), err);
    struct transformer *t = kv ? transformer_create(model_weights(m), n, pool, err) : NULL;
    s->n_tokens = n;
    s->n_logits = n * c->n_vocab;
    s->logits = t ? mem_try_alloc(s->n_logits, sizeof(float), "logits", err) : NULL;
    for (size_t i = 0; i < n; i++) ids[i] = (uint32_t)(i * 7919 % c->n_vocab), wanted[i] = (uint32_t)i;
    for (size_t i = 0; s->logits && i * KV_BLOCK < n; i++) {
        const bool taken = kv_cache_take(kv, &blocks[i]);
        assert(taken); // the cache has room for twice as many positions
    }
    if (s->logits) {
        const struct step_sequence sequence = {.n_rows = n, .blocks = blocks};
        const struct step step = {.n_rows = n, .ids = ids, .sequences = &sequence, .n_sequences = 1, .wanted = wanted, .n_wanted = n};
        size_t stride;
        transformer_forward(t, kv, &step);
        const float *logits = transformer_logits(t, 0, n, &stride);
        for (size_t i = 0; i < n; i++) memcpy(s->logits + i * c->n_vocab, logits + i * stride, c->n_vocab * sizeof(float));
    }
    transformer_destroy(t);
    kv_cache_destroy(kv);
    return s->logits != NULL;
}

// Takes f.
static bool side_make(struct side *s, struct model_file *f, struct pool *pool, struct err *err) {
    s->format = model_file_format(f);
    s->n_tensors = model_file_tensor_count(f);
    for (size_t i = 0; i < s->n_tensors; i++) s->bytes += model_file_tensor_at(f, i)->n_bytes;
    struct model *m = model_create(f, WEIGHTS_F32, pool, err);
    const bool ok = m && probe_run(m, pool, s, err);
    model_release(m);
    return ok;
}

// Not finite where either side has a logit that is not.
static double largest_difference(const struct side *a, const struct side *b) {
    double worst = 0;
    for (size_t i = 0; i < a->n_logits && isfinite(worst); i++) {
        const double d = fabs((double)a->logits[i] - (double)b->logits[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

static void json_text(struct buf *out, const char *key, const char *text) {
    buf_printf(out, "\"%s\":", key);
    if (text) buf_add_json_string(out, text, strlen(text));
    else buf_add_str(out, "null");
    buf_add_byte(out, ',');
}

static void report(const struct convert_options *o, const struct side *from, const struct side *to, uint64_t parameters, double difference,
                   const char *note) {
    struct buf out = {0};
    if (o->json) {
        buf_add_byte(&out, '{');
        json_text(&out, "from", o->from);
        json_text(&out, "to", o->to);
        json_text(&out, "from_format", from->format);
        json_text(&out, "to_format", to->format);
        json_text(&out, "type", o->type);
        json_text(&out, "note", note);
        buf_printf(&out, "\"parameters\":%llu,\"tensors\":%zu,\"from_bytes\":%llu,\"to_bytes\":%llu,\"probe_tokens\":%zu,",
                   (unsigned long long)parameters, to->n_tensors, (unsigned long long)from->bytes, (unsigned long long)to->bytes, to->n_tokens);
        buf_add_str(&out, "\"max_logit_difference\":");
        buf_add_json_number(&out, difference);
        buf_add_str(&out, "}\n");
    } else {
        buf_printf(&out, "%s: %zu tensors, %llu parameters, weights of %.1f MB (%s) -> %.1f MB (%s, %s)\n", o->to, to->n_tensors,
                   (unsigned long long)parameters, (double)from->bytes / 1e6, from->format, (double)to->bytes / 1e6, to->format, o->type);
        buf_printf(&out, "largest logit difference over %zu tokens: %.6g\n", from->n_tokens, difference);
        if (note) buf_printf(&out, "%s\n", note);
    }
    fwrite(out.data, 1, out.len, stdout);
    buf_finish(&out);
}

// ---- the command ----

// Takes f.
static bool convert_opened(const struct convert_options *o, struct model_file *f, struct work *w, struct pool *pool, struct err *err) {
    struct side from = {0}, to = {0};
    const struct model_config *c = model_file_config(f);
    const uint64_t parameters = model_file_parameters(f);
    const char *note = c->arch == ARCH_GPT2 && !c->qkv_bias
                           ? is_gguf(o) ? "llama.cpp wants the query, key and value biases that this model has not: zeros were written"
                                        : "transformers has no GPT-2 without query, key and value biases: it fills in zeros"
                           : NULL;
    bool ok = model_write(o, f, w->made, err);
    if (!ok) model_file_close(f);
    ok = ok && side_make(&from, f, pool, err);
    struct model_file *made = ok ? model_file_open(w->made, err) : NULL;
    if (ok && !made) err_prefix(err, "the result cannot be read back");
    ok = made && side_make(&to, made, pool, err);
    const double difference = ok ? largest_difference(&from, &to) : 0;
    if (!isfinite(difference))
        ok = err_set(err, ERR_UNSUPPORTED, "the model's logits are not finite numbers: a weight is not, or %s cannot hold it", o->type);
    ok = ok && work_publish(w, err);
    if (ok) report(o, &from, &to, parameters, difference, note);
    free(from.logits);
    free(to.logits);
    return ok;
}

static bool convert(const struct convert_options *o, struct err *err) {
    if (!options_check(o, err) || !target_check(o, err)) return false;
    struct work w = {0};
    struct model_file *f = model_file_open_adapted(o->from, o->adapter, err);
    struct pool *pool = f ? pool_create(o->threads ? o->threads : pool_cpu_count(), err) : NULL;
    bool ok = false;
    if (pool && work_open(&w, o->to, err)) ok = convert_opened(o, f, &w, pool, err);
    else model_file_close(f);
    work_close(&w, ok);
    pool_destroy(pool);
    return ok;
}

int cmd_convert(int argc, char **argv) {
    struct convert_options o = {.type = "f32"};
    struct option_args args = {0};
    struct err err = {0};
    int status;
    if (options_start(&command, argc, argv, &o, &args, &status)) status = convert(&o, &err) ? 0 : options_fail(&command, &err);
    option_args_finish(&args);
    return status;
}
