// SPDX-License-Identifier: MIT
// Making a tokenizer from a checked specification; ids -> bytes; what a tokenizer knows about itself.
#include "base/mem.h"
#include "tokenizer/tokenizer_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void tokenizer_destroy(struct tokenizer *t) {
    if (!t) return;
    free(t->tokens);
    free(t->bytes);
    free(t->merges);
    bpe_finish(&t->bpe);
    map_finish(&t->plain);
    map_finish(&t->special);
    special_matcher_finish(&t->added);
    special_matcher_finish(&t->any);
    free(t->chat_template);
    free(t);
}

// ---- create

static bool tokens_copy(struct tokenizer *t, const struct tokenizer_spec *spec, struct err *err) {
    size_t total = 0;
    if (!spec->n_vocab) return err_set(err, ERR_CORRUPT, "the vocabulary is empty");
    if (spec->n_vocab > TOKENIZER_MAX_IDS)
        return err_set(err, ERR_TOO_LARGE, "a vocabulary of %zu ids is over the limit of %zu", spec->n_vocab,
                       TOKENIZER_MAX_IDS);
    for (size_t i = 0; i < spec->n_vocab; i++)
        if (!size_add(total, spec->vocab[i].len, &total) || total > UINT32_MAX)
            return err_set(err, ERR_TOO_LARGE, "the vocabulary's tokens hold more than 4 GiB");
    t->tokens = mem_try_alloc(spec->n_vocab, sizeof *t->tokens, "the vocabulary", err);
    if (!t->tokens || !(t->bytes = mem_try_alloc(total + 1, 1, "the vocabulary", err))) return false;
    t->n_vocab = spec->n_vocab;
    uint32_t at = 0;
    for (size_t i = 0; i < t->n_vocab; i++) {
        const struct vocab_entry *v = &spec->vocab[i];
        uint32_t len = v->absent ? 0 : (uint32_t)v->len;
        t->tokens[i] = (struct token){at, len, v->special && !v->absent, v->added && !v->absent, v->absent};
        if (len) memcpy(t->bytes + at, v->bytes, len);
        at += len;
    }
    return true;
}

static const char *token_bytes(const struct tokenizer *t, size_t id) { return t->bytes + t->tokens[id].at; }

// The maps from bytes to ids and the tokens of single bytes. Of equal plain tokens the lowest id is found.
static void tokens_index(struct tokenizer *t) {
    map_reserve(&t->plain, t->n_vocab);
    for (size_t i = t->n_vocab; i-- > 0;) {
        const struct token *k = &t->tokens[i];
        if (k->absent || !k->len) continue;
        bool plain = !k->special && !k->added;
        map_put(plain ? &t->plain : &t->special, token_bytes(t, i), k->len, (uint32_t)i);
        if (plain && k->len == 1) t->bpe.byte_id[(unsigned char)*token_bytes(t, i)] = (uint32_t)i;
    }
    // A byte's own token may have been declared special ("!" used for padding): text still needs it.
    for (size_t i = 0; i < t->n_vocab; i++) {
        const struct token *k = &t->tokens[i];
        if (k->len != 1 || !(k->special || k->added)) continue;
        uint32_t *byte_id = &t->bpe.byte_id[(unsigned char)*token_bytes(t, i)];
        if (*byte_id == BPE_NONE) *byte_id = (uint32_t)i;
    }
}

static void specials_index(struct tokenizer *t) {
    size_t n = 0, n_added = 0;
    for (size_t i = 0; i < t->n_vocab; i++) n += t->tokens[i].special || t->tokens[i].added;
    struct special_entry *list = mem_alloc(n, sizeof *list);
    n = 0;
    for (int pass = 0; pass < 2; pass++) { // the added ones first, so that they are a prefix of the list
        for (size_t i = 0; i < t->n_vocab; i++) {
            const struct token *k = &t->tokens[i];
            if (pass == 0 ? !k->added : k->added || !k->special) continue;
            list[n++] = (struct special_entry){token_bytes(t, i), k->len, (uint32_t)i};
        }
        if (pass == 0) n_added = n;
    }
    special_matcher_init(&t->added, list, n_added);
    special_matcher_init(&t->any, list, n);
    free(list);
}

