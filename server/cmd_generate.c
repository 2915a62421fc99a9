// SPDX-License-Identifier: MIT
// `couplet generate`: a prompt in, the model's continuation on stdout as it comes. One sequence, one thread that steps
// the engine.
#include "base/file.h"
#include "base/mem.h"
#include "tokenizer/chat_template.h"
#include "server/commands.h"
#include "server/local_engine.h"
#include "server/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MAX_PROMPT_BYTES ((size_t)16 << 20)
enum { DEFAULT_MAX_TOKENS = 128 };

struct generate_options {
    const char *model, *adapter, *weights;
    size_t max_tokens; // SIZE_MAX: not given
    size_t threads, top_k, min_tokens;
    float temperature, top_p, min_p, typical_p, repetition_penalty, presence_penalty, frequency_penalty;
    uint64_t seed;
    struct option_list stop;
    bool ignore_eos, chat, ids, json;
};

#define FIELD(name) offsetof(struct generate_options, name)
static const struct option_spec specs[] = {
    {"--model", 0, OPTION_STRING, FIELD(model), "PATH", "model directory or .gguf file", .required = true},
    {"--adapter", 0, OPTION_STRING, FIELD(adapter), "DIR", "LoRA adapter to merge into the model"},
    {"--max-tokens", 0, OPTION_SIZE, FIELD(max_tokens), "N",
     "at most so many new tokens (128, or what the context has left)"},
    {"--min-tokens", 0, OPTION_SIZE, FIELD(min_tokens), "N", "nothing ends the text before so many tokens (0)"},
    {"--temperature", 0, OPTION_FLOAT, FIELD(temperature), "X", "0 takes the likeliest token (1)", .max = 2},
    {"--top-k", 0, OPTION_SIZE, FIELD(top_k), "N", "draw from the N likeliest tokens (0: all)"},
    {"--top-p", 0, OPTION_FLOAT, FIELD(top_p), "X", "draw from the likeliest tokens that make up this share (1)",
     .max = 1},
    {"--min-p", 0, OPTION_FLOAT, FIELD(min_p), "X", "draw from tokens at least X times as likely as the likeliest (0)",
     .max = 1},
    {"--typical-p", 0, OPTION_FLOAT, FIELD(typical_p), "X",
     "draw from the most typical tokens that make up this share (1)", .max = 1},
    {"--repetition-penalty", 0, OPTION_FLOAT, FIELD(repetition_penalty), "X",
     "above 1: tokens already there become less likely (1)", .min = 0.01, .max = 100},
    {"--presence-penalty", 0, OPTION_FLOAT, FIELD(presence_penalty), "X",
     "off the logits of generated tokens, once (0)", .min = -2, .max = 2},
    {"--frequency-penalty", 0, OPTION_FLOAT, FIELD(frequency_penalty), "X",
     "off the logits of generated tokens, times their count (0)", .min = -2, .max = 2},
    {"--seed", 0, OPTION_UINT64, FIELD(seed), "N", "the same seed gives the same text (random)"},
    {"--stop", 0, OPTION_LIST, FIELD(stop), "TEXT", "end before this text"},
    {"--ignore-eos", 0, OPTION_FLAG, FIELD(ignore_eos), NULL, "go on past the model's end token"},
    {"--chat", 0, OPTION_FLAG, FIELD(chat), NULL, "send the prompt as a user's message in the model's chat template"},
    {"--ids", 0, OPTION_FLAG, FIELD(ids), NULL, "the prompt is token ids, as tokenize prints them"},
    {"--threads", 0, OPTION_SIZE, FIELD(threads), "N", "kernel threads (one a processor)", .min = 1, .max = 1024},
    {"--weights", 0, OPTION_STRING, FIELD(weights), "MODE", "precision in memory; auto keeps the file's",
     .choices = "auto|f32|q8"},
    {"--json", 0, OPTION_FLAG, FIELD(json), NULL, "one JSON object at the end instead of text"},
};

static const struct option_command command = {
    .name = "generate",
    .synopsis = "--model PATH [OPTIONS] [PROMPT|-]",
    .summary = "Continues a prompt (from the command line or, with - or none, from standard input).",
    .options = specs,
    .n_options = ARRAY_LEN(specs),
    .max_args = 1,
};

// ---- the prompt ----

static bool ids_parse(const char *text, size_t n_vocab, struct ids *out, struct err *err) {
    static const char separators[] = " \t\r\n,[]";
    for (text += strspn(text, separators); *text; text += strspn(text, separators)) {
        size_t len = strcspn(text, separators);
        char *end;
        unsigned long long id = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9' || end != text + len || id >= n_vocab)
            return err_set(err, ERR_INVALID, "'%.*s' is not a token id below %zu", (int)MIN(len, (size_t)40), text,
                           n_vocab);
        ids_add(out, (uint32_t)id);
        text = end;
    }
    return true;
}

