// SPDX-License-Identifier: MIT
// tokenizer.json of HF tokenizers, recognised by structure: byte-level BPE with one of the three pre-tokenizers.
// Whatever would change an id and is not known here is refused by name, never ignored.
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "tokenizer/vocab_load.h"

#include <string.h>

#define MAX_FILE_BYTES ((size_t)128 << 20)
#define MAX_STEPS      4

const char vocab_llama3_pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
                                    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// A component of the pipeline; which fields mean something depends on its type.
struct step {
    struct buf type, pattern, behavior;
    bool individual_digits, use_regex, add_prefix_space, invert;
};

struct loader {
    struct vocab_builder *b;
    struct vocab_options *o;
    struct step steps[MAX_STEPS]; // the pre-tokenizer, sequences flattened
    size_t n_steps;
    struct buf bos;     // the token that the post-processor puts before the text
    struct buf unknown; // the model's unk_token
    struct buf key, text;
};

static bool refuse(struct err *err, const char *what, const struct buf *name) {
    return err_set(err, ERR_UNSUPPORTED, "%s \"%.60s\" is not supported", what, buf_str(name));
}

// The string member `name` of the object at j (its reader is a copy: j does not move). *out is empty when there is
// none.
static bool peek_string(struct json j, const char *name, struct buf *out, struct err *err) {
    struct buf key = {0};
    buf_clear(out);
    bool ok = json_open(&j, '{', err);
    while (ok && json_next_key(&j, &key, err))
        ok = buf_is(&key, name) && json_peek(&j) == JSON_STRING ? json_read_string(&j, out, err) : json_skip(&j, err);
    buf_finish(&key);
    return ok && !j.failed;
}

// ---- pre_tokenizer

// {"Regex": "..."} or {"String": "..."}; the latter stays empty and so matches no known pattern.
static bool read_pattern(struct json *j, struct buf *out, struct err *err) {
    struct json here = *j;
    return json_skip(j, err) && (json_peek(&here) != JSON_OBJECT || peek_string(here, "Regex", out, err));
}

static bool read_steps(struct loader *l, struct json *j, int depth, struct err *err);

static bool read_step_field(struct loader *l, struct step *s, struct json *j, const struct buf *key, int depth,
                            struct err *err) {
    if (buf_is(key, "individual_digits")) return json_read_bool(j, &s->individual_digits, err);
    if (buf_is(key, "use_regex")) return json_read_bool(j, &s->use_regex, err);
    if (buf_is(key, "add_prefix_space")) return json_read_bool(j, &s->add_prefix_space, err);
    if (buf_is(key, "invert")) return json_read_bool(j, &s->invert, err);
    if (buf_is(key, "behavior")) return json_read_string(j, &s->behavior, err);
    if (buf_is(key, "pattern")) return read_pattern(j, &s->pattern, err);
    if (!buf_is(key, "pretokenizers")) return json_skip(j, err);
    bool ok = json_open(j, '[', err);
    while (ok && json_next_item(j, err)) ok = read_steps(l, j, depth + 1, err);
    return ok && !j->failed;
}

// One component; a Sequence is replaced by its members.
static bool read_steps(struct loader *l, struct json *j, int depth, struct err *err) {
    if (depth > 2 || l->n_steps == MAX_STEPS) return err_set(err, ERR_UNSUPPORTED, "pre_tokenizer has too many steps");
    struct step s = {.use_regex = true};
    struct buf key = {0};
    bool ok = peek_string(*j, "type", &s.type, err) && json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) ok = read_step_field(l, &s, j, &key, depth, err);
    ok = ok && !j->failed;
    buf_finish(&key);
    if (ok && !buf_is(&s.type, "Sequence")) {
        ok = l->n_steps < MAX_STEPS || err_set(err, ERR_UNSUPPORTED, "pre_tokenizer has too many steps");
        if (ok) {
            l->steps[l->n_steps++] = s;
            return true;
        }
    }
    buf_finish(&s.type);
    buf_finish(&s.pattern);
    buf_finish(&s.behavior);
    return ok;
}

