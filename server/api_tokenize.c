// SPDX-License-Identifier: MIT
// /tokenize, /detokenize, /tokenizer_info: vLLM's and llama-server's spellings at once. What /tokenize gives for a prompt by default
// is what /v1/completions makes of the same string. Whole replies are built on the pool.
#include "server/tokenize.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "server/chat.h"
#include "server/completions.h"
#include "server/request_model.h"
#include "server/routes.h"
#include "tokenizer/bpe_steps.h"
#include "tokenizer/text_stream.h"

#include <string.h>

struct tokenize_fields {
    struct text model, prompt, content;
    const json_t *messages;
    struct id_list tokens;
    bool add_special_tokens, add_special, parse_special, with_pieces, return_token_strs, return_offsets, return_merges, add_generation_prompt;
};

enum {
    MERGES_MAX_BYTES = 2000,
    MERGES_MAX_WORD = 256, // bytes: the steps of one word are the square of that, where a short request could be answered with 12 MB
};

// clang-format off
#define ROW(...) FIELD_ROW(struct tokenize_fields, __VA_ARGS__)
static const struct field tokenize_fields[] = {
    ROW(model, FIELD_STRING, .max = 1024, .doc = "May be absent where one model is served."),
    ROW(prompt, FIELD_STRING, .doc = "The text (vLLM's name)."),
    ROW(content, FIELD_STRING, .doc = "The text (llama-server's name)."),
    ROW(messages, FIELD_VALUE, .schema = chat_messages_schema, .doc = "A conversation instead of a text."),
    ROW(add_generation_prompt, FIELD_BOOLEAN, .default_text = "true", .doc = "With messages: the head of the answer too."),
    ROW(add_special_tokens, FIELD_BOOLEAN, .default_text = "true", .doc = "BOS first, if the tokenizer says so; with prompt."),
    ROW(add_special, FIELD_BOOLEAN, .default_text = "false", .doc = "The same, with content."),
    ROW(parse_special, FIELD_BOOLEAN, .default_text = "true",
        .doc = "Special tokens written in the text become their ids; false: they are ordinary text."),
    ROW(return_token_strs, FIELD_BOOLEAN, .default_text = "false", .doc = "Adds token_strs, the tokens' texts."),
    ROW(with_pieces, FIELD_BOOLEAN, .default_text = "false",
        .doc = "tokens holds {id, piece}; a piece that is not UTF-8 is a list of bytes."),
    ROW(return_offsets, FIELD_BOOLEAN, .default_text = "false", .doc = "Adds offsets: in which byte of the text each token begins; not with messages."),
    ROW(return_merges, FIELD_BOOLEAN, .default_text = "false",
        .doc = "Adds words: {text, start, tokens, steps}, the text's words with the byte each begins in and how byte pairs were merged, from single "
               "bytes to tokens. A step is a list of pieces as with_pieces has them; a word of over 256 has its first and last alone. Texts of at most "
               "2,000 bytes; not with messages."),
};
const struct field_table tokenize_table = {"TokenizeRequest", tokenize_fields, ARRAY_LEN(tokenize_fields), NULL};

static const struct field detokenize_fields[] = {
    ROW(model, FIELD_STRING, .max = 1024, .doc = "May be absent where one model is served."),
    ROW(tokens, FIELD_IDS, .max_items = BODY_MAX_ELEMENTS + 1, .required = true, .doc = "Token ids."),
};
// clang-format on
const struct field_table detokenize_table = {"DetokenizeRequest", detokenize_fields, ARRAY_LEN(detokenize_fields), NULL};

// One reference in *m; NULL: r->err, or r->cold.
static const struct tokenizer *find_tokenizer(struct http_request *r, struct text id, struct model **m) {
    *m = request_model(r, id);
    const struct tokenizer *t = *m ? model_tokenizer(*m) : NULL;
    if (*m && !t) request_fail(r, 400, "unsupported_parameter", "model", "The model has no tokenizer: it reads and writes token ids only.");
    return t;
}

