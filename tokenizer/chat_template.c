// SPDX-License-Identifier: MIT
// The known chat templates. Each writes a conversation as a list of parts; a part that is a special token of the vocabulary
// becomes its id, and the ordinary text between two such ids is encoded in one piece, as HF does.
#include "tokenizer/chat_template.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <string.h>

struct writer {
    const struct tokenizer *tokenizer;
    struct buf text; // ordinary text not yet encoded
    struct ids *out;
};

struct chat_template {
    const char *name;
    const char *jinja;
    void (*write)(struct writer *w, const struct chat_message *m, size_t n, bool head);
};

// -- Parts -------------------------------------------------------------------------------------------------------------------
static void flush(struct writer *w) {
    tokenizer_encode(w->tokenizer, buf_str(&w->text), w->text.len, false, w->out);
    buf_clear(&w->text);
}

static void marker(struct writer *w, const char *name) {
    uint32_t id;
    if (tokenizer_find(w->tokenizer, name, strlen(name), &id) && tokenizer_is_special(w->tokenizer, id)) {
        flush(w);
        ids_add(w->out, id);
    } else {
        buf_add_str(&w->text, name);
    }
}

// bos_token or eos_token of the tokenizer; nothing when it has none.
static void token(struct writer *w, int64_t id) {
    if (id < 0) return;
    flush(w);
    ids_add(w->out, (uint32_t)id);
}

static void plain(struct writer *w, const char *s) { buf_add_str(&w->text, s); }
static void content(struct writer *w, const struct chat_message *m) { buf_add(&w->text, m->text, m->len); }

