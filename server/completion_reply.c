// SPDX-License-Identifier: MIT
// The reply half of /v1/completions: OpenAI's text_completion object and its chunks. Loop thread.
#include "server/completions.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

static void add_comma(struct buf *b) {
    if (b->len) buf_add_byte(b, ',');
}

static void add_joined(struct buf *out, const char *head, const struct buf *items) {
    buf_add_str(out, head);
    buf_add(out, buf_str(items), items->len);
    buf_add_byte(out, ']');
}

struct top_key {
    size_t at, len; // in a buffer of names
    uint32_t id;
    float logprob;
};

// {"text": logprob, ...}: the best tokens and the chosen one. Two tokens may read the same: the likelier one's number stays, or a client
// that looks for the arg max would not find it. And, where asked for, their ids in the same order: [id, ...].
static void add_top(const struct generation *g, const struct token_record *t, struct buf *out, struct buf *ids) {
    bool with_ids = g->fields.return_token_ids;
    struct top_key keys[ENGINE_MAX_LOGPROBS + 1];
    struct buf names = {0};
    size_t n = 0;
    for (size_t i = 0; i <= t->n_top; i++) {
        bool chosen = i == t->n_top; // last: descending order for the rest
        uint32_t id = chosen ? t->id : t->top[i].id;
        struct top_key key = {.at = names.len, .id = id, .logprob = chosen ? t->logprob : t->top[i].logprob};
        token_text(g, id, "bytes:", &names);
        key.len = names.len - key.at;
        size_t same = 0;
        while (same < n && (keys[same].len != key.len ||
                            memcmp(buf_str(&names) + keys[same].at, buf_str(&names) + key.at, key.len) != 0))
            same++;
        if (same == n) keys[n++] = key;
        else if (key.logprob > keys[same].logprob) keys[same].id = id, keys[same].logprob = key.logprob;
    }
    buf_add_byte(out, '{');
    for (size_t i = 0; i < n; i++) {
        if (i) buf_add_byte(out, ',');
        buf_add_json_string(out, buf_str(&names) + keys[i].at, keys[i].len);
        buf_add_byte(out, ':');
        buf_add_json_float(out, keys[i].logprob);
    }
    buf_add_byte(out, '}');
    for (size_t i = 0; with_ids && i < n; i++) buf_printf(ids, "%c%u", i ? ',' : '[', keys[i].id);
    if (with_ids) buf_add_byte(ids, ']');
    buf_finish(&names);
}

static size_t token_offset(struct choice *c, const struct token_record *t, enum token_place place) {
    const struct generation *g = c->generation;
    if (place == TOKEN_OF_PROMPT) return c->prompt->char_offset ? c->prompt->char_offset[c->n_prompt_seen] : 0;
    size_t len = 0;
    const char *bytes = "";
    char plain[16];
    if (!g->tokenizer && place == TOKEN_OF_TEXT) {
        len = (size_t)snprintf(plain, sizeof plain, "<%u>", t->id);
        bytes = plain;
    }
    // Special tokens are not part of the text.
    if (g->tokenizer && t->id < tokenizer_size(g->tokenizer) && !tokenizer_is_special(g->tokenizer, t->id))
        bytes = tokenizer_bytes(g->tokenizer, t->id, &len);
    return char_counter_add(&c->chars, bytes, len);
}

static void add_token(struct choice *c, const struct token_record *t, enum token_place place) {
    bool of_prompt = place == TOKEN_OF_PROMPT;
    const struct generation *g = c->generation;
    if (!of_prompt && g->fields.return_token_ids) {
        add_comma(&c->token_ids);
        buf_printf(&c->token_ids, "%u", t->id);
    }
    if (!g->logprobs) return;
    struct buf text = {0};
    token_text(g, t->id, "bytes:", &text);
    add_comma(&c->tokens);
    buf_add_json_string(&c->tokens, buf_str(&text), text.len);
    buf_finish(&text);
    add_comma(&c->text_offset);
    buf_printf(&c->text_offset, "%zu", token_offset(c, t, place));
    add_comma(&c->token_logprobs);
    add_comma(&c->top_logprobs);
    if (g->fields.return_token_ids) add_comma(&c->top_token_ids), add_comma(&c->token_ranks);
    if (t->has_logprob) {
        buf_add_json_float(&c->token_logprobs, t->logprob);
        add_top(g, t, &c->top_logprobs, &c->top_token_ids);
        if (g->fields.return_token_ids) buf_printf(&c->token_ranks, "%u", t->rank);
    } else {
        buf_add_str(&c->token_logprobs, "null");
        buf_add_str(&c->top_logprobs, "null");
        if (g->fields.return_token_ids) buf_add_str(&c->top_token_ids, "null"), buf_add_str(&c->token_ranks, "null");
    }
    if (of_prompt) c->n_prompt_seen++;
}

