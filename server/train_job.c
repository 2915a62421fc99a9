// SPDX-License-Identifier: MIT
// See train_job.h. Order: what is cheap to refuse comes first, the data before the weights.
#include "server/train_job.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "engine/kernels/kernels.h"
#include "engine/model/adapter.h"
#include "engine/model/model_write.h"
#include "engine/train/gemm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_CONTEXT = 1024, PROBLEMS_SHOWN = 20 };

static void warn(struct train_job *j, const char *message) {
    fprintf(stderr, "couplet train: warning: %s\n", message);
    mem_grow(&j->warnings.items, &j->warnings.cap, j->warnings.n + 1);
    j->warnings.items[j->warnings.n++] = mem_strdup(message);
}

// ---- the base ----

static bool is_quantised(const struct model_file *f) {
    for (size_t i = 0; i < model_file_tensor_count(f); i++) {
        const enum dtype t = model_file_tensor_at(f, i)->type;
        if (t != DTYPE_F32 && t != DTYPE_F16 && t != DTYPE_BF16) return true;
    }
    return false;
}

static bool base_open(struct train_job *j, struct err *err) {
    const struct train_options *o = j->options;
    if (o->method == TRAIN_LORA && adapter_is_dir(o->model))
        return err_set_param(err, ERR_INVALID, "--model", "--model %s is an adapter: convert it to a model before another is trained on it", o->model);
    if (!(j->file = model_file_open_adapted(o->model, NULL, err))) return err_prefix(err, "%s", o->model);
    if (o->method != TRAIN_LORA && is_quantised(j->file))
        return err_set_param(err, ERR_INVALID, "--method", "--method %s cannot move quantised weights: train %s with --method lora", o->method_name,
                             o->model);
    j->init.config = *model_file_config(j->file);
    j->tokenizer = model_file_tokenizer(j->file);
    return true;
}

static bool init_open(struct train_job *j, struct err *err) {
    const struct train_options *o = j->options;
    struct model_config *c = &j->init.config;
    if (!model_init_open(o->init, &j->init, err)) return false;
    if (!o->tokenizer) return true;
    if (!(j->own_tokenizer = tokenizer_load_dir(o->tokenizer, err))) return err_prefix(err, "%s", o->tokenizer);
    j->tokenizer = j->own_tokenizer;
    const size_t size = tokenizer_size(j->tokenizer);
    if (j->init.own_vocabulary) c->n_vocab = size;
    return size <= c->n_vocab || err_set_param(err, ERR_INVALID, "--tokenizer", "--tokenizer %s has %zu tokens, but %s a vocabulary of %zu",
                                               o->tokenizer, size, o->init, c->n_vocab);
}

static bool options_fit(struct train_job *j, struct err *err) {
    const struct train_options *o = j->options;
    const struct model_config *c = &j->init.config;
    j->context = o->context ? o->context : train_data_is_text(o->data_name ? o->data_name : o->data) ? MIN(c->n_ctx, (size_t)TEXT_CONTEXT) : c->n_ctx;
    j->config = o->config;
    j->config.batching.context = j->context;
    if (isnan(o->config.dropout)) j->config.dropout = (float)j->init.dropout;
    if (j->context > c->n_ctx)
        return err_set_param(err, ERR_INVALID, "--context", "--context %zu is over the model's %zu", j->context, c->n_ctx);
    if (o->stride > j->context)
        return err_set_param(err, ERR_INVALID, "--stride", "--stride %zu is over the context of %zu: tokens would be skipped", o->stride, j->context);
    if (o->method == TRAIN_FREEZE && o->freeze_layers > c->n_layer)
        return err_set_param(err, ERR_INVALID, "--freeze-layers", "--freeze-layers %zu is over the model's %zu layers", o->freeze_layers, c->n_layer);
    if (o->prompts.n && !j->tokenizer) return err_set_param(err, ERR_INVALID, "--sample-prompt", "--sample-prompt needs a tokenizer; the model has none");
    return true;
}

// ---- the data ----

static void progress(void *ctx, uint64_t done, uint64_t total) {
    if (total < (64 << 20) || !isatty(STDERR_FILENO)) return;
    fprintf(stderr, "\rreading %s: %.0f%%%s", (const char *)ctx, 100.0 * (double)done / (double)total, done == total ? "\r\033[K" : "");
}

