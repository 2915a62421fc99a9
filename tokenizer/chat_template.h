// SPDX-License-Identifier: MIT
// Chat templates: messages -> token ids. A model's Jinja text is never run; it is compared with known texts, and each of those has
// a writer here that gives the same ids as HF's apply_chat_template.
//
// What a client writes in a message cannot become a special token: only the template's own markers are looked up as special, all
// else is encoded as ordinary text. (HF parses special tokens in contents; for contents without any the ids are equal.)
// Thread: any; constants only.
#pragma once

#include "base/arena.h"
#include "tokenizer/tokenizer.h"

enum chat_role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT };

struct chat_message {
    enum chat_role role;
    const char *text;
    size_t len;
};

struct chat_template; // a known one

// By the model's Jinja text (white space at its ends does not matter), or a template's name: "chatml", "llama3", "zephyr", "alpaca".
// NULL: none is known, or jinja is NULL.
const struct chat_template *chat_template_recognise(const char *jinja);
const char *chat_template_name(const struct chat_template *t);
const char *chat_template_jinja(const struct chat_template *t); // for files that this program writes

// Appends the ids of the conversation, and of the answer's head where `add_generation_prompt`.
void chat_template_encode(const struct chat_template *t, const struct tokenizer *tokenizer,
                          const struct chat_message *messages, size_t n, bool add_generation_prompt, struct ids *out);
