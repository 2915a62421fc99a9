// SPDX-License-Identifier: MIT
// The loaders of tokenizer_load_dir: each fills a vocab_builder and what its file says about options. Messages start
// with the file's name.
#pragma once

#include "tokenizer/vocab_builder.h"

// What the files beside a vocabulary say about bos, eos, pad and the chat template.
struct vocab_roles {
    struct buf bos, eos, pad;       // texts; empty: not said
    int64_t bos_id, eos_id, pad_id; // ids from generation_config.json or config.json; -1: not said
    int add_bos;                    // 1, 0; -1: not said
    struct buf chat_template;       // empty: none
};

// load_files.c. Puts the file's name before the message; broken JSON is a corrupt file here. Returns false.
bool vocab_file_fail(struct err *err, const char *path);

extern const char vocab_llama3_pattern[]; // load_json.c: PRE_LLAMA3 as tokenizer.json spells it

// load_json.c: tokenizer.json of HF tokenizers. options->bos is set where the post-processor puts a token before the
// text.
bool vocab_load_json(struct vocab_builder *b, struct vocab_options *options, const char *path,
                     struct err *err) MUST_CHECK;
// load_files.c: {"token": id} and the list of merges. <|endoftext|>, where present, becomes special.
bool vocab_load_files(struct vocab_builder *b, const char *vocab_path, const char *merges_path,
                      struct err *err) MUST_CHECK;
// {"token": id, ...} at the reader's place.
struct json;
bool vocab_read_object(struct vocab_builder *b, struct json *j, struct err *err) MUST_CHECK;

// load_roles.c: tokenizer_config.json, special_tokens_map.json, generation_config.json, config.json,
// chat_template.jinja.
// *r must be vocab_roles_init'ed
bool vocab_roles_load(struct vocab_roles *r, const char *dir, struct err *err) MUST_CHECK;
void vocab_roles_init(struct vocab_roles *r);
void vocab_roles_finish(struct vocab_roles *r);