static bool merges_copy(struct tokenizer *t, const struct tokenizer_spec *spec, struct err *err) {
    if (spec->n_merges > TOKENIZER_MAX_IDS)
        return err_set(err, ERR_TOO_LARGE, "%zu merges are over the limit of %zu", spec->n_merges, TOKENIZER_MAX_IDS);
    if (!bpe_init(&t->bpe, spec->n_merges, err)) return false;
    t->merges = mem_try_alloc(spec->n_merges, sizeof *t->merges, "the merges", err);
    if (!t->merges) return false;
    t->n_merges = spec->n_merges;
    for (size_t i = 0; i < spec->n_merges; i++) {
        const struct merge_entry *m = &spec->merges[i];
        if (m->left >= t->n_vocab || m->right >= t->n_vocab || m->result >= t->n_vocab)
            return err_set(err, ERR_CORRUPT, "merge %zu names an id outside the vocabulary", i + 1);
        const struct token *left = &t->tokens[m->left], *right = &t->tokens[m->right], *result = &t->tokens[m->result];
        const char *bytes = token_bytes(t, m->result);
        if (!left->len || !right->len || (uint64_t)left->len + right->len != result->len ||
            memcmp(bytes, token_bytes(t, m->left), left->len) != 0 ||
            memcmp(bytes + left->len, token_bytes(t, m->right), right->len) != 0)
            return err_set(err, ERR_CORRUPT, "merge %zu does not join its two tokens into its result", i + 1);
        bpe_add(&t->bpe, m->left, m->right, (uint32_t)i, m->result);
        t->merges[i] = *m;
    }
    return true;
}

static bool roles_copy(struct tokenizer *t, const struct tokenizer_spec *spec, struct err *err) {
    const struct {
        const char *name;
        int64_t id;
    } roles[] = {{"bos", spec->bos}, {"eos", spec->eos}, {"pad", spec->pad}};
    for (size_t i = 0; i < ARRAY_LEN(roles); i++)
        if (roles[i].id < -1 || roles[i].id >= (int64_t)t->n_vocab)
            return err_set(err, ERR_CORRUPT, "the %s token is not an id of the vocabulary", roles[i].name);
    t->bos = spec->bos;
    t->eos = spec->eos;
    t->pad = spec->pad;
    t->pre = spec->pre;
    t->ignore_merges = spec->ignore_merges;
    t->add_bos = spec->add_bos && spec->bos >= 0;
    if (spec->chat_template) t->chat_template = mem_strdup(spec->chat_template);
    return true;
}

static void stop_ids_find(struct tokenizer *t) {
    static const char *const names[] = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>"};
    if (t->eos >= 0) t->stop_ids[t->n_stop_ids++] = (uint32_t)t->eos;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        uint32_t id;
        if (tokenizer_find(t, names[i], strlen(names[i]), &id) && (int64_t)id != t->eos)
            t->stop_ids[t->n_stop_ids++] = id;
    }
}

struct tokenizer *tokenizer_create(const struct tokenizer_spec *spec, struct err *err) {
    struct tokenizer *t = mem_new(struct tokenizer);
    if (!tokens_copy(t, spec, err) || !merges_copy(t, spec, err) || !roles_copy(t, spec, err)) {
        tokenizer_destroy(t);
        return NULL;
    }
    tokens_index(t);
    specials_index(t);
    stop_ids_find(t);
    return t;
}

// ---- decode and look

bool tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, size_t n, bool special, struct buf *out,
                      struct err *err) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= t->n_vocab)
            return err_set(err, ERR_INVALID, "token id %u is not in the vocabulary (0 to %zu)", ids[i], t->n_vocab - 1);
    for (size_t i = 0; i < n; i++) {
        const struct token *k = &t->tokens[ids[i]];
        if (k->len && (special || !k->special)) buf_add(out, token_bytes(t, ids[i]), k->len);
    }
    return true;
}

const char *tokenizer_bytes(const struct tokenizer *t, uint32_t id, size_t *len) {
    assert(id < t->n_vocab);
    *len = t->tokens[id].len;
    return token_bytes(t, id);
}

bool tokenizer_is_special(const struct tokenizer *t, uint32_t id) {
    assert(id < t->n_vocab);
    return t->tokens[id].special;
}

bool tokenizer_find(const struct tokenizer *t, const char *bytes, size_t len, uint32_t *id) {
    return map_get(&t->special, bytes, len, id) || map_get(&t->plain, bytes, len, id);
}

size_t tokenizer_size(const struct tokenizer *t) { return t->n_vocab; }

int64_t tokenizer_bos(const struct tokenizer *t) { return t->bos; }

int64_t tokenizer_eos(const struct tokenizer *t) { return t->eos; }

int64_t tokenizer_pad(const struct tokenizer *t) { return t->pad; }

bool tokenizer_add_bos(const struct tokenizer *t) { return t->add_bos; }

bool tokenizer_has_all_bytes(const struct tokenizer *t) {
    for (size_t i = 0; i < 256; i++)
        if (t->bpe.byte_id[i] == BPE_NONE) return false;
    return true;
}

enum pre_tokenizer tokenizer_pre(const struct tokenizer *t) { return t->pre; }

const char *tokenizer_chat_template(const struct tokenizer *t) { return t->chat_template; }

const uint32_t *tokenizer_stop_ids(const struct tokenizer *t, size_t *n) {
    *n = t->n_stop_ids;
    return t->stop_ids;
}

bool tokenizer_is_stop(const struct tokenizer *t, uint32_t id) {
    for (size_t i = 0; i < t->n_stop_ids; i++)
        if (t->stop_ids[i] == id) return true;
    return false;
}
