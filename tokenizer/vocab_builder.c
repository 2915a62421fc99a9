// SPDX-License-Identifier: MIT
// Gathers a vocabulary and hands it over as a tokenizer_spec. Texts are compared as the file spells them, as HF
// tokenizers does.
//
// Invariants: (1) by_text maps every token's text to its place in tokens, texts are distinct; (2) merges hold ids, in
// rank order, of tokens that are no literals (a literal cannot be reached by merging).
#include "tokenizer/vocab_builder.h"

#include "base/mem.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKEN_BYTES   ((size_t)1 << 20)
#define MAX_HOLES         ((size_t)1 << 16) // ids without a token that a vocabulary may have
#define QUOTED(text, len) (int)MIN((len), (size_t)60), (text)

void vocab_builder_finish(struct vocab_builder *b) {
    free(b->tokens);
    buf_finish(&b->texts);
    map_finish(&b->by_text);
    free(b->merges);
    buf_finish(&b->pair);
    *b = (struct vocab_builder){0};
}

static struct builder_token *token_of(const struct vocab_builder *b, const char *text, size_t len) {
    uint32_t i;
    return map_get(&b->by_text, text, len, &i) ? &b->tokens[i] : NULL;
}

// NULL on failure; by_text is then of no more use, as the load ends.
static struct builder_token *token_add(struct vocab_builder *b, const char *text, size_t len, size_t id,
                                       struct err *err) {
    if (id >= TOKENIZER_MAX_IDS)
        return err_set(err, ERR_TOO_LARGE, "token id %zu is over the limit of %zu", id, TOKENIZER_MAX_IDS - 1), NULL;
    if (len > MAX_TOKEN_BYTES)
        return err_set(err, ERR_TOO_LARGE, "token %zu is longer than %zu bytes", id, MAX_TOKEN_BYTES), NULL;
    if (b->n_tokens == TOKENIZER_MAX_IDS)
        return err_set(err, ERR_TOO_LARGE, "more than %zu tokens", TOKENIZER_MAX_IDS), NULL;
    mem_grow(&b->tokens, &b->tokens_cap, b->n_tokens + 1);
    if (!map_put(&b->by_text, text, len, (uint32_t)b->n_tokens))
        return err_set(err, ERR_CORRUPT, "token \"%.*s\" is given twice", QUOTED(text, len)), NULL;
    struct builder_token *t = &b->tokens[b->n_tokens++];
    *t = (struct builder_token){.at = b->texts.len, .len = (uint32_t)len, .id = (uint32_t)id};
    buf_add(&b->texts, text, len);
    return t;
}

// Is every character of the text in the printable alphabet?
static bool spells_bytes(struct vocab_builder *b, const char *text, size_t len) {
    bool plain = true; // the usual case without decoding: printable ASCII
    for (size_t i = 0; i < len && plain; i++) plain = text[i] > ' ' && text[i] < 0x7f;
    if (plain) return true;
    buf_clear(&b->pair);
    return byte_alphabet_decode(text, len, &b->pair);
}

bool vocab_builder_add(struct vocab_builder *b, const char *text, size_t len, size_t id, struct err *err) {
    struct builder_token *t = token_add(b, text, len, id, err);
    if (!t) return false;
    t->literal = !spells_bytes(b, text, len);
    return true;
}

// Is the id part or result of a merge?
static bool is_merged(const struct vocab_builder *b, uint32_t id) {
    for (size_t i = 0; i < b->n_merges; i++)
        if (b->merges[i].left == id || b->merges[i].right == id || b->merges[i].result == id) return true;
    return false;
}

bool vocab_builder_add_special(struct vocab_builder *b, const char *text, size_t len, size_t id, bool special,
                               struct err *err) {
    struct builder_token *t = token_of(b, text, len);
    if (t && t->id != id)
        return err_set(err, ERR_CORRUPT, "special token \"%.*s\" has two ids, %u and %zu", QUOTED(text, len), t->id,
                       id);
    if (!t) {
        if (!(t = token_add(b, text, len, id, err))) return false;
        t->literal = true;
    }
    // "<|été|>" is in the vocabulary as well and may look like a spelling of other bytes.
    for (size_t i = 0; i < len && !t->literal; i++) t->literal = (text[i] & 0x80) && !is_merged(b, t->id);
    t->special = special;
    t->added = !special;
    return true;
}

