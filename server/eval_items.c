// SPDX-License-Identifier: MIT
// Rows with a question and an answer, as eval_answers.h keeps them. Which keys make which row is the data set reader's rule
// (engine/train/dataset.h); eval opens the file as a data set first, so what is wrong with a row was said by then.
#include "server/eval_answers.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/train/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct message_text {
    enum chat_role role;
    struct buf text;
};
struct row {
    struct buf instruction, input, output, prompt, completion;
    bool has_output, has_completion;
    struct message_text *messages;
    size_t n_messages, cap;
};

static void row_finish(struct row *r) {
    buf_finish(&r->instruction);
    buf_finish(&r->input);
    buf_finish(&r->output);
    buf_finish(&r->prompt);
    buf_finish(&r->completion);
    for (size_t i = 0; i < r->n_messages; i++) buf_finish(&r->messages[i].text);
    free(r->messages);
}

static bool message_read(struct json *j, struct row *r, struct err *err) {
    struct buf key = {0}, role = {0};
    mem_grow(&r->messages, &r->cap, r->n_messages + 1);
    struct message_text *m = &r->messages[r->n_messages++];
    *m = (struct message_text){0};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) {
        if (buf_is(&key, "role")) ok = json_read_string(j, &role, err);
        else if (buf_is(&key, "content")) ok = json_read_string(j, &m->text, err);
        else ok = json_skip(j, err);
    }
    m->role = buf_is(&role, "system") || buf_is(&role, "developer") ? ROLE_SYSTEM : buf_is(&role, "assistant") ? ROLE_ASSISTANT : ROLE_USER;
    buf_finish(&key);
    buf_finish(&role);
    return ok && !j->failed;
}

static bool row_read(struct json *j, struct row *r, struct err *err) {
    const struct {
        const char *key;
        struct buf *to;
        bool *has;
    } fields[] = {{"instruction", &r->instruction, NULL}, {"input", &r->input, NULL}, {"output", &r->output, &r->has_output},
                  {"prompt", &r->prompt, NULL}, {"completion", &r->completion, &r->has_completion}};
    struct buf key = {0};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) {
        size_t f = 0;
        while (f < ARRAY_LEN(fields) && !buf_is(&key, fields[f].key)) f++;
        if (f < ARRAY_LEN(fields) && json_peek(j) == JSON_STRING) {
            ok = json_read_string(j, fields[f].to, err);
            if (fields[f].has) *fields[f].has = true;
        } else if (buf_is(&key, "messages") && json_peek(j) == JSON_ARRAY) {
            ok = json_open(j, '[', err);
            while (ok && json_next_item(j, err)) ok = message_read(j, r, err);
        } else {
            ok = json_skip(j, err);
        }
    }
    buf_finish(&key);
    return ok && !j->failed;
}

static char *copy(const struct buf *b) { return mem_strdup(buf_str(b)); }

static bool messages_item(const struct row *r, const struct tokenizer *t, struct eval_item *item, struct err *err) {
    const struct chat_template *chat = chat_template_recognise(tokenizer_chat_template(t));
    const struct message_text *last = &r->messages[r->n_messages - 1];
    if (!chat) return err_set(err, ERR_UNSUPPORTED, "the model has no chat template that this program knows");
    struct chat_message *messages = mem_alloc(r->n_messages, sizeof *messages);
    struct buf all = {0};
    for (size_t i = 0; i + 1 < r->n_messages; i++) {
        const struct buf *text = &r->messages[i].text;
        messages[i] = (struct chat_message){.role = r->messages[i].role, .text = buf_str(text), .len = text->len};
        buf_printf(&all, "%s%s", i ? "\n\n" : "", buf_str(text));
    }
    chat_template_encode(chat, t, messages, r->n_messages - 1, true, &item->prompt_ids);
    free(messages);
    item->instruction = copy(&r->messages[r->n_messages - 2].text);
    item->input = mem_strdup("");
    item->reference = copy(&last->text);
    item->prompt = buf_detach(&all);
    return true;
}

static void text_item(const struct row *r, const struct tokenizer *t, struct eval_item *item) {
    struct buf prompt = {0};
    if (r->has_output) dataset_instruction_prompt(&r->instruction, &r->input, &prompt);
    else buf_add(&prompt, buf_str(&r->prompt), r->prompt.len);
    if (tokenizer_add_bos(t) && tokenizer_bos(t) >= 0) ids_add(&item->prompt_ids, (uint32_t)tokenizer_bos(t));
    item->instruction = copy(r->has_output ? &r->instruction : &r->prompt);
    item->input = copy(&r->input);
    item->reference = copy(r->has_output ? &r->output : &r->completion);
    tokenizer_encode(t, buf_str(&prompt), prompt.len, false, &item->prompt_ids);
    item->prompt = buf_detach(&prompt);
}