// -- /tokenize ---------------------------------------------------------------------------------------------------------------
static bool refuse_looks(struct http_request *r, const struct tokenize_fields *f) {
    const size_t len = f->prompt.s ? f->prompt.len : f->content.len;
    if (f->messages && (f->return_offsets || f->return_merges))
        return request_fail(r, 400, "unsupported_parameter", f->return_offsets ? "return_offsets" : "return_merges",
                            "'return_offsets' and 'return_merges' go with a text, not with 'messages'.");
    if (f->return_merges && len > MERGES_MAX_BYTES)
        return request_fail(r, 400, "value_out_of_range", "return_merges", "Merges are shown of texts of at most %d bytes; this one has %zu.",
                            MERGES_MAX_BYTES, len);
    return true;
}

// Ids, and where each begins in the text (BOS: 0).
static bool read_ids(struct http_request *r, const json_t *tree, const struct tokenize_fields *f,
                     const struct tokenizer *t, struct ids *out, struct ids *offsets) {
    int n_texts = (f->prompt.s != NULL) + (f->content.s != NULL) + (f->messages != NULL);
    if (n_texts != 1)
        return request_fail(r, 400, n_texts ? "unsupported_parameter" : "missing_required_parameter", "prompt",
                            "Exactly one of 'prompt', 'content' and 'messages' is required.");
    if (!refuse_looks(r, f)) return false;
    if (f->messages) return chat_messages_encode(r, t, f->messages, f->add_generation_prompt, out);
    // Either name of the switch counts; each spelling of the text has its own program's default.
    const json_t *named = json_object_get(tree, "add_special_tokens"), *other = json_object_get(tree, "add_special");
    bool add = json_is_boolean(named)   ? f->add_special_tokens
               : json_is_boolean(other) ? f->add_special
                                        : f->prompt.s != NULL;
    struct text text = f->prompt.s ? f->prompt : f->content;
    if (add && tokenizer_add_bos(t) && tokenizer_bos(t) >= 0) {
        ids_add(out, (uint32_t)tokenizer_bos(t));
        ids_add(offsets, 0);
    }
    tokenizer_encode_offsets(t, text.s, text.len, f->parse_special, out, f->return_offsets ? offsets : NULL);
    return true;
}

static void add_piece(const struct tokenizer *t, uint32_t id, struct buf *out) {
    size_t len;
    const char *bytes = tokenizer_bytes(t, id, &len);
    if (utf8_valid(bytes, len)) {
        buf_add_json_string(out, bytes, len);
    } else {
        for (size_t i = 0; i < len; i++) buf_printf(out, i ? ",%u" : "[%u", (unsigned char)bytes[i]);
        buf_add_byte(out, ']');
    }
}

static void add_numbers(const char *name, const uint32_t *items, size_t n, struct buf *out) {
    buf_printf(out, ",\"%s\":[", name);
    for (size_t i = 0; i < n; i++) buf_printf(out, i ? ",%u" : "%u", items[i]);
    buf_add_byte(out, ']');
}

struct merges {
    const struct tokenizer *t;
    const char *text;
    struct buf steps; // of the word
    bool is_long, skipped; // the word; some of its steps
    struct buf *out;
    size_t n_words;
};

static void write_step(struct merges *m, const uint32_t *ids, size_t n) {
    buf_add_str(&m->steps, m->steps.len ? ",[" : "[");
    for (size_t i = 0; i < n; i++) {
        if (i) buf_add_byte(&m->steps, ',');
        add_piece(m->t, ids[i], &m->steps);
    }
    buf_add_byte(&m->steps, ']');
}

static void add_step(void *ctx, const uint32_t *ids, size_t n) {
    struct merges *m = ctx;
    const bool first = m->steps.len == 0;
    if (first) m->is_long = n > MERGES_MAX_WORD;
    m->skipped = m->is_long && !first;
    if (!m->skipped) write_step(m, ids, n);
}