// A row that is at fault is the error's; here is the rest, for people to mend in one go.
static void problems_report(struct train_job *j, const char *path, const struct dataset_report *r, bool failed) {
    struct buf text = {0};
    size_t told = 0;
    bool error_told = !failed; // the first fatal one is the command's error
    for (size_t i = 0; i < r->n_problems_kept && told < PROBLEMS_SHOWN; i++) {
        told++;
        if (r->problems[i].fatal && !error_told) {
            error_told = true;
            continue;
        }
        buf_clear(&text);
        buf_printf(&text, "%s %s %zu: %s", path, dataset_place(r), r->problems[i].line, r->problems[i].message);
        warn(j, buf_str(&text));
    }
    const struct {
        size_t n;
        const char *what;
    } counts[] = {
        {r->n_problems - told, "more problems"},
        {failed ? 0 : r->n_truncated, "examples are cut off at the context"},
        {failed ? 0 : r->n_dropped, "examples are over the context and left out"},
        {failed ? 0 : r->n_duplicates, "rows are equal to an earlier one"},
        {failed ? 0 : r->n_near_duplicates, "rows differ from an earlier one in case or white space only"},
    };
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        if (!counts[i].n) continue;
        buf_clear(&text);
        buf_printf(&text, "%s: %zu %s", path, counts[i].n, counts[i].what);
        warn(j, buf_str(&text));
    }
    buf_finish(&text);
}

// Where tokens are kept while they are needed: TMPDIR, or the disk of --out, as /tmp may be memory. --out itself is made later, if at all: the
// nearest directory above it. malloc'ed; NULL: the data set's default.
static char *temp_dir(const struct train_options *o) {
    if (!o->out || getenv("TMPDIR")) return NULL;
    char *dir = mem_strdup(o->out), *slash;
    while (!dir_exists(dir) && (slash = strrchr(dir, '/')) && slash > dir) *slash = 0;
    if (dir_exists(dir)) return dir;
    free(dir);
    return mem_strdup(*o->out == '/' ? "/" : ".");
}

static struct dataset *data_open(struct train_job *j, const char *path, const char *name, struct err *err) {
    const struct train_options *o = j->options;
    const char *jinja = j->tokenizer ? tokenizer_chat_template(j->tokenizer) : NULL;
    struct dataset_report report = {0};
    char *temp = temp_dir(o);
    struct dataset *d = dataset_open(path,
                                     &(struct dataset_options){
                                         .name = name,
                                         .tokenizer = j->tokenizer,
                                         .chat = jinja ? chat_template_recognise(jinja) : NULL,
                                         .n_vocab = j->init.config.n_vocab,
                                         .context = j->context,
                                         .stride = o->stride,
                                         .train_on_inputs = strcmp(o->train_on_inputs, "on") == 0,
                                         .excess = o->excess,
                                         .temp_dir = temp,
                                         .progress = progress,
                                         .progress_ctx = (void *)(uintptr_t)path,
                                     },
                                     &report, err);
    free(temp);
    problems_report(j, name ? name : path, &report, !d);
    dataset_report_finish(&report);
    return d;
}

static bool data_all_open(struct train_job *j, struct err *err) {
    const struct train_options *o = j->options;
    j->opening = "training_file";
    if (!(j->data = data_open(j, o->data, o->data_name, err))) return false;
    if (o->validation_split > 0) {
        if (!data_view_split(j->data, o->validation_split, o->config.seed, &j->train, &j->validation, err)) return false;
    } else {
        data_view_all(&j->train, j->data);
    }
    if (o->validation) {
        j->opening = "validation_file";
        if (!(j->validation_data = data_open(j, o->validation, o->validation_name, err))) return false;
        data_view_all(&j->validation, j->validation_data);
    }
    if (!j->validation.n) return true;
    struct err fault = {0};
    const size_t leaks = data_view_leaks(&j->train, &j->validation, &fault);
    if (fault.code) {
        *err = fault;
    } else if (leaks) {
        struct buf text = {0};
        buf_printf(&text, "%zu of %zu validation examples share 13 tokens in a row with the training data", leaks, j->validation.n);
        warn(j, buf_str(&text));
        buf_finish(&text);
    }
    return !fault.code;
}

// ---- the parameters ----

// Every factor that is trained, from a file of PEFT's names.
static bool lora_load(struct train_job *j, const char *path, struct err *err) {
    struct adapter a;
    struct buf name = {0};
    size_t n = 0, n_trained = 0;
    if (!adapter_load_file(&a, path, err)) return err_prefix(err, "%s", path);
    bool ok = true;
    for (size_t i = 0; ok && i < a.n; i++) {
        const struct adapter_module *m = &a.modules[i];
        for (int b = 0; ok && b < 2; b++) {
            buf_clear(&name);
            buf_printf(&name, "base_model.model.%s.lora_%c.weight", m->name, "AB"[b]);
            const size_t rows = b ? m->n_out : m->r, cols = b ? m->r : m->n_in;
            struct param *p = params_find(j->params, buf_str(&name));
            ok = p && p->shape[0] == rows && p->shape[1] == cols;
            if (ok) memcpy(p->w, b ? m->b : m->a, p->n * sizeof(float));
            else (void)!err_set(err, ERR_INVALID, "%s: the run has no factor \"%s\" of %zu x %zu", path, buf_str(&name), rows, cols);
            n++;
        }
    }
    for (size_t i = 0; i < j->params->n_items; i++) n_trained += j->params->items[i].grad != NULL;
    if (ok && n != n_trained) ok = err_set(err, ERR_INVALID, "%s holds %zu factors, but the run trains %zu", path, n, n_trained);
    buf_finish(&name);
    adapter_finish(&a);
    return ok;
}

