// SPDX-License-Identifier: MIT
// A tokenizer as files. Constants and the caller's tokenizer only; any thread.
//
// Invariants: (1) every token has one text, used in all files, and no two have the same; (2) every id is in tokenizer.json's vocabulary,
// special ones too: HF tokenizers numbers added tokens by itself when their text is not there; (3) absent ids are in no file.
#include "tokenizer/tokenizer_write.h"

#include "base/file.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/tokenizer_impl.h"
#include "tokenizer/vocab_load.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

size_t tokenizer_merge_count(const struct tokenizer *t) { return t->n_merges; }

void tokenizer_merge(const struct tokenizer *t, size_t rank, uint32_t *left, uint32_t *right) {
    assert(rank < t->n_merges);
    *left = t->merges[rank].left;
    *right = t->merges[rank].right;
}

bool tokenizer_is_added(const struct tokenizer *t, uint32_t id) {
    assert(id < t->n_vocab);
    return t->tokens[id].added;
}

bool tokenizer_is_absent(const struct tokenizer *t, uint32_t id) {
    assert(id < t->n_vocab);
    return t->tokens[id].absent;
}

bool tokenizer_ignore_merges(const struct tokenizer *t) { return t->ignore_merges; }

// ---- the texts

struct spelling {
    const struct tokenizer *t;
    struct buf texts;
    size_t *at; // [n_vocab + 1] where each text starts in texts
};

static void spelling_finish(struct spelling *s) {
    buf_finish(&s->texts);
    free(s->at);
}

static const char *text_of(const struct spelling *s, size_t id, size_t *len) {
    *len = s->at[id + 1] - s->at[id];
    return buf_str(&s->texts) + s->at[id];
}

static bool is_literal(const struct token *k) { return k->special || k->added; }

// Appends a token's text: what it says if it is matched in texts, GPT-2's printable alphabet if bytes are merged to it. A token that is
// neither can have come from a text outside the alphabet; where its spelling is another token's, that text is tried.
static bool text_add(struct spelling *s, struct map *taken, size_t id, bool merged, struct err *err) {
    size_t len, start = s->texts.len;
    const char *bytes = tokenizer_bytes(s->t, (uint32_t)id, &len);
    bool literal = is_literal(&s->t->tokens[id]) && !merged;
    for (int attempt = 0; attempt < 2; attempt++, literal = true) {
        if (literal && !utf8_valid(bytes, len)) return err_set(err, ERR_UNSUPPORTED, "token %zu is not valid UTF-8: no file can hold it", id);
        if (literal) buf_add(&s->texts, bytes, len);
        else byte_alphabet_encode(bytes, len, &s->texts);
        if (map_put(taken, buf_str(&s->texts) + start, s->texts.len - start, (uint32_t)id)) return true;
        s->texts.len = start;
    }
    return err_set(err, ERR_UNSUPPORTED, "token %zu is spelled like another: no file can hold both", id);
}

static bool spelling_init(struct spelling *s, const struct tokenizer *t, struct err *err) {
    *s = (struct spelling){.t = t, .at = mem_alloc(t->n_vocab + 1, sizeof *s->at)};
    bool *merged = mem_alloc(t->n_vocab, sizeof *merged), ok = true;
    for (size_t i = 0; i < t->n_merges; i++) merged[t->merges[i].left] = merged[t->merges[i].right] = merged[t->merges[i].result] = true;
    struct map taken = {0};
    map_reserve(&taken, t->n_vocab);
    for (size_t id = 0; id < t->n_vocab && ok; id++) {
        s->at[id] = s->texts.len;
        ok = t->tokens[id].absent || text_add(s, &taken, id, merged[id], err);
    }
    s->at[t->n_vocab] = s->texts.len;
    map_finish(&taken);
    free(merged);
    return ok;
}

static void add_text_json(const struct spelling *s, size_t id, struct buf *out) {
    size_t len;
    const char *text = text_of(s, id, &len);
    buf_add_json_string(out, text, len);
}