static bool chat_encode(const struct tokenizer *t, const char *text, size_t len, struct ids *out, struct err *err) {
    const struct chat_template *chat = chat_template_recognise(tokenizer_chat_template(t));
    if (!chat) return err_set(err, ERR_UNSUPPORTED, "the model has no chat template that this program knows");
    struct chat_message message = {.role = ROLE_USER, .text = text, .len = len};
    chat_template_encode(chat, t, &message, 1, true, out);
    return true;
}

static bool prompt_read(const struct generate_options *o, const char *arg, struct model *m, struct ids *out,
                        struct err *err) {
    const struct tokenizer *t = model_tokenizer(m);
    size_t len = strlen(arg);
    char *file = strcmp(arg, "-") == 0 ? file_read("-", MAX_PROMPT_BYTES, &len, err) : NULL;
    if (strcmp(arg, "-") == 0 && !file) return false;
    const char *text = file ? file : arg;
    bool ok;
    if (o->ids)
        ok = ids_parse(text, model_config(m)->n_vocab, out, err) && (out->len || err_set(err, ERR_INVALID, "the prompt has no tokens"));
    else if (!t)
        ok = err_set_param(err, ERR_INVALID, "--ids", "the model has no tokenizer: give token ids, with --ids");
    else ok = o->chat ? chat_encode(t, text, len, out, err) : local_prompt_encode(t, text, len, out, err);
    free(file);
    return ok;
}

// ---- the answer ----

struct answer {
    const struct generate_options *options;
    const struct tokenizer *tokenizer; // NULL: ids are printed
    struct buf text;
    struct ids ids;
    struct engine_event end; // the last event; what its pointers led to is gone
    bool ended;
};

static bool answer_add(struct answer *a, const struct engine_event *e, struct err *err) {
    for (size_t i = 0; i < e->n_tokens; i++) ids_add(&a->ids, e->tokens[i].id);
    size_t from = a->text.len;
    if (a->tokenizer) buf_add(&a->text, e->text, e->text_len);
    for (size_t i = 0; !a->tokenizer && i < e->n_tokens; i++)
        buf_printf(&a->text, a->text.len ? " %u" : "%u", e->tokens[i].id);
    if (e->kind == EVENT_FINISH) {
        a->ended = true;
        a->end = *e;
    }
    if (a->options->json || a->text.len == from) return true;
    fwrite(a->text.data + from, 1, a->text.len - from, stdout);
    return fflush(stdout) == 0 || err_set(err, ERR_IO, "cannot write the text: %s", strerror(errno));
}

static bool answer_run(struct answer *a, struct engine *engine, struct err *err) {
    bool ok = true;
    while (ok && !a->ended) {
        bool worked = engine_step(engine);
        struct engine_event *e = engine_take_events(engine);
        if (!worked && !e) return err_set(err, ERR_NO_MEMORY, "the engine cannot go on");
        while (e) {
            struct engine_event *next = e->next;
            ok = ok && answer_add(a, e, err);
            engine_event_free(e);
            e = next;
        }
    }
    if (ok && a->end.finish == FINISH_ERROR)
        return err_set(err, ERR_CORRUPT, "the model computed a value that is not a number");
    return ok;
}

static void ids_write_json(const uint32_t *ids, size_t n, struct buf *out) {
    buf_add_byte(out, '[');
    for (size_t i = 0; i < n; i++) buf_printf(out, i ? ",%u" : "%u", ids[i]);
    buf_add_byte(out, ']');
}

static bool answer_print(const struct answer *a, struct model *m, const struct sequence_request *r, struct err *err) {
    struct buf out = {0};
    if (a->options->json) {
        const struct engine_event *e = &a->end;
        double decode_s = (double)e->decode_ns / 1e9;
        buf_add_str(&out, "{\"text\":");
        if (a->tokenizer) buf_add_json_string(&out, buf_str(&a->text), a->text.len);
        else buf_add_str(&out, "null");
        buf_add_str(&out, ",\"ids\":");
        ids_write_json(a->ids.data, a->ids.len, &out);
        buf_add_str(&out, ",\"prompt_ids\":");
        ids_write_json(r->prompt, r->n_prompt, &out);
        buf_printf(&out, ",\"finish_reason\":\"%s\",\"stop\":", e->finish == FINISH_STOP ? "stop" : "length");
        const char *stop = e->stopped_by_string ? a->options->stop.items[e->stop_index] : NULL;
        if (stop) buf_add_json_string(&out, stop, strlen(stop));
        else buf_add_str(&out, "null");
        buf_printf(
            &out,
            ",\"seed\":%llu,\"prompt_tokens\":%zu,\"completion_tokens\":%zu,\"prefill_ms\":%.3f,\"decode_ms\":%.3f",
            (unsigned long long)r->params.seed, e->n_prompt, e->n_generated, (double)e->prefill_ns / 1e6,
            decode_s * 1e3);
        buf_add_str(&out, ",\"decode_tokens_per_second\":");
        if (e->n_generated > 1 && decode_s > 0)
            buf_add_json_float(&out, (float)((double)(e->n_generated - 1) / decode_s));
        else buf_add_str(&out, "null");
        buf_printf(&out, ",\"weights\":\"%s\",\"fingerprint\":\"%s\"}", model_weights_name(m), model_fingerprint(m));
    }
    buf_add_byte(&out, '\n');
    fwrite(out.data, 1, out.len, stdout);
    buf_finish(&out);
    return fflush(stdout) == 0 || err_set(err, ERR_IO, "cannot write the text: %s", strerror(errno));
}