bool vocab_builder_merge(struct vocab_builder *b, const char *left, size_t left_len, const char *right,
                         size_t right_len, struct err *err) {
    if (b->n_merges == TOKENIZER_MAX_IDS) return err_set(err, ERR_TOO_LARGE, "more than %zu merges", TOKENIZER_MAX_IDS);
    buf_clear(&b->pair);
    buf_add(&b->pair, left, left_len);
    buf_add(&b->pair, right, right_len);
    const struct builder_token *l = token_of(b, left, left_len), *r = token_of(b, right, right_len);
    const struct builder_token *joined = token_of(b, b->pair.data, b->pair.len);
    if (!l || !r)
        return err_set(err, ERR_CORRUPT, "merge %zu uses \"%.*s\", which is not in the vocabulary", b->n_merges + 1,
                       QUOTED(l ? right : left, l ? right_len : left_len));
    if (!left_len || !right_len) return err_set(err, ERR_CORRUPT, "merge %zu has an empty half", b->n_merges + 1);
    if (!joined)
        return err_set(err, ERR_CORRUPT, "merge %zu makes \"%.*s\", which is not in the vocabulary", b->n_merges + 1,
                       QUOTED(b->pair.data, b->pair.len));
    if (l->literal || r->literal || joined->literal) return true; // can never happen in a text
    mem_grow(&b->merges, &b->merges_cap, b->n_merges + 1);
    b->merges[b->n_merges++] = (struct merge_entry){l->id, r->id, joined->id};
    return true;
}

bool vocab_builder_merge_text(struct vocab_builder *b, const char *text, size_t len, struct err *err) {
    const char *space = len ? memchr(text, ' ', len) : NULL;
    size_t left = space ? (size_t)(space - text) : 0, right = space ? len - left - 1 : 0;
    if (!left || !right || memchr(space + 1, ' ', right))
        return err_set(err, ERR_CORRUPT, "merge %zu is not two tokens with a space between", b->n_merges + 1);
    return vocab_builder_merge(b, text, left, space + 1, right, err);
}

int64_t vocab_builder_find(const struct vocab_builder *b, const char *text, size_t len) {
    const struct builder_token *t = token_of(b, text, len);
    return t ? (int64_t)t->id : -1;
}

bool vocab_builder_has_all_bytes(const struct vocab_builder *b) {
    struct buf spelling = {0};
    bool all = true;
    for (int c = 0; c < 256 && all; c++) {
        char byte = (char)c;
        buf_clear(&spelling);
        byte_alphabet_encode(&byte, 1, &spelling);
        all = vocab_builder_find(b, spelling.data, spelling.len) >= 0;
    }
    buf_finish(&spelling);
    return all;
}

// Every token at its id, holes marked absent. bytes receives what the texts spell.
static bool vocab_place(const struct vocab_builder *b, struct vocab_entry *vocab, size_t n_vocab, struct buf *bytes,
                        struct err *err) {
    for (size_t i = 0; i < n_vocab; i++) vocab[i].absent = true;
    buf_reserve(bytes, b->texts.len + 1);
    const char *data = bytes->data;
    for (size_t i = 0; i < b->n_tokens; i++) {
        const struct builder_token *t = &b->tokens[i];
        const char *text = b->texts.data + t->at;
        struct vocab_entry *v = &vocab[t->id];
        if (!v->absent)
            return err_set(err, ERR_CORRUPT, "token id %u is given twice (\"%.*s\")", t->id, QUOTED(text, t->len));
        size_t start = bytes->len;
        if (t->literal) buf_add(bytes, text, t->len);
        else if (!byte_alphabet_decode(text, t->len, bytes))
            return err_set(err, ERR_CORRUPT, "token %u is not spelled in bytes", t->id);
        *v = (struct vocab_entry){bytes->data + start, bytes->len - start, t->special, t->added, false};
    }
    assert(bytes->data == data); // a spelling is never shorter than its bytes, so the entries' pointers still hold
    return true;
}

struct tokenizer *vocab_builder_build(struct vocab_builder *b, const struct vocab_options *options, struct err *err) {
    size_t n_vocab = 0;
    for (size_t i = 0; i < b->n_tokens; i++) n_vocab = MAX(n_vocab, (size_t)b->tokens[i].id + 1);
    if (!n_vocab) return err_set(err, ERR_CORRUPT, "the vocabulary is empty"), NULL;
    if (n_vocab > b->n_tokens + MAX_HOLES)
        return err_set(err, ERR_CORRUPT, "token id %zu in a vocabulary of %zu tokens", n_vocab - 1, b->n_tokens), NULL;
    struct buf bytes = {0};
    struct tokenizer *t = NULL;
    struct vocab_entry *vocab = mem_try_alloc(n_vocab, sizeof *vocab, "the vocabulary", err);
    if (vocab && vocab_place(b, vocab, n_vocab, &bytes, err)) {
        map_finish(&b->by_text); // the tokenizer makes its own: never both at once
        const struct tokenizer_spec spec = {
            .vocab = vocab,
            .n_vocab = n_vocab,
            .merges = b->merges,
            .n_merges = b->n_merges,
            .pre = options->pre,
            .ignore_merges = options->ignore_merges,
            .bos = options->bos,
            .eos = options->eos,
            .pad = options->pad,
            .add_bos = options->add_bos,
            .chat_template = options->chat_template,
        };
        t = tokenizer_create(&spec, err);
    }
    free(vocab);
    buf_finish(&bytes);
    return t;
}
