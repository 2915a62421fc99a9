// SPDX-License-Identifier: MIT
// The table of `couplet train` and the rules between its options. An option that would have no effect is a mistake, not a silence.
#include "server/train_options.h"

#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROMPTS = 16 };

#define FIELD(name) offsetof(struct train_options, name)
static const struct option_spec specs[] = {
    {"--model", 0, OPTION_STRING, FIELD(model), "PATH", "model to train on: a directory, a .gguf file, a PEFT adapter's directory"},
    {"--init", 0, OPTION_STRING, FIELD(init), "CONFIG.json|PRESET",
     "from random weights instead: gpt2-nano, gpt2-mini, gpt2-124m, gpt2-355m, gpt2-774m, gpt2-1558m or a config.json"},
    {"--tokenizer", 0, OPTION_STRING, FIELD(tokenizer), "PATH", "with --init: directory with tokenizer.json, or vocab.json and merges.txt"},
    {"--data", 0, OPTION_STRING, FIELD(data), "FILE", "text (.txt, .md) or rows (.jsonl, .json with an array)", .required = true},
    {"--validation", 0, OPTION_STRING, FIELD(validation), "FILE", "held-out data, of the same kinds"},
    {"--validation-split", 0, OPTION_DOUBLE, FIELD(validation_split), "X", "or hold out this share of the data", .min = 1e-6, .max = 0.999999},
    {"--data-name", 0, OPTION_STRING, FIELD(data_name), "NAME", "read --data as if it had this name: its end says whether it is text or rows"},
    {"--validation-name", 0, OPTION_STRING, FIELD(validation_name), "NAME", "the same for --validation"},
    {"--out", 0, OPTION_STRING, FIELD(out), "DIR", "where the model or adapter, its checkpoints, log and report go (required)"},
    {"--method", 0, OPTION_STRING, FIELD(method_name), "NAME", "every weight; low-rank adapters; the last layers only", .choices = "full|lora|freeze"},
    {"--epochs", 0, OPTION_UINT64, FIELD(config.epochs), "N", "times through the data (3)", .min = 1, .max = 1e9},
    {"--steps", 0, OPTION_UINT64, FIELD(config.steps), "N", "or this many updates, however often round the data", .min = 1, .max = 1e12},
    {"--batch-size", 0, OPTION_SIZE, FIELD(config.batching.batch_size), "N", "rows a batch (8)", .min = 1, .max = 65536},
    {"--accumulate", 0, OPTION_SIZE, FIELD(config.batching.accumulate), "N", "batches an update (1)", .min = 1, .max = 65536},
    {"--context", 0, OPTION_SIZE, FIELD(context), "N", "tokens a row (the model's context; text: at most 1024)", .min = 1, .max = 1 << 24},
    {"--stride", 0, OPTION_SIZE, FIELD(stride), "N", "text: tokens from one row's beginning to the next one's (the context)", .min = 1, .max = 1 << 24},
    {"--optimizer", 0, OPTION_STRING, FIELD(optimizer_name), "NAME", "update rule", .choices = "adamw|sgd"},
    {"--lr", 0, OPTION_DOUBLE, FIELD(config.lr), "X", "learning rate (5e-5; lora 2e-4)", .min = 0, .max = 1000},
    {"--min-lr", 0, OPTION_DOUBLE, FIELD(config.min_lr), "X", "floor of the linear and cosine schedules (0)", .min = 0, .max = 1000},
    {"--schedule", 0, OPTION_STRING, FIELD(schedule_name), "NAME", "course of the learning rate", .choices = "constant|linear|cosine"},
    {"--warmup", 0, OPTION_UINT64, FIELD(config.warmup), "N", "updates over which the rate rises from 0 (0)", .min = 0, .max = 1e12},
    {"--warmup-ratio", 0, OPTION_DOUBLE, FIELD(warmup_ratio), "X", "or over this share of the run", .min = 0, .max = 1},
    {"--weight-decay", 0, OPTION_FLOAT, FIELD(config.optimizer.weight_decay), "X", "on parameters with two dimensions (0)", .min = 0, .max = 1000},
    {"--beta1", 0, OPTION_FLOAT, FIELD(config.optimizer.beta1), "X", "adamw (0.9)", .min = 0, .max = 0.999999},
    {"--beta2", 0, OPTION_FLOAT, FIELD(config.optimizer.beta2), "X", "adamw (0.999)", .min = 0, .max = 0.999999},
    {"--eps", 0, OPTION_FLOAT, FIELD(config.optimizer.eps), "X", "adamw (1e-8)", .min = 1e-30, .max = 1},
    {"--momentum", 0, OPTION_FLOAT, FIELD(momentum), "X", "sgd (0)", .min = 0, .max = 0.999999},
    {"--clip", 0, OPTION_FLOAT, FIELD(config.optimizer.clip), "X", "largest global norm of a gradient; 0: none (1)", .min = 0, .max = 1e9},
    {"--dropout", 0, OPTION_FLOAT, FIELD(config.dropout), "X", "embedding, attention and residual dropout (0, or CONFIG.json's)", .min = 0, .max = 0.99},
    {"--seed", 0, OPTION_UINT64, FIELD(config.seed), "N", "order, random weights and dropout follow from it (0)"},
    {"--shuffle", 0, OPTION_STRING, FIELD(shuffle), "on|off", "new order every epoch, or the file's", .choices = "on|off"},
    {"--train-on-inputs", 0, OPTION_STRING, FIELD(train_on_inputs), "on|off", "rows: learn the prompts too, not the answers alone", .choices = "on|off"},
    {"--packing", 0, OPTION_STRING, FIELD(packing), "on|off", "rows: several short examples in one row of --context tokens", .choices = "on|off"},
    {"--excess-length", 0, OPTION_STRING, FIELD(excess_name), "WHAT", "with an example over --context", .choices = "error|truncate|drop"},
    {"--lora-rank", 0, OPTION_SIZE, FIELD(lora_rank), "N", "rank of the adapters (8)", .min = 1, .max = 4096},
    {"--lora-alpha", 0, OPTION_FLOAT, FIELD(lora_alpha), "X", "they are scaled by alpha / rank (16)", .min = 1e-6, .max = 1e6},
    {"--lora-dropout", 0, OPTION_FLOAT, FIELD(config.dropout_lora), "X", "dropout on what goes into them (0)", .min = 0, .max = 0.99},
    {"--lora-targets", 0, OPTION_STRING, FIELD(lora_targets), "A,B", "layers that get one, by the checkpoint's names (every linear layer)"},
    {"--lora-init", 0, OPTION_STRING, FIELD(lora_init), "FILE.safetensors", "begin with these factors, under PEFT's names"},
    {"--freeze-layers", 0, OPTION_SIZE, FIELD(freeze_layers), "N", "freeze: the last N layers are trained (1)", .min = 1, .max = 1 << 16},
    {"--recompute", 0, OPTION_FLAG, FIELD(config.recompute), NULL, "keep less for the backward pass and compute it again: less memory, a third slower"},
    {"--eval-every", 0, OPTION_UINT64, FIELD(config.eval_every), "N", "updates from one evaluation to the next (an epoch)", .min = 1, .max = 1e12},
    {"--evals", 0, OPTION_UINT64, FIELD(evals), "N", "or this many, spread over the run", .min = 1, .max = 1e9},
    {"--early-stopping", 0, OPTION_SIZE, FIELD(config.early_stopping), "N",
     "end after N evaluations without a lower validation loss, and write the best weights instead of the last", .min = 1, .max = 1e6},
    {"--sample-prompt", 0, OPTION_LIST, FIELD(prompts), "TEXT", "continued greedily at every evaluation"},
    {"--sample-tokens", 0, OPTION_SIZE, FIELD(config.sample_tokens), "N", "by so many tokens (50)", .min = 1, .max = 1 << 16},
    {"--checkpoint-every", 0, OPTION_UINT64, FIELD(config.checkpoint_every), "N", "updates from one checkpoint to the next (with every evaluation)", .min = 1,
     .max = 1e12},
    {"--checkpoints", 0, OPTION_UINT64, FIELD(checkpoints), "N", "or this many, spread over the run", .min = 1, .max = 1e9},
    {"--keep", 0, OPTION_SIZE, FIELD(config.keep), "N", "checkpoints kept beside the best one (2)", .min = 1, .max = 1e6},
    {"--resume", 0, OPTION_FLAG, FIELD(config.resume), NULL, "go on from the newest checkpoint in --out; from the beginning where there is none"},
    {"--log", 0, OPTION_STRING, FIELD(log), "FILE.jsonl", "one JSON line an event (OUT/log.jsonl)"},
    {"--plot", 0, OPTION_STRING, FIELD(plot), "FILE.svg", "loss curve, drawn again at every evaluation"},
    {"--check-gradients", 0, OPTION_FLAG, FIELD(check_gradients), NULL, "compare the gradients of the first batch with finite differences; trains nothing"},
    {"--estimate", 0, OPTION_FLAG, FIELD(estimate), NULL, "say how long the run would take and how much memory, from a few updates of it; writes nothing"},
    {"--snapshots", 0, OPTION_FLAG, FIELD(snapshots), NULL, "at every checkpoint its weights too, as a model of their own in OUT/snapshots/step-N"},
    {"--live-every", 0, OPTION_DOUBLE, FIELD(live_every), "SECONDS", "lora: the newest adapter in OUT/live, this often", .min = 0.01, .max = 86400},
    {"--supervised", 0, OPTION_FLAG, FIELD(supervised), NULL, NULL},
    {"--threads", 0, OPTION_SIZE, FIELD(threads), "N", "threads (one a processor); the result does not depend on it", .min = 1, .max = 1024},
    {"--json", 0, OPTION_FLAG, FIELD(json), NULL, "the log's lines on stdout"},
};
#undef FIELD

