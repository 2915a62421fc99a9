// SPDX-License-Identifier: MIT
// A tokenizer from a directory: finds the vocabulary's files, then settles bos, eos, pad and the chat template.
#include "base/file.h"
#include "base/mem.h"
#include "tokenizer/vocab_load.h"

#include <stdlib.h>
#include <string.h>

// dir/name, or NULL when it is not a file.
static char *path_if_file(const char *dir, const char *name) {
    char *path = path_join(dir, name);
    if (file_exists(path)) return path;
    free(path);
    return NULL;
}

// *from_json: tokenizer.json was read, which declares its own special tokens.
static bool vocabulary_load(struct vocab_builder *b, struct vocab_options *o, const char *dir, bool *from_json,
                            struct err *err) {
    static const char *const pairs[][2] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
    char *path = path_if_file(dir, "tokenizer.json");
    if (path) {
        bool ok = vocab_load_json(b, o, path, err);
        *from_json = true;
        free(path);
        return ok;
    }
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        char *vocab = path_if_file(dir, pairs[i][0]), *merges = path_if_file(dir, pairs[i][1]);
        bool found = vocab != NULL, ok = false;
        if (vocab && !merges) err_set(err, ERR_CORRUPT, "%s is there without %s", pairs[i][0], pairs[i][1]);
        else if (vocab) ok = vocab_load_files(b, vocab, merges, err);
        free(vocab);
        free(merges);
        if (found) return ok;
    }
    return err_set(
        err, ERR_NOT_FOUND,
        "no tokenizer there: neither tokenizer.json nor vocab.json and merges.txt nor encoder.json and vocab.bpe");
}

static bool id_exists(const struct vocab_builder *b, int64_t id) {
    for (size_t i = 0; i < b->n_tokens; i++)
        if (b->tokens[i].id == id) return true;
    return false;
}

// By text, else by id (a model's configuration may name an id that this vocabulary lacks), else what the vocabulary
// said.
static int64_t role_id(const struct vocab_builder *b, const struct buf *text, int64_t id, int64_t otherwise) {
    int64_t found = text->len ? vocab_builder_find(b, text->data, text->len) : -1;
    if (found >= 0) return found;
    return id >= 0 && id_exists(b, id) ? id : otherwise;
}

static bool roles_settle(struct vocab_builder *b, struct vocab_options *o, const struct vocab_roles *r, bool from_json,
                         struct err *err) {
    static const char end_of_text[] = "<|endoftext|>";
    int64_t end = vocab_builder_find(b, end_of_text, strlen(end_of_text));
    if (o->bos < 0) o->bos = role_id(b, &r->bos, r->bos_id, end);
    o->eos = role_id(b, &r->eos, r->eos_id, end);
    o->pad = role_id(b, &r->pad, r->pad_id, -1);
    if (r->add_bos >= 0) o->add_bos = r->add_bos;
    if (r->chat_template.len) o->chat_template = r->chat_template.data;
    if (from_json) return true;
    const struct buf *texts[] = {&r->bos, &r->eos, &r->pad};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        int64_t id = texts[i]->len ? vocab_builder_find(b, texts[i]->data, texts[i]->len) : -1;
        if (id >= 0 && !vocab_builder_add_special(b, texts[i]->data, texts[i]->len, (size_t)id, true, err))
            return false;
    }
    return true;
}

struct tokenizer *tokenizer_load_dir(const char *dir, struct err *err) {
    struct vocab_builder b = {0};
    struct vocab_options o = {.pre = PRE_GPT2, .bos = -1, .eos = -1, .pad = -1};
    struct vocab_roles r;
    struct tokenizer *t = NULL;
    bool from_json = false;
    vocab_roles_init(&r);
    if (vocabulary_load(&b, &o, dir, &from_json, err) && vocab_roles_load(&r, dir, err) &&
        roles_settle(&b, &o, &r, from_json, err))
        t = vocab_builder_build(&b, &o, err);
    vocab_roles_finish(&r);
    vocab_builder_finish(&b);
    return t;
}
