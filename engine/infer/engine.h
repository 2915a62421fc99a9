// SPDX-License-Identifier: MIT
// The engine as the rest of the program sees it: sequences in, events out. Callers never see tensors, blocks or rows.
//
// Thread: one engine thread owns scheduler, caches and forward (or the caller itself, through engine_step, as `generate` and `eval` do). Two
// crossings, one mutex each: the mailbox in (engine_submit, engine_cancel: any thread) and the event list out (engine_take_events: one thread).
//
// A sequence's tokens and logprobs are a function of (weights, kernels, prompt, params) alone: not of what else runs, of chunking,
// cache hits, or thread count.
#pragma once

#include "engine/infer/model.h"

enum { ENGINE_MAX_LOGPROBS = 20, ENGINE_MAX_STOPS = 16, ENGINE_MAX_STOP_BYTES = 256 };

struct logit_bias {
    uint32_t id;
    float bias;
};
struct stop_string {
    const char *bytes;
    size_t len; // 1..ENGINE_MAX_STOP_BYTES
};

// Every field is already validated by the caller: ids below n_vocab, finite floats, n_prompt >= 1,
// n_prompt + max_tokens <= n_ctx. engine_submit asserts it.
struct sampling_params {
    size_t max_tokens;  // 0: the prompt is only scored
    float temperature;  // 0: greedy, ties to the lowest id
    size_t top_k;       // 0: off
    float top_p;        // 1: off
    float min_p;        // 0: off
    float typical_p;    // 1: off
    float repetition_penalty;                  // 1: off; over prompt and generated tokens
    float presence_penalty, frequency_penalty; // 0: off; over generated tokens
    uint64_t seed;
    size_t min_tokens; // no stop id, eos or stop string ends the text before this many tokens
    bool ignore_eos;   // the model's own stop ids do not stop
    const struct logit_bias *logit_bias;
    size_t n_logit_bias;
    const uint32_t *stop_ids; // besides the tokenizer's own
    size_t n_stop_ids;
    const struct stop_string *stops; // never part of the text
    size_t n_stops;
    int n_logprobs;       // -1: none; 0..20: the chosen token's, and that many best
    bool prompt_logprobs; // also for the prompt's tokens (EVENT_PROMPT), with n_logprobs >= 0
    bool ranks;           // with each logprob the token's rank
};

struct sequence_request {
    uint64_t id;          // unique among live ones, chosen by the caller
    uint64_t group;       // sequences of one HTTP request share it: equal prompts are computed once
    struct model *model;  // one that engine_add_model got, or an adapted one over it; acquired until the sequence's end
    const uint32_t *prompt;
    size_t n_prompt;
    struct sampling_params params;
};

// logprobs are of the model's own distribution: log softmax of the raw logits, before bias, penalties and temperature.
struct top_logprob {
    uint32_t id;
    float logprob;
};
struct token_record {
    uint32_t id;
    bool has_logprob; // false for a prompt's first token and where none were asked for
    float logprob;
    uint32_t rank;           // in the whole vocabulary, ordered as top is: 1 for the arg max; 0 where none was asked for
    uint32_t n_top;          // the n_logprobs best, descending, ties by id; always holds the arg max when n_logprobs >= 1
    struct top_logprob *top; // inside the event's block
};

enum event_kind {
    EVENT_PROMPT, // records of prompt tokens, in order, several events a prompt
    EVENT_TOKENS, // released tokens and text
    EVENT_FINISH, // the last event of a sequence, exactly one; may carry released tokens and text as well
};
enum finish_reason { FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED, FINISH_ERROR };

struct engine_event {
    struct engine_event *next;
    uint64_t id;
    enum event_kind kind;
    size_t n_tokens;
    struct token_record *tokens;
    // Whole UTF-8 characters. Text that might become part of a stop string is held back, and the tokens with it: a
    // token is released with the text that its first byte belongs to. NULL tokenizer: always empty.
    const char *text;
    size_t text_len;
    // EVENT_FINISH. An eos or stop id that ended the text is the last of tokens (scoring clients count on its logprob), without text.
    enum finish_reason finish;
    bool stopped_by_id, stopped_by_string; // at most one; neither for the model's own stop ids
    uint32_t stop_id;
    size_t stop_index; // into params.stops
    size_t n_prompt, n_cached, n_generated; // tokens: prompt, of these taken from the prefix cache, generated (stop token included)
    uint64_t queued_ns, prefill_ns, decode_ns; // wall time in each phase
};
void engine_event_free(struct engine_event *e); // one event, not the list

struct engine;

struct engine_config {
    struct pool *pool;   // kernel threads; borrowed, used by the engine thread alone once started; may be NULL
    size_t max_running;  // sequences in a step (32)
    size_t max_waiting;  // sequences queued (256)
    size_t step_rows;    // rows of one forward: bounds the time between two tokens of a stream while prompts are read (256)
    void (*wake)(void *ctx); // called on the engine thread after events were added, without a lock; may be NULL
    void *wake_ctx;
};

struct engine *engine_create(const struct engine_config *config, struct err *err) MUST_CHECK;
void engine_destroy(struct engine *e); // stops the thread; accepts NULL; every event not taken is freed
// Any thread, at any time. Takes a reference. kv_bytes: the most memory its KV cache may grow to; committed as it is used. ERR_INVALID: it is
// there already. A model with an adapter needs none of this: engine_submit finds its base.
bool engine_add_model(struct engine *e, struct model *m, size_t kv_bytes, struct err *err) MUST_CHECK;
// Any thread; does not wait. No new sequences of m or of an adapter over it; its memory and its reference go when its last sequence has
// ended. Of a model that is not there, or one with an adapter: nothing happens.
void engine_remove_model(struct engine *e, struct model *m);
bool engine_start(struct engine *e, struct err *err) MUST_CHECK; // the engine thread

// All n sequences or none. Copies everything. ERR_BUSY: the queue is full (nothing was taken). ERR_TOO_LARGE: a prompt can never fit in the KV cache.
// ERR_NOT_FOUND: the model is not there (any more). Sequences of a base and of any of its adapters are decoded in one batch.
bool engine_submit(struct engine *e, const struct sequence_request *requests, size_t n, struct err *err) MUST_CHECK;
// The sequence's slot and blocks are free within one step; its EVENT_FINISH (FINISH_CANCELLED) follows. Unknown ids are ignored.
void engine_cancel(struct engine *e, uint64_t id);
// Takes every event so far, oldest first; NULL when there is none.
struct engine_event *engine_take_events(struct engine *e);

// Without engine_start: does one step on the calling thread; false when there is nothing to do.
bool engine_step(struct engine *e);

struct engine_stats {
    size_t running, waiting; // sequences
    size_t kv_blocks_used, kv_blocks_total, kv_bytes_committed;
    uint64_t steps, rows, prompt_tokens, cached_tokens, generated_tokens, preemptions;
    uint64_t prefix_queries, prefix_hits; // in tokens
    uint64_t busy_ns; // time inside steps
};
void engine_stats(struct engine *e, struct engine_stats *out); // any thread