const struct option_command train_command = {
    .name = "train",
    .synopsis = "(--model PATH | --init CONFIG.json|PRESET --tokenizer PATH) --data FILE --out DIR [OPTIONS]",
    .summary = "Trains a model on text or rows. DIR gets the model (lora: a PEFT adapter) with the last weights, report.md, log.jsonl and checkpoints/.\n"
               "SIGINT and SIGTERM write a checkpoint and end with status 1; --resume goes on to the same bits.",
    .options = specs,
    .n_options = ARRAY_LEN(specs),
};

// ---- rules between options ----

static bool named_as(const char *path, const char *a, const char *b) {
    const char *dot = strrchr(path, '.');
    return dot && (strcasecmp(dot, a) == 0 || strcasecmp(dot, b) == 0);
}
bool train_data_is_text(const char *path) { return named_as(path, ".txt", ".md"); }

// Of data: a file by another name (an upload) may be either.
static bool is_lora(const struct train_options *o) { return o->method == TRAIN_LORA; }
static bool is_freeze(const struct train_options *o) { return o->method == TRAIN_FREEZE; }
static bool is_adamw(const struct train_options *o) { return o->config.optimizer.kind == OPTIMIZER_ADAMW; }
static bool is_sgd(const struct train_options *o) { return o->config.optimizer.kind == OPTIMIZER_SGD; }
static bool is_falling(const struct train_options *o) { return o->config.schedule != SCHEDULE_CONSTANT; }
static bool is_init(const struct train_options *o) { return o->init; }
static bool has_model(const struct train_options *o) { return o->model; }
static bool has_no_model(const struct train_options *o) { return !o->model; }
static bool has_no_file(const struct train_options *o) { return !o->validation; }
static bool has_file(const struct train_options *o) { return o->validation; }
static bool has_validation(const struct train_options *o) { return o->validation || o->validation_split > 0; }
static bool has_no_steps(const struct train_options *o) { return !o->config.steps; }
static bool has_prompts(const struct train_options *o) { return o->prompts.n; }
static const char *data_name(const struct train_options *o) { return o->data_name ? o->data_name : o->data; }
static bool is_text(const struct train_options *o) { return !named_as(data_name(o), ".jsonl", ".json"); }
static bool is_rows(const struct train_options *o) { return !train_data_is_text(data_name(o)); }
static bool has_no_evals(const struct train_options *o) { return !o->evals; }
static bool has_no_checkpoints(const struct train_options *o) { return !o->checkpoints; }
static bool has_no_ratio(const struct train_options *o) { return !(o->warmup_ratio > 0); }