static void add_word(void *ctx, size_t start, size_t len, const uint32_t *ids, size_t n) {
    struct merges *m = ctx;
    if (m->skipped) write_step(m, ids, n);
    m->skipped = false;
    buf_add_str(m->out, m->n_words++ ? ",{\"text\":" : "{\"text\":");
    buf_add_json_string(m->out, m->text + start, len);
    buf_printf(m->out, ",\"start\":%zu", start);
    add_numbers("tokens", ids, n, m->out);
    buf_add_str(m->out, ",\"steps\":[");
    buf_add(m->out, m->steps.data, m->steps.len);
    buf_add_str(m->out, "]}");
    buf_clear(&m->steps);
}

static void write_merges(const struct tokenize_fields *f, const struct tokenizer *t, struct buf *out) {
    const struct text text = f->prompt.s ? f->prompt : f->content;
    struct merges m = {.t = t, .text = text.s, .out = out};
    buf_add_str(out, ",\"words\":[");
    tokenizer_watch(t, text.s, text.len, f->parse_special, &(struct bpe_watcher){&m, add_step, add_word});
    buf_add_byte(out, ']');
    buf_finish(&m.steps);
}

static void write_tokenized(const struct tokenize_fields *f, const struct model *m, const struct ids *ids, const struct ids *offsets,
                            struct buf *out) {
    const struct tokenizer *t = model_tokenizer(m);
    buf_printf(out, "{\"count\":%zu,\"max_model_len\":%zu,\"tokens\":[", ids->len, model_config(m)->n_ctx);
    for (size_t i = 0; i < ids->len; i++) {
        if (i) buf_add_byte(out, ',');
        buf_printf(out, f->with_pieces ? "{\"id\":%u,\"piece\":" : "%u", ids->data[i]);
        if (f->with_pieces) add_piece(t, ids->data[i], out);
        if (f->with_pieces) buf_add_byte(out, '}');
    }
    buf_add_byte(out, ']');
    if (f->return_token_strs) {
        buf_add_str(out, ",\"token_strs\":[");
        for (size_t i = 0; i < ids->len; i++) {
            size_t len;
            const char *bytes = tokenizer_bytes(t, ids->data[i], &len);
            if (i) buf_add_byte(out, ',');
            buf_add_json_string(out, bytes, len);
        }
        buf_add_byte(out, ']');
    }
    if (f->return_offsets) add_numbers("offsets", offsets->data, offsets->len, out);
    if (f->return_merges) write_merges(f, t, out);
    buf_add_byte(out, '}');
}

static bool tokenize_tree(struct http_request *r, const json_t *tree, struct buf *reply) {
    struct tokenize_fields f = {0};
    if (!fields_read(r, &tokenize_table, tree, &f)) return false;
    struct model *m;
    const struct tokenizer *t = find_tokenizer(r, f.model, &m);
    struct ids ids = {0}, offsets = {0};
    bool ok = t && read_ids(r, tree, &f, t, &ids, &offsets);
    if (ok) write_tokenized(&f, m, &ids, &offsets, reply);
    ids_finish(&ids);
    ids_finish(&offsets);
    model_release(m);
    return ok;
}

// -- /detokenize -------------------------------------------------------------------------------------------------------------
static bool write_detokenized(struct http_request *r, const struct tokenizer *t, const struct id_list *ids, struct buf *reply) {
    struct buf text = {0};
    struct text_stream stream = {0}; // invalid UTF-8 becomes U+FFFD as everywhere
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->items[i] >= tokenizer_size(t)) {
            buf_finish(&text);
            return request_fail(r, 400, "invalid_token_id", "tokens",
                                "'tokens' holds an id that is not below %zu, the size of the vocabulary (entry %zu).",
                                tokenizer_size(t), i);
        }
        size_t len;
        const char *bytes = tokenizer_bytes(t, ids->items[i], &len);
        text_stream_add(&stream, bytes, len, &text);
    }
    text_stream_end(&stream, &text);
    buf_add_str(reply, "{\"prompt\":");
    buf_add_json_string(reply, buf_str(&text), text.len);
    buf_add_str(reply, ",\"content\":");
    buf_add_json_string(reply, buf_str(&text), text.len);
    buf_add_byte(reply, '}');
    buf_finish(&text);
    return true;
}

