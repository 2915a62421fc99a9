// SPDX-License-Identifier: MIT
// Byte-level BPE tokenizers of GPT-2 and its relatives: text <-> ids, exact to tiktoken / HF tokenizers.
//
// A tokenizer is immutable after it was made: any number of threads may use one. Ids are uint32_t below
// tokenizer_size(). "Text" is any bytes. Invalid UTF-8 is defined: the pre-tokenizer sees each invalid byte as one code
// point that is neither letter, number nor white space; its byte is encoded like any other, so a vocabulary with all
// 256 bytes round-trips.
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

struct tokenizer;

// How text is cut before merging. Names are those of GGUF's tokenizer.ggml.pre where it has one.
enum pre_tokenizer {
    PRE_GPT2,   // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    PRE_SMOLLM, // every \p{N} alone first (HF Digits individual_digits), then gpt2
    // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
    // and then |\s*[\r\n]+|\s+(?!\S)|\s+
    PRE_LLAMA3,
};

// A growable list of ids. `{0}` is empty; free with ids_finish.
struct ids {
    uint32_t *data;
    size_t len, cap;
};
void ids_finish(struct ids *l);
void ids_add(struct ids *l, uint32_t id);

// One vocabulary entry as loaders hand it over.
struct vocab_entry {
    const char *bytes; // the token's bytes (already mapped back from GPT-2's printable alphabet), not NUL-terminated
    size_t len;
    bool special; // matched only when special tokens are asked for; decoded only when asked for
    // Matched in every text before merging and always decoded (HF added tokens that are not special, llama.cpp's user
    // defined).
    bool added;
    bool absent; // hole in the id space: never encoded, decodes to nothing
};
struct merge_entry {
    uint32_t left, right, result; // ids; rank = position in the list
};
struct tokenizer_spec {
    const struct vocab_entry *vocab; // vocab[id]; copied
    size_t n_vocab;
    const struct merge_entry *merges; // by rank; copied
    size_t n_merges;
    enum pre_tokenizer pre;
    // HF tokenizer.json "ignore_merges" (Llama 3): a whole pre-token found in the vocabulary is taken as it is.
    bool ignore_merges;
    int64_t bos, eos, pad; // -1: none
    bool add_bos;          // text prompts get BOS (never id prompts)
    // The model's own Jinja text or NULL; copied, only recognised by name (tokenizer/chat_template.c), never run.
    const char *chat_template;
};
// Takes no ownership. Checks every id and that a merge's bytes are its parts' bytes. NULL on a bad vocabulary.
struct tokenizer *tokenizer_create(const struct tokenizer_spec *spec, struct err *err) MUST_CHECK;

// From a directory: tokenizer.json, else vocab.json + merges.txt, else encoder.json + vocab.bpe; tokenizer_config.json,
// special_tokens_map.json, chat_template.jinja and generation_config.json are read where present (bos/eos/pad,
// template). ERR_NOT_FOUND: none there.
struct tokenizer *tokenizer_load_dir(const char *dir, struct err *err) MUST_CHECK;
// From GGUF metadata, as the engine's GGUF reader found it. `tokens[i]`
// are GGUF's token texts in GPT-2's printable alphabet (special and user-defined ones are plain text), `types[i]`
// llama.cpp's token types (1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte; NULL: all normal),
// `merges[i]` "left right".
struct gguf_vocab {
    const struct str {
        const char *s;
        size_t len;
    } * tokens, *merges;
    size_t n_tokens, n_merges;
    const int32_t *types;
    struct str model; // tokenizer.ggml.model: "gpt2" is supported
    struct str pre;   // tokenizer.ggml.pre: gpt-2, smollm, llama-bpe, default, ...
    int64_t bos, eos, pad;
    bool add_bos;
    const char *chat_template;
};
struct tokenizer *tokenizer_create_gguf(const struct gguf_vocab *v, struct err *err) MUST_CHECK;
void tokenizer_destroy(struct tokenizer *t); // accepts NULL

// Appends the ids of text[0..len) to *out. special: special tokens in the text become their ids (leftmost, longest
// first); otherwise their characters are ordinary text. Never adds BOS. Linear in len but for a log factor. Never
// fails: bytes the vocabulary lacks vanish (as in HF tokenizers).
void tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool special, struct ids *out);
// As above, and appends to *offsets (one per id) where in the text each token's first byte lies.
void tokenizer_encode_offsets(const struct tokenizer *t, const char *text, size_t len, bool special, struct ids *out,
                              struct ids *offsets);

// Appends the bytes of the ids. Special tokens are skipped unless `special`. An id that is out of range: ERR_INVALID.
bool tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, size_t n, bool special, struct buf *out,
                      struct err *err) MUST_CHECK;
// The bytes of one id ("" for a hole; the literal text for a special token). id < tokenizer_size.
const char *tokenizer_bytes(const struct tokenizer *t, uint32_t id, size_t *len);
bool tokenizer_is_special(const struct tokenizer *t, uint32_t id);
bool tokenizer_find(const struct tokenizer *t, const char *bytes, size_t len, uint32_t *id); // special tokens win

size_t tokenizer_size(const struct tokenizer *t); // number of ids, holes included
int64_t tokenizer_bos(const struct tokenizer *t); // -1: none
int64_t tokenizer_eos(const struct tokenizer *t);
int64_t tokenizer_pad(const struct tokenizer *t);
bool tokenizer_add_bos(const struct tokenizer *t);
bool tokenizer_has_all_bytes(const struct tokenizer *t);
enum pre_tokenizer tokenizer_pre(const struct tokenizer *t);
const char *tokenizer_chat_template(const struct tokenizer *t); // NULL: none
// Ids at which generation stops: eos and those of <|endoftext|>, <|im_end|>, <|eot_id|> that the vocabulary holds.
// Valid as long as t.
const uint32_t *tokenizer_stop_ids(const struct tokenizer *t, size_t *n);
bool tokenizer_is_stop(const struct tokenizer *t, uint32_t id); // one of those
