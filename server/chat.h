// SPDX-License-Identifier: MIT
// /v1/chat/completions: its fields, its messages, its replies. Pool thread for the request's half, loop thread for the reply's.
#pragma once

#include "tokenizer/chat_template.h"
#include "server/generation.h"

struct chat_fields {
    struct sampling_fields sampling; // first: what sampling_table fills
    const json_t *messages, *response_format;
    int64_t max_tokens, max_completion_tokens, top_logprobs;
    bool logprobs;
};

extern const struct field_table chat_table;
extern const struct reply_format chat_format;
extern const char chat_messages_schema[]; // JSON schema of `messages`

// Validates `messages` and appends the ids of the conversation in the model's own template. 400 no_chat_template without a known one.
bool chat_messages_encode(struct http_request *r, const struct tokenizer *t, const json_t *messages,
                          bool add_generation_prompt, struct ids *out) MUST_CHECK;