static bool detokenize_tree(struct http_request *r, const json_t *tree, struct buf *reply) {
    struct tokenize_fields f = {0};
    if (!fields_read(r, &detokenize_table, tree, &f)) return false;
    struct model *m;
    const struct tokenizer *t = find_tokenizer(r, f.model, &m);
    const bool ok = t && write_detokenized(r, t, &f.tokens, reply);
    model_release(m);
    return ok;
}

// -- /tokenizer_info ---------------------------------------------------------------------------------------------------------
static void add_token(struct buf *out, const char *name, const struct tokenizer *t, int64_t id) {
    buf_printf(out, "\"%s\":", name);
    size_t len = 0;
    const char *bytes = id >= 0 ? tokenizer_bytes(t, (uint32_t)id, &len) : NULL;
    if (bytes) buf_add_json_string(out, bytes, len);
    else buf_add_str(out, "null");
    buf_add_byte(out, ',');
}

static void write_info(const struct tokenizer *t, const struct model *m, struct buf *reply) {
    buf_add_byte(reply, '{');
    add_token(reply, "bos_token", t, tokenizer_bos(t));
    add_token(reply, "eos_token", t, tokenizer_eos(t));
    add_token(reply, "pad_token", t, tokenizer_pad(t));
    buf_printf(reply,
               "\"add_bos_token\":%s,\"tokenizer_class\":\"%s\",\"model_max_length\":%zu,\"vocab_size\":%zu,\"chat_"
               "template\":",
               tokenizer_add_bos(t) ? "true" : "false",
               tokenizer_pre(t) == PRE_LLAMA3 ? "PreTrainedTokenizerFast" : "GPT2TokenizerFast", model_config(m)->n_ctx,
               tokenizer_size(t));
    const char *jinja = tokenizer_chat_template(t);
    if (jinja) buf_add_json_string(reply, jinja, strlen(jinja));
    else buf_add_str(reply, "null");
    buf_add_byte(reply, '}');
}

// -- Routes ------------------------------------------------------------------------------------------------------------------
struct reply {
    struct buf body;
    const char *ignored;
};

static bool run(struct http_request *r, const struct field_table *table,
                bool (*fn)(struct http_request *, const json_t *, struct buf *)) {
    json_t *tree = json_body_parse(r);
    if (!tree) return false;
    struct reply *reply = arena_alloc(&r->arena, 1, sizeof *reply);
    bool ok = fn(r, tree, &reply->body);
    reply->ignored = fields_ignored(r, table, tree);
    json_decref(tree);
    if (ok) r->state = reply;
    else buf_finish(&reply->body);
    return ok || r->cold;
}
static bool tokenize_work(struct http_request *r) { return run(r, &tokenize_table, tokenize_tree); }
static bool detokenize_work(struct http_request *r) { return run(r, &detokenize_table, detokenize_tree); }
static bool info_work(struct http_request *r) {
    struct reply *reply = arena_alloc(&r->arena, 1, sizeof *reply);
    const char *id = http_query(r, "model");
    struct model *m;
    const struct tokenizer *t = find_tokenizer(r, (struct text){id, id ? strlen(id) : 0}, &m);
    if (t) {
        write_info(t, m, &reply->body);
        r->state = reply;
    }
    model_release(m);
    return t || r->cold;
}
static void reply_start(struct http_request *r) {
    struct reply *reply = r->state;
    if (r->cold) {
        request_warm(r);
        return;
    }
    if (reply->ignored) http_set_header(r, "x-couplet-ignored", reply->ignored);
    http_reply_json(r, 200, &reply->body);
}
static void reply_end(struct http_request *r) {
    struct reply *reply = r->state;
    if (reply) buf_finish(&reply->body);
    r->state = NULL;
}

const struct http_route tokenize_routes[] = {
    {"POST", "/tokenize", SCOPE_INFER, tokenize_work, reply_start, reply_end, "Text or messages to token ids"},
    {"POST", "/detokenize", SCOPE_INFER, detokenize_work, reply_start, reply_end, "Token ids to text"},
    {"GET", "/tokenizer_info", SCOPE_INFER, info_work, reply_start, reply_end, "What the model's tokenizer is"},
    {0},
};
