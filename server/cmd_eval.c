// SPDX-License-Identifier: MIT
// `couplet eval`: how good a model is on a file: loss, perplexity, bits per byte and token accuracy of the rows as training sees them; and, on
// rows with an answer, the model's own answers beside the references. Main thread.
#include "base/file.h"
#include "base/mem.h"
#include "engine/model/adapter.h"
#include "engine/train/gemm.h"
#include "engine/train/trainer.h"
#include "server/commands.h"
#include "server/eval_answers.h"
#include "server/options.h"
#include "server/results_html.h"
#include "server/train_options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ANSWER_TOKENS = 256, MAX_ROWS = 1024, TEXT_CONTEXT = 1024 };

enum metric { METRIC_LOSS, METRIC_PERPLEXITY, METRIC_BITS_PER_BYTE, METRIC_TOKEN_ACCURACY, METRIC_EXACT_MATCH, METRIC_TOKEN_F1, METRIC_ROUGE_L, METRICS };
static const char *const metric_names[METRICS] = {"loss", "perplexity", "bits_per_byte", "token_accuracy", "exact_match", "token_f1", "rouge_l"};
enum { LOSS_METRICS = 1 << METRIC_LOSS | 1 << METRIC_PERPLEXITY | 1 << METRIC_BITS_PER_BYTE | 1 << METRIC_TOKEN_ACCURACY,
       ANSWER_METRICS = 1 << METRIC_EXACT_MATCH | 1 << METRIC_TOKEN_F1 | 1 << METRIC_ROUGE_L };

struct eval_options {
    const char *model, *adapter, *base, *data, *model_name, *base_name, *metrics, *answers, *html, *cards, *judge, *judge_model, *train_on_inputs, *excess;
    size_t context, stride, limit, max_tokens, threads;
    double validation_split;
    uint64_t seed;
    bool json;
};

#define FIELD(name) offsetof(struct eval_options, name)
static const struct option_spec specs[] = {
    {"--model", 0, OPTION_STRING, FIELD(model), "PATH", "model or adapter directory, or .gguf file", .required = true},
    {"--adapter", 0, OPTION_STRING, FIELD(adapter), "DIR", "LoRA adapter to put on the model; its answers are shown beside the model's own"},
    {"--base", 0, OPTION_STRING, FIELD(base), "PATH", "another model whose answers are shown beside (with --answers, --html or --cards)"},
    {"--data", 0, OPTION_STRING, FIELD(data), "FILE", "text or rows, as for train", .required = true},
    {"--validation-split", 0, OPTION_DOUBLE, FIELD(validation_split), "X",
     "only what a run with this share, --seed and the same context held out", .min = 1e-6, .max = 0.999999},
    {"--seed", 0, OPTION_UINT64, FIELD(seed), "N", "with --validation-split: the run's (0)"},
    {"--metrics", 0, OPTION_STRING, FIELD(metrics), "A,B",
     "loss, perplexity, bits_per_byte, token_accuracy; exact_match, token_f1, rouge_l (the first four; all where answers are generated)"},
    {"--answers", 0, OPTION_STRING, FIELD(answers), "FILE.json", "write the rows with the generated answers (model_response)"},
    {"--html", 0, OPTION_STRING, FIELD(html), "FILE", "write a page of cards, worst first: instruction, input, correct, base's and tuned answer"},
    {"--cards", 0, OPTION_STRING, FIELD(cards), "FILE.json", "write the page's cards as JSON"},
    {"--model-name", 0, OPTION_STRING, FIELD(model_name), "NAME", "what the page calls the model (its file's name)"},
    {"--base-name", 0, OPTION_STRING, FIELD(base_name), "NAME", "what the page calls the base (its file's name)"},
    {"--judge", 0, OPTION_STRING, FIELD(judge), "URL", "have the answers scored, 0 to 100, by an OpenAI-compatible server (key: OPENAI_API_KEY)"},
    {"--judge-model", 0, OPTION_STRING, FIELD(judge_model), "NAME", "its model (the first it lists)"},
    {"--max-tokens", 0, OPTION_SIZE, FIELD(max_tokens), "N", "length of an answer (256)", .min = 1, .max = 1e6},
    {"--limit", 0, OPTION_SIZE, FIELD(limit), "N", "generate answers for the first N rows only (0: all)"},
    {"--context", 0, OPTION_SIZE, FIELD(context), "N", "inputs of a window or a row (the model's; texts: at most 1024)", .min = 1, .max = 1e6},
    {"--stride", 0, OPTION_SIZE, FIELD(stride), "N", "tokens between two windows of a text (the context)", .min = 1, .max = 1e6},
    {"--train-on-inputs", 0, OPTION_STRING, FIELD(train_on_inputs), "SWITCH", "count the prompts too (off)", .choices = "on|off"},
    {"--excess-length", 0, OPTION_STRING, FIELD(excess), "WHAT", "rows over the context (error)", .choices = "error|truncate|drop"},
    {"--threads", 0, OPTION_SIZE, FIELD(threads), "N", "kernel threads (one a processor)", .min = 1, .max = 1024},
    {"--json", 0, OPTION_FLAG, FIELD(json), NULL, "one JSON object instead of text"},
};