static bool is_space(uint32_t c) { // Python's str.isspace, which Jinja's trim goes by
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static void content_trimmed(struct writer *w, const struct chat_message *m) {
    size_t begin = 0, end = 0, at = 0;
    bool seen = false;
    while (at < m->len) {
        uint32_t c;
        size_t len = utf8_decode(m->text + at, m->len - at, &c);
        if (!is_space(c)) {
            if (!seen) begin = at;
            seen = true;
            end = at + len;
        }
        at += len;
    }
    if (seen) buf_add(&w->text, m->text + begin, end - begin);
}

static const char *role_name(enum chat_role role) {
    return role == ROLE_SYSTEM ? "system" : role == ROLE_USER ? "user" : "assistant";
}

// -- Templates ---------------------------------------------------------------------------------------------------------------
static void chatml_message(struct writer *w, const char *role, const struct chat_message *m, const char *text) {
    marker(w, "<|im_start|>");
    plain(w, role);
    plain(w, "\n");
    if (m) content(w, m);
    else plain(w, text);
    marker(w, "<|im_end|>");
    plain(w, "\n");
}

static void write_chatml(struct writer *w, const struct chat_message *m, size_t n, bool head) {
    for (size_t i = 0; i < n; i++) chatml_message(w, role_name(m[i].role), &m[i], NULL);
    if (!head) return;
    marker(w, "<|im_start|>");
    plain(w, "assistant\n");
}

static void write_smollm(struct writer *w, const struct chat_message *m, size_t n, bool head) {
    if (n && m[0].role != ROLE_SYSTEM)
        chatml_message(w, "system", NULL, "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
    write_chatml(w, m, n, head);
}

static void llama3_header(struct writer *w, const char *role) {
    marker(w, "<|start_header_id|>");
    plain(w, role);
    marker(w, "<|end_header_id|>");
    plain(w, "\n\n");
}

static void write_llama3(struct writer *w, const struct chat_message *m, size_t n, bool head) {
    for (size_t i = 0; i < n; i++) {
        if (i == 0) token(w, tokenizer_bos(w->tokenizer));
        llama3_header(w, role_name(m[i].role));
        content_trimmed(w, &m[i]);
        marker(w, "<|eot_id|>");
    }
    if (head) llama3_header(w, "assistant");
}

static void write_llama3_always(struct writer *w, const struct chat_message *m, size_t n, bool head) {
    write_llama3(w, m, n, true);
}

static void write_zephyr(struct writer *w, const struct chat_message *m, size_t n, bool head) {
    for (size_t i = 0; i < n; i++) {
        marker(w, m[i].role == ROLE_SYSTEM ? "<|system|>" : m[i].role == ROLE_USER ? "<|user|>" : "<|assistant|>");
        plain(w, "\n");
        content(w, &m[i]);
        token(w, tokenizer_eos(w->tokenizer));
        plain(w, "\n");
    }
    if (n && head) {
        marker(w, "<|assistant|>");
        plain(w, "\n");
    }
}

// The wording that training uses for {"instruction", "input", "output"}: a system message stands in for the first sentences.
static void write_alpaca(struct writer *w, const struct chat_message *m, size_t n, bool head) {
    bool system = n && m[0].role == ROLE_SYSTEM;
    if (system) content(w, &m[0]);
    else
        plain(w, "Below is an instruction that describes a task. Write a response that appropriately completes the "
                 "request.");
    for (size_t i = system; i < n; i++) {
        plain(w, m[i].role == ROLE_ASSISTANT ? "\n\n### Response:\n" : "\n\n### Instruction:\n");
        content(w, &m[i]);
        if (m[i].role == ROLE_ASSISTANT) token(w, tokenizer_eos(w->tokenizer));
    }
    if (head) plain(w, "\n\n### Response:\n");
}

static const struct chat_template templates[] = {
    {"chatml",
     "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
     "'\n'}}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
     write_chatml},
    {"chatml", // as older tokenizer_config.json files have it
     "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% for message in "
     "messages %}"
     "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
     write_chatml},
    {"smollm", // SmolLM2-Instruct
     "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
     "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
     "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
     write_smollm},
    {"llama3",
     "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
     "message['role'] + "
     "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = "
     "bos_token + content %}"
     "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ "
     "'<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
     write_llama3},
    {"llama3", // the first release: the answer's head always
     "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
     "message['role'] + "
     "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = "
     "bos_token + content %}"
     "{% endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
     write_llama3_always},
    {"zephyr",
     "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
     "eos_token }}\n"
     "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
     "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif "
     "%}\n"
     "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
     write_zephyr},
    {"alpaca",
     "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}{{ 'Below is an instruction that "
     "describes a task. "
     "Write a response that appropriately completes the request.' }}{% endif %}{% for message in messages %}"
     "{% if message['role'] == 'assistant' %}{{ '\n\n### Response:\n' + message['content'] + eos_token }}"
     "{% elif not (loop.first and message['role'] == 'system') %}{{ '\n\n### Instruction:\n' + message['content'] }}{% "
     "endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '\n\n### Response:\n' }}{% endif %}",
     write_alpaca},
};

// -- Interface ---------------------------------------------------------------------------------------------------------------
// Some files hold a line break inside a Jinja string as the two characters \n.
static size_t normalise(const char *s, size_t len, char *out) {
    size_t n = 0;
    while (len && strchr(" \t\r\n", s[0])) s++, len--;
    while (len && strchr(" \t\r\n", s[len - 1])) len--;
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '\\' && i + 1 < len && s[i + 1] == 'n') out[n++] = '\n', i++;
        else if (s[i] != '\r') out[n++] = s[i];
    }
    return n;
}

const struct chat_template *chat_template_recognise(const char *jinja) {
    char given[4096], known[4096];
    size_t len = jinja ? strlen(jinja) : 0;
    if (len == 0 || len > sizeof given) return NULL; // longer than any known one
    len = normalise(jinja, len, given);
    for (size_t i = 0; i < ARRAY_LEN(templates); i++) {
        const struct chat_template *t = &templates[i];
        if (len == strlen(t->name) && memcmp(given, t->name, len) == 0) return t;
        if (normalise(t->jinja, strlen(t->jinja), known) == len && memcmp(given, known, len) == 0) return t;
    }
    return NULL;
}

const char *chat_template_name(const struct chat_template *t) { return t->name; }
const char *chat_template_jinja(const struct chat_template *t) { return t->jinja; }

void chat_template_encode(const struct chat_template *t, const struct tokenizer *tokenizer,
                          const struct chat_message *messages, size_t n, bool add_generation_prompt, struct ids *out) {
    struct writer w = {.tokenizer = tokenizer, .out = out};
    t->write(&w, messages, n, add_generation_prompt);
    flush(&w);
    buf_finish(&w.text);
}
