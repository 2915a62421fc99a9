// SPDX-License-Identifier: MIT
// `couplet inspect`: a model's tensors, its tokenizer, or its attention on a prompt. Main thread.
#include "base/mem.h"
#include "engine/model/adapter.h"
#include "engine/model/tensor.h"
#include "server/commands.h"
#include "server/inspection.h"
#include "server/local_engine.h"
#include "server/options.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer_write.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct inspect_options {
    const char *model, *adapter, *text, *prompt;
    size_t layer, head; // SIZE_MAX: not given
    bool stats, json;
};

#define FIELD(name) offsetof(struct inspect_options, name)
static const struct option_spec specs[] = {
    {"--model", 0, OPTION_STRING, FIELD(model), "PATH", "model directory or .gguf file; for tokenizer a vocabulary directory too", .required = true},
    {"--adapter", 0, OPTION_STRING, FIELD(adapter), "DIR", "weights, attention: LoRA adapter to merge into the model"},
    {"--stats", 0, OPTION_FLAG, FIELD(stats), NULL, "weights: mean, standard deviation, least and greatest of each tensor"},
    {"--text", 0, OPTION_STRING, FIELD(text), "TEXT", "tokenizer: show this text's tokens"},
    {"--prompt", 0, OPTION_STRING, FIELD(prompt), "TEXT", "attention: of this text"},
    {"--layer", 0, OPTION_SIZE, FIELD(layer), "N", "attention: of this layer (0; with --json all)"},
    {"--head", 0, OPTION_SIZE, FIELD(head), "N", "attention: of this head (0; with --json all)"},
    {"--json", 0, OPTION_FLAG, FIELD(json), NULL, "one JSON object; attention: as /v1/inspect answers"},
};
static const struct option_command command = {
    .name = "inspect",
    .synopsis = "weights|tokenizer|attention --model PATH [OPTIONS]",
    .summary = "Shows what a model is made of: its tensors, its tokenizer, or where its heads look.",
    .options = specs,
    .n_options = ARRAY_LEN(specs),
    .max_args = 1,
};

// ---- weights ----

struct stats {
    double mean, std;
    float least, greatest;
};

static size_t columns_of(const struct tensor *t) { return t->shape[t->n_dims == 1 ? 0 : 1]; }

static struct stats stats_of(const struct tensor *t, float *row) { // row [columns]: room to read one
    const bool vector = t->n_dims == 1;
    const size_t rows = vector ? 1 : t->shape[0], cols = columns_of(t);
    double sum = 0, squares = 0;
    struct stats s = {.least = INFINITY, .greatest = -INFINITY};
    for (size_t r = 0; r < rows; r++) {
        if (vector) tensor_vector(t, row);
        else tensor_row(t, r, row);
        for (size_t i = 0; i < cols; i++) {
            sum += (double)row[i], squares += (double)row[i] * (double)row[i];
            s.least = fminf(s.least, row[i]), s.greatest = fmaxf(s.greatest, row[i]);
        }
    }
    const double n = (double)rows * (double)cols;
    s.mean = sum / n;
    const double variance = squares / n - s.mean * s.mean;
    s.std = variance < 0 ? 0 : sqrt(variance); // NaN stays NaN
    return s;
}

static void stats_write(const struct stats *s, struct buf *out) { // what is no number is null
    const struct {
        const char *name;
        double value;
    } parts[] = {{"mean", s->mean}, {"std", s->std}, {"min", (double)s->least}, {"max", (double)s->greatest}};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        buf_printf(out, ",\"%s\":", parts[i].name);
        buf_add_json_number(out, parts[i].value);
    }
}

static void tensor_write(const struct tensor *t, const struct inspect_options *o, int width, float *row, struct buf *out) {
    const bool vector = t->n_dims == 1;
    const size_t parameters = t->shape[0] * (vector ? 1 : t->shape[1]);
    const struct stats s = o->stats ? stats_of(t, row) : (struct stats){0};
    char shape[48];
    snprintf(shape, sizeof shape, vector ? "%zu" : o->json ? "%zu,%zu" : "%zu x %zu", t->shape[0], t->shape[1]);
    if (o->json) {
        buf_add_str(out, "{\"name\":");
        buf_add_json_string(out, t->name, strlen(t->name));
        buf_printf(out, ",\"shape\":[%s],\"type\":\"%s\",\"parameters\":%zu", shape, dtype_name(t->type), parameters);
        if (o->stats) stats_write(&s, out);
        buf_add_byte(out, '}');
        return;
    }
    buf_printf(out, "%-*s  %-16s %-5s %12zu", width, t->name, shape, dtype_name(t->type), parameters);
    if (o->stats) buf_printf(out, "  %11.4g %11.4g %11.4g %11.4g", s.mean, s.std, (double)s.least, (double)s.greatest);
    buf_add_byte(out, '\n');
}