static const struct option_command command = {
    .name = "eval",
    .synopsis = "--model PATH [--adapter DIR] --data FILE [OPTIONS]",
    .summary = "Measures a model on a file: loss and perplexity, and its answers beside the references.",
    .options = specs,
    .n_options = ARRAY_LEN(specs),
};

struct eval {
    const struct eval_options *o;
    unsigned metrics; // bit per enum metric
    bool answering;
    struct view_scores scores;
    size_t n_examples;
    size_t *rows, n_rows; // with --validation-split: of the rows held out, ascending
    struct eval_items items;
    struct eval_means means;
    char *judge_model;
};

static bool metrics_parse(const char *text, unsigned *out, struct err *err) {
    for (*out = 0;; text++) {
        size_t len = strcspn(text, ","), m = 0;
        while (m < METRICS && (strlen(metric_names[m]) != len || memcmp(metric_names[m], text, len) != 0)) m++;
        if (m == METRICS)
            return err_set_param(err, ERR_INVALID, "--metrics", "--metrics: '%.*s' is none of loss, perplexity, bits_per_byte, token_accuracy, "
                                 "exact_match, token_f1, rouge_l", (int)MIN(len, (size_t)40), text);
        *out |= 1u << m;
        text += len;
        if (!*text) return true;
    }
}

// ---- losses ----

// What is evaluated: everything, or what a run held out; of that the rows' numbers too, for the answers.
static bool view_choose(struct eval *e, const struct dataset *d, struct data_view *view, struct err *err) {
    struct data_view trained;
    if (!(e->o->validation_split > 0)) {
        data_view_all(view, d);
        return true;
    }
    if (!data_view_split(d, e->o->validation_split, e->o->seed, &trained, view, err)) return false;
    data_view_finish(&trained);
    e->rows = mem_alloc(view->n, sizeof *e->rows);
    for (; e->n_rows < view->n; e->n_rows++) e->rows[e->n_rows] = dataset_row(d, view->items[e->n_rows]); // in file order
    return true;
}

static bool losses_over(struct eval *e, struct params *p, const struct dataset *d, const struct data_view *v, const struct tokenizer *t, struct pool *pool,
                        struct err *err) {
    size_t longest = 1;
    for (size_t i = 0; i < v->n; i++) longest = MAX(longest, dataset_length(d, v->items[i]));
    const struct network_config c = {.max_rows = MAX((size_t)MAX_ROWS, longest), .max_segment = longest, .inference = true};
    struct network *n = network_create(p, &c, pool, err);
    bool ok = n && view_evaluate(n, v, t, c.max_rows, &e->scores, err);
    e->n_examples = v->n;
    network_destroy(n);
    return ok;
}

