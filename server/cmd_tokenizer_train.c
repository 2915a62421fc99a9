// SPDX-License-Identifier: MIT
// `couplet tokenizer train`: byte pairs learned from text files, written as a vocabulary. One thread here; counting uses a pool.
//
// Files are read in pieces, cut where no pre-token is cut: a text of any size takes one buffer. Nothing is written before all is learned.
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "server/commands.h"
#include "server/options.h"
#include "tokenizer/bpe_train.h"
#include "tokenizer/tokenizer_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_BYTES   ((size_t)32 << 20)
#define BUFFER_MAX     ((size_t)1 << 30) // of a text without white space
#define PROGRESS_NS    200000000
#define MAX_VOCABULARY (1 << 20)

struct train_options {
    size_t vocab_size, min_frequency, threads;
    const char *pre, *out;
    struct option_list special;
    bool no_special, special_first, json;
};

static const struct option_spec specs[] = {
    {"--vocab-size", 0, OPTION_SIZE, offsetof(struct train_options, vocab_size), "N",
     "ids in all: 256 bytes, merges and special tokens", .required = true, .min = 256, .max = MAX_VOCABULARY},
    {"--out", 0, OPTION_STRING, offsetof(struct train_options, out), "DIR",
     "where vocab.json, merges.txt, tokenizer.json and tokenizer_config.json go", .required = true},
    {"--special", 0, OPTION_LIST, offsetof(struct train_options, special), "TEXT",
     "a special token, in place of the default <|endoftext|>; models end their texts with that one, so name it too"},
    {"--no-special", 0, OPTION_FLAG, offsetof(struct train_options, no_special), NULL, "no special token at all"},
    {"--special-first", 0, OPTION_FLAG, offsetof(struct train_options, special_first), NULL,
     "special tokens get the first ids, as from HF's trainer, not the last as in GPT-2 (tiktoken's loader needs the latter)"},
    {"--pre", 0, OPTION_STRING, offsetof(struct train_options, pre), "NAME", "how text is cut before merging, default gpt2",
     .choices = "gpt2|smollm|llama3"},
    {"--min-frequency", 0, OPTION_SIZE, offsetof(struct train_options, min_frequency), "N", "pairs that occur less often are not merged"},
    {"--threads", 0, OPTION_SIZE, offsetof(struct train_options, threads), "N", "default: all processors", .min = 1, .max = 256},
    {"--json", 0, OPTION_FLAG, offsetof(struct train_options, json), NULL, "the result as one JSON object on standard output"},
};

static const struct option_command command = {
    .name = "tokenizer train",
    .synopsis = "--vocab-size N --out DIR [OPTIONS] FILE...|-",
    .summary = "Learns a byte-level BPE vocabulary from UTF-8 text files, with the merges of HF tokenizers.",
    .options = specs,
    .n_options = ARRAY_LEN(specs),
    .max_args = SIZE_MAX,
};

// ---- progress, on a terminal

struct progress {
    bool shown;
    uint64_t start_ns, phase_ns, last_ns; // of the command, of the phase, of the last line
    uint64_t bytes, bytes_expected;
};

static void progress_show(struct progress *p, const char *phase, uint64_t done, uint64_t of, const char *unit) {
    uint64_t now = clock_ns();
    if (!p->shown || !done || now - p->last_ns < PROGRESS_NS) return;
    p->last_ns = now;
    double seconds = (double)(now - p->phase_ns) / 1e9, left = of > done ? seconds * (double)(of - done) / (double)done : 0;
    fprintf(stderr, "\r\033[K%s %llu of %llu %s, %.0f s left", phase, (unsigned long long)done, (unsigned long long)of, unit, left);
}

static void progress_clear(const struct progress *p) {
    if (p->shown && p->last_ns) fputs("\r\033[K", stderr);
}

static void progress_merges(void *ctx, size_t n_merges, size_t n_wanted) {
    progress_show(ctx, "merging:", n_merges, n_wanted, "merges");
}

