// SPDX-License-Identifier: MIT
// `couplet tokenize`: text to ids and back, on standard streams. One thread; nothing is kept between lines.
//
// Plain text is the file's bytes as they are, special tokens never parsed. --jsonl answers each line before the next is
// read, so a program can hold a conversation with it over two pipes.
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/model/model_file.h"
#include "server/commands.h"
#include "server/local_engine.h"
#include "server/options.h"
#include "tokenizer/text_stream.h"
#include "tokenizer/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT_BYTES ((size_t)1 << 30)

struct tokenize_options {
    const char *model;
    bool decode, jsonl, json;
};

static const struct option_spec specs[] = {
    {"--model", 0, OPTION_STRING, offsetof(struct tokenize_options, model), "PATH",
     "model directory, vocabulary directory or .gguf file", .required = true},
    {"--decode", 0, OPTION_FLAG, offsetof(struct tokenize_options, decode), NULL, "ids in, text out"},
    {"--jsonl", 0, OPTION_FLAG, offsetof(struct tokenize_options, jsonl), NULL,
     "{\"text\":...[,\"special\":true]} a line in, {\"ids\":[...]} a line out (--decode: the reverse)"},
    {"--json", 0, OPTION_FLAG, offsetof(struct tokenize_options, json), NULL, "the answer as one JSON object"},
};

static const struct option_command command = {
    .name = "tokenize",
    .synopsis = "--model PATH [--decode] [--jsonl | --json] [FILE|-]",
    .summary = "Turns text into token ids, or ids into text.",
    .options = specs,
    .n_options = ARRAY_LEN(specs),
    .max_args = 1,
};

static bool output_flush(struct err *err) {
    return (fflush(stdout) == 0 && !ferror(stdout)) ||
           err_set(err, ERR_IO, "cannot write the output: %s", strerror(errno));
}

static bool output_write(const struct buf *b, struct err *err) {
    fwrite(buf_str(b), 1, b->len, stdout);
    return output_flush(err);
}

// ---- pieces of an answer

static void ids_write(const struct ids *ids, char separator, struct buf *out) {
    for (size_t i = 0; i < ids->len; i++) {
        char digits[12];
        int n = snprintf(digits, sizeof digits, "%u", ids->data[i]);
        if (i) buf_add_byte(out, (unsigned char)separator);
        buf_add(out, digits, (size_t)n);
    }
}

static void ids_write_json(const struct ids *ids, struct buf *out) {
    buf_add_str(out, "{\"ids\":[");
    ids_write(ids, ',', out);
    buf_add_str(out, "]}\n");
}

// {"text": ...}: the ids' bytes, invalid UTF-8 as U+FFFD.
static bool text_write_json(const struct tokenizer *t, const struct ids *ids, struct buf *out, struct err *err) {
    struct buf bytes = {0}, text = {0};
    bool ok = tokenizer_decode(t, ids->data, ids->len, true, &bytes, err);
    if (ok) {
        struct text_stream stream = {0};
        text_stream_add(&stream, buf_str(&bytes), bytes.len, &text);
        text_stream_end(&stream, &text);
        buf_add_str(out, "{\"text\":");
        buf_add_json_string(out, buf_str(&text), text.len);
        buf_add_str(out, "}\n");
    }
    buf_finish(&bytes);
    buf_finish(&text);
    return ok;
}

// ---- one text

// Ids as tokenize prints them; commas and brackets count as spaces.
static bool ids_parse(const char *text, struct ids *out, struct err *err) {
    static const char separators[] = " \t\r\n,[]";
    while (*(text += strspn(text, separators))) {
        size_t len = strcspn(text, separators), digits = strspn(text, "0123456789");
        uint64_t id = digits <= 10 ? strtoull(text, NULL, 10) : UINT64_MAX;
        if (digits != len || id > UINT32_MAX)
            return err_set(err, ERR_INVALID, "\"%.*s\" is not a token id", (int)MIN(len, (size_t)20), text);
        ids_add(out, (uint32_t)id);
        text += len;
    }
    return true;
}

static bool run_whole(const struct tokenizer *t, const struct tokenize_options *o, const char *path, struct err *err) {
    size_t len;
    char *text = file_read(path, MAX_TEXT_BYTES, &len, err);
    if (!text) return false;
    struct ids ids = {0};
    struct buf out = {0};
    bool ok = true;
    if (o->decode) {
        ok =
            (strlen(text) == len || err_set(err, ERR_INVALID, "the ids hold a NUL byte")) && ids_parse(text, &ids, err);
        if (ok)
            ok =
                o->json ? text_write_json(t, &ids, &out, err) : tokenizer_decode(t, ids.data, ids.len, true, &out, err);
    } else {
        tokenizer_encode(t, text, len, false, &ids);
        if (o->json) ids_write_json(&ids, &out);
        else ids_write(&ids, ' ', &out), buf_add_byte(&out, '\n');
    }
    free(text);
    ids_finish(&ids);
    ok = ok && output_write(&out, err);
    buf_finish(&out);
    return ok;
}