static bool weights_show(const struct inspect_options *o, struct buf *out, struct err *err) {
    struct model_file *f = model_file_open_adapted(o->model, o->adapter, err);
    if (!f) return false;
    const size_t n = model_file_tensor_count(f);
    int width = 4;
    size_t columns = 1;
    for (size_t i = 0; i < n; i++) {
        width = MAX(width, (int)MIN(strlen(model_file_tensor_at(f, i)->name), (size_t)80));
        columns = MAX(columns, columns_of(model_file_tensor_at(f, i)));
    }
    float *row = mem_try_alloc(columns, sizeof *row, "a row of the largest tensor", err);
    if (!row) {
        model_file_close(f);
        return false;
    }
    if (o->json) buf_add_str(out, "{\"tensors\":[");
    else
        buf_printf(out, "%-*s  %-16s %-5s %12s%s\n", width, "name", "shape", "type", "parameters",
                   o->stats ? "         mean         std         min         max" : "");
    for (size_t i = 0; i < n; i++) {
        if (o->json && i) buf_add_byte(out, ',');
        tensor_write(model_file_tensor_at(f, i), o, width, row, out);
    }
    const unsigned long long parameters = model_file_parameters(f);
    if (o->json) buf_printf(out, "],\"format\":\"%s\",\"parameters\":%llu}\n", model_file_format(f), parameters);
    else buf_printf(out, "%zu tensors, %llu parameters, %s\n", n, parameters, model_file_format(f));
    free(row);
    model_file_close(f);
    return true;
}

// ---- tokenizer ----

static void add_token(const struct tokenizer *t, uint32_t id, bool json, struct buf *out) {
    size_t len;
    const char *bytes = tokenizer_bytes(t, id, &len);
    buf_printf(out, json ? "{\"id\":%u,\"text\":" : "  %7u  ", id);
    buf_add_json_string(out, bytes, len);
    buf_add_str(out, json ? "}" : "\n");
}

static void add_text_tokens(const struct tokenizer *t, const struct inspect_options *o, struct buf *out) {
    struct ids ids = {0};
    tokenizer_encode(t, o->text, strlen(o->text), true, &ids);
    if (o->json) buf_add_str(out, ",\"tokens\":[");
    else buf_printf(out, "%zu tokens of the text\n", ids.len);
    for (size_t i = 0; i < ids.len; i++) {
        if (o->json && i) buf_add_byte(out, ',');
        add_token(t, ids.data[i], o->json, out);
    }
    if (o->json) buf_add_byte(out, ']');
    ids_finish(&ids);
}

static bool tokenizer_show(const struct inspect_options *o, struct buf *out, struct err *err) {
    static const char *const pre_names[] = {[PRE_GPT2] = "gpt2", [PRE_SMOLLM] = "smollm", [PRE_LLAMA3] = "llama3"};
    struct local_tokenizer source = {0};
    const bool ok = local_tokenizer_open(&source, o->model, err);
    const struct tokenizer *t = source.tokenizer;
    if (ok) {
        const struct chat_template *chat = chat_template_recognise(tokenizer_chat_template(t));
        const char *chat_name = chat ? chat_template_name(chat) : tokenizer_chat_template(t) ? "unknown" : "none", *comma = "";
        size_t absent = 0;
        for (uint32_t id = 0; id < tokenizer_size(t); id++) absent += tokenizer_is_absent(t, id);
        const char *format = o->json ? "{\"kind\":\"byte-level BPE\",\"vocabulary\":%zu,\"unused\":%zu,\"pre_tokenizer\":\"%s\","
                                       "\"bos\":%lld,\"eos\":%lld,\"pad\":%lld,\"add_bos\":%s,\"chat_template\":\"%s\",\"special\":["
                                     : "kind           byte-level BPE\nvocabulary     %zu tokens, %zu of them unused\npre-tokenizer  %s\n"
                                       "bos, eos, pad  %lld, %lld, %lld (-1: none)\nadds bos       %s\nchat template  %s\nspecial tokens\n";
        buf_printf(out, format, tokenizer_size(t), absent, pre_names[tokenizer_pre(t)], (long long)tokenizer_bos(t), (long long)tokenizer_eos(t),
                   (long long)tokenizer_pad(t), tokenizer_add_bos(t) ? "true" : "false", chat_name);
        for (uint32_t id = 0; id < tokenizer_size(t); id++) {
            if (!tokenizer_is_special(t, id)) continue;
            if (o->json) buf_add_str(out, comma);
            add_token(t, id, o->json, out);
            comma = ",";
        }
        if (o->json) buf_add_byte(out, ']');
        if (o->text) add_text_tokens(t, o, out);
        if (o->json) buf_add_str(out, "}\n");
    }
    local_tokenizer_close(&source);
    return ok;
}

// ---- attention ----

