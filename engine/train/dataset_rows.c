// SPDX-License-Identifier: MIT
// JSON rows -> token ids with a mask. A row's format is told by its keys; null means absent; an unknown key is a mistake, not a comment.
//
// Contents never become special tokens. What a client will send at serving is encoded as it will be there: the prompt of a
// {"prompt", "completion"} row by itself, a conversation by the chat template.
#include "engine/train/dataset_impl.h"

#include "base/json.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROW_MAX ((size_t)1 << 26) // bytes; a longer one fits no context

enum field { F_TEXT, F_PROMPT, F_COMPLETION, F_INSTRUCTION, F_INPUT, F_OUTPUT, N_STRINGS, F_MESSAGES = N_STRINGS, F_TOKENS, N_FIELDS };
static const char *const field_names[N_FIELDS] = {"text",  "prompt", "completion", "instruction",
                                                  "input", "output", "messages",   "tokens"};
#define BIT(f) (1u << (f))

struct message {
    enum chat_role role;
    size_t at, len; // in contents
    bool weight;
};

// One row at a time; memory is kept between rows.
struct rows {
    struct loader *l;
    unsigned have; // fields of this row
    struct buf key, value, contents, scratch;
    struct buf strings[N_STRINGS];
    struct message *messages;
    struct chat_message *chat; // the same, as the template takes them
    size_t n_messages, messages_cap, chat_cap;
    struct ids ids; // the example; TOKEN_SUPERVISED set where it is one
    struct ids part, offsets;
    struct line_set exact, folded;
};

// ---- parsing

static bool read_role(struct rows *r, struct json *j, enum chat_role *out, struct err *err) {
    if (!json_read_string(j, &r->value, err)) return false;
    if (buf_is(&r->value, "system") || buf_is(&r->value, "developer")) *out = ROLE_SYSTEM;
    else if (buf_is(&r->value, "user")) *out = ROLE_USER;
    else if (buf_is(&r->value, "assistant")) *out = ROLE_ASSISTANT;
    else return json_fail(j, err, "role \"%s\" cannot be trained on: only system, user and assistant", buf_str(&r->value));
    return true;
}

static bool read_message(struct rows *r, struct json *j, struct err *err) {
    struct message m = {.at = r->contents.len, .weight = true};
    bool role = false, content = false, weighted = false, ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &r->key, err)) {
        bool *seen = buf_is(&r->key, "role") ? &role : buf_is(&r->key, "content") ? &content : buf_is(&r->key, "weight") ? &weighted : NULL;
        if (!seen) return json_fail(j, err, "unknown key \"%s\" in a message", buf_str(&r->key));
        if (*seen) return json_fail(j, err, "key \"%s\" twice in a message", buf_str(&r->key));
        *seen = true;
        size_t weight = 1;
        if (seen == &role) ok = read_role(r, j, &m.role, err);
        else if (seen == &weighted) ok = json_read_size(j, &weight, err);
        else if ((ok = json_read_string(j, &r->value, err))) buf_add(&r->contents, buf_str(&r->value), r->value.len);
        if (weight > 1) return json_fail(j, err, "\"weight\" is 0 or 1");
        m.weight &= weight == 1;
    }
    if (!ok || j->failed) return false;
    m.len = r->contents.len - m.at;
    if (!role || !content) return json_fail(j, err, "a message without \"%s\"", role ? "content" : "role");
    if (weighted && m.role != ROLE_ASSISTANT) return json_fail(j, err, "\"weight\" belongs to messages of the assistant");
    if (m.role == ROLE_ASSISTANT && m.weight && !m.len) return json_fail(j, err, "an assistant message is empty");
    mem_grow(&r->messages, &r->messages_cap, r->n_messages + 1);
    r->messages[r->n_messages++] = m;
    return true;
}

static bool read_messages(struct rows *r, struct json *j, struct err *err) {
    bool ok = json_open(j, '[', err);
    while (ok && json_next_item(j, err)) ok = read_message(r, j, err);
    return ok && !j->failed;
}

