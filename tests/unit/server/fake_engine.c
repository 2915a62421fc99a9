// SPDX-License-Identifier: MIT
// See fake_engine.h. Without engine_start every step is an engine_step of the caller's; with it a thread steps every 2 ms.
#include "fake_engine.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "engine/model/adapter.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char fake_text[] = "The sea, the \xc3\xa9toile, and 12 more.\n";
size_t fake_eos_after, fake_live, fake_cancelled, fake_lanes;
bool fake_fails, fake_gone;
struct sequence_request fake_last_request;

// -- Model -------------------------------------------------------------------------------------------------------------------
struct model {
    int references;
    struct model_config config;
    struct tokenizer *tokenizer;
    struct model *base; // of an adapted one: a reference
};

struct model *fake_model_create(struct tokenizer *t, size_t n_ctx) {
    struct model *m = mem_new(struct model);
    m->references = 1;
    m->tokenizer = t;
    m->config = (struct model_config){.arch = ARCH_GPT2,
                                      .n_layer = 1,
                                      .n_head = 1,
                                      .n_kv_head = 1,
                                      .head_size = 4,
                                      .n_embd = 4,
                                      .n_inner = 16,
                                      .n_vocab = t ? tokenizer_size(t) : 261,
                                      .n_ctx = n_ctx};
    return m;
}
struct model *model_acquire(struct model *m) {
    __atomic_add_fetch(&m->references, 1, __ATOMIC_RELAXED);
    return m;
}
void model_release(struct model *m) {
    if (!m || __atomic_sub_fetch(&m->references, 1, __ATOMIC_ACQ_REL)) return;
    if (m->base) model_release(m->base);
    else tokenizer_destroy(m->tokenizer);
    free(m);
}
const struct model_config *model_config(const struct model *m) { return &m->config; }
const struct tokenizer *model_tokenizer(const struct model *m) { return m->tokenizer; }
const char *model_weights_name(const struct model *m) { return "f32"; }
const char *model_format(const struct model *m) { return "safetensors"; }
uint64_t model_parameters(const struct model *m) { return 1000; }
size_t model_bytes(const struct model *m) { return 4000; }
struct model *model_base(struct model *m) { return m->base ? m->base : m; }
const struct adapter_rows *model_adapter(const struct model *m) { return NULL; }
size_t model_own_bytes(const struct model *m) { return m->base ? 100 : 4000; }
struct model *model_create_adapted(struct model *base, const struct adapter *a, struct err *err) {
    struct model *m = fake_model_create(base->tokenizer, a->rank);
    m->base = model_acquire(base);
    return m;
}
const char *model_fingerprint(const struct model *m) { return "0123456789abcdef"; }

struct tokenizer *fake_tokenizer_create(const char *jinja, bool add_bos) {
    static const char *const special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    struct vocab_entry vocab[261] = {0};
    char bytes[256];
    for (size_t i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        vocab[i] = (struct vocab_entry){.bytes = &bytes[i], .len = 1};
    }
    for (size_t i = 0; i < 3; i++)
        vocab[256 + i] = (struct vocab_entry){.bytes = special[i], .len = strlen(special[i]), .special = true};
    vocab[259].absent = vocab[260].absent = true;
    struct tokenizer_spec spec = {.vocab = vocab,
                                  .n_vocab = 261,
                                  .pre = PRE_GPT2,
                                  .bos = 256,
                                  .eos = 256,
                                  .pad = 256,
                                  .add_bos = add_bos,
                                  .chat_template = jinja};
    struct err err = {0};
    struct tokenizer *t = tokenizer_create(&spec, &err);
    if (!t) abort();
    return t;
}

// -- Engine ------------------------------------------------------------------------------------------------------------------
struct sequence {
    struct sequence *next;
    uint64_t id;
    const struct tokenizer *tokenizer;
    uint32_t *prompt;
    size_t n_prompt, n_generated, start, n_vocab, eos_after;
    struct sampling_params params;
    struct stop_string *stops;
    struct buf text; // generated
    bool prompt_done, fails;
};

struct engine {
    struct engine_config config;
    pthread_mutex_t lock;
    pthread_t thread;
    bool started, stop;
    struct sequence *sequences, **last;
    struct engine_event *events, **last_event;
    struct engine_stats stats;
};