static bool steps_recognise(const struct loader *l, enum pre_tokenizer *pre, struct err *err) {
    const struct step *s = l->steps;
    for (size_t i = 0; i < l->n_steps; i++) {
        if (!buf_is(&s[i].type, "ByteLevel") && !buf_is(&s[i].type, "Digits") && !buf_is(&s[i].type, "Split"))
            return refuse(err, "pre_tokenizer", &s[i].type);
        if (s[i].add_prefix_space) return err_set(err, ERR_UNSUPPORTED, "add_prefix_space is not supported");
    }
    const struct step *last = l->n_steps ? &s[l->n_steps - 1] : NULL;
    if (!last || !buf_is(&last->type, "ByteLevel") || l->n_steps > 2)
        return err_set(err, ERR_UNSUPPORTED,
                       "this pre_tokenizer is not supported: it must end with ByteLevel after at most one other step");
    if (l->n_steps == 1 && last->use_regex) return *pre = PRE_GPT2, true;
    if (l->n_steps == 1)
        return err_set(err, ERR_UNSUPPORTED, "pre_tokenizer ByteLevel without its regex is not supported");
    if (buf_is(&s[0].type, "Digits") && s[0].individual_digits && last->use_regex) return *pre = PRE_SMOLLM, true;
    if (!buf_is(&s[0].type, "Split"))
        return err_set(err, ERR_UNSUPPORTED, "this pre_tokenizer is not supported: %s before ByteLevel in this form",
                       buf_str(&s[0].type));
    bool isolated = buf_is(&s[0].behavior, "Isolated") && !s[0].invert && !last->use_regex;
    if (isolated && buf_is(&s[0].pattern, vocab_llama3_pattern)) return *pre = PRE_LLAMA3, true;
    if (isolated && buf_is(&s[0].pattern, gpt2_pattern)) return *pre = PRE_GPT2, true;
    return err_set(err, ERR_UNSUPPORTED, "pre_tokenizer Split with the pattern %.200s is not supported",
                   buf_str(&s[0].pattern));
}

static bool read_pre_tokenizer(struct loader *l, struct json *j, struct err *err) {
    if (json_peek(j) != JSON_OBJECT)
        return err_set(err, ERR_UNSUPPORTED, "a vocabulary without pre_tokenizer is not supported");
    return read_steps(l, j, 0, err) && steps_recognise(l, &l->o->pre, err);
}

// ---- normalizer, decoder, post_processor

static bool refuse_normalizer(struct loader *l, struct json *j, struct err *err) {
    if (json_peek(j) != JSON_OBJECT) return json_read_null(j, err);
    return peek_string(*j, "type", &l->text, err) && refuse(err, "normalizer", &l->text);
}

static bool check_decoder(struct loader *l, struct json *j, struct err *err) {
    if (json_peek(j) != JSON_OBJECT) return json_read_null(j, err);
    if (!peek_string(*j, "type", &l->text, err)) return false;
    if (!buf_is(&l->text, "ByteLevel")) return refuse(err, "decoder", &l->text);
    return json_skip(j, err);
}

// TemplateProcessing's "single": [{"SpecialToken": {"id": text}}, {"Sequence": ...}]: at most one token, before the
// text.
static bool read_template(struct loader *l, struct json *j, struct err *err) {
    size_t n = 0, n_special = 0;
    bool ok = json_open(j, '[', err), sequence = false;
    while (ok && json_next_item(j, err)) {
        ok = json_open(j, '{', err);
        while (ok && json_next_key(j, &l->key, err)) {
            bool special = buf_is(&l->key, "SpecialToken");
            if (special) ok = ++n_special == 1 && !sequence;
            if (!ok)
                return err_set(err, ERR_UNSUPPORTED,
                               "a post_processor that adds more than one token before the text is not supported");
            sequence |= !special;
            ok = !special || peek_string(*j, "id", &l->bos, err);
            ok = ok && json_skip(j, err);
        }
        ok = ok && !j->failed;
        n++;
    }
    return ok && !j->failed &&
           (n <= 2 || err_set(err, ERR_UNSUPPORTED, "this post_processor template is not supported"));
}

static bool read_post_processor(struct loader *l, struct json *j, int depth, struct err *err) {
    if (json_peek(j) != JSON_OBJECT) return json_read_null(j, err);
    if (depth > 2) return err_set(err, ERR_UNSUPPORTED, "post_processor has too many steps");
    if (!peek_string(*j, "type", &l->text, err)) return false;
    bool template = buf_is(&l->text, "TemplateProcessing");
    if (!template && !buf_is(&l->text, "Sequence") && !buf_is(&l->text, "ByteLevel"))
        return refuse(err, "post_processor", &l->text);
    struct buf key = {0};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) {
        if (template && buf_is(&key, "single")) {
            ok = read_template(l, j, err);
        } else if (buf_is(&key, "processors")) {
            ok = json_open(j, '[', err);
            while (ok && json_next_item(j, err)) ok = read_post_processor(l, j, depth + 1, err);
            ok = ok && !j->failed;
        } else {
            ok = json_skip(j, err);
        }
    }
    buf_finish(&key);
    return ok && !j->failed;
}