// ---- lines

struct line {
    struct buf key, text;
    struct ids ids;
    bool has_text, has_ids, special;
};

static void line_finish(struct line *l) {
    buf_finish(&l->key);
    buf_finish(&l->text);
    ids_finish(&l->ids);
}

static bool line_read_ids(struct line *l, struct json *j, struct err *err) {
    bool ok = json_open(j, '[', err);
    while (ok && json_next_item(j, err)) {
        size_t id;
        ok =
            json_read_size(j, &id, err) && (id <= UINT32_MAX || err_set(err, ERR_INVALID, "%zu is not a token id", id));
        if (ok) ids_add(&l->ids, (uint32_t)id);
    }
    return ok && !j->failed;
}

static bool line_parse(struct line *l, const char *text, size_t len, struct err *err) {
    struct json j;
    json_init(&j, text, len);
    l->has_text = l->has_ids = l->special = false;
    l->ids.len = 0;
    bool ok = json_open(&j, '{', err);
    while (ok && json_next_key(&j, &l->key, err)) {
        if (buf_is(&l->key, "text")) ok = l->has_text = json_read_string(&j, &l->text, err);
        else if (buf_is(&l->key, "special")) ok = json_read_bool(&j, &l->special, err);
        else if (buf_is(&l->key, "ids") && !l->has_ids) ok = l->has_ids = line_read_ids(l, &j, err);
        else ok = json_skip(&j, err);
    }
    ok = ok && !j.failed && json_finish(&j, err);
    static const char first[] = "line 1, "; // the reader counts inside this text, which is one line
    if (!ok && !strncmp(err->message, first, sizeof first - 1))
        memmove(err->message, err->message + sizeof first - 1, strlen(err->message) - sizeof first + 2);
    return ok;
}

static bool line_answer(const struct tokenizer *t, bool decode, struct line *l, struct buf *out, struct err *err) {
    buf_clear(out);
    if (decode) {
        if (!l->has_ids) return err_set(err, ERR_INVALID, "no \"ids\" in the object");
        return text_write_json(t, &l->ids, out, err);
    }
    if (!l->has_text) return err_set(err, ERR_INVALID, "no \"text\" in the object");
    l->ids.len = 0;
    tokenizer_encode(t, buf_str(&l->text), l->text.len, l->special, &l->ids);
    ids_write_json(&l->ids, out);
    return true;
}

static bool run_lines(const struct tokenizer *t, const struct tokenize_options *o, const char *path, struct err *err) {
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *in = is_stdin ? stdin : fopen(path, "re");
    if (!in) return err_set(err, ERR_IO, "cannot read %s: %s", path, strerror(errno));
    struct line line = {0};
    struct buf out = {0};
    char *text = NULL;
    size_t cap = 0, number = 0;
    bool ok = true;
    for (ssize_t len; ok && (len = getline(&text, &cap, in)) >= 0;) {
        number++;
        if (strspn(text, " \t\r\n") == (size_t)len) continue;
        ok = ((size_t)len <= MAX_TEXT_BYTES || err_set(err, ERR_TOO_LARGE, "longer than %zu bytes", MAX_TEXT_BYTES)) &&
             line_parse(&line, text, (size_t)len, err) && line_answer(t, o->decode, &line, &out, err);
        if (!ok) err_prefix(err, "line %zu", number);
        ok = ok && output_write(&out, err);
    }
    if (ok && ferror(in)) ok = err_set(err, ERR_IO, "cannot read %s", path);
    if (!is_stdin) fclose(in);
    free(text);
    line_finish(&line);
    buf_finish(&out);
    return ok;
}

int cmd_tokenize(int argc, char **argv) {
    struct tokenize_options o = {0};
    struct option_args args = {0};
    struct local_tokenizer source = {0};
    struct err err = {0};
    int status;
    if (options_start(&command, argc, argv, &o, &args, &status)) {
        const char *path = args.positional.n ? args.positional.items[0] : "-";
        bool ok = local_tokenizer_open(&source, o.model, &err);
        ok = ok && (o.jsonl ? run_lines : run_whole)(source.tokenizer, &o, path, &err);
        status = ok ? 0 : options_fail(&command, &err);
    }
    local_tokenizer_close(&source);
    option_args_finish(&args);
    return status;
}