static bool read_tokens(struct rows *r, struct json *j, struct err *err) {
    size_t id;
    bool ok = json_open(j, '[', err);
    while (ok && json_next_item(j, err)) {
        if (!json_read_size(j, &id, err)) return false;
        if (id >= r->l->o->n_vocab) return json_fail(j, err, "token %zu is outside the model's vocabulary of %zu", id, r->l->o->n_vocab);
        ids_add(&r->ids, (uint32_t)id);
    }
    return ok && !j->failed;
}

static bool read_field(struct rows *r, struct json *j, struct err *err) {
    unsigned f = 0;
    while (f < N_FIELDS && !buf_is(&r->key, field_names[f])) f++;
    if (f == N_FIELDS) return json_fail(j, err, "unknown key \"%s\"", buf_str(&r->key));
    if (json_peek(j) == JSON_NULL) return json_read_null(j, err);
    if (r->have & BIT(f)) return json_fail(j, err, "key \"%s\" twice", field_names[f]);
    r->have |= BIT(f);
    return f == F_MESSAGES ? read_messages(r, j, err) : f == F_TOKENS ? read_tokens(r, j, err) : json_read_string(j, &r->strings[f], err);
}

static bool row_parse(struct rows *r, const char *text, size_t len, struct err *err) {
    struct json j;
    json_init(&j, text, len);
    r->have = 0;
    r->ids.len = r->n_messages = r->contents.len = 0;
    bool ok = json_open(&j, '{', err);
    while (ok && json_next_key(&j, &r->key, err)) ok = read_field(r, &j, err);
    return ok && !j.failed && json_finish(&j, err);
}

// ---- encoding

static const struct tokenizer *row_tokenizer(const struct rows *r) { return r->l->o->tokenizer; }

static void add_bos(struct rows *r) { // serving puts it before text prompts
    const struct tokenizer *t = row_tokenizer(r);
    if (tokenizer_add_bos(t) && tokenizer_bos(t) >= 0) ids_add(&r->ids, (uint32_t)tokenizer_bos(t));
}

static void add_end(struct rows *r) {
    int64_t eos = tokenizer_eos(row_tokenizer(r));
    if (eos >= 0) ids_add(&r->ids, (uint32_t)eos);
}

static void add_text(struct rows *r, enum field f) {
    tokenizer_encode(row_tokenizer(r), buf_str(&r->strings[f]), r->strings[f].len, false, &r->ids);
}

static void supervise(struct rows *r, size_t from, size_t to, bool on) {
    for (size_t i = from; i < to; i++) r->ids.data[i] = TOKEN_ID(r->ids.data[i]) | (on ? TOKEN_SUPERVISED : 0);
}

static void supervise_answer(struct rows *r, size_t from) { supervise(r, r->l->o->train_on_inputs ? 0 : from, r->ids.len, true); }

static bool encode_text(struct rows *r, struct err *err) {
    add_bos(r);
    add_text(r, F_TEXT);
    add_end(r);
    supervise(r, 0, r->ids.len, true);
    return true;
}

static bool encode_completion(struct rows *r, struct err *err) {
    add_bos(r);
    add_text(r, F_PROMPT);
    size_t from = r->ids.len;
    add_text(r, F_COMPLETION);
    add_end(r);
    supervise_answer(r, from);
    return true;
}

static bool encode_tokens(struct rows *r, struct err *err) {
    if (r->ids.len < 2) return err_set(err, ERR_INVALID, "\"tokens\" holds %zu ids: two are the least", r->ids.len);
    supervise(r, 0, r->ids.len, true);
    return true;
}

void dataset_instruction_prompt(const struct buf *instruction, const struct buf *input, struct buf *out) {
    buf_add_str(out, "Below is an instruction that describes a task. Write a response that appropriately completes the request.");
    buf_add_str(out, "\n\n### Instruction:\n");
    buf_add(out, buf_str(instruction), instruction->len);
    if (input->len) {
        buf_add_str(out, "\n\n### Input:\n");
        buf_add(out, input->data, input->len);
    }
    buf_add_str(out, "\n\n### Response:\n");
}