static bool losses(struct eval *e, struct pool *pool, struct err *err) {
    const struct eval_options *o = e->o;
    struct model_file *f = model_file_open_adapted(o->model, o->adapter, err);
    if (!f) return false;
    const struct model_config *c = model_file_config(f);
    const struct tokenizer *t = model_file_tokenizer(f);
    if (o->context > c->n_ctx) {
        err_set_param(err, ERR_INVALID, "--context", "--context %zu is over the model's %zu", o->context, c->n_ctx);
        model_file_close(f);
        return false;
    }
    const struct dataset_options options = {
        .tokenizer = t, .chat = t ? chat_template_recognise(tokenizer_chat_template(t)) : NULL, .n_vocab = c->n_vocab,
        .context = o->context ? o->context : train_data_is_text(o->data) ? MIN(c->n_ctx, (size_t)TEXT_CONTEXT) : c->n_ctx, .stride = o->stride,
        .train_on_inputs = strcmp(o->train_on_inputs, "on") == 0,
        .excess = strcmp(o->excess, "error") == 0 ? EXCESS_ERROR : strcmp(o->excess, "drop") == 0 ? EXCESS_DROP : EXCESS_TRUNCATE};
    struct dataset *d = dataset_open(o->data, &options, NULL, err);
    const struct params_options frozen = {.inference = true};
    struct data_view view = {0};
    bool ok = d && view_choose(e, d, &view, err);
    struct params *p = ok && (e->metrics & LOSS_METRICS) ? params_from_file(f, &frozen, pool, err) : NULL;
    ok = ok && (!(e->metrics & LOSS_METRICS) || (p && losses_over(e, p, d, &view, t, pool, err)));
    data_view_finish(&view);
    params_destroy(p);
    dataset_close(d);
    model_file_close(f);
    return ok;
}

// ---- answers ----

struct progress {
    const char *what;
    size_t n;
};

static void progress_show(void *ctx, size_t done) {
    const struct progress *p = ctx;
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%s %zu of %zu%s", p->what, done, p->n, done == p->n ? "\n" : "");
}

// Rows are read for each model anew: prompts are ids of its own vocabulary.
static bool answers_of(struct eval *e, const char *model, const char *adapter, const char *what, struct eval_items *items, struct err *err) {
    struct local_engine l;
    if (!local_engine_open(&l, model, adapter, "auto", e->o->threads, 32, 0, err)) return false;
    const struct tokenizer *t = model_tokenizer(l.model);
    bool ok = t || err_set(err, ERR_UNSUPPORTED, "the model has no tokenizer: it cannot be asked for answers");
    ok = ok && eval_items_load(items, e->o->data, t, e->rows ? 0 : e->o->limit, err);
    if (ok && e->rows) eval_items_keep(items, e->rows, e->n_rows, e->o->limit);
    if (ok && !items->n) ok = err_set(err, ERR_INVALID, "%s: none of the rows held out has a question and an answer", e->o->data);
    struct progress p = {what, items->n};
    ok = ok && eval_items_answer(items, &l, e->o->max_tokens, progress_show, &p, err);
    local_engine_close(&l);
    return ok;
}

static bool judged(struct eval *e, struct judge *j, struct err *err) {
    e->judge_model = mem_strdup(judge_model(j));
    struct progress p = {"judged:", e->items.n};
    return eval_items_judge(&e->items, j, progress_show, &p, err);
}

static const char *base_of(const struct eval_options *o) { return o->base ? o->base : o->adapter ? o->model : NULL; }

static bool base_answers(struct eval *e, struct err *err) {
    struct eval_items base = {0};
    bool ok = answers_of(e, base_of(e->o), NULL, "base's answers:", &base, err);
    if (ok && base.n != e->items.n) ok = err_set(err, ERR_INVALID, "%s has changed meanwhile", e->o->data);
    for (size_t i = 0; ok && i < base.n; i++) {
        e->items.items[i].base = base.items[i].answer;
        base.items[i].answer = NULL;
    }
    eval_items_finish(&base);
    return ok;
}