static const struct rule {
    const char *option;
    bool (*holds)(const struct train_options *o);
    const char *otherwise;
} rules[] = {
    {"--init", has_no_model, "excludes --model"},
    {"--tokenizer", is_init, "goes with --init: a model has its own"},
    {"--validation-split", has_no_file, "excludes --validation"},
    {"--validation-name", has_file, "goes with --validation"},
    {"--epochs", has_no_steps, "excludes --steps"},
    {"--eval-every", has_no_evals, "excludes --evals"},
    {"--checkpoint-every", has_no_checkpoints, "excludes --checkpoints"},
    {"--warmup", has_no_ratio, "excludes --warmup-ratio"},
    {"--lora-rank", is_lora, "goes with --method lora"},
    {"--lora-alpha", is_lora, "goes with --method lora"},
    {"--lora-dropout", is_lora, "goes with --method lora"},
    {"--lora-targets", is_lora, "goes with --method lora"},
    {"--lora-init", is_lora, "goes with --method lora"},
    {"--live-every", is_lora, "goes with --method lora"},
    {"--freeze-layers", is_freeze, "goes with --method freeze"},
    {"--beta1", is_adamw, "goes with --optimizer adamw"},
    {"--beta2", is_adamw, "goes with --optimizer adamw"},
    {"--eps", is_adamw, "goes with --optimizer adamw"},
    {"--momentum", is_sgd, "goes with --optimizer sgd"},
    {"--min-lr", is_falling, "goes with --schedule linear or cosine"},
    {"--early-stopping", has_validation, "needs --validation or --validation-split"},
    {"--sample-tokens", has_prompts, "goes with --sample-prompt"},
    {"--stride", is_text, "is for text (.txt, .md)"},
    {"--train-on-inputs", is_rows, "is for rows: a text is learned as a whole"},
    {"--packing", is_rows, "is for rows: the windows of a text are full"},
    {"--excess-length", is_rows, "is for rows: a text is cut into windows"},
};