// The prompt's tokens as a text; one that begins a sequence is every reader's own.
static bool item_read(const struct tokenizer *t, struct eval_item *item, struct err *err) {
    const struct ids *ids = &item->prompt_ids;
    const size_t begun = ids->len && tokenizer_add_bos(t) && (int64_t)ids->data[0] == tokenizer_bos(t);
    struct buf text = {0};
    const bool ok = tokenizer_decode(t, ids->data + begun, ids->len - begun, true, &text, err);
    item->read = buf_detach(&text);
    return ok;
}

// The next row of the file, into a new item; rows without an answer are passed over. first_line: of j's text in the file.
static bool item_add(struct eval_items *e, struct json *j, size_t first_line, const struct tokenizer *t, struct err *err) {
    struct row r = {0};
    json_peek(j); // past white space
    const char *begin = j->at;
    size_t line = first_line + json_line(j) - 1;
    bool ok = row_read(j, &r, err);
    if (ok && (r.has_output || r.has_completion || r.n_messages > 0)) {
        mem_grow(&e->items, &e->cap, e->n + 1);
        struct eval_item *item = &e->items[e->n++];
        *item = (struct eval_item){.number = e->n_rows, .line = line, .judge = NAN, .row = mem_strndup(begin, (size_t)(j->at - begin))};
        if (r.n_messages > 0) ok = messages_item(&r, t, item, err);
        else text_item(&r, t, item);
        ok = ok && item_read(t, item, err);
    }
    e->n_rows++;
    row_finish(&r);
    return ok;
}

static bool array_load(struct eval_items *e, struct json *j, const struct tokenizer *t, size_t limit, struct err *err) {
    if (!json_open(j, '[', err)) return false;
    while ((limit == 0 || e->n < limit) && json_next_item(j, err))
        if (!item_add(e, j, 1, t, err)) return false;
    return !j->failed;
}

static bool lines_load(struct eval_items *e, const char *text, size_t len, const struct tokenizer *t, size_t limit, struct err *err) {
    size_t line = 1;
    for (const char *at = text, *end = text + len; at < end && (limit == 0 || e->n < limit); line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        struct json j;
        json_init(&j, at, (size_t)((newline ? newline : end) - at));
        if (json_peek(&j) != JSON_END && !item_add(e, &j, line, t, err)) return false;
        at = newline ? newline + 1 : end;
    }
    return true;
}

bool eval_items_load(struct eval_items *e, const char *path, const struct tokenizer *t, size_t limit, struct err *err) {
    struct file_map map = {0};
    if (!file_map_open(&map, path, err)) return false;
    const char *text = (const char *)map.data;
    size_t len = map.len;
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) text += 3, len -= 3;
    struct json j;
    json_init(&j, text, len);
    bool ok = json_peek(&j) == JSON_ARRAY ? array_load(e, &j, t, limit, err) : lines_load(e, text, len, t, limit, err);
    file_map_close(&map);
    if (!ok) return err_prefix(err, "%s", path);
    return e->n > 0 || err_set(err, ERR_INVALID, "%s has no rows with a question and an answer", path);
}

static void item_finish(struct eval_item *item) {
    char *texts[] = {item->instruction, item->input, item->reference, item->prompt, item->read, item->row, item->answer, item->base};
    for (size_t k = 0; k < ARRAY_LEN(texts); k++) free(texts[k]);
    ids_finish(&item->prompt_ids);
}

void eval_items_keep(struct eval_items *e, const size_t *rows, size_t n, size_t limit) {
    size_t kept = 0, at = 0;
    for (size_t i = 0; i < e->n; i++) {
        while (at < n && rows[at] < e->items[i].number) at++;
        if (at < n && rows[at] == e->items[i].number && (!limit || kept < limit)) e->items[kept++] = e->items[i];
        else item_finish(&e->items[i]);
    }
    e->n = kept;
}

void eval_items_finish(struct eval_items *e) {
    for (size_t i = 0; i < e->n; i++) item_finish(&e->items[i]);
    free(e->items);
    *e = (struct eval_items){0};
}