// ---- the command ----

// --max-tokens as given, or what fits.
static bool max_tokens_fit(const struct generate_options *o, size_t n_prompt, size_t n_ctx, size_t *out,
                           struct err *err) {
    if (n_prompt >= n_ctx)
        return err_set(err, ERR_TOO_LARGE, "the prompt has %zu tokens, the model's context %zu", n_prompt, n_ctx);
    size_t room = n_ctx - n_prompt;
    bool given = o->max_tokens != SIZE_MAX;
    if (given && o->max_tokens > room)
        return err_set_param(err, ERR_INVALID, "--max-tokens",
                             "--max-tokens %zu is over the %zu that the context of %zu has left", o->max_tokens, room,
                             n_ctx);
    *out = given ? o->max_tokens : MIN((size_t)DEFAULT_MAX_TOKENS, room);
    return true;
}

static bool stops_set(const struct generate_options *o, struct stop_string *stops, struct err *err) {
    if (o->stop.n > ENGINE_MAX_STOPS)
        return err_set_param(err, ERR_INVALID, "--stop", "--stop can be given at most %d times", ENGINE_MAX_STOPS);
    for (size_t i = 0; i < o->stop.n; i++) {
        stops[i] = (struct stop_string){.bytes = o->stop.items[i], .len = strlen(o->stop.items[i])};
        if (stops[i].len < 1 || stops[i].len > ENGINE_MAX_STOP_BYTES)
            return err_set_param(err, ERR_INVALID, "--stop", "--stop takes a text of 1 to %d bytes",
                                 ENGINE_MAX_STOP_BYTES);
    }
    return true;
}

static bool generate(const struct generate_options *o, const char *arg, const struct stop_string *stops,
                     struct err *err) {
    struct local_engine l;
    struct ids prompt = {0};
    if (!local_engine_open(&l, o->model, o->adapter, o->weights, o->threads, 1, 0, err)) return false;
    struct sequence_request r = {.id = 1, .group = 1, .model = l.model};
    r.params = (struct sampling_params){
        .temperature = o->temperature,
        .top_k = o->top_k,
        .top_p = o->top_p,
        .min_p = o->min_p,
        .typical_p = o->typical_p,
        .repetition_penalty = o->repetition_penalty,
        .presence_penalty = o->presence_penalty,
        .frequency_penalty = o->frequency_penalty,
        .seed = o->seed,
        .min_tokens = o->min_tokens,
        .ignore_eos = o->ignore_eos,
        .stops = stops,
        .n_stops = o->stop.n,
        .n_logprobs = -1,
    };
    struct answer a = {.options = o, .tokenizer = model_tokenizer(l.model)};
    bool ok = prompt_read(o, arg, l.model, &prompt, err) &&
              max_tokens_fit(o, prompt.len, model_config(l.model)->n_ctx, &r.params.max_tokens, err);
    r.prompt = prompt.data;
    r.n_prompt = prompt.len;
    ok = ok && engine_submit(l.engine, &r, 1, err) && answer_run(&a, l.engine, err) &&
         answer_print(&a, l.model, &r, err);
    buf_finish(&a.text);
    ids_finish(&a.ids);
    ids_finish(&prompt);
    local_engine_close(&l);
    return ok;
}

int cmd_generate(int argc, char **argv) {
    struct generate_options o = {.weights = "auto",
                                 .max_tokens = SIZE_MAX,
                                 .temperature = 1,
                                 .top_p = 1,
                                 .typical_p = 1,
                                 .repetition_penalty = 1};
    struct option_args args = {0};
    struct stop_string stops[ENGINE_MAX_STOPS];
    struct err err = {0};
    int status;
    if (getrandom(&o.seed, sizeof o.seed, 0) != sizeof o.seed) abort(); // cannot happen for 8 bytes
    o.seed >>= 11;                                                      // a seed that every JSON reader keeps
    if (options_start(&command, argc, argv, &o, &args, &status)) {
        const char *arg = args.positional.n ? args.positional.items[0] : "-";
        bool ok = stops_set(&o, stops, &err) && generate(&o, arg, stops, &err);
        status = ok ? 0 : options_fail(&command, &err);
    }
    option_list_finish(&o.stop);
    option_args_finish(&args);
    return status;
}