static bool given(const struct option_args *a, const char *name) {
    for (size_t i = 0; i < ARRAY_LEN(specs); i++)
        if (strcmp(specs[i].name, name) == 0) return a->seen >> i & 1;
    abort(); // a rule names an option that the table lacks
}

static bool rules_check(const struct train_options *o, const struct option_args *a, struct err *err) {
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (given(a, rules[i].option) && !rules[i].holds(o))
            return err_set_param(err, ERR_INVALID, rules[i].option, "%s %s", rules[i].option, rules[i].otherwise);
    return true;
}

static bool numbers_check(const struct train_options *o, struct err *err) {
    const struct train_config *c = &o->config;
    if (o->context && o->stride > o->context)
        return err_set_param(err, ERR_INVALID, "--stride", "--stride %zu is over --context %zu: tokens would be skipped", o->stride, o->context);
    if (c->min_lr > c->lr) return err_set_param(err, ERR_INVALID, "--min-lr", "--min-lr %g is over --lr %g", c->min_lr, c->lr);
    if (c->steps && c->warmup > c->steps)
        return err_set_param(err, ERR_INVALID, "--warmup", "--warmup %llu is over --steps %llu", (unsigned long long)c->warmup,
                             (unsigned long long)c->steps);
    if (o->prompts.n > MAX_PROMPTS)
        return err_set_param(err, ERR_INVALID, "--sample-prompt", "--sample-prompt can be given at most %d times", MAX_PROMPTS);
    return true;
}