// ---- model

// "left right" or ["left", "right"].
static bool read_merge(struct loader *l, struct json *j, struct buf *right, struct err *err) {
    if (json_peek(j) == JSON_STRING)
        return json_read_string(j, &l->text, err) &&
               vocab_builder_merge_text(l->b, buf_str(&l->text), l->text.len, err);
    return json_open(j, '[', err) && json_next_item(j, err) && json_read_string(j, &l->text, err) &&
           json_next_item(j, err) && json_read_string(j, right, err) && !json_next_item(j, err) && !j->failed &&
           vocab_builder_merge(l->b, buf_str(&l->text), l->text.len, buf_str(right), right->len, err);
}

static bool read_merges(struct loader *l, struct json *j, struct err *err) {
    struct buf right = {0};
    struct err place = {0};
    bool ok = json_open(j, '[', err);
    for (size_t rank = 1; ok && json_next_item(j, err); rank++) {
        ok = read_merge(l, j, &right, &place);
        if (ok) continue;
        if (!place.code) err_set(&place, ERR_CORRUPT, "merge %zu is not a pair of tokens", rank);
        if (err) *err = place;
    }
    buf_finish(&right);
    return ok && !j->failed;
}

// Options that would change ids must have their neutral value.
static bool read_model_option(struct loader *l, struct json *j, const struct buf *key, struct err *err) {
    enum json_type type = json_peek(j);
    bool neutral = type == JSON_NULL, flag = false;
    if (buf_is(key, "ignore_merges") && type == JSON_BOOL) return json_read_bool(j, &l->o->ignore_merges, err);
    if (buf_is(key, "unk_token") && type == JSON_STRING) return json_read_string(j, &l->unknown, err);
    if (buf_is(key, "type")) {
        if (!json_read_string(j, &l->text, err)) return false;
        return buf_is(&l->text, "BPE") || refuse(err, "model type", &l->text);
    }
    if (buf_is(key, "continuing_subword_prefix") || buf_is(key, "end_of_word_suffix")) {
        if (neutral) return json_read_null(j, err);
        return json_read_string(j, &l->text, err) && (!l->text.len || refuse(err, buf_str(key), &l->text));
    }
    if (buf_is(key, "byte_fallback") && type == JSON_BOOL)
        return json_read_bool(j, &flag, err) &&
               (!flag || err_set(err, ERR_UNSUPPORTED, "byte_fallback is not supported"));
    if (buf_is(key, "dropout") && type == JSON_NUMBER) {
        double dropout;
        return json_read_double(j, &dropout, err) &&
               (dropout == 0 || err_set(err, ERR_UNSUPPORTED, "dropout is not supported"));
    }
    return json_skip(j, err);
}

static bool read_model(struct loader *l, struct json *j, struct err *err) {
    if (json_peek(j) == JSON_OBJECT) { // its type first: another model's vocabulary has another shape
        if (!peek_string(*j, "type", &l->text, err)) return false;
        if (l->text.len && !buf_is(&l->text, "BPE")) return refuse(err, "model type", &l->text);
    }
    struct json merges = {0};
    struct buf key = {0};
    bool ok = json_open(j, '{', err), vocab = false;
    while (ok && json_next_key(j, &key, err)) {
        if (buf_is(&key, "vocab") && vocab) {
            ok = err_set(err, ERR_CORRUPT, "\"vocab\" is given twice");
        } else if (buf_is(&key, "vocab")) {
            ok = vocab = vocab_read_object(l->b, j, err);
        } else if (buf_is(&key, "merges")) { // read when the vocabulary is known, whatever their order
            merges = *j;
            ok = json_skip(j, err);
        } else {
            ok = read_model_option(l, j, &key, err);
        }
    }
    ok = ok && !j->failed;
    buf_finish(&key);
    if (ok && !vocab) return err_set(err, ERR_CORRUPT, "the model has no \"vocab\"");
    if (ok && !merges.text) return err_set(err, ERR_CORRUPT, "the model has no \"merges\"");
    return ok && read_merges(l, &merges, err);
}

// ---- added_tokens