// ---- texts

struct text_buffer {
    char *data;
    size_t len, cap;
    uint64_t offset; // of data in its file
};

// Counts what is in the buffer, but for the start of a pre-token that may go on.
static bool buffer_drain(struct bpe_trainer *t, struct text_buffer *b, struct err *err) {
    size_t cut = bpe_trainer_cut(t, b->data, b->len);
    if (!cut) { // no place to cut in all of it
        char *grown = b->cap < BUFFER_MAX ? realloc(b->data, b->cap * 2) : NULL;
        if (!grown) return err_set(err, ERR_NO_MEMORY, "%zu bytes without white space are more than memory takes", b->cap);
        b->data = grown;
        b->cap *= 2;
        return true;
    }
    if (!bpe_trainer_add(t, b->data, cut, b->offset, err)) return false;
    memmove(b->data, b->data + cut, b->len - cut);
    b->len -= cut;
    b->offset += cut;
    return true;
}

static bool file_add(struct bpe_trainer *t, struct text_buffer *b, const char *path, struct progress *p, struct err *err) {
    int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY) : STDIN_FILENO;
    if (fd < 0) return err_set(err, ERR_IO, "cannot open %s: %s", path, strerror(errno));
    bool ok = true;
    b->len = 0;
    b->offset = 0;
    for (ssize_t n = 1; ok && n != 0;) {
        n = read(fd, b->data + b->len, b->cap - b->len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            ok = err_set(err, ERR_IO, "cannot read %s: %s", path, strerror(errno));
            break;
        }
        b->len += (size_t)n;
        p->bytes += (uint64_t)n;
        if (n && b->len < b->cap) continue;
        ok = (n ? buffer_drain(t, b, err) : bpe_trainer_add(t, b->data, b->len, b->offset, err)) || err_prefix(err, "%s", path);
        progress_show(p, "counting:", p->bytes >> 20, MAX(p->bytes, p->bytes_expected) >> 20, "MB");
    }
    if (fd != STDIN_FILENO) close(fd);
    return ok;
}

static bool files_add(struct bpe_trainer *t, const struct option_list *files, struct progress *p, struct err *err) {
    struct text_buffer b = {.data = mem_try_alloc(BUFFER_BYTES, 1, "the text", err), .cap = BUFFER_BYTES};
    struct stat st;
    for (size_t i = 0; i < files->n; i++)
        if (stat(files->items[i], &st) == 0 && S_ISREG(st.st_mode)) p->bytes_expected += (uint64_t)st.st_size;
    bool ok = b.data != NULL;
    for (size_t i = 0; i < files->n && ok; i++) ok = file_add(t, &b, files->items[i], p, err);
    free(b.data);
    return ok;
}

// ---- the command

static bool options_check(const struct train_options *o, const struct option_args *args, struct err *err) {
    size_t n_special = o->no_special ? 0 : o->special.n ? o->special.n : 1;
    if (!args->positional.n) return err_set_param(err, ERR_INVALID, "-", "no text file is given");
    if (o->no_special && o->special.n) return err_set_param(err, ERR_INVALID, "--no-special", "--no-special and --special exclude each other");
    for (size_t i = 0; i < o->special.n; i++)
        if (!*o->special.items[i] || !utf8_valid(o->special.items[i], strlen(o->special.items[i])))
            return err_set_param(err, ERR_INVALID, "--special", "--special needs a text in UTF-8");
    if (o->vocab_size < 256 + n_special)
        return err_set_param(err, ERR_INVALID, "--vocab-size", "--vocab-size must be at least %zu: 256 bytes and %zu special tokens",
                             256 + n_special, n_special);
    if (file_exists(o->out)) return err_set(err, ERR_INVALID, "%s is a file; --out names a directory", o->out);
    return true;
}

