// SPDX-License-Identifier: MIT
// From tokens to events: the cases of tests/cases/output.txt, and random tokens, stop strings and takes against a plain
// oracle that looks at the whole sequence at once.
#include "tests/unit/test.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "engine/infer/output.h"

static unsigned random_state = 99;
static size_t random_below(size_t n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

// A tokenizer of the given tokens, then one special token and one hole.
static struct tokenizer *tokenizer_of(const struct buf *tokens, size_t n) {
    struct vocab_entry *vocab = mem_alloc(n + 2, sizeof *vocab);
    for (size_t i = 0; i < n; i++) vocab[i] = (struct vocab_entry){.bytes = buf_str(&tokens[i]), .len = tokens[i].len};
    vocab[n] = (struct vocab_entry){.bytes = "<special>", .len = 9, .special = true};
    vocab[n + 1] = (struct vocab_entry){.bytes = "", .absent = true};
    struct tokenizer_spec spec = {.vocab = vocab, .n_vocab = n + 2, .bos = -1, .eos = -1, .pad = -1};
    struct err err = {0};
    struct tokenizer *t = tokenizer_create(&spec, &err);
    if (!t) TEST_FAIL("tokenizer_create: %s", err.message);
    free(vocab);
    return t;
}

// ---- cases from the file ----

static void unescape(const char *s, struct buf *out) {
    buf_clear(out);
    for (; *s; s++) {
        if (*s != '\\') buf_add_byte(out, (unsigned char)*s);
        else if (*++s == 'x') buf_add_byte(out, (unsigned char)strtoul((char[]){s[1], s[2], 0}, NULL, 16)), s += 2;
        else if (*s == 'n') buf_add_byte(out, '\n');
        else if (*s == 's') buf_add_byte(out, ' ');
        else if (*s == '\\') buf_add_byte(out, '\\');
    }
}

enum { CASE_STEPS = 12 };
struct step {
    bool finish;
    uint32_t id;
    long stop; // -1: none
    struct buf text;
    size_t n_tokens;
};
struct output_case {
    char name[120];
    struct buf tokens[CASE_STEPS], stops[4];
    size_t n_steps, n_stops, min_tokens;
    struct step steps[CASE_STEPS];
};

static void case_run(struct output_case *c) {
    struct stop_string stops[4];
    for (size_t i = 0; i < c->n_stops; i++) stops[i] = (struct stop_string){c->stops[i].data, c->stops[i].len};
    struct sampling_params p = {.n_logprobs = -1, .stops = stops, .n_stops = c->n_stops, .min_tokens = c->min_tokens};
    struct tokenizer *t = tokenizer_of(c->tokens, CASE_STEPS);
    struct output *o = output_create(t, &p);
    for (size_t i = 0; i < c->n_steps; i++) {
        struct step *s = &c->steps[i];
        struct token_record r = {.id = s->id};
        bool stopped = s->finish ? output_finish(o) : output_push(o, &r);
        struct engine_event *e = output_take(o, 1, s->finish || stopped ? EVENT_FINISH : EVENT_TOKENS);
        size_t n_tokens = e ? e->n_tokens : 0, len = e ? e->text_len : 0;
        if (len != s->text.len || (len && memcmp(e->text, s->text.data, len) != 0))
            TEST_FAIL("%s, step %zu: text \"%.*s\", expected \"%s\"", c->name, i + 1, (int)len, len ? e->text : "",
                      buf_str(&s->text));
        if (n_tokens != s->n_tokens)
            TEST_FAIL("%s, step %zu: %zu tokens, expected %zu", c->name, i + 1, n_tokens, s->n_tokens);
        if (stopped != (s->stop >= 0)) TEST_FAIL("%s, step %zu: stopped %d", c->name, i + 1, stopped);
        if (stopped) CHECK(e->stopped_by_string && e->stop_index == (size_t)s->stop);
        engine_event_free(e);
    }
    output_destroy(o);
    tokenizer_destroy(t);
}

static void case_finish(struct output_case *c) {
    for (size_t i = 0; i < CASE_STEPS; i++) buf_finish(&c->tokens[i]), buf_finish(&c->steps[i].text);
    for (size_t i = 0; i < 4; i++) buf_finish(&c->stops[i]);
    *c = (struct output_case){0};
}

static bool case_step(struct output_case *c, const char *line) {
    char token[64] = "", text[64] = "";
    struct step *s = &c->steps[c->n_steps];
    s->stop = -1;
    bool known = sscanf(line, "push %63s -> %63s %zu", token, text, &s->n_tokens) == 3 ||
                 sscanf(line, "push %63s stop %ld -> %63s %zu", token, &s->stop, text, &s->n_tokens) == 4;
    if (!known) {
        s->finish = true;
        known = sscanf(line, "finish -> %63s %zu", text, &s->n_tokens) == 2 ||
                sscanf(line, "finish stop %ld -> %63s %zu", &s->stop, text, &s->n_tokens) == 3;
    }
    unescape(text, &s->text);
    s->id = (uint32_t)c->n_steps;
    if (strcmp(token, "<special>") == 0) s->id = CASE_STEPS;
    else if (strcmp(token, "<absent>") == 0) s->id = CASE_STEPS + 1;
    else unescape(token, &c->tokens[c->n_steps]);
    c->n_steps++;
    return known;
}

TEST(cases) {
    struct err err = {0};
    size_t len, n_cases = 0;
    char *file = file_read(TEST_CASES "/output.txt", 1 << 20, &len, &err);
    if (!file) TEST_FAIL("%s", err.message);
    REQUIRE(file);
    struct output_case c = {0};
    char *rest = file;
    for (char *line; (line = strsep(&rest, "\n"));) {
        if (strncmp(line, "case ", 5) == 0) {
            if (n_cases++) case_run(&c);
            case_finish(&c);
            snprintf(c.name, sizeof c.name, "%s", line + 5);
        } else if (strncmp(line, "stop ", 5) == 0) {
            unescape(line + 5, &c.stops[c.n_stops++]);
        } else if (strncmp(line, "min ", 4) == 0) {
            c.min_tokens = strtoul(line + 4, NULL, 10);
        } else if (*line && *line != '#') {
            if (!case_step(&c, line)) TEST_FAIL("%s: not understood: %s", c.name, line);
        }
    }
    case_run(&c);
    case_finish(&c);
    CHECK(n_cases > 20);
    free(file);
}

// ---- random sequences against an oracle ----

enum { N_TOKENS = 24, MAX_PUSHES = 60 };
static const char *const alphabet[N_TOKENS] = {
    "a",    "b",        "ab",    "ba",    "aab",      "abb",  "\xe2",     "\x82",
    "\xac", "\xe2\x82", "\254a", "b\xe2", "\xf0",     "\x9f", "\x98\x80", "\xe2\x82\xac",
    "\xff", "\xc3",     "\xa9",  "a\xc3", "\xef\xbf", "\xbd", "\n",       "bbaabb",
};

struct oracle {
    unsigned char bytes[MAX_PUSHES * 8];
    size_t len;
    size_t first[MAX_PUSHES]; // token -> offset of its first byte
    bool bare[MAX_PUSHES];
    size_t place_of[MAX_PUSHES * 8]; // byte -> offset in text of its character
    struct buf text;
};

// Length of the character or of the maximal invalid subpart at s; 0: what is there could still become a character.
static size_t unit_len(const char *s, size_t len, bool *valid) {
    for (size_t n = 1; n <= 4 && n <= len; n++)
        if ((*valid = utf8_valid(s, n))) return n;
    size_t n = MIN(len, 3);
    while (n > 1 && utf8_complete_prefix(s, n) != 0) n--; // the longest beginning of a character
    if (n == len && utf8_complete_prefix(s, n) == 0) return 0;
    return n;
}

static void oracle_decode(struct oracle *o, bool at_end) {
    buf_clear(&o->text);
    for (size_t i = 0; i < o->len;) {
        bool valid = false;
        size_t n = unit_len((char *)o->bytes + i, o->len - i, &valid), rest = n ? n : o->len - i;
        for (size_t k = 0; k < rest; k++) o->place_of[i + k] = o->text.len;
        if (valid) buf_add(&o->text, o->bytes + i, n);
        else if (n || at_end) buf_add_str(&o->text, "\xef\xbf\xbd");
        i += rest;
    }
}

static size_t oracle_held(const struct stop_string *stops, size_t n, const char *text, size_t len) {
    for (size_t held = len; held > 0; held--)
        for (size_t k = 0; k < n; k++)
            if (held < stops[k].len && memcmp(text + len - held, stops[k].bytes, held) == 0) return held;
    return 0;
}

// First end from `from` on, then the longest. *cut: where it begins.
static bool oracle_find(const struct stop_string *stops, size_t n, const struct buf *text, size_t from, size_t *cut) {
    for (size_t end = from + 1; end <= text->len; end++) {
        size_t longest = 0;
        for (size_t k = 0; k < n; k++)
            if (stops[k].len <= end - from && stops[k].len > longest &&
                memcmp(text->data + end - stops[k].len, stops[k].bytes, stops[k].len) == 0)
                longest = stops[k].len;
        if (!longest) continue;
        *cut = end - longest;
        return true;
    }
    return false;
}

struct taken {
    struct buf text;
    size_t n_tokens;
};

static void take(struct output *o, enum event_kind kind, const uint32_t *ids, struct taken *t) {
    struct engine_event *e = output_take(o, 5, kind);
    if (!e) return;
    CHECK(utf8_valid(e->text, e->text_len) && e->text[e->text_len] == '\0');
    buf_add(&t->text, e->text, e->text_len);
    for (size_t i = 0; i < e->n_tokens; i++) {
        const struct token_record *r = &e->tokens[i];
        CHECK_INT(r->id, ids[t->n_tokens]);
        CHECK(r->n_top == r->id % 3);
        for (size_t k = 0; k < r->n_top; k++) CHECK(r->top[k].id == r->id * 10 + k);
        t->n_tokens++;
    }
    engine_event_free(e);
}

static void random_sequence(const struct tokenizer *tokenizer) {
    static struct oracle o;
    static const char *const stop_texts[] = {
        "ab",           "abab",
        "aa",           "b\n",
        "\xe2\x82\xac", "a\xe2\x82\254b",
        "\xef\xbf\xbd", "bbaabb",
        "baabba",       "\xf0\x9f\x98\x80",
        "aab",
    };
    struct stop_string stops[3];
    size_t n_stops = random_below(4), min_tokens = random_below(3) ? 0 : random_below(8), from = 0, cut = 0;
    for (size_t i = 0; i < n_stops; i++) {
        stops[i].bytes = stop_texts[random_below(ARRAY_LEN(stop_texts))];
        stops[i].len = strlen(stops[i].bytes);
    }
    struct sampling_params p = {.n_logprobs = 2, .stops = stops, .n_stops = n_stops, .min_tokens = min_tokens};
    struct output *out = output_create(tokenizer, &p);
    struct taken taken = {0};
    uint32_t ids[MAX_PUSHES];
    size_t n = random_below(MAX_PUSHES + 1), pushed = 0;
    o.len = 0;
    bool stopped = false;
    while (pushed < n && !stopped) {
        uint32_t id = ids[pushed] = (uint32_t)random_below(N_TOKENS + 2);
        struct top_logprob top[2] = {{.id = id * 10}, {.id = id * 10 + 1}};
        struct token_record r = {.id = id, .n_top = id % 3, .top = top};
        o.first[pushed] = o.len;
        o.bare[pushed] = id >= N_TOKENS;
        if (id < N_TOKENS) memcpy(o.bytes + o.len, alphabet[id], strlen(alphabet[id])), o.len += strlen(alphabet[id]);
        pushed++;
        oracle_decode(&o, false);
        if (pushed <= min_tokens) from = o.text.len;
        bool expected = oracle_find(stops, n_stops, &o.text, from, &cut);
        stopped = output_push(out, &r);
        CHECK_INT(stopped, expected);
        if (stopped != expected) break;
        if (!stopped && random_below(3)) {
            take(out, EVENT_TOKENS, ids, &taken); // nothing is held but what must be
            CHECK_INT(taken.text.len, o.text.len - oracle_held(stops, n_stops, o.text.data + from, o.text.len - from));
        }
    }
    if (!stopped) {
        oracle_decode(&o, true);
        bool expected = pushed > min_tokens && oracle_find(stops, n_stops, &o.text, from, &cut);
        stopped = output_finish(out);
        CHECK_INT(stopped, expected);
    }
    take(out, EVENT_FINISH, ids, &taken);
    size_t end = stopped ? cut : o.text.len, n_tokens = 0;
    while (n_tokens < pushed && (!stopped || o.bare[n_tokens] || o.place_of[o.first[n_tokens]] < end)) n_tokens++;
    CHECK_INT(taken.n_tokens, n_tokens);
    CHECK(taken.text.len == end && (!end || memcmp(taken.text.data, o.text.data, end) == 0));
    buf_finish(&taken.text);
    buf_finish(&o.text);
    output_destroy(out);
}

TEST(random_sequences) {
    struct buf tokens[N_TOKENS] = {0};
    for (size_t i = 0; i < N_TOKENS; i++) buf_add_str(&tokens[i], alphabet[i]);
    struct tokenizer *t = tokenizer_of(tokens, N_TOKENS);
    for (int round = 0; round < 30000 && test_failures < 20; round++) random_sequence(t);
    tokenizer_destroy(t);
    for (size_t i = 0; i < N_TOKENS; i++) buf_finish(&tokens[i]);
}

// ---- without a tokenizer; events ----

TEST(no_tokenizer) {
    struct stop_string stop = {"a", 1};
    struct sampling_params p = {.n_logprobs = 1, .stops = &stop, .n_stops = 1};
    struct output *o = output_create(NULL, &p);
    CHECK(output_take(o, 1, EVENT_TOKENS) == NULL);
    for (uint32_t i = 0; i < 3; i++) {
        struct top_logprob top = {.id = i + 10, .logprob = -1.5f};
        struct token_record r = {.id = i, .has_logprob = true, .logprob = -2, .n_top = 1, .top = &top};
        CHECK(!output_push(o, &r));
    }
    struct engine_event *e = output_take(o, 42, EVENT_TOKENS);
    REQUIRE(e);
    CHECK(e->id == 42 && e->kind == EVENT_TOKENS && e->n_tokens == 3 && e->text_len == 0 && !*e->text);
    for (uint32_t i = 0; i < 3; i++)
        CHECK(e->tokens[i].id == i && e->tokens[i].logprob == -2 && e->tokens[i].top[0].id == i + 10 &&
              e->tokens[i].top[0].logprob == -1.5f);
    engine_event_free(e);
    CHECK(output_take(o, 1, EVENT_TOKENS) == NULL);
    CHECK(!output_finish(o));
    e = output_take(o, 42, EVENT_FINISH);
    REQUIRE(e);
    CHECK(e->kind == EVENT_FINISH && e->n_tokens == 0 && !e->stopped_by_string);
    engine_event_free(e);
    output_destroy(o);
    output_destroy(NULL);
}

TEST_MAIN("output")