static bool read_added_token(struct loader *l, struct json *j, struct err *err) {
    static const char *const refused[] = {"single_word", "lstrip", "rstrip"};
    bool ok = json_open(j, '{', err), special = false, flag = false;
    size_t id = SIZE_MAX;
    buf_clear(&l->text);
    while (ok && json_next_key(j, &l->key, err)) {
        const char *name = NULL;
        for (size_t i = 0; i < ARRAY_LEN(refused); i++)
            if (buf_is(&l->key, refused[i])) name = refused[i];
        if (name)
            ok = json_read_bool(j, &flag, err) &&
                 (!flag || err_set(err, ERR_UNSUPPORTED, "an added token with %s is not supported", name));
        else if (buf_is(&l->key, "id")) ok = json_read_size(j, &id, err);
        else if (buf_is(&l->key, "content")) ok = json_read_string(j, &l->text, err);
        else if (buf_is(&l->key, "special")) ok = json_read_bool(j, &special, err);
        else ok = json_skip(j, err);
    }
    if (!ok || j->failed) return false;
    if (id == SIZE_MAX || !l->text.len) return err_set(err, ERR_CORRUPT, "an added token has no id or no content");
    return vocab_builder_add_special(l->b, l->text.data, l->text.len, id, special, err);
}

static bool read_added_tokens(struct loader *l, struct json *j, struct err *err) {
    if (json_peek(j) == JSON_NULL) return json_read_null(j, err);
    bool ok = json_open(j, '[', err);
    while (ok && json_next_item(j, err)) ok = read_added_token(l, j, err);
    return ok && !j->failed;
}

// ---- the file

static bool read_file(struct loader *l, struct json *j, struct err *err) {
    struct json added = {0};
    struct buf key = {0};
    bool ok = json_open(j, '{', err), model = false, pre = false;
    while (ok && json_next_key(j, &key, err)) {
        if (buf_is(&key, "model") && !model) {
            ok = model = read_model(l, j, err);
        } else if (buf_is(&key, "added_tokens")) { // read after the model, whose ids they repeat
            added = *j;
            ok = json_skip(j, err);
        } else if (buf_is(&key, "pre_tokenizer") && !pre) {
            ok = pre = read_pre_tokenizer(l, j, err);
        } else if (buf_is(&key, "normalizer")) {
            ok = refuse_normalizer(l, j, err);
        } else if (buf_is(&key, "decoder")) {
            ok = check_decoder(l, j, err);
        } else if (buf_is(&key, "post_processor")) {
            ok = read_post_processor(l, j, 0, err);
        } else if (buf_is(&key, "model") || buf_is(&key, "pre_tokenizer")) {
            ok = err_set(err, ERR_CORRUPT, "\"%s\" is given twice", buf_str(&key));
        } else {
            ok = json_skip(j, err);
        }
    }
    buf_finish(&key);
    if (!ok || j->failed || !json_finish(j, err)) return false;
    if (!model) return err_set(err, ERR_CORRUPT, "it has no \"model\"");
    if (!pre) return err_set(err, ERR_UNSUPPORTED, "a vocabulary without pre_tokenizer is not supported");
    return !added.text || read_added_tokens(l, &added, err);
}

// What can be judged only when the whole vocabulary is there.
static bool loader_settle(struct loader *l, struct err *err) {
    if (l->bos.len) {
        l->o->bos = vocab_builder_find(l->b, l->bos.data, l->bos.len);
        if (l->o->bos < 0)
            return err_set(err, ERR_CORRUPT, "the post_processor's token \"%.60s\" is not in the vocabulary",
                           l->bos.data);
        l->o->add_bos = true;
    }
    if (l->unknown.len && !vocab_builder_has_all_bytes(l->b))
        return err_set(err, ERR_UNSUPPORTED, "unk_token is not supported in a vocabulary that lacks single bytes");
    return true;
}

bool vocab_load_json(struct vocab_builder *b, struct vocab_options *options, const char *path, struct err *err) {
    struct file_map map;
    if (!file_map_open(&map, path, err)) return false;
    struct loader l = {.b = b, .o = options};
    struct json j;
    json_init(&j, (const char *)map.data, map.len);
    bool ok = map.len <= MAX_FILE_BYTES || err_set(err, ERR_TOO_LARGE, "larger than %zu bytes", MAX_FILE_BYTES);
    ok = ok && read_file(&l, &j, err) && loader_settle(&l, err);
    for (size_t i = 0; i < l.n_steps; i++) {
        buf_finish(&l.steps[i].type);
        buf_finish(&l.steps[i].pattern);
        buf_finish(&l.steps[i].behavior);
    }
    buf_finish(&l.bos);
    buf_finish(&l.unknown);
    buf_finish(&l.key);
    buf_finish(&l.text);
    file_map_close(&map);
    return ok || vocab_file_fail(err, path);
}
