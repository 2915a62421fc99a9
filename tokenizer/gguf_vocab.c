// SPDX-License-Identifier: MIT
// A tokenizer from GGUF metadata: only byte-level BPE ("gpt2"), pre-tokenizers by llama.cpp's names (llama-vocab.cpp).
#include "base/mem.h"
#include "tokenizer/vocab_builder.h"

#include <string.h>

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE }; // llama.cpp's

static const struct pre_name {
    const char *name;
    enum pre_tokenizer pre;
    bool ignore_merges;
} pre_names[] = {
    {"", PRE_GPT2, false},
    {"default", PRE_GPT2, false},
    {"gpt-2", PRE_GPT2, false},
    {"gpt2", PRE_GPT2, false},
    {"phi-2", PRE_GPT2, false},
    {"mpt", PRE_GPT2, false},
    {"olmo", PRE_GPT2, false},
    {"jais", PRE_GPT2, false},
    {"smollm", PRE_SMOLLM, false},
    {"starcoder", PRE_SMOLLM, false},
    {"codeshell", PRE_SMOLLM, false},
    {"llama3", PRE_LLAMA3, true},
    {"llama-v3", PRE_LLAMA3, true},
    {"llama-bpe", PRE_LLAMA3, true},
    {"falcon3", PRE_LLAMA3, true},
    {"dbrx", PRE_LLAMA3, false},
    {"smaug-bpe", PRE_LLAMA3, false},
};

static const struct pre_name *pre_find(const struct str *name) {
    for (size_t i = 0; i < ARRAY_LEN(pre_names); i++)
        if (strlen(pre_names[i].name) == name->len && (!name->len || !memcmp(pre_names[i].name, name->s, name->len)))
            return &pre_names[i];
    return NULL;
}

static bool tokens_add(struct vocab_builder *b, const struct gguf_vocab *v, struct err *err) {
    map_reserve(&b->by_text, MIN(v->n_tokens, (size_t)1 << 17));
    for (size_t i = 0; i < v->n_tokens; i++) {
        const struct str *token = &v->tokens[i];
        bool ok = true;
        switch (v->types ? v->types[i] : TYPE_NORMAL) {
        case TYPE_NORMAL: ok = vocab_builder_add(b, token->s, token->len, i, err); break;
        case TYPE_UNKNOWN:
        case TYPE_CONTROL: ok = vocab_builder_add_special(b, token->s, token->len, i, true, err); break;
        case TYPE_USER_DEFINED: ok = vocab_builder_add_special(b, token->s, token->len, i, false, err); break;
        case TYPE_UNUSED: break; // padding of the embedding table
        default:
            return err_set(err, ERR_UNSUPPORTED, "token %zu has type %d, which byte-level BPE does not know", i,
                           v->types[i]);
        }
        if (!ok) return false;
    }
    return true;
}

struct tokenizer *tokenizer_create_gguf(const struct gguf_vocab *v, struct err *err) {
    if (v->model.len != 4 || memcmp(v->model.s, "gpt2", 4) != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "tokenizer model \"%.*s\" is not supported, only \"gpt2\" (byte-level BPE)",
                       (int)MIN(v->model.len, (size_t)60), v->model.len ? v->model.s : ""),
               NULL;
    const struct pre_name *pre = pre_find(&v->pre);
    if (!pre)
        return err_set(err, ERR_UNSUPPORTED, "pre-tokenizer \"%.*s\" is not supported",
                       (int)MIN(v->pre.len, (size_t)60), v->pre.s),
               NULL;
    struct vocab_builder b = {0};
    struct tokenizer *t = NULL;
    bool ok = tokens_add(&b, v, err);
    for (size_t i = 0; ok && i < v->n_merges; i++)
        ok = vocab_builder_merge_text(&b, v->merges[i].s, v->merges[i].len, err);
    if (ok) {
        const struct vocab_options options = {
            .pre = pre->pre,
            .ignore_merges = pre->ignore_merges,
            .add_bos = v->add_bos,
            .bos = v->bos,
            .eos = v->eos,
            .pad = v->pad,
            .chat_template = v->chat_template,
        };
        t = vocab_builder_build(&b, &options, err);
    }
    vocab_builder_finish(&b);
    return t;
}