void engine_event_free(struct engine_event *e) { free(e); }

static struct engine_event *event_make(const struct sequence *s, enum event_kind kind, const uint32_t *ids, size_t n,
                                       size_t place, const char *text, size_t len) {
    size_t n_top = s->params.n_logprobs > 0 ? (size_t)s->params.n_logprobs : 0;
    struct engine_event *e =
        calloc(1, sizeof *e + n * sizeof *e->tokens + n * n_top * sizeof(struct top_logprob) + len + 1);
    if (!e) abort();
    e->id = s->id;
    e->kind = kind;
    e->n_tokens = n;
    e->tokens = (struct token_record *)(e + 1);
    struct top_logprob *top = (struct top_logprob *)(e->tokens + n);
    for (size_t i = 0; i < n; i++) {
        bool has = s->params.n_logprobs >= 0 && !(kind == EVENT_PROMPT && place + i == 0);
        float logprob = has ? -0.5f - 0.125f * (float)((place + i) % 4) : 0;
        e->tokens[i] = (struct token_record){
            .id = ids[i], .has_logprob = has, .logprob = logprob, .rank = has && s->params.ranks ? 7 : 0, .n_top = has ? (uint32_t)n_top : 0, .top = top};
        for (size_t k = 0; has && k < n_top; k++)
            *top++ = (struct top_logprob){(ids[i] + (uint32_t)k) % (uint32_t)s->n_vocab, logprob - (float)k};
    }
    char *copy = (char *)(e->tokens + n) + n * n_top * sizeof(struct top_logprob);
    if (len) memcpy(copy, text, len);
    e->text = copy;
    e->text_len = len;
    return e;
}

static void event_add(struct engine *e, struct engine_event *event) {
    *e->last_event = event;
    e->last_event = &event->next;
}

static void sequence_free(struct sequence *s) {
    buf_finish(&s->text);
    for (size_t i = 0; i < s->params.n_stops; i++) free((char *)(uintptr_t)s->stops[i].bytes);
    free((uint32_t *)(uintptr_t)s->params.stop_ids);
    free(s->stops);
    free(s->prompt);
    free(s);
}

static void finish(struct engine *e, struct sequence **link, struct engine_event *event, enum finish_reason why) {
    struct sequence *s = *link;
    event->kind = EVENT_FINISH;
    event->finish = why;
    event->n_prompt = s->n_prompt;
    event->n_generated = s->n_generated;
    event_add(e, event);
    *link = s->next;
    if (!*link) e->last = link;
    sequence_free(s);
    fake_live--;
}

// The text's new end and whether a stop string begins there. Text is released a whole character at a time; none is held back for stops.
static void step_sequence(struct engine *e, struct sequence **link) {
    struct sequence *s = *link;
    if (s->fails) {
        finish(e, link, event_make(s, EVENT_FINISH, NULL, 0, 0, "", 0), FINISH_ERROR);
        return;
    }
    if (!s->prompt_done) {
        s->prompt_done = true;
        for (size_t i = 0; s->params.prompt_logprobs && i < s->n_prompt; i += 4) {
            size_t n = MIN((size_t)4, s->n_prompt - i);
            event_add(e, event_make(s, EVENT_PROMPT, s->prompt + i, n, i, "", 0));
        }
    }
    if (s->params.max_tokens == 0) {
        finish(e, link, event_make(s, EVENT_FINISH, NULL, 0, 0, "", 0), FINISH_LENGTH);
        return;
    }
    size_t place = s->n_generated++;
    if (s->eos_after && place == s->eos_after && !s->params.ignore_eos) {
        uint32_t eos = 256;
        finish(e, link, event_make(s, EVENT_FINISH, &eos, 1, place, "", 0), FINISH_STOP);
        return;
    }
    char c = fake_text[(s->start + place) % (sizeof fake_text - 1)];
    uint32_t id = (unsigned char)c;
    for (size_t i = 0; i < s->params.n_stop_ids; i++) {
        if (s->params.stop_ids[i] != id) continue;
        struct engine_event *event = event_make(s, EVENT_FINISH, &id, 1, place, "", 0);
        event->stopped_by_id = true;
        event->stop_id = id;
        finish(e, link, event, FINISH_STOP);
        return;
    }
    size_t released = s->tokenizer ? utf8_complete_prefix(buf_str(&s->text), s->text.len) : 0;
    buf_add_byte(&s->text, (unsigned char)c);
    for (size_t i = 0; i < s->params.n_stops; i++) {
        const struct stop_string *stop = &s->stops[i];
        if (s->text.len < stop->len || memcmp(s->text.data + s->text.len - stop->len, stop->bytes, stop->len) != 0)
            continue;
        struct engine_event *event = event_make(s, EVENT_FINISH, NULL, 0, 0, "", 0);
        event->stopped_by_string = true;
        event->stop_index = i;
        finish(e, link, event, FINISH_STOP);
        return;
    }
    size_t whole = s->tokenizer ? utf8_complete_prefix(s->text.data, s->text.len) : 0;
    struct engine_event *event = event_make(s, EVENT_TOKENS, &id, 1, place, s->text.data + released, whole - released);
    if (s->n_generated == s->params.max_tokens) finish(e, link, event, FINISH_LENGTH);
    else event_add(e, event);
}