// ---- vocab.json and merges.txt

// {"text": id, ...}, a token a line. ordinary: without the special tokens behind the last other one, which HF keeps out of vocab.json as
// well; but GPT-2's own has <|endoftext|>.
static void add_vocabulary(const struct spelling *s, bool ordinary, struct buf *out) {
    static const char end_of_text[] = "<|endoftext|>";
    const struct tokenizer *t = s->t;
    size_t n_ordinary = t->n_vocab;
    while (n_ordinary && (t->tokens[n_ordinary - 1].absent || is_literal(&t->tokens[n_ordinary - 1]))) n_ordinary--;
    const char *separator = "{\n";
    for (size_t id = 0; id < t->n_vocab; id++) {
        size_t len;
        const char *text = text_of(s, id, &len);
        bool is_end = len == sizeof end_of_text - 1 && !memcmp(text, end_of_text, len);
        if (t->tokens[id].absent || (ordinary && id >= n_ordinary && !is_end)) continue;
        buf_add_str(out, separator);
        separator = ",\n";
        buf_add_json_string(out, text, len);
        buf_printf(out, ": %zu", id);
    }
    buf_add_str(out, *separator == '{' ? "{}" : "\n}");
}

// "left right" as it stands in merges.txt.
static void add_merge(const struct spelling *s, const struct merge_entry *m, struct buf *out) {
    size_t len;
    const char *text = text_of(s, m->left, &len);
    buf_add(out, text, len);
    buf_add_byte(out, ' ');
    text = text_of(s, m->right, &len);
    buf_add(out, text, len);
}

static void add_merges_text(const struct spelling *s, struct buf *out) {
    buf_add_str(out, "#version: 0.2\n");
    for (size_t i = 0; i < s->t->n_merges; i++) {
        add_merge(s, &s->t->merges[i], out);
        buf_add_byte(out, '\n');
    }
}

// ---- tokenizer.json

static void add_added_tokens(const struct spelling *s, struct buf *out) {
    const char *separator = "\n";
    buf_add_byte(out, '[');
    for (size_t id = 0; id < s->t->n_vocab; id++) {
        const struct token *k = &s->t->tokens[id];
        if (!is_literal(k) || !k->len) continue;
        buf_printf(out, "%s    {\"id\": %zu, \"content\": ", separator, id);
        add_text_json(s, id, out);
        buf_printf(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": %s}",
                   k->special ? "true" : "false");
        separator = ",\n";
    }
    buf_add_str(out, *separator == ',' ? "\n  ]" : "]");
}

#define BYTE_LEVEL(regex) "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": " regex "}"

static void add_pre_tokenizer(enum pre_tokenizer pre, struct buf *out) {
    switch (pre) {
    case PRE_GPT2: buf_add_str(out, BYTE_LEVEL("true")); break;
    case PRE_SMOLLM:
        buf_add_str(out, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, " BYTE_LEVEL("true") "]}");
        break;
    case PRE_LLAMA3:
        buf_add_str(out, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        buf_add_json_string(out, vocab_llama3_pattern, strlen(vocab_llama3_pattern));
        buf_add_str(out, "}, \"behavior\": \"Isolated\", \"invert\": false}, " BYTE_LEVEL("false") "]}");
        break;
    }
}

// Text prompts get BOS where the tokenizer says so; ByteLevel changes no ids.
static void add_post_processor(const struct spelling *s, struct buf *out) {
    if (!s->t->add_bos) {
        buf_add_str(out, BYTE_LEVEL("true"));
        return;
    }
    struct buf bos = {0};
    add_text_json(s, (size_t)s->t->bos, &bos);
    const char *text = buf_str(&bos);
    buf_add_str(out, "{\"type\": \"TemplateProcessing\",\n");
    buf_printf(out, "    \"single\": [{\"SpecialToken\": {\"id\": %s, \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}],\n", text);
    buf_printf(out, "    \"pair\": [{\"SpecialToken\": {\"id\": %s, \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}},\n", text);
    buf_printf(out, "      {\"SpecialToken\": {\"id\": %s, \"type_id\": 1}}, {\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}],\n", text);
    buf_printf(out, "    \"special_tokens\": {%s: {\"id\": %s, \"ids\": [%zu], \"tokens\": [%s]}}}", text, text, (size_t)s->t->bos, text);
    buf_finish(&bos);
}