// "c_attn,c_proj" -> the list.
static bool targets_split(struct train_options *o, struct err *err) {
    if (!o->lora_targets) return true;
    for (char *at = o->target_text = mem_strdup(o->lora_targets); at;) {
        char *name = strsep(&at, ",");
        if (!*name) return err_set_param(err, ERR_INVALID, "--lora-targets", "--lora-targets has an empty name");
        mem_grow(&o->targets.items, &o->targets.cap, o->targets.n + 1);
        o->targets.items[o->targets.n++] = name;
    }
    return true;
}

static bool is_on(const char *value) { return strcmp(value, "on") == 0; }

// The names are among the table's choices.
static void names_resolve(struct train_options *o) {
    struct train_config *c = &o->config;
    o->method = strcmp(o->method_name, "lora") == 0 ? TRAIN_LORA : strcmp(o->method_name, "freeze") == 0 ? TRAIN_FREEZE : TRAIN_FULL;
    o->excess = strcmp(o->excess_name, "drop") == 0 ? EXCESS_DROP : strcmp(o->excess_name, "truncate") == 0 ? EXCESS_TRUNCATE : EXCESS_ERROR;
    c->schedule = strcmp(o->schedule_name, "cosine") == 0   ? SCHEDULE_COSINE
                  : strcmp(o->schedule_name, "linear") == 0 ? SCHEDULE_LINEAR
                                                            : SCHEDULE_CONSTANT;
    c->optimizer.kind = strcmp(o->optimizer_name, "sgd") == 0 ? OPTIMIZER_SGD : OPTIMIZER_ADAMW;
    if (is_sgd(o)) c->optimizer.beta1 = o->momentum;
    if (isnan(c->lr)) c->lr = is_lora(o) ? 2e-4 : 5e-5;
    c->batching.shuffle = is_on(o->shuffle);
    c->batching.packing = is_on(o->packing);
    c->batching.seed = c->seed;
    c->prompts = o->prompts.items;
    c->n_prompts = o->prompts.n;
}

static bool options_check(struct train_options *o, const struct option_args *a, struct err *err) {
    names_resolve(o);
    if (!o->model && !o->init) return err_set_param(err, ERR_INVALID, "--model", "--model or --init is required");
    if (!o->out && !o->check_gradients && !o->estimate) return err_set_param(err, ERR_INVALID, "--out", "--out is required");
    if (is_lora(o) && !has_model(o))
        return err_set_param(err, ERR_INVALID, "--method", "--method lora needs --model: an adapter to random weights fits nothing");
    return rules_check(o, a, err) && numbers_check(o, err) && targets_split(o, err);
}

bool train_options_start(struct train_options *o, int argc, char **argv, int *status) {
    *o = (struct train_options){
        .method_name = "full",
        .optimizer_name = "adamw",
        .schedule_name = "constant",
        .excess_name = "error",
        .shuffle = "on",
        .train_on_inputs = "off",
        .packing = "off",
        .lora_rank = 8,
        .lora_alpha = 16,
        .freeze_layers = 1,
        .config =
            {
                .epochs = 3,
                .batching = {.batch_size = 8, .accumulate = 1},
                .optimizer = {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .clip = 1},
                .lr = NAN,
                .dropout = NAN,
                .keep = 2,
                .sample_tokens = 50,
            },
    };
    struct option_args args = {0};
    struct err err = {0};
    bool ok = options_start(&train_command, argc, argv, o, &args, status);
    if (ok && !options_check(o, &args, &err)) {
        *status = options_fail(&train_command, &err);
        fputs("Try 'couplet train --help'.\n", stderr);
        ok = false;
    }
    option_args_finish(&args);
    return ok;
}

void train_options_finish(struct train_options *o) {
    free(o->target_text);
    option_list_finish(&o->targets);
    option_list_finish(&o->prompts);
}
