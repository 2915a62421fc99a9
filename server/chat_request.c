// SPDX-License-Identifier: MIT
// The request half of /v1/chat/completions: field table, messages. Pool thread.
#include "server/chat.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { MAX_MESSAGES = 1024 };

const char chat_messages_schema[] =
    "{\"type\":\"array\",\"minItems\":1,\"maxItems\":1024,\"items\":{\"type\":\"object\",\"required\":[\"role\","
    "\"content\"],\"properties\":{"
    "\"role\":{\"type\":\"string\",\"enum\":[\"system\",\"developer\",\"user\",\"assistant\"]},"
    "\"content\":{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"items\":{\"type\":\"object\",\"required\":["
    "\"type\",\"text\"],"
    "\"properties\":{\"type\":{\"const\":\"text\"},\"text\":{\"type\":\"string\"}}}}]}}}}";

// clang-format off
#define ROW(...) FIELD_ROW(struct chat_fields, __VA_ARGS__)
static const struct field chat_fields[] = {
    ROW(messages, FIELD_VALUE, .required = true, .schema = chat_messages_schema,
        .doc = "The conversation. Contents are ordinary text: special tokens written in them are not parsed."),
    ROW(max_completion_tokens, FIELD_INTEGER, .min = 0, .max = 1e9, .doc = "Absent: what the context has left."),
    ROW(max_tokens, FIELD_INTEGER, .min = 0, .max = 1e9, .doc = "The older name of max_completion_tokens."),
    ROW(logprobs, FIELD_BOOLEAN, .default_text = "false", .doc = "Log-probabilities of the chosen tokens."),
    ROW(top_logprobs, FIELD_INTEGER, .min = 0, .max = ENGINE_MAX_LOGPROBS,
        .doc = "And of this many of the likeliest; needs logprobs."),
    ROW(response_format, FIELD_VALUE,
        .schema = "{\"type\":\"object\",\"required\":[\"type\"],\"properties\":{\"type\":{\"const\":\"text\"}}}", .doc = "Text only."),
    {.name = "tools", .kind = FIELD_REFUSED, .doc = "The server calls no tools."},
    {.name = "tool_choice", .kind = FIELD_REFUSED, .doc = "The server calls no tools."},
    {.name = "functions", .kind = FIELD_REFUSED, .doc = "The server calls no functions."},
    {.name = "function_call", .kind = FIELD_REFUSED, .doc = "The server calls no functions."},
    {.name = "audio", .kind = FIELD_REFUSED, .doc = "The models speak text."},
};
// clang-format on
const struct field_table chat_table = {"ChatCompletionRequest", chat_fields, ARRAY_LEN(chat_fields), &sampling_table};

// -- Messages ----------------------------------------------------------------------------------------------------------------
static bool read_role(struct http_request *r, const json_t *message, size_t i, enum chat_role *out) {
    char param[48];
    snprintf(param, sizeof param, "messages[%zu].role", i);
    const json_t *v = json_object_get(message, "role");
    if (!v || json_is_null(v))
        return request_fail(r, 400, "missing_required_parameter", param, "'%s' is required.", param);
    if (!json_is_string(v)) return request_fail(r, 400, "invalid_type", param, "'%s' must be a string.", param);
    const char *role = json_string_value(v);
    if (strcmp(role, "system") == 0 || strcmp(role, "developer") == 0) *out = ROLE_SYSTEM; // OpenAI's newer name for it
    else if (strcmp(role, "user") == 0) *out = ROLE_USER;
    else if (strcmp(role, "assistant") == 0) *out = ROLE_ASSISTANT;
    else return request_fail(r, 400, "value_out_of_range", param, "'%s' must be system, user or assistant.", param);
    return true;
}

// A list of text parts is joined by line breaks, as vLLM and llama-server do.
static bool read_parts(struct http_request *r, const json_t *parts, const char *param, struct chat_message *out) {
    struct buf text = {0};
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i), *type = json_object_get(part, "type"),
                     *s = json_object_get(part, "text");
        const char *wrong =
            !json_is_object(part) || !json_is_string(type) ? "a list of objects with 'type' and 'text'" : NULL;
        if (!wrong && strcmp(json_string_value(type), "text") != 0) {
            buf_finish(&text);
            return request_fail(r, 400, "unsupported_parameter", param, "'%s' has a part that is not text (entry %zu).",
                                param, i);
        }
        if (wrong || !json_is_string(s)) {
            buf_finish(&text);
            return request_fail(r, 400, "invalid_type", param, "'%s' must be a string or a list of text parts.", param);
        }
        if (i) buf_add_byte(&text, '\n');
        buf_add(&text, json_string_value(s), json_string_length(s));
    }
    out->len = text.len;
    out->text = arena_strndup(&r->arena, buf_str(&text), text.len);
    buf_finish(&text);
    return true;
}

static bool read_message(struct http_request *r, const json_t *message, size_t i, struct chat_message *out) {
    char param[48];
    snprintf(param, sizeof param, "messages[%zu]", i);
    if (!json_is_object(message)) return request_fail(r, 400, "invalid_type", param, "'%s' must be an object.", param);
    if (!read_role(r, message, i, &out->role)) return false;
    snprintf(param, sizeof param, "messages[%zu].content", i);
    const json_t *v = json_object_get(message, "content");
    if (!v || json_is_null(v))
        return request_fail(r, 400, "missing_required_parameter", param, "'%s' is required.", param);
    if (json_is_array(v)) return read_parts(r, v, param, out);
    if (!json_is_string(v))
        return request_fail(r, 400, "invalid_type", param, "'%s' must be a string or a list of text parts.", param);
    struct text text = text_copy(r, v);
    out->text = text.s, out->len = text.len;
    return true;
}

bool chat_messages_encode(struct http_request *r, const struct tokenizer *t, const json_t *messages,
                          bool add_generation_prompt, struct ids *out) {
    if (!json_is_array(messages))
        return request_fail(r, 400, "invalid_type", "messages", "'messages' must be a list of messages.");
    size_t n = json_array_size(messages);
    if (n < 1 || n > MAX_MESSAGES)
        return request_fail(r, 400, "value_out_of_range", "messages", "'messages' must have between 1 and %d entries.",
                            MAX_MESSAGES);
    struct chat_message *list = arena_alloc(&r->arena, n, sizeof *list);
    for (size_t i = 0; i < n; i++)
        if (!read_message(r, json_array_get(messages, i), i, &list[i])) return false;
    const struct chat_template *template = t ? chat_template_recognise(tokenizer_chat_template(t)) : NULL;
    if (!template)
        return request_fail(r, 400, "no_chat_template", "messages",
                            t && tokenizer_chat_template(t)
                                ? "The model's chat template is none that this server knows. Use completions."
                                : "The model has no chat template: it was not made for chat. Use completions.");
    chat_template_encode(template, t, list, n, add_generation_prompt, out);
    return true;
}