static void add_tokenizer(const struct spelling *s, struct buf *out) {
    buf_add_str(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": ");
    add_added_tokens(s, out);
    buf_add_str(out, ",\n  \"normalizer\": null,\n  \"pre_tokenizer\": ");
    add_pre_tokenizer(s->t->pre, out);
    buf_add_str(out, ",\n  \"post_processor\": ");
    add_post_processor(s, out);
    buf_add_str(out, ",\n  \"decoder\": " BYTE_LEVEL("true") ",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n");
    buf_add_str(out, "    \"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n");
    buf_add_str(out, "    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n");
    buf_printf(out, "    \"ignore_merges\": %s,\n    \"vocab\": ", s->t->ignore_merges ? "true" : "false");
    add_vocabulary(s, false, out);
    buf_add_str(out, ",\n    \"merges\": [");
    struct buf merge = {0};
    for (size_t i = 0; i < s->t->n_merges; i++) { // as strings, which readers of any age know
        buf_clear(&merge);
        add_merge(s, &s->t->merges[i], &merge);
        buf_add_str(out, i ? ",\n" : "\n");
        buf_add_json_string(out, merge.data, merge.len);
    }
    buf_finish(&merge);
    buf_add_str(out, "]\n  }\n}\n");
}

// ---- tokenizer_config.json

static void add_role(const struct spelling *s, const char *name, int64_t id, struct buf *out) {
    if (id < 0 || s->t->tokens[id].absent) return;
    buf_printf(out, ",\n  \"%s\": ", name);
    add_text_json(s, (size_t)id, out);
}

static void add_config(const struct spelling *s, struct buf *out) {
    const struct tokenizer *t = s->t;
    // Not GPT2Tokenizer, which would build a pre-tokenizer and an unknown token of its own: this class takes tokenizer.json as it is.
    buf_printf(out, "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"add_bos_token\": %s", t->add_bos ? "true" : "false");
    buf_add_str(out, ",\n  \"add_prefix_space\": false,\n  \"clean_up_tokenization_spaces\": false");
    add_role(s, "bos_token", t->bos, out);
    add_role(s, "eos_token", t->eos, out);
    add_role(s, "pad_token", t->pad, out);
    if (t->chat_template) {
        buf_add_str(out, ",\n  \"chat_template\": ");
        buf_add_json_string(out, t->chat_template, strlen(t->chat_template));
    }
    buf_add_str(out, "\n}\n");
}

// ---- the files

bool tokenizer_write(const struct tokenizer *t, const char *dir, struct err *err) {
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json"}; // last the one that wins
    struct file_writer files[ARRAY_LEN(names)] = {0};
    struct spelling s;
    bool ok = spelling_init(&s, t, err);
    for (size_t i = 0; ok && i < ARRAY_LEN(names); i++) {
        struct buf out = {0};
        switch (i) {
        case 0: add_vocabulary(&s, true, &out), buf_add_byte(&out, '\n'); break;
        case 1: add_merges_text(&s, &out); break;
        case 2: add_config(&s, &out); break;
        default: add_tokenizer(&s, &out);
        }
        char *path = path_join(dir, names[i]);
        ok = file_writer_open(&files[i], path, 0644, err);
        if (ok) file_writer_add(&files[i], buf_str(&out), out.len);
        ok = ok && file_writer_sync(&files[i], err);
        free(path);
        buf_finish(&out);
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) { // named only when all four are written: a full disk leaves no mixture
        if (ok) ok = file_writer_finish(&files[i], err);
        else file_writer_abort(&files[i]);
    }
    spelling_finish(&s);
    return ok;
}
