// SPDX-License-Identifier: MIT
// The reply half of /v1/chat/completions: OpenAI's chat.completion object and its chunks. Loop thread.
#include "server/chat.h"

#include "base/mem.h"

// {"token":...,"logprob":...,"bytes":[...], and "id" where ids are asked for, without the closing brace.
static void add_entry(const struct generation *g, uint32_t id, float logprob, struct buf *out) {
    struct buf text = {0};
    token_text(g, id, "", &text);
    buf_add_str(out, "{\"token\":");
    buf_add_json_string(out, buf_str(&text), text.len);
    buf_add_str(out, ",\"logprob\":");
    buf_add_json_float(out, logprob);
    if (g->tokenizer && id < tokenizer_size(g->tokenizer)) {
        size_t len;
        const char *bytes = tokenizer_bytes(g->tokenizer, id, &len);
        buf_add_str(out, ",\"bytes\":[");
        for (size_t i = 0; i < len; i++) buf_printf(out, i ? ",%u" : "%u", (unsigned char)bytes[i]);
        buf_add_byte(out, ']');
    } else {
        buf_add_str(out, ",\"bytes\":null");
    }
    if (g->fields.return_token_ids) buf_printf(out, ",\"id\":%u", id);
    buf_finish(&text);
}

static void add_token(struct choice *c, const struct token_record *t, enum token_place place) {
    const struct generation *g = c->generation;
    if (place == TOKEN_OF_PROMPT) return; // never asked for
    if (g->fields.return_token_ids) {
        if (c->token_ids.len) buf_add_byte(&c->token_ids, ',');
        buf_printf(&c->token_ids, "%u", t->id);
    }
    // OpenAI's list joins to the message: no end token (completions do have it: scoring needs its number).
    if (!g->logprobs || place == TOKEN_END) return;
    if (c->content.len) buf_add_byte(&c->content, ',');
    add_entry(g, t->id, t->logprob, &c->content);
    if (g->fields.return_token_ids) buf_printf(&c->content, ",\"rank\":%u", t->rank);
    buf_add_str(&c->content, ",\"top_logprobs\":[");
    for (size_t i = 0; i < t->n_top; i++) {
        if (i) buf_add_byte(&c->content, ',');
        add_entry(g, t->top[i].id, t->top[i].logprob, &c->content);
        buf_add_byte(&c->content, '}');
    }
    buf_add_str(&c->content, "]}");
}

static void write_logprobs(const struct choice *c, struct buf *out) {
    if (!c->generation->logprobs) {
        buf_add_str(out, ",\"logprobs\":null");
        return;
    }
    buf_add_str(out, ",\"logprobs\":{\"content\":[");
    buf_add(out, buf_str(&c->content), c->content.len);
    buf_add_str(out, "],\"refusal\":null}");
}

static void write_choice(struct choice *c, size_t index, struct buf *out) {
    buf_printf(out, "{\"index\":%zu,\"message\":{\"role\":\"assistant\",\"content\":", index);
    buf_add_json_string(out, buf_str(&c->text), c->text.len);
    buf_add_str(out, ",\"refusal\":null}");
    write_logprobs(c, out);
    buf_printf(out, ",\"finish_reason\":\"%s\"", finish_name(c));
    generation_write_stop_reason(c, out);
    if (c->generation->fields.return_token_ids) generation_write_token_ids(c, true, out);
    buf_add_byte(out, '}');
}

enum part { PART_ROLE, PART_CONTENT, PART_END };

static void send_chunk(struct choice *c, enum part part) {
    const struct generation *g = c->generation;
    struct buf json = {0};
    buf_printf(&json, "{\"index\":%zu,\"delta\":{", c->index);
    if (part == PART_ROLE) buf_add_str(&json, "\"role\":\"assistant\",\"content\":\"\"");
    if (part == PART_CONTENT) {
        buf_add_str(&json, "\"content\":");
        buf_add_json_string(&json, buf_str(&c->text), c->text.len);
    }
    buf_add_byte(&json, '}');
    if (part == PART_CONTENT) write_logprobs(c, &json);
    else buf_add_str(&json, ",\"logprobs\":null");
    if (part == PART_END) {
        buf_printf(&json, ",\"finish_reason\":\"%s\"", finish_name(c));
        generation_write_stop_reason(c, &json);
    } else {
        buf_add_str(&json, ",\"finish_reason\":null");
    }
    if (g->fields.return_token_ids && part == PART_ROLE) generation_write_token_ids(c, true, &json);
    if (g->fields.return_token_ids && part == PART_CONTENT) generation_write_token_ids(c, false, &json);
    buf_add_byte(&json, '}');
    generation_send_chunk(c->generation, &json);
    buf_finish(&json);
}

static void send_chunks(struct choice *c, enum event_kind kind) {
    struct buf *sent[] = {&c->text, &c->content, &c->token_ids};
    if (!c->opened) { // the role alone first: what follows has nothing but its news
        struct buf ids = c->token_ids;
        c->token_ids = (struct buf){0};
        send_chunk(c, PART_ROLE);
        c->token_ids = ids;
        c->opened = true;
    }
    if (c->text.len || c->content.len || c->token_ids.len) send_chunk(c, PART_CONTENT);
    if (kind == EVENT_FINISH) send_chunk(c, PART_END);
    for (size_t i = 0; i < ARRAY_LEN(sent); i++) buf_clear(sent[i]);
}

const struct reply_format chat_format = {
    .id_prefix = "chatcmpl",
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .add_token = add_token,
    .write_choice = write_choice,
    .send_chunks = send_chunks,
};