// A row a token: how much it takes from itself and from each before it.
static void matrix_write(const struct inspect_look *l, const float *weights, struct buf *out) { // weights [T][T]
    const struct inspect_request *q = &l->request;
    const struct tokenizer *t = model_tokenizer(q->model);
    buf_printf(out, "layer %d of %zu, head %d of %zu; a row a token, and what share of each token it takes\n%23s", q->layer, model_config(q->model)->n_layer,
               q->head, model_config(q->model)->n_head, "");
    for (size_t i = 0; i < q->n_ids; i++) buf_printf(out, "%5zu", i);
    for (size_t i = 0; i < q->n_ids; i++) {
        struct buf name = {0};
        size_t len;
        const char *bytes = tokenizer_bytes(t, q->ids[i], &len);
        buf_add_json_string(&name, bytes, len);
        buf_printf(out, "\n%5zu  %-16s", i, name.data);
        buf_finish(&name);
        for (size_t k = 0; k <= i; k++) buf_printf(out, " %.2f", (double)weights[i * q->n_ids + k]);
    }
    buf_add_byte(out, '\n');
}

static bool place_set(const char *option, size_t given, bool all, size_t n, int *out, struct err *err) {
    if (given != SIZE_MAX && given >= n) return err_set_param(err, ERR_INVALID, option, "%s must be below %zu, the model's number of them", option, n);
    *out = given != SIZE_MAX ? (int)given : all ? -1 : 0;
    return true;
}

static bool attention_of(const struct inspect_options *o, struct model *m, struct buf *out, struct err *err) {
    const struct model_config *c = model_config(m);
    const struct tokenizer *t = model_tokenizer(m);
    struct inspect_look look = {.model_id = o->model,
                                .request = {.model = m, .what = INSPECT_WEIGHTS, .max_bytes = INSPECT_MAX_BYTES, .n_threads = pool_cpu_count()}};
    struct inspection found = {0};
    struct ids ids = {0};
    bool ok = (t || err_set(err, ERR_NOT_FOUND, "the model has no tokenizer")) && local_prompt_encode(t, o->prompt, strlen(o->prompt), &ids, err) &&
              place_set("--layer", o->layer, o->json, c->n_layer, &look.request.layer, err) &&
              place_set("--head", o->head, o->json, c->n_head, &look.request.head, err);
    if (ok && ids.len > c->n_ctx) ok = err_set(err, ERR_TOO_LARGE, "the prompt has %zu tokens, the model's context %zu", ids.len, c->n_ctx);
    look.request.ids = ids.data, look.request.n_ids = ids.len;
    ok = ok && inspect_model(&look.request, &found, err);
    if (ok && o->json) {
        inspect_reply_write(&look, &found, NULL, out);
        buf_add_byte(out, '\n');
    } else if (ok) {
        matrix_write(&look, found.weights.data, out);
    }
    inspection_finish(&found);
    ids_finish(&ids);
    return ok;
}

static bool attention_show(const struct inspect_options *o, struct buf *out, struct err *err) {
    if (!o->prompt) return err_set_param(err, ERR_INVALID, "--prompt", "attention needs --prompt TEXT");
    struct pool *pool = pool_create(pool_cpu_count(), err);
    struct model_file *file = pool ? model_file_open_adapted(o->model, o->adapter, err) : NULL;
    struct model *m = file ? model_create(file, WEIGHTS_AUTO, pool, err) : NULL;
    const bool ok = m && attention_of(o, m, out, err);
    model_release(m);
    pool_destroy(pool);
    return ok;
}

int cmd_inspect(int argc, char **argv) {
    static const struct {
        const char *name;
        bool (*show)(const struct inspect_options *o, struct buf *out, struct err *err);
    } verbs[] = {{"weights", weights_show}, {"tokenizer", tokenizer_show}, {"attention", attention_show}};
    struct inspect_options o = {.layer = SIZE_MAX, .head = SIZE_MAX};
    struct option_args args = {0};
    struct buf out = {0};
    struct err err = {0};
    int status;
    if (options_start(&command, argc, argv, &o, &args, &status)) {
        const char *verb = args.positional.n ? args.positional.items[0] : "";
        size_t i = 0;
        while (i < ARRAY_LEN(verbs) && strcmp(verbs[i].name, verb) != 0) i++;
        bool ok = i < ARRAY_LEN(verbs) ? verbs[i].show(&o, &out, &err)
                                       : err_set_param(&err, ERR_INVALID, "--help", "expected weights, tokenizer or attention, then --model PATH");
        if (ok && (fwrite(buf_str(&out), 1, out.len, stdout) != out.len || fflush(stdout) != 0))
            ok = err_set(&err, ERR_IO, "cannot write the output: %s", strerror(errno));
        status = ok ? 0 : options_fail(&command, &err);
    }
    buf_finish(&out);
    option_args_finish(&args);
    return status;
}