// Encoded as one text; a token belongs to the answer when it begins in it.
static bool encode_instruction(struct rows *r, struct err *err) {
    struct buf *b = &r->scratch, none = {0};
    buf_clear(b);
    dataset_instruction_prompt(&r->strings[F_INSTRUCTION], r->have & BIT(F_INPUT) ? &r->strings[F_INPUT] : &none, b);
    size_t answer = b->len, from = 0;
    buf_add(b, r->strings[F_OUTPUT].data, r->strings[F_OUTPUT].len);
    add_bos(r);
    size_t head = r->ids.len;
    r->offsets.len = 0;
    tokenizer_encode_offsets(row_tokenizer(r), b->data, b->len, false, &r->ids, &r->offsets);
    while (from < r->offsets.len && r->offsets.data[from] < answer) from++;
    add_end(r);
    supervise_answer(r, head + from);
    return true;
}

static size_t token_len(const struct tokenizer *t, uint32_t id) {
    size_t n;
    tokenizer_bytes(t, TOKEN_ID(id), &n);
    return n;
}

// An answer begins where the template, asked for the messages before it and an answer's head, would have let the model begin: at the
// first token behind that many bytes (ids alone do not tell: what ends the head may be one token with what begins the answer). It
// ends with the token that generation stops at.
static bool mask_answers(struct rows *r, struct err *err) {
    const struct tokenizer *t = row_tokenizer(r);
    size_t at = 0, bytes = 0;
    for (size_t i = 0; i < r->n_messages && at <= r->l->o->context; i++) { // what lies behind the context is cut or dropped
        if (r->messages[i].role != ROLE_ASSISTANT) continue;
        size_t head = 0, end;
        r->part.len = 0;
        chat_template_encode(r->l->o->chat, t, r->chat, i, true, &r->part);
        for (size_t k = 0; k < r->part.len; k++) head += token_len(t, r->part.data[k]);
        for (; at < r->ids.len && bytes < head; at++) bytes += token_len(t, r->ids.data[at]);
        for (end = at; end < r->ids.len && !tokenizer_is_stop(t, TOKEN_ID(r->ids.data[end])); end++) continue;
        if (end == r->ids.len) return err_set(err, ERR_INVALID, "the vocabulary lacks the token that ends an answer of the chat template");
        supervise(r, at, end + 1, r->messages[i].weight);
    }
    return true;
}

static bool encode_messages(struct rows *r, struct err *err) {
    const struct chat_template *chat = r->l->o->chat;
    const struct tokenizer *t = row_tokenizer(r);
    if (!r->n_messages) return err_set(err, ERR_INVALID, "\"messages\" is empty");
    if (r->messages[0].role == ROLE_ASSISTANT) return err_set(err, ERR_INVALID, "the first message is the assistant's");
    if (r->messages[r->n_messages - 1].role != ROLE_ASSISTANT) return err_set(err, ERR_INVALID, "the last message is not the assistant's");
    if (!chat) return err_set(err, ERR_INVALID, "the model has no chat template, which \"messages\" need");
    mem_grow(&r->chat, &r->chat_cap, r->n_messages);
    for (size_t i = 0; i < r->n_messages; i++) {
        const struct message *m = &r->messages[i];
        r->chat[i] = (struct chat_message){.role = m->role, .text = buf_str(&r->contents) + m->at, .len = m->len};
    }
    chat_template_encode(chat, t, r->chat, r->n_messages, false, &r->ids);
    if (r->l->o->train_on_inputs) supervise(r, 0, r->ids.len, true);
    if (!mask_answers(r, err)) return false;
    while (r->ids.len && !tokenizer_is_stop(t, TOKEN_ID(r->ids.data[r->ids.len - 1]))) r->ids.len--; // what a template puts behind the last end token
    return true;
}

static const struct row_format {
    unsigned required, optional, filled; // fields; filled: not the empty string
    bool (*encode)(struct rows *r, struct err *err);
} formats[] = {
    {BIT(F_TEXT), 0, BIT(F_TEXT), encode_text},
    {BIT(F_PROMPT) | BIT(F_COMPLETION), 0, BIT(F_COMPLETION), encode_completion},
    {BIT(F_MESSAGES), 0, 0, encode_messages},
    {BIT(F_INSTRUCTION) | BIT(F_OUTPUT), BIT(F_INPUT), BIT(F_OUTPUT), encode_instruction},
    {BIT(F_TOKENS), 0, 0, encode_tokens},
};

static const char *first_field(unsigned set) { return field_names[__builtin_ctz(set)]; }