static bool params_open(struct train_job *j, struct err *err) {
    const struct train_options *o = j->options;
    const struct params_options p = {
        .method = o->method,
        .trained_layers = o->freeze_layers,
        .lora = {.rank = o->lora_rank, .alpha = o->lora_alpha, .targets = o->targets.items, .n_targets = o->targets.n},
        .decay_all = j->init.decay_all,
        .seed = o->config.seed,
    };
    j->params = j->file ? params_from_file(j->file, &p, j->pool, err) : params_random(&j->init.config, j->init.init, o->config.seed, &p, j->pool, err);
    if (!j->params) return err->param[0] == '-' ? err_prefix(err, "%s", err->param) : false;
    return !o->lora_init || lora_load(j, o->lora_init, err);
}

// ---- what is said about it ----

static size_t memory_estimate(const struct train_job *j, const struct batcher *b) {
    const struct params *p = j->params;
    const struct network_config n = {.max_rows = batcher_max_rows(b), .max_segment = batcher_max_segment(b), .recompute = j->config.recompute};
    const size_t moments = j->config.optimizer.kind == OPTIMIZER_ADAMW ? 2 : j->config.optimizer.beta1 > 0;
    return (p->n_frozen + (2 + moments) * p->n_trained) * sizeof(float) + network_bytes(p, &n);
}

static void put_text(struct buf *b, const char *name, const char *value) {
    buf_printf(b, "%s\"%s\":", b->len ? "," : "", name);
    buf_add_json_string(b, value, strlen(value));
}

// What was asked for as a share of the run, in updates.
static void shares_resolve(struct train_job *j, struct batcher *b) {
    const struct train_options *o = j->options;
    struct train_config *c = &j->config;
    if (!o->evals && !o->checkpoints && !(o->warmup_ratio > 0)) return;
    uint64_t total = c->steps;
    for (uint64_t e = 0; c->steps == 0 && e < c->epochs; e++) total += batcher_updates_per_epoch(b, e);
    if (o->evals) c->eval_every = (total + o->evals - 1) / o->evals;
    if (o->checkpoints) c->checkpoint_every = (total + o->checkpoints - 1) / o->checkpoints;
    if (o->warmup_ratio > 0) c->warmup = (uint64_t)(o->warmup_ratio * (double)total);
}

static bool facts_fill(struct train_job *j, struct err *err) {
    const struct train_options *o = j->options;
    struct batcher *batcher = batcher_create(&j->train, &j->config.batching, err);
    if (!batcher) return false;
    shares_resolve(j, batcher);
    struct buf *b = &j->facts;
    const struct train_config *c = &j->config;
    const size_t per_epoch = batcher_updates_per_epoch(batcher, 0), memory = memory_estimate(j, batcher);
    const struct kernels *kernels = kernels_get(NULL);
    uint64_t tokens = 0;
    size_t longest = 0;
    for (size_t i = 0; i < j->train.n; i++) {
        const size_t n = dataset_length(j->data, j->train.items[i]);
        tokens += n;
        longest = MAX(longest, n);
    }
    batcher_destroy(batcher);
    put_text(b, "model", o->model ? o->model : o->init);
    put_text(b, "method", o->method_name);
    buf_printf(b, ",\"parameters\":%zu,\"trainable\":%zu", j->params->n_parameters, j->params->n_trainable);
    put_text(b, "data", o->data_name ? o->data_name : o->data);
    buf_printf(b, ",\"rows\":%zu,\"validation_rows\":%zu,\"tokens_per_epoch\":%llu,\"updates_per_epoch\":%zu", j->train.n, j->validation.n,
               (unsigned long long)tokens, per_epoch);
    buf_printf(b, ",\"vocabulary\":%zu,\"context\":%zu,\"batch_size\":%zu,\"accumulate\":%zu", j->init.config.n_vocab, j->context, c->batching.batch_size,
               c->batching.accumulate);
    buf_printf(b, ",\"learning_rate\":%.9g", c->lr);
    put_text(b, "schedule", o->schedule_name);
    buf_printf(b, ",\"seed\":%llu,\"memory_bytes\":%zu", (unsigned long long)o->config.seed, memory);
    put_text(b, "kernels", kernels ? kernels->name : "");
    put_text(b, "blas", gemm_start());
    buf_printf(b, ",\"threads\":%zu,\"warnings\":[", pool_threads(j->pool));
    for (size_t i = 0; i < j->warnings.n; i++) {
        if (i) buf_add_byte(b, ',');
        buf_add_json_string(b, j->warnings.items[i], strlen(j->warnings.items[i]));
    }
    buf_add_byte(b, ']');
    fprintf(stderr,
            "%s: %zu parameters, %zu trained (%s), vocabulary %zu; %zu rows of at most %zu tokens, %zu held out; %zu updates an epoch; about %zu MB; "
            "%zu threads\n",
            o->model ? o->model : o->init, j->params->n_parameters, j->params->n_trainable, o->method_name, j->init.config.n_vocab, j->train.n,
            longest, j->validation.n, per_epoch, memory >> 20, pool_threads(j->pool));
    return true;
}