bool engine_step(struct engine *e) {
    pthread_mutex_lock(&e->lock);
    bool work = e->sequences != NULL;
    for (struct sequence **link = &e->sequences; *link;) {
        struct sequence *s = *link;
        step_sequence(e, link);
        if (*link == s) link = &s->next;
    }
    e->stats.steps += work;
    pthread_mutex_unlock(&e->lock);
    if (work && e->config.wake) e->config.wake(e->config.wake_ctx);
    return work;
}

struct engine *engine_create(const struct engine_config *config, struct err *err) {
    struct engine *e = mem_new(struct engine);
    e->config = *config;
    pthread_mutex_init(&e->lock, NULL);
    e->last = &e->sequences;
    e->last_event = &e->events;
    return e;
}

static void *thread_main(void *arg) {
    struct engine *e = arg;
    while (!__atomic_load_n(&e->stop, __ATOMIC_ACQUIRE)) {
        engine_step(e);
        usleep(2000);
    }
    return NULL;
}

void engine_destroy(struct engine *e) {
    if (!e) return;
    __atomic_store_n(&e->stop, true, __ATOMIC_RELEASE);
    if (e->started) pthread_join(e->thread, NULL);
    while (e->sequences) {
        struct sequence *next = e->sequences->next;
        sequence_free(e->sequences);
        e->sequences = next;
        fake_live--;
    }
    for (struct engine_event *event = e->events; event;) {
        struct engine_event *next = event->next;
        engine_event_free(event);
        event = next;
    }
    pthread_mutex_destroy(&e->lock);
    free(e);
}

bool engine_add_model(struct engine *e, struct model *m, size_t kv_bytes, struct err *err) {
    __atomic_add_fetch(&fake_lanes, 1, __ATOMIC_RELAXED);
    return true;
}
void engine_remove_model(struct engine *e, struct model *m) { __atomic_sub_fetch(&fake_lanes, 1, __ATOMIC_RELAXED); }
bool engine_start(struct engine *e, struct err *err) {
    if (pthread_create(&e->thread, NULL, thread_main, e)) return err_set(err, ERR_NO_MEMORY, "no thread");
    e->started = true;
    return true;
}

static struct sequence *sequence_make(const struct sequence_request *r) {
    struct sequence *s = mem_new(struct sequence);
    s->id = r->id;
    s->tokenizer = model_tokenizer(r->model);
    s->n_vocab = model_config(r->model)->n_vocab;
    s->prompt = mem_alloc(r->n_prompt, sizeof *s->prompt);
    memcpy(s->prompt, r->prompt, r->n_prompt * sizeof *s->prompt);
    s->n_prompt = r->n_prompt;
    s->params = r->params;
    uint32_t *stop_ids = mem_alloc(r->params.n_stop_ids, sizeof *stop_ids);
    if (r->params.n_stop_ids) memcpy(stop_ids, r->params.stop_ids, r->params.n_stop_ids * sizeof *stop_ids);
    s->params.stop_ids = stop_ids;
    s->start = r->n_prompt + (r->params.temperature > 0 ? r->params.seed % 1000 : 0);
    s->stops = mem_alloc(r->params.n_stops, sizeof *s->stops);
    for (size_t i = 0; i < r->params.n_stops; i++)
        s->stops[i] =
            (struct stop_string){mem_strndup(r->params.stops[i].bytes, r->params.stops[i].len), r->params.stops[i].len};
    s->eos_after = fake_eos_after;
    s->fails = fake_fails;
    return s;
}

