// SPDX-License-Identifier: MIT
// One HTTP request's generation: prompts x choices as engine sequences, from submission to the last byte of the answer. /v1/completions
// and /v1/chat/completions differ in their reply_format alone.
//
// A generation lies in its request's arena. It is filled by route->work (pool); from generation_start on everything happens on the
// loop thread, but for putting together a large reply (pool again). Results are kept as finished JSON text, so that an answer of any
// size costs one pass.
#pragma once

#include "server/sampling_fields.h"
#include "server/server.h"

// A prompt; everything in the request's arena.
struct prompt {
    const uint32_t *ids;
    size_t n_ids;
    size_t max_tokens; // to generate after it
    const char *text;  // as echoed: the client's string, or what its ids say; invalid UTF-8 already replaced
    size_t text_len;
    size_t n_chars; // code points of text
    const uint32_t
        *char_offset; // per id: index of the code point that holds the token's first byte; NULL when not needed
    const char *ids_json; // the ids as JSON list items, where return_token_ids asks for them
    size_t ids_json_len;
};

// Where the next token's first byte lies, in code points.
struct char_counter {
    size_t whole;  // characters complete so far
    size_t n_held; // bytes of an unfinished one
    char held[4];
};
// Counts `bytes` and returns the index of the character that its first byte belongs to.
size_t char_counter_add(struct char_counter *c, const char *bytes, size_t len);

struct generation;

struct choice {
    struct generation *generation;
    const struct prompt *prompt;
    size_t index;                      // prompt number * per_prompt + k
    uint64_t sequence;                 // engine id
    bool live, finished;               // live: submitted, EVENT_FINISH not yet seen
    bool opened;                       // streaming: the first chunk was sent
    size_t echoed_bytes, echoed_chars; // streaming: of the prompt's text
    struct char_counter chars;
    size_t n_prompt_seen; // prompt records so far
    double logprob_sum;   // over generated tokens
    size_t n_logprob;
    // Since the last chunk (streaming) or the start; JSON list items without brackets, but for text
    struct buf text, tokens, token_logprobs, top_logprobs, top_token_ids, token_ranks, text_offset, content, token_ids;
    enum finish_reason finish;
    bool has_stop_reason;
    size_t stop_index;
    bool stopped_by_string;
    uint32_t stop_id;
    uint64_t last_token_ns; // when the last one came out; 0: none yet
};

// TOKEN_END: the eos or stop id that ended the text; it has no text of its own.
enum token_place { TOKEN_OF_PROMPT, TOKEN_OF_TEXT, TOKEN_END };

struct reply_format {
    const char *id_prefix, *object, *chunk_object;
    // Adds a token to the choice's lists.
    void (*add_token)(struct choice *c, const struct token_record *t, enum token_place place);
    // Writes the choice's object of a whole reply.
    void (*write_choice)(struct choice *c, size_t index, struct buf *out);
    // What was added since the last call, as the stream's next chunks: each through generation_send_chunk. After every event; the prompt's
    // events come here only with params.prompt_logprobs.
    void (*send_chunks)(struct choice *c, enum event_kind kind);
};

struct generation {
    struct http_request *request;
    const struct reply_format *format;
    struct model *model;               // one reference
    const struct tokenizer *tokenizer; // NULL: token texts read <123>
    const char *model_id;
    const char *ignored; // fields that were ignored, or NULL
    char id[40];
    int64_t created_s;
    struct sampling_fields fields;
    struct sampling_params params; // seed is set per choice, max_tokens per prompt
    struct prompt *prompts;
    size_t n_prompts;
    size_t n, best_of;                                      // per prompt: answered, generated
    bool echo;                                              // the prompt is part of the answer
    bool logprobs;                                          // shown to the client
    size_t prompt_tokens, completion_tokens, cached_tokens; // counted at each EVENT_FINISH
    struct choice *choices;                                 // n_prompts * best_of
    size_t n_choices, n_live;
    bool streaming, over; // over: answered, nothing may follow
    struct buf reply;     // the whole answer, while it is being written
};

// From work: looks the model up (400, 404, 503, or r->cold), sets model, tokenizer, fields, request. Takes a model reference.
bool generation_init(struct generation *g, struct http_request *r, const struct sampling_fields *f,
                     const struct reply_format *format) MUST_CHECK;
// From work, last: prompts, params, n, best_of are set; checks the totals and makes the choices.
bool generation_prepare(struct generation *g) MUST_CHECK;
// Checks a prompt's length against the context and sets p->max_tokens; max_tokens FIELD_ABSENT: the rest, but at most absent_max.
bool generation_check_length(struct generation *g, const char *param, struct prompt *p, int64_t max_tokens,
                             size_t absent_max) MUST_CHECK;

// route->work: parses the body and has `read` fill the generation (generation_init .. generation_prepare).
bool generation_work(struct http_request *r, bool (*read)(struct http_request *, const json_t *, struct generation *)) MUST_CHECK;
void generation_start(struct http_request *r); // route->start; r->state is the generation
void generation_end(struct http_request *r);   // route->end

// Shared by the formats.
const char *finish_name(const struct choice *c); // "stop" | "length"
void generation_send_chunk(struct generation *g, const struct buf *choice_json);
void generation_write_stop_reason(const struct choice *c, struct buf *out); // ,"stop_reason":...
void generation_write_token_ids(const struct choice *c, bool with_prompt,
                                struct buf *out); // ,"prompt_token_ids":[...],"token_ids":[...]
// A token as text: its bytes if they are whole UTF-8, escaped as `\xe2\x80` behind `prefix` if not, `<123>` without a tokenizer.
void token_text(const struct generation *g, uint32_t id, const char *prefix, struct buf *out);