// The format that has all of the row's keys, or NULL and what is wrong.
static const struct row_format *row_format(const struct rows *r, struct err *err) {
    const struct row_format *f = formats, *end = formats + ARRAY_LEN(formats);
    if (!r->have) {
        err_set(err, ERR_INVALID, "a row has \"text\", or \"prompt\" and \"completion\", or \"messages\", or \"instruction\" and \"output\", or \"tokens\"");
        return NULL;
    }
    while (f < end && r->have & ~(f->required | f->optional)) f++;
    unsigned lacking = f < end ? f->required & ~r->have : 0;
    if (f == end) err_set(err, ERR_INVALID, "keys of two kinds of rows: \"%s\" and others", first_field(r->have));
    else if (lacking) err_set(err, ERR_INVALID, "\"%s\" without \"%s\"", first_field(r->have), first_field(lacking));
    else if (f->encode != encode_tokens && !row_tokenizer(r))
        err_set(err, ERR_INVALID, "the model has no tokenizer: only \"tokens\" rows can be read");
    else {
        for (unsigned i = 0; i < N_STRINGS; i++) {
            if (!(f->filled & BIT(i)) || r->strings[i].len) continue;
            err_set(err, ERR_INVALID, "\"%s\" is empty", field_names[i]);
            return NULL;
        }
        return f;
    }
    return NULL;
}

// ---- duplicates

static uint64_t text_hash(struct rows *r, const char *text, size_t len, uint64_t seed, bool fold) {
    if (!fold) return hash_bytes(text, len, seed);
    buf_clear(&r->scratch);
    text_fold(text, len, &r->scratch);
    return hash_bytes(buf_str(&r->scratch), r->scratch.len, seed);
}

// Of what the row says, not of how its JSON is written.
static uint64_t row_hash(struct rows *r, bool fold) {
    uint64_t h = r->have;
    for (unsigned f = 0; f < N_STRINGS; f++)
        if (r->have & BIT(f)) h = text_hash(r, buf_str(&r->strings[f]), r->strings[f].len, h, fold);
    for (size_t i = 0; i < r->n_messages; i++)
        h = text_hash(r, buf_str(&r->contents) + r->messages[i].at, r->messages[i].len, h ^ r->messages[i].role, fold);
    return r->have & BIT(F_TOKENS) ? hash_bytes(r->ids.data, r->ids.len * sizeof *r->ids.data, h) : h;
}

static bool note_duplicate(struct rows *r, size_t line, struct err *err) {
    struct dataset_report *report = r->l->report;
    size_t exact, folded;
    if (!line_set_add(&r->exact, row_hash(r, false), line, &exact, err)) return false;
    if (!line_set_add(&r->folded, row_hash(r, true), line, &folded, err)) return false;
    report->n_duplicates += exact > 0;
    report->n_near_duplicates += !exact && folded;
    if (exact) loader_problem(r->l, line, false, "the same as %s %zu", dataset_place(report), exact);
    else if (folded) loader_problem(r->l, line, false, "the same as %s %zu but for case and white space", dataset_place(report), folded);
    return true;
}

// ---- rows

// The example in r->ids: its length against the context, and into the dataset.
static bool row_finish(struct rows *r, size_t line, struct err *err) {
    const struct dataset_options *o = r->l->o;
    struct dataset_report *report = r->l->report;
    size_t n = r->ids.len, limit = o->context + 1, supervised = 0;
    bool cut = n > limit;
    if (cut && o->excess == EXCESS_ERROR) {
        loader_problem(r->l, line, true, "%zu tokens, of which the context of %zu takes %zu", n, o->context, limit);
        return true;
    }
    if (cut && o->excess == EXCESS_DROP) {
        report->n_dropped++;
        loader_problem(r->l, line, false, "dropped: %zu tokens, of which the context of %zu takes %zu", n, o->context, limit);
        return true;
    }
    n = MIN(n, limit);
    for (size_t i = 1; i < n; i++) supervised += r->ids.data[i] >= TOKEN_SUPERVISED;
    if (!supervised && !cut) {
        loader_problem(r->l, line, true, n < 2 ? "too short: two tokens are the least" : "nothing to learn: no target is supervised");
        return true;
    }
    if (!supervised) {
        report->n_dropped++;
        loader_problem(r->l, line, false, "dropped: the answer begins behind the context of %zu", o->context);
        return true;
    }
    if (cut) {
        report->n_truncated++;
        loader_problem(r->l, line, false, "cut to the context of %zu: %zu tokens of %zu", o->context, n, r->ids.len);
    }
    return loader_add_example(r->l, r->ids.data, n, supervised, line, err);
}

