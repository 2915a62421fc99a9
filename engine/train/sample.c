// SPDX-License-Identifier: MIT
// Greedy continuations of the fixed sample prompts, all of them in one ragged batch a token (as many as fit the network's rows). Without a cache:
// the training network computes every prompt again for every token, which a few short samples an evaluation are worth less than a second
// forward pass in the program. Thread: the trainer's.
#include "engine/train/trainer_internal.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static size_t sample_room(const struct trainer *t, const struct ids *prompt) {
    return MIN(prompt->len + t->config->sample_tokens, t->optimizer.params->config.n_ctx);
}

// BOS as serving puts it before a text; an empty prompt needs a first token, too.
static void prompt_encode(const struct tokenizer *k, const char *text, struct ids *out) {
    const int64_t bos = tokenizer_bos(k), eos = tokenizer_eos(k), first = bos >= 0 ? bos : eos;
    if (bos >= 0 && tokenizer_add_bos(k)) ids_add(out, (uint32_t)bos);
    tokenizer_encode(k, text, strlen(text), true, out);
    if (out->len == 0 && first >= 0) ids_add(out, (uint32_t)first);
}

bool samples_init(struct trainer *t, const struct model_config *c, struct err *err) {
    if (!t->tokenizer || t->config->n_prompts == 0) return true;
    t->prompts = mem_alloc(t->config->n_prompts, sizeof(*t->prompts));
    for (size_t i = 0; i < t->config->n_prompts; i++) {
        struct ids *ids = &t->prompts[i];
        prompt_encode(t->tokenizer, t->config->prompts[i], ids);
        for (size_t k = 0; k < ids->len; k++)
            if (ids->data[k] >= c->n_vocab)
                return err_set_param(err, ERR_INVALID, "sample_prompts", "sample prompt %zu holds a token that the model lacks", i + 1);
        if (ids->len == 0 || ids->len > c->n_ctx)
            return err_set_param(err, ERR_INVALID, "sample_prompts", "sample prompt %zu has %zu tokens; 1 to %zu fit the model", i + 1, ids->len, c->n_ctx);
        const size_t room = MIN(ids->len + t->config->sample_tokens, c->n_ctx);
        t->max_rows = MAX(t->max_rows, room);
        t->max_segment = MAX(t->max_segment, room);
    }
    return true;
}

void samples_finish(struct trainer *t) {
    for (size_t i = 0; t->prompts && i < t->config->n_prompts; i++) ids_finish(&t->prompts[i]);
    free(t->prompts);
}

struct sample { // one prompt being continued
    struct ids ids;
    size_t n_prompt, room;
    bool done;
};

struct sample_scratch {
    uint32_t *ids, *starts, *wanted; // [max_rows], [n + 1], [n]
    int32_t *targets;                // [max_rows]
    float *logits;                   // [n][V]
};

// One token more for every sample that is not done; returns how many were not.
static size_t samples_step(struct trainer *t, struct sample *samples, size_t n, struct sample_scratch *s) {
    const size_t n_vocab = t->optimizer.params->config.n_vocab, n_known = MIN(n_vocab, tokenizer_size(t->tokenizer));
    struct batch b = {.ids = s->ids, .targets = s->targets, .starts = s->starts};
    for (size_t i = 0; i < n; i++) {
        if (samples[i].done) continue;
        s->starts[b.n_segments] = (uint32_t)b.n_rows;
        memcpy(s->ids + b.n_rows, samples[i].ids.data, samples[i].ids.len * sizeof(*s->ids));
        b.n_rows += samples[i].ids.len;
        s->wanted[b.n_segments++] = (uint32_t)b.n_rows - 1;
    }
    if (b.n_segments == 0) return 0;
    assert(b.n_rows <= t->max_rows);
    s->starts[b.n_segments] = (uint32_t)b.n_rows;
    network_logits(t->network, &b, s->wanted, b.n_segments, s->logits);
    const float *row = s->logits; // [V]
    for (size_t i = 0; i < n; i++) {
        struct sample *x = &samples[i];
        if (x->done) continue;
        uint32_t best = 0;
        for (uint32_t id = 1; id < n_known; id++)
            if (row[id] > row[best]) best = id;
        row += n_vocab;
        const bool stop = tokenizer_is_stop(t->tokenizer, best);
        if (!stop) ids_add(&x->ids, best);
        x->done = stop || x->ids.len == x->room;
    }
    return b.n_segments;
}

static bool group_emit(struct trainer *t, size_t first, size_t n, struct sample_scratch *s, struct err *err) {
    struct sample *samples = mem_alloc(n, sizeof(*samples));
    for (size_t i = 0; i < n; i++) {
        const struct ids *prompt = &t->prompts[first + i];
        samples[i] = (struct sample){.n_prompt = prompt->len, .room = sample_room(t, prompt)};
        for (size_t k = 0; k < prompt->len; k++) ids_add(&samples[i].ids, prompt->data[k]);
        samples[i].done = samples[i].n_prompt == samples[i].room;
    }
    while (samples_step(t, samples, n, s) > 0) continue;
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        struct buf text = {0};
        const struct ids *ids = &samples[i].ids;
        ok = ok && tokenizer_decode(t->tokenizer, ids->data + samples[i].n_prompt, ids->len - samples[i].n_prompt, false, &text, err);
        if (ok) trainer_emit(t, (struct train_event){.kind = TRAIN_SAMPLE, .prompt = t->config->prompts[first + i], .text = buf_str(&text)});
        buf_finish(&text);
        ids_finish(&samples[i].ids);
    }
    free(samples);
    return ok;
}

bool samples_emit(struct trainer *t, struct err *err) {
    const size_t n = t->prompts ? t->config->n_prompts : 0;
    if (n == 0) return true;
    struct sample_scratch s = {
        .ids = mem_alloc(t->max_rows, sizeof(*s.ids)),
        .targets = mem_alloc(t->max_rows, sizeof(*s.targets)),
        .starts = mem_alloc(n + 1, sizeof(*s.starts)),
        .wanted = mem_alloc(n, sizeof(*s.wanted)),
        .logits = mem_try_alloc(n, t->optimizer.params->config.n_vocab * sizeof(float), "the samples' logits", err),
    };
    for (size_t i = 0; i < t->max_rows; i++) s.targets[i] = TARGET_IGNORED;
    bool ok = s.logits != NULL;
    for (size_t first = 0, end; ok && first < n; first = end) {
        size_t rows = 0;
        for (end = first; end < n && rows + sample_room(t, &t->prompts[end]) <= t->max_rows; end++) rows += sample_room(t, &t->prompts[end]);
        ok = group_emit(t, first, end - first, &s, err);
    }
    free(s.ids);
    free(s.targets);
    free(s.starts);
    free(s.wanted);
    free(s.logits);
    return ok;
}