static bool page_write(const char *path, void (*write)(const struct results_page *, struct buf *), const struct results_page *page, struct err *err) {
    struct buf out = {0};
    if (!path) return true;
    write(page, &out);
    const bool ok = file_write_atomic(path, out.data, out.len, 0644, err);
    buf_finish(&out);
    return ok;
}

static bool pages_write(const struct eval *e, struct err *err) {
    const struct eval_options *o = e->o;
    struct result_card *cards = mem_alloc(e->items.n, sizeof *cards);
    for (size_t i = 0; i < e->items.n; i++) {
        const struct eval_item *item = &e->items.items[i];
        cards[i] = (struct result_card){.row = item->number, .instruction = item->instruction, .input = item->input, .reference = item->reference,
                                        .prompt = item->read, .base = item->base, .answer = item->answer, .rouge_l = item->scores.rouge_l,
                                        .token_f1 = item->scores.token_f1, .exact = item->scores.exact_match > 0, .judge = item->judge};
    }
    char *model = path_stem(o->adapter ? o->adapter : o->model), *base = base_of(o) ? path_stem(base_of(o)) : NULL, *data = path_stem(o->data);
    struct results_page page = {.model = o->model_name ? o->model_name : model, .base = base && o->base_name ? o->base_name : base, .data = data,
                                .cards = cards, .n = e->items.n, .exact_match = e->means.exact_match, .token_f1 = e->means.token_f1,
                                .rouge_l = e->means.rouge_l, .judge = e->means.judge};
    for (size_t i = 0; page.base && i < e->items.n; i++) {
        const struct eval_item *item = &e->items.items[i];
        const struct text_scores s = text_scores(item->reference, strlen(item->reference), item->base, strlen(item->base));
        const double n = (double)e->items.n;
        page.before = (struct text_scores){.exact_match = page.before.exact_match + s.exact_match / n, .token_f1 = page.before.token_f1 + s.token_f1 / n,
                                           .rouge_l = page.before.rouge_l + s.rouge_l / n};
    }
    results_sort(&page);
    const bool ok = page_write(o->cards, results_json, &page, err) && page_write(o->html, results_html, &page, err);
    free(model);
    free(base);
    free(data);
    free(cards);
    return ok;
}

static bool answers(struct eval *e, struct err *err) {
    const struct eval_options *o = e->o;
    struct judge *j = NULL;
    if (o->judge && !(j = judge_create(o->judge, o->judge_model, getenv("OPENAI_API_KEY"), err))) return false; // before the long work
    bool ok = answers_of(e, o->model, o->adapter, "answers:", &e->items, err) && (!base_of(o) || base_answers(e, err));
    if (ok) eval_items_score(&e->items);
    ok = ok && (!j || judged(e, j, err));
    judge_destroy(j);
    if (!ok) return false;
    e->means = eval_items_means(&e->items);
    if (!pages_write(e, err)) return false;
    if (!o->answers) return true;
    struct buf json = {0};
    eval_items_json(&e->items, &json);
    ok = file_write_atomic(o->answers, json.data, json.len, 0644, err);
    buf_finish(&json);
    return ok;
}

// ---- the report ----

static double metric_value(const struct eval *e, enum metric m) {
    const struct loss_sums *s = &e->scores.sums;
    switch (m) {
    case METRIC_LOSS: return s->loss / (double)s->n_targets;
    case METRIC_PERPLEXITY: return exp(s->loss / (double)s->n_targets);
    case METRIC_BITS_PER_BYTE: return e->scores.bytes ? s->loss / M_LN2 / (double)e->scores.bytes : NAN;
    case METRIC_TOKEN_ACCURACY: return (double)s->n_correct / (double)s->n_targets;
    case METRIC_EXACT_MATCH: return e->means.exact_match;
    case METRIC_TOKEN_F1: return e->means.token_f1;
    case METRIC_ROUGE_L: return e->means.rouge_l;
    case METRICS: break;
    }
    return NAN;
}