// ---- whole ----

bool train_job_open(struct train_job *j, const struct train_options *o, struct err *err) {
    *j = (struct train_job){.options = o, .opening = "model"};
    if (!(o->model ? base_open(j, err) : init_open(j, err)) || !options_fit(j, err) || !data_all_open(j, err)) return false;
    j->opening = "model";
    if (!(j->pool = pool_create(o->threads ? o->threads : pool_cpu_count(), err)) || !params_open(j, err) || !facts_fill(j, err)) return false;
    j->opening = NULL;
    return true;
}

void train_job_finish(struct train_job *j) {
    params_destroy(j->params);
    data_view_finish(&j->train);
    data_view_finish(&j->validation);
    dataset_close(j->data);
    dataset_close(j->validation_data);
    tokenizer_destroy(j->own_tokenizer);
    model_file_close(j->file);
    pool_destroy(j->pool);
    for (size_t i = 0; i < j->warnings.n; i++) free((void *)(uintptr_t)j->warnings.items[i]);
    option_list_finish(&j->warnings);
    buf_finish(&j->facts);
}

// Left out: what changes no number of a run that goes on (threads, recompute, keep, prompts), and, where the rate does not depend on it, the end.
void train_job_hash(const struct train_job *j, unsigned char out[32]) {
    const struct train_config *c = &j->config;
    const struct train_options *o = j->options;
    const bool open_end = c->schedule == SCHEDULE_CONSTANT;
    unsigned char data[32] = {0}, validation[32] = {0}, base[32] = {0};
    struct buf b = {0};
    buf_printf(&b, "%d %zu %zu %.9g %.9g;", o->method, o->freeze_layers, o->lora_rank, (double)o->lora_alpha, (double)c->dropout_lora);
    buf_printf(&b, "%zu %zu %zu %d %d %llu;", c->batching.batch_size, c->batching.accumulate, j->context, c->batching.shuffle, c->batching.packing,
               (unsigned long long)o->config.seed);
    buf_printf(&b, "%d %.9g %.9g %.9g %.9g %.9g %d;", c->optimizer.kind, (double)c->optimizer.beta1, (double)c->optimizer.beta2, (double)c->optimizer.eps,
               (double)c->optimizer.weight_decay, (double)c->optimizer.clip, j->init.decay_all);
    buf_printf(&b, "%d %.17g %.17g %llu %llu %llu;", c->schedule, c->lr, c->min_lr, (unsigned long long)c->warmup,
               (unsigned long long)(open_end ? 0 : c->steps), (unsigned long long)(open_end ? 0 : c->epochs));
    buf_printf(&b, "%.9g %llu %llu %zu %.17g;", (double)c->dropout, (unsigned long long)c->eval_every, (unsigned long long)c->checkpoint_every,
               c->early_stopping, o->validation_split);
    dataset_hash(j->data, data);
    if (j->validation_data) dataset_hash(j->validation_data, validation);
    if (j->file) model_file_hash(j->file, base);
    else config_hf_write(&j->init.config, NULL, &b);
    buf_printf(&b, "%d;", j->init.init);
    struct sha256 s;
    sha256_init(&s);
    sha256_update(&s, b.data, b.len);
    sha256_update(&s, data, sizeof data);
    sha256_update(&s, validation, sizeof validation);
    sha256_update(&s, base, sizeof base);
    if (o->method == TRAIN_LORA) sha256_update(&s, j->params->trained, j->params->n_trained * sizeof(float)); // targets, --lora-init
    sha256_digest(&s, out);
    buf_finish(&b);
}