// The JSON reader counts lines from where its text begins, which is line (or row) `base` of the file.
static void json_problem(struct rows *r, size_t line, size_t base, const struct err *e) {
    size_t at = 0, column = 0;
    int n = 0;
    if (sscanf(e->message, "line %zu, column %zu: %n", &at, &column, &n) != 2 || !n) loader_problem(r->l, line, true, "%s", e->message);
    else if (at + base - 1 == line) loader_problem(r->l, line, true, "column %zu: %s", column, e->message + n);
    else loader_problem(r->l, line, true, "line %zu, column %zu: %s", at + base - 1, column, e->message + n);
}

// False only where reading cannot go on.
static bool row_read(struct rows *r, const char *text, size_t len, size_t line, struct err *err) {
    struct err bad = {0};
    r->l->report->n_rows++;
    if (len > ROW_MAX) {
        loader_problem(r->l, line, true, "a row of %zu bytes: %zu are the most", len, ROW_MAX);
        return true;
    }
    if (!utf8_valid(text, len)) {
        loader_problem(r->l, line, true, "not UTF-8");
        return true;
    }
    const struct row_format *f = row_parse(r, text, len, &bad) ? row_format(r, &bad) : NULL;
    if (!f) {
        json_problem(r, line, line, &bad);
        return true;
    }
    if (!note_duplicate(r, line, err)) return false;
    if (!f->encode(r, &bad)) {
        loader_problem(r->l, line, true, "%s", bad.message);
        return true;
    }
    return !loader_check_ids(r->l, r->ids.data, r->ids.len, line) || row_finish(r, line, err);
}

static bool load_lines(struct rows *r, struct err *err) {
    const char *at = r->l->text, *end = at + r->l->len;
    for (size_t line = 1; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        const char *p = at;
        while (p < stop && (*p == ' ' || *p == '\t' || *p == '\r')) p++;
        if (p < stop && !row_read(r, at, (size_t)(stop - at), line, err)) return false;
        at = stop < end ? stop + 1 : end;
        loader_advance(r->l, (size_t)(at - r->l->text));
    }
    return true;
}

static bool one_line(const char *text, size_t len) {
    while (len && (unsigned char)text[len - 1] <= ' ') len--;
    return !memchr(text, '\n', len);
}

static bool load_array(struct rows *r, struct err *err) {
    const char *text = r->l->text, *counted = text;
    size_t line = 1;
    struct json j;
    struct err bad = {0};
    json_init(&j, text, r->l->len);
    const bool by_row = r->l->report->by_row = one_line(text, r->l->len);
    bool ok = json_open(&j, '[', &bad);
    while (ok && json_next_item(&j, &bad)) {
        const char *start = j.at;
        for (; (counted = memchr(counted, '\n', (size_t)(start - counted))); counted++) line++;
        counted = start;
        if (by_row) line = r->l->report->n_rows + 1;
        if (!(ok = json_skip(&j, &bad))) break;
        if (!row_read(r, start, (size_t)(j.at - start), line, err)) return false;
        loader_advance(r->l, (size_t)(j.at - text));
    }
    if (!ok || j.failed || !json_finish(&j, &bad)) json_problem(r, line, 1, &bad);
    return true;
}

bool dataset_load_rows(struct loader *l, bool array, struct err *err) {
    struct rows r = {.l = l};
    bool ok = array ? load_array(&r, err) : load_lines(&r, err);
    for (unsigned i = 0; i < N_STRINGS; i++) buf_finish(&r.strings[i]);
    buf_finish(&r.key);
    buf_finish(&r.value);
    buf_finish(&r.contents);
    buf_finish(&r.scratch);
    free(r.messages);
    free(r.chat);
    ids_finish(&r.ids);
    ids_finish(&r.part);
    ids_finish(&r.offsets);
    line_set_finish(&r.exact);
    line_set_finish(&r.folded);
    return ok;
}