bool engine_submit(struct engine *e, const struct sequence_request *requests, size_t n, struct err *err) {
    fake_last_request = requests[n - 1];
    bool gone = fake_gone;
    fake_gone = false;
    if (gone) return err_set(err, ERR_NOT_FOUND, "no such model");
    pthread_mutex_lock(&e->lock);
    size_t limit = e->config.max_running + e->config.max_waiting;
    bool full = limit && fake_live + n > limit;
    for (size_t i = 0; i < n && !full; i++) {
        struct sequence *s = sequence_make(&requests[i]);
        *e->last = s;
        e->last = &s->next;
        fake_live++;
    }
    pthread_mutex_unlock(&e->lock);
    return full ? err_set(err, ERR_BUSY, "the queue is full") : true;
}

void engine_cancel(struct engine *e, uint64_t id) {
    pthread_mutex_lock(&e->lock);
    bool found = false;
    for (struct sequence **link = &e->sequences; *link && !found; link = &(*link)->next) {
        if ((*link)->id != id) continue;
        found = true;
        fake_cancelled++;
        finish(e, link, event_make(*link, EVENT_FINISH, NULL, 0, 0, "", 0), FINISH_CANCELLED);
        break;
    }
    pthread_mutex_unlock(&e->lock);
    if (found && e->config.wake) e->config.wake(e->config.wake_ctx);
}

struct engine_event *engine_take_events(struct engine *e) {
    pthread_mutex_lock(&e->lock);
    struct engine_event *events = e->events;
    e->events = NULL;
    e->last_event = &e->events;
    pthread_mutex_unlock(&e->lock);
    return events;
}

void engine_stats(struct engine *e, struct engine_stats *out) {
    pthread_mutex_lock(&e->lock);
    *out = e->stats;
    out->running = fake_live;
    pthread_mutex_unlock(&e->lock);
}

// -- Looks inside ------------------------------------------------------------------------------------------------------------
struct inspect_request fake_last_look;
struct inspect_matrices fake_last_matrices;
enum err_code fake_look_error;

static struct inspect_array look_array(void) {
    static const float values[] = {-INFINITY, -0.25f, 0, 0.1f, 1, 2};
    struct inspect_array a = {.data = mem_alloc(6, sizeof(float)), .shape = {2, 3}, .n_dims = 2};
    memcpy(a.data, values, sizeof values);
    return a;
}

static struct inspect_best look_best(void) {
    struct inspect_best b = {.ids = mem_alloc(2, sizeof(uint32_t)), .values = mem_alloc(2, sizeof(float)), .shape = {1, 2}, .n_dims = 2};
    b.ids[0] = 'a', b.ids[1] = 0xc3; // no character alone
    b.values[0] = 0.5f, b.values[1] = 0.25f;
    return b;
}

static bool look_fill(struct inspection *out, struct err *err) {
    if (fake_look_error) return err_set(err, fake_look_error, "as the test wants it");
    out->scores = look_array();
    out->weights = look_array();
    out->block = look_array();
    out->lens = look_best();
    out->neighbours = look_best();
    out->scale = 0.5f;
    return true;
}

bool inspect_model(const struct inspect_request *r, struct inspection *out, struct err *err) {
    fake_last_look = *r;
    return look_fill(out, err);
}
bool inspect_matrices(const struct inspect_matrices *m, struct inspection *out, struct inspect_array *output, struct err *err) {
    fake_last_matrices = *m;
    *output = look_array();
    return look_fill(out, err);
}
void inspection_finish(struct inspection *i) {
    free(i->scores.data);
    free(i->weights.data);
    free(i->block.data);
    free(i->lens.ids);
    free(i->lens.values);
    free(i->neighbours.ids);
    free(i->neighbours.values);
}