static struct tokenizer *learn(const struct train_options *o, const struct option_args *args, struct progress *p, struct err *err) {
    static const char *const end_of_text = "<|endoftext|>";
    struct bpe_train_options b = {.vocab_size = o->vocab_size, .special_first = o->special_first, .min_frequency = o->min_frequency,
                                  .progress = progress_merges, .progress_ctx = p};
    b.pre = !strcmp(o->pre, "smollm") ? PRE_SMOLLM : !strcmp(o->pre, "llama3") ? PRE_LLAMA3 : PRE_GPT2;
    b.special = o->special.n ? o->special.items : &end_of_text;
    b.n_special = o->no_special ? 0 : MAX(o->special.n, 1);
    struct pool *pool = pool_create(o->threads, err);
    struct bpe_trainer *t = pool ? bpe_trainer_create(&b, pool, err) : NULL;
    struct tokenizer *made = NULL;
    if (t && files_add(t, &args->positional, p, err)) {
        p->phase_ns = clock_ns();
        made = bpe_trainer_finish(t, err);
    }
    progress_clear(p);
    bpe_trainer_destroy(t);
    pool_destroy(pool);
    return made;
}

static void report(const struct train_options *o, const struct tokenizer *t, const struct progress *p) {
    const size_t size = tokenizer_size(t), merges = tokenizer_merge_count(t);
    const double seconds = (double)(clock_ns() - p->start_ns) / 1e9, mb = (double)p->bytes / 1e6;
    size_t special = 0;
    for (uint32_t id = 0; id < size; id++) special += tokenizer_is_special(t, id);
    if (size < o->vocab_size)
        fprintf(stderr, "couplet tokenizer train: the text has no more pairs to merge: %zu ids instead of %zu\n", size, o->vocab_size);
    if (special && tokenizer_eos(t) < 0)
        fputs("couplet tokenizer train: no <|endoftext|> among the special tokens: models will not learn where a text ends\n", stderr);
    if (!o->json) {
        fprintf(stderr, "%zu ids: 256 bytes, %zu merges, %zu special tokens; %.1f MB in %.2f s, %.1f MB/s\n", size, merges, special, mb, seconds, mb / seconds);
        return;
    }
    struct buf line = {0};
    buf_printf(&line, "{\"vocab_size\":%zu,\"merges\":%zu,\"special_tokens\":%zu,\"bytes\":%llu,\"seconds\":%.3f,\"out\":", size, merges, special,
               (unsigned long long)p->bytes, seconds);
    buf_add_json_string(&line, o->out, strlen(o->out));
    buf_add_byte(&line, '}');
    puts(buf_str(&line));
    buf_finish(&line);
}

static int train(int argc, char **argv) {
    struct train_options o = {.pre = "gpt2", .threads = pool_cpu_count()};
    struct option_args args = {0};
    struct err err = {0};
    int status;
    if (options_start(&command, argc, argv, &o, &args, &status)) {
        struct progress p = {.shown = isatty(STDERR_FILENO), .start_ns = clock_ns()};
        p.phase_ns = p.start_ns;
        struct tokenizer *t = options_check(&o, &args, &err) ? learn(&o, &args, &p, &err) : NULL;
        bool ok = t && dir_make(o.out, &err) && tokenizer_write(t, o.out, &err);
        if (ok) report(&o, t, &p);
        if (ok && fflush(stdout) != 0) ok = err_set(&err, ERR_IO, "cannot write the result");
        status = ok ? 0 : options_fail(&command, &err);
        tokenizer_destroy(t);
    }
    option_list_finish(&o.special);
    option_args_finish(&args);
    return status;
}

int cmd_tokenizer(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "";
    bool help = !strcmp(verb, "--help") || !strcmp(verb, "-h");
    if (!strcmp(verb, "train")) return train(argc - 1, argv + 1);
    fprintf(help ? stdout : stderr, "usage: couplet tokenizer train --vocab-size N --out DIR [OPTIONS] FILE...\n\n"
            "'couplet tokenizer train --help' lists the options.\n");
    return help ? 0 : 2;
}