static void report_json(const struct eval *e, struct buf *out) {
    const char *comma = "";
    buf_add_byte(out, '{');
    for (int m = 0; m < METRICS; m++) {
        if (!(e->metrics & 1u << m)) continue;
        buf_printf(out, "%s\"%s\":", comma, metric_names[m]);
        buf_add_json_number(out, metric_value(e, (enum metric)m));
        comma = ",";
    }
    if (e->metrics & LOSS_METRICS)
        buf_printf(out, ",\"examples\":%zu,\"tokens\":%zu,\"bytes\":%llu", e->n_examples, e->scores.sums.n_targets, (unsigned long long)e->scores.bytes);
    if (e->answering) buf_printf(out, "%s\"answers\":%zu", *comma ? "," : "", e->items.n);
    if (e->judge_model) {
        buf_add_str(out, ",\"judge\":");
        buf_add_json_number(out, e->means.judge);
        buf_printf(out, ",\"judged\":%zu,\"judge_model\":", e->means.n_judged);
        buf_add_json_string(out, e->judge_model, strlen(e->judge_model));
    }
    buf_add_str(out, "}\n");
}

static void report_text(const struct eval *e, struct buf *out) {
    for (int m = 0; m < METRICS; m++)
        if (e->metrics & 1u << m) buf_printf(out, "%-15s %.6g\n", metric_names[m], metric_value(e, (enum metric)m));
    if (e->judge_model) buf_printf(out, "%-15s %.4g of 100 (%s, %zu answers)\n", "judge", e->means.judge, e->judge_model, e->means.n_judged);
    if (e->metrics & LOSS_METRICS) buf_printf(out, "over %zu tokens of %zu examples\n", e->scores.sums.n_targets, e->n_examples);
}

static bool eval(const struct eval_options *o, struct err *err) {
    struct eval e = {.o = o};
    e.answering = o->answers || o->html || o->cards || o->judge;
    if (!o->metrics) e.metrics = e.answering ? LOSS_METRICS | ANSWER_METRICS : LOSS_METRICS;
    else if (!metrics_parse(o->metrics, &e.metrics, err)) return false;
    e.answering = e.answering || (e.metrics & ANSWER_METRICS);
    if (e.answering && train_data_is_text(o->data))
        return err_set(err, ERR_INVALID, "%s is a text: answers need rows with a question", o->data);
    gemm_start();
    struct pool *pool = pool_create(o->threads ? o->threads : pool_cpu_count(), err);
    bool ok = pool && losses(&e, pool, err);
    pool_destroy(pool);
    ok = ok && (!e.answering || answers(&e, err));
    struct buf out = {0};
    if (ok && o->json) report_json(&e, &out);
    else if (ok) report_text(&e, &out);
    fwrite(buf_str(&out), 1, out.len, stdout);
    ok = ok && (fflush(stdout) == 0 || err_set(err, ERR_IO, "cannot write the result"));
    buf_finish(&out);
    eval_items_finish(&e.items);
    free(e.rows);
    free(e.judge_model);
    return ok;
}

int cmd_eval(int argc, char **argv) {
    struct eval_options o = {.max_tokens = MAX_ANSWER_TOKENS, .train_on_inputs = "off", .excess = "error"};
    struct option_args args = {0};
    struct err err = {0};
    int status;
    const bool given = options_start(&command, argc, argv, &o, &args, &status);
    if (given && o.seed && !(o.validation_split > 0)) {
        err_set_param(&err, ERR_INVALID, "--seed", "--seed goes with --validation-split");
        status = options_fail(&command, &err);
    } else if (given) status = eval(&o, &err) ? 0 : options_fail(&command, &err);
    option_args_finish(&args);
    return status;
}