// Appends the prompt's text up to code point `to`, from where the last call ended.
static void echo_prompt(struct choice *c, size_t to, struct buf *out) {
    const struct prompt *p = c->prompt;
    size_t from = c->echoed_bytes, at = from;
    if (to >= p->n_chars) at = p->text_len;
    for (uint32_t code_point; at < p->text_len && c->echoed_chars < to; c->echoed_chars++)
        at += utf8_decode(p->text + at, p->text_len - at, &code_point);
    buf_add(out, p->text + from, at - from);
    c->echoed_bytes = at;
}

static void write_logprobs(const struct choice *c, struct buf *out) {
    if (!c->generation->logprobs) {
        buf_add_str(out, ",\"logprobs\":null");
        return;
    }
    add_joined(out, ",\"logprobs\":{\"tokens\":[", &c->tokens);
    add_joined(out, ",\"token_logprobs\":[", &c->token_logprobs);
    add_joined(out, ",\"top_logprobs\":[", &c->top_logprobs);
    if (c->generation->fields.return_token_ids) {
        add_joined(out, ",\"top_token_ids\":[", &c->top_token_ids);
        add_joined(out, ",\"token_ranks\":[", &c->token_ranks);
    }
    add_joined(out, ",\"text_offset\":[", &c->text_offset);
    buf_add_byte(out, '}');
}

static void write_choice_object(const struct choice *c, const struct buf *text, size_t index, bool first, bool last,
                                struct buf *out) {
    buf_add_str(out, "{\"text\":");
    buf_add_json_string(out, buf_str(text), text->len);
    buf_printf(out, ",\"index\":%zu", index);
    write_logprobs(c, out);
    if (last) {
        buf_printf(out, ",\"finish_reason\":\"%s\"", finish_name(c));
        generation_write_stop_reason(c, out);
    } else {
        buf_add_str(out, ",\"finish_reason\":null");
    }
    if (c->generation->fields.return_token_ids) generation_write_token_ids(c, first, out);
    buf_add_byte(out, '}');
}

static void write_choice(struct choice *c, size_t index, struct buf *out) {
    struct buf text = {0};
    if (c->generation->echo) echo_prompt(c, SIZE_MAX, &text);
    buf_add(&text, buf_str(&c->text), c->text.len);
    write_choice_object(c, &text, index, true, true, out);
    buf_finish(&text);
}

static void send_chunks(struct choice *c, enum event_kind kind) {
    const struct prompt *p = c->prompt;
    struct buf text = {0}, json = {0};
    bool more_prompt = kind == EVENT_PROMPT && p->char_offset && c->n_prompt_seen < p->n_ids;
    if (c->generation->echo) echo_prompt(c, more_prompt ? p->char_offset[c->n_prompt_seen] : SIZE_MAX, &text);
    buf_add(&text, buf_str(&c->text), c->text.len);
    if (kind == EVENT_FINISH || text.len || c->tokens.len || c->token_ids.len) {
        write_choice_object(c, &text, c->index, !c->opened, kind == EVENT_FINISH, &json);
        generation_send_chunk(c->generation, &json);
        c->opened = true;
    }
    buf_finish(&text);
    buf_finish(&json);
    struct buf *sent[] = {&c->text,          &c->tokens,      &c->token_logprobs, &c->top_logprobs,
                          &c->top_token_ids, &c->token_ranks, &c->text_offset,    &c->token_ids};
    for (size_t i = 0; i < ARRAY_LEN(sent); i++) buf_clear(sent[i]);
}

const struct reply_format completion_format = {
    .id_prefix = "cmpl",
    .object = "text_completion",
    .chunk_object = "text_completion",
    .add_token = add_token,
    .write_choice = write_choice,
    .send_chunks = send_chunks,
};
