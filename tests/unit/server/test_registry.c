// SPDX-License-Identifier: MIT
// The registry over files and models made of memory: a "model" is a directory whose file `n` holds a number, which comes back as the model's context
// length; an "adapter" has a file `base` too, which names its base.
#include "../test.h"

#include "fake_engine.h"
#include "server/registry.h"

#include "base/file.h"
#include "base/mem.h"
#include "engine/model/adapter.h"

#include <pthread.h>
#include <unistd.h>

// ---- files ----

static char root[] = "/tmp/couplet-registry-XXXXXX";
static size_t n_opened; // whole models

static const char *at(const char *name) { // static: a ring of eight
    static __thread char ring[8][256];
    static __thread unsigned next;
    char *s = ring[next++ % 8];
    snprintf(s, 256, "%s/%s", root, name);
    return s;
}

static void write_text(const char *dir, const char *name, const char *text) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (!file_write_atomic(path, text, strlen(text), 0600, NULL)) abort();
}

static void make(const char *name, size_t n, const char *base) {
    const char *dir = at(name);
    char number[24];
    snprintf(number, sizeof number, "%zu", n);
    if (!dir_make(dir, NULL)) abort();
    write_text(dir, "n", number);
    if (base) write_text(dir, "base", at(base));
}

static char *read_text(const char *dir, const char *name, struct err *err) {
    char *path = path_join(dir, name);
    size_t len;
    char *text = file_read(path, 1000, &len, err);
    free(path);
    return text;
}

struct model_file *model_file_open(const char *path, struct err *err) {
    __atomic_add_fetch(&n_opened, 1, __ATOMIC_RELAXED);
    return (struct model_file *)(void *)read_text(path, "n", err);
}
struct model *model_create(struct model_file *file, enum weights_mode mode, struct pool *pool, struct err *err) {
    struct model *m = fake_model_create(NULL, (size_t)atol((char *)file));
    free(file);
    return m;
}
bool adapter_is_dir(const char *path) {
    char *base = path_join(path, "base");
    bool is = file_exists(base);
    free(base);
    return is;
}
char *adapter_base_path(const char *dir, struct err *err) { return read_text(dir, "base", err); }
bool adapter_load(struct adapter *a, const char *dir, struct err *err) {
    char *n = read_text(dir, "n", err);
    if (n) *a = (struct adapter){.rank = (size_t)atol(n)};
    free(n);
    return n != NULL;
}
void adapter_finish(struct adapter *a) {}

// ---- the store ----

static struct stored_model stored[4];
static struct stored_alias stored_aliases[4];
static size_t n_stored, n_stored_aliases;
bool store_model_list(struct store *s, struct arena *a, struct stored_model **out, size_t *n, struct err *err) {
    *out = stored;
    *n = n_stored;
    return true;
}
bool store_alias_list(struct store *s, struct arena *a, struct stored_alias **out, size_t *n, struct err *err) {
    *out = stored_aliases;
    *n = n_stored_aliases;
    return true;
}

// ---- helpers ----

static const struct viewer admin = {.key = "", .all = true}, anna = {.key = "key-a"}, berta = {.key = "key-b"};

static struct registry *open_with(size_t max_loaded, const char *const *specs) {
    struct registry *r = registry_create();
    struct err err = {0};
    for (; *specs; specs++)
        if (!registry_add(r, *specs, NULL, &err)) abort();
    struct registry_config c = {.engine = (struct engine *)(void *)r, .max_loaded = max_loaded, .data_dir = root};
    fake_lanes = n_opened = 0;
    if (!registry_load(r, &c, (struct store *)(void *)r, &err)) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    return r;
}

static const char *spec(const char *id, const char *name) {
    static char ring[4][300];
    static unsigned next;
    char *s = ring[next++ % 4];
    snprintf(s, 300, "%s=%s", id, at(name));
    return s;
}

static struct stored_model tuned(const char *id, const char *dir, const char *owner, enum model_kind kind) {
    return (struct stored_model){.id = id, .owner = owner, .job = "ftjob-1", .dir = dir, .base = "base", .kind = kind, .created_s = 5};
}
static bool put(struct registry *r, struct stored_model m, enum registry_origin origin, bool load) { return registry_put(r, &m, origin, load, NULL); }

// The model's number; 0: not known; -1: cold.
static int number(struct registry *r, const struct viewer *v, const char *id) {
    struct model_info m = {0};
    enum registry_answer answer = registry_find(r, v, id, &m);
    int n = answer == REGISTRY_FOUND ? (int)model_config(m.model)->n_ctx : answer == REGISTRY_COLD ? -1 : 0;
    model_info_finish(&m);
    return n;
}

static void check_list(struct registry *r, const struct viewer *v, const char *ids) {
    struct model_info *models;
    size_t n, len = 0;
    char text[400] = "";
    registry_list(r, v, &models, &n);
    for (size_t i = 0; i < n; i++) {
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", i ? " " : "", models[i].id);
        model_info_finish(&models[i]);
    }
    free(models);
    CHECK_STR(text, ids);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

// ---- tests ----

TEST(command_line_names) {
    struct registry *r = registry_create();
    struct err err = {0};
    CHECK(registry_add(r, "a=/x", NULL, &err) && registry_add(r, "/y/b.gguf", NULL, &err));
    CHECK(!registry_add(r, "a=/z", NULL, &err) && strstr(err.message, "two models"));
    CHECK(!registry_add(r, "=/z", NULL, &err) && !registry_add(r, "c=", NULL, &err) && !registry_add(r, "a\nb=/z", NULL, &err));
    registry_destroy(r);
    registry_destroy(NULL);
}

TEST(adapters_share_their_base) {
    make("base", 11, NULL), make("one", 21, "base"), make("two", 22, "base");
    struct registry *r = open_with(4, LIST(spec("one", "one"), spec("b", "base"), spec("two", "two")));
    CHECK_INT(n_opened, 1);
    CHECK_INT(fake_lanes, 1);
    struct model_info b = {0}, one = {0};
    CHECK(registry_find(r, &anna, "b", &b) == REGISTRY_FOUND && registry_find(r, &anna, "one", &one) == REGISTRY_FOUND);
    CHECK(model_base(one.model) == b.model && one.adapter && !b.adapter && !b.parent && !one.owner);
    CHECK_STR(one.parent, "b");
    CHECK_INT(one.bytes, 100);
    model_info_finish(&b), model_info_finish(&one);
    check_list(r, &anna, "one b two");
    CHECK_INT(number(r, &anna, "two"), 22);
    CHECK_INT(number(r, &anna, NULL), 0); // three
    registry_destroy(r);
}

TEST(hidden_base) {
    struct registry *r = open_with(4, LIST(spec("one", "one"), spec("two", "two")));
    struct arena a = {0};
    struct model_source source = {0};
    struct registry_figures f;
    CHECK_INT(n_opened, 1);
    CHECK_INT(fake_lanes, 1);
    check_list(r, &anna, "one two");
    CHECK(registry_source(r, &anna, "one", &a, &source) == REGISTRY_FOUND && !source.base_model);
    CHECK_STR(source.base_path, at("base"));
    CHECK_STR(source.adapter_dir, at("one"));
    CHECK(registry_source(r, &anna, "none", &a, &source) == REGISTRY_UNKNOWN);
    registry_figures(r, &f);
    CHECK(f.full == 1 && f.adapters == 2 && f.cold == 0);
    arena_finish(&a);
    registry_destroy(r);
}

TEST(only_model_is_the_default) {
    struct registry *r = open_with(4, LIST(spec("base", "base")));
    CHECK(put(r, tuned("t", "one", "key-a", MODEL_ADAPTER), MODEL_TUNED, false));
    CHECK_INT(number(r, &anna, ""), 11);
    CHECK_INT(number(r, &anna, NULL), 11);
    registry_destroy(r);
}

TEST(cold_warm_replaced_removed) {
    struct registry *r = open_with(4, LIST(spec("base", "base")));
    struct err err = {0};
    struct model_info held = {0};
    make("full", 31, NULL), make("newer", 32, NULL);
    CHECK(put(r, tuned("t", "full", "key-a", MODEL_FULL), MODEL_LIVE, false));
    CHECK_INT(number(r, &anna, "t"), -1);
    CHECK_INT(n_opened, 1);
    CHECK(registry_find(r, &anna, "t", &held) == REGISTRY_COLD && held.cold && !held.model && held.bytes == 0);
    model_info_finish(&held);
    CHECK(registry_warm(r, &anna, "t", &err) && registry_warm(r, &anna, "t", &err));
    CHECK_INT(n_opened, 2);
    CHECK_INT(fake_lanes, 2);
    CHECK(registry_find(r, &anna, "t", &held) == REGISTRY_FOUND);
    CHECK_STR(held.job, "ftjob-1");
    CHECK(put(r, tuned("t", "newer", "key-a", MODEL_FULL), MODEL_LIVE, true));
    CHECK_INT(number(r, &anna, "t"), 32);
    CHECK_INT(model_config(held.model)->n_ctx, 31); // whoever has the old one keeps it
    CHECK_INT(fake_lanes, 2);
    CHECK(!put(r, tuned("t", "missing", "key-a", MODEL_FULL), MODEL_LIVE, true));
    CHECK(!put(r, tuned("base", "newer", "key-a", MODEL_FULL), MODEL_TUNED, true));
    CHECK_INT(number(r, &anna, "t"), 32);
    registry_remove(r, "t"), registry_remove(r, "never");
    CHECK_INT(number(r, &anna, "t"), 0);
    CHECK_INT(fake_lanes, 1);
    CHECK(!registry_warm(r, &anna, "t", &err) && err.code == ERR_NOT_FOUND);
    model_info_finish(&held);
    registry_destroy(r);
}

// A running job's newest whole checkpoint is its live weights too: they go with their files, and the next checkpoint brings them back.
TEST(live_weights_of_a_checkpoint_that_goes) {
    struct registry *r = open_with(4, LIST(spec("base", "base")));
    make("full", 31, NULL), make("newer", 32, NULL);
    CHECK(put(r, tuned("t:1", "full", "key-a", MODEL_FULL), MODEL_CHECKPOINT, false) && put(r, tuned("t:live", "full", "key-a", MODEL_FULL), MODEL_LIVE, false));
    CHECK(put(r, tuned("t:2", "newer", "key-a", MODEL_FULL), MODEL_CHECKPOINT, false));
    registry_remove(r, "t:2");
    check_list(r, &anna, "base t:1 t:live");
    registry_remove(r, "t:1");
    check_list(r, &anna, "base");
    CHECK(put(r, tuned("t:live", "newer", "key-a", MODEL_FULL), MODEL_LIVE, true));
    CHECK_INT(number(r, &anna, "t:live"), 32);
    registry_destroy(r);
}

TEST(who_sees_what) {
    struct registry *r = open_with(4, LIST(spec("base", "base")));
    struct stored_model shared = tuned("s", "two", "key-b", MODEL_ADAPTER);
    shared.shared = true;
    CHECK(put(r, tuned("t", "one", "key-a", MODEL_ADAPTER), MODEL_TUNED, true) && put(r, shared, MODEL_CHECKPOINT, true));
    check_list(r, &anna, "base t s");
    check_list(r, &berta, "base s");
    check_list(r, &admin, "base t s");
    CHECK_INT(number(r, &berta, "t"), 0);
    CHECK(!registry_warm(r, &berta, "t", NULL));
    CHECK_INT(number(r, &anna, "s"), 22);
    CHECK_INT(number(r, &admin, "t"), 21);
    CHECK_INT(n_opened, 1);
    registry_destroy(r);
}

TEST(aliases) {
    struct registry *r = open_with(4, LIST(spec("base", "base")));
    struct err err = {0};
    struct model_info m = {0};
    CHECK(put(r, tuned("t", "one", "key-a", MODEL_ADAPTER), MODEL_TUNED, true) && put(r, tuned("l", "two", "key-a", MODEL_ADAPTER), MODEL_LIVE, true));
    struct stored_alias a = {.alias = "prod", .model = "t", .owner = "key-a"};
    CHECK(registry_alias(r, &a, &err));
    CHECK(registry_find(r, &anna, "prod", &m) == REGISTRY_FOUND);
    CHECK_STR(m.id, "prod");
    CHECK_STR(m.alias_of, "t");
    CHECK_STR(m.owner, "key-a");
    model_info_finish(&m);
    CHECK_INT(number(r, &berta, "prod"), 0);
    check_list(r, &anna, "base t l prod");
    check_list(r, &berta, "base");
    CHECK(registry_alias(r, &(struct stored_alias){.alias = "prod", .model = "base", .owner = "key-a", .shared = true}, &err));
    CHECK_INT(number(r, &berta, "prod"), 11);
    CHECK(!registry_alias(r, &(struct stored_alias){.alias = "prod", .model = "base", .owner = "key-b"}, &err) && err.code == ERR_INVALID);
    CHECK(!registry_alias(r, &(struct stored_alias){.alias = "base", .model = "t", .owner = "key-a"}, &err) && err.code == ERR_INVALID);
    CHECK(!registry_alias(r, &(struct stored_alias){.alias = "x", .model = "none", .owner = "key-a"}, &err) && err.code == ERR_NOT_FOUND);
    a.shared = true; // a private model stays private behind a shared name
    CHECK(registry_alias(r, &a, &err));
    CHECK_INT(number(r, &berta, "prod"), 0);
    registry_remove(r, "t"); // with it its alias
    CHECK_INT(number(r, &anna, "prod"), 0);
    a.model = "l";
    CHECK(registry_alias(r, &a, &err));
    registry_remove(r, "l"); // live weights leave theirs behind
    CHECK_INT(number(r, &anna, "prod"), 0);
    CHECK(put(r, tuned("l", "one", "key-a", MODEL_ADAPTER), MODEL_LIVE, true));
    CHECK_INT(number(r, &anna, "prod"), 21);
    registry_remove(r, "prod");
    CHECK_INT(number(r, &anna, "prod"), 0);
    registry_destroy(r);
}

TEST(unused_models_go_cold) {
    make("f1", 41, NULL), make("f2", 42, NULL), make("f3", 43, NULL), make("on_f1", 51, "f1");
    struct registry *r = open_with(2, LIST(spec("base", "base")));
    CHECK(put(r, tuned("f1", "f1", "", MODEL_FULL), MODEL_TUNED, true) && put(r, tuned("f2", "f2", "", MODEL_FULL), MODEL_TUNED, true));
    CHECK(put(r, tuned("f3", "f3", "", MODEL_FULL), MODEL_TUNED, false) && put(r, tuned("on", "on_f1", "", MODEL_ADAPTER), MODEL_TUNED, false));
    CHECK(registry_warm(r, &admin, "on", NULL));
    CHECK_INT(n_opened, 3); // f1 was there
    CHECK_INT(number(r, &admin, "f2"), 42);
    CHECK_INT(number(r, &admin, "on"), 51); // its base is used with it
    CHECK(registry_warm(r, &admin, "f3", NULL));
    CHECK_INT(number(r, &admin, "f2"), -1);
    CHECK_INT(number(r, &admin, "f1"), 41);
    CHECK_INT(number(r, &admin, "f3"), 43);
    CHECK(registry_warm(r, &admin, "f2", NULL)); // now f1, and its adapter with it
    CHECK_INT(number(r, &admin, "on"), -1);
    CHECK_INT(number(r, &admin, "f1"), -1);
    CHECK_INT(number(r, &admin, "base"), 11);
    CHECK_INT(fake_lanes, 3);
    registry_destroy(r);
}

TEST(restored) {
    stored[0] = tuned("t", "one", "key-a", MODEL_ADAPTER);
    stored[1] = tuned("gone", "missing", "key-a", MODEL_FULL);
    stored[2] = tuned("f", "full", "key-a", MODEL_FULL);
    stored[2].checkpoint = true;
    n_stored = 3;
    stored_aliases[0] = (struct stored_alias){.alias = "prod", .model = "t", .owner = "key-a"};
    stored_aliases[1] = (struct stored_alias){.alias = "later", .model = "live", .owner = "key-a"};
    n_stored_aliases = 2;
    struct registry *r = open_with(2, LIST(spec("b", "base")));
    n_stored = n_stored_aliases = 0;
    check_list(r, &anna, "b t f prod");
    CHECK_INT(n_opened, 1); // nothing of them is loaded
    CHECK(registry_warm(r, &anna, "prod", NULL));
    CHECK_INT(number(r, &anna, "t"), 21);
    CHECK_INT(n_opened, 1);
    struct model_info m = {0};
    CHECK(registry_find(r, &anna, "f", &m) == REGISTRY_COLD && m.origin == MODEL_CHECKPOINT);
    model_info_finish(&m);
    CHECK(put(r, tuned("live", "two", "key-a", MODEL_ADAPTER), MODEL_LIVE, true));
    CHECK_INT(number(r, &anna, "later"), 22);
    registry_destroy(r);
}

// ---- everything at once ----

enum { ROUNDS = 300 };

static void *reader(void *arg) {
    static const char *const ids[] = {"base", "one", "live", "f1", "f2", "prod"};
    static const int lowest[] = {11, 21, 21, 41, 42, 11};
    struct registry *r = arg;
    for (size_t i = 0; i < ROUNDS * 20; i++) {
        struct model_info m = {0};
        enum registry_answer answer = registry_find(r, &admin, ids[i % 6], &m);
        if (answer == REGISTRY_FOUND && (int)model_config(m.model)->n_ctx < lowest[i % 6]) TEST_FAIL("%s: wrong weights", ids[i % 6]);
        if (answer == REGISTRY_COLD && i % 50 == 3) (void)!registry_warm(r, &admin, ids[i % 6], NULL);
        model_info_finish(&m);
    }
    return NULL;
}
static void *lister(void *arg) {
    for (size_t i = 0; i < ROUNDS; i++) {
        struct model_info *models;
        struct registry_figures f;
        size_t n;
        registry_list(arg, &admin, &models, &n);
        registry_figures(arg, &f);
        for (size_t k = 0; k < n; k++) model_info_finish(&models[k]);
        free(models);
        if (f.full > 4) TEST_FAIL("%zu full models", f.full); // base, two, and one that is replacing
    }
    return NULL;
}
static void *changer(void *arg) {
    for (size_t i = 0; i < ROUNDS; i++) {
        if (!put(arg, tuned("live", i % 2 ? "one" : "two", "", MODEL_ADAPTER), MODEL_LIVE, true)) TEST_FAIL("live");
        if (!put(arg, tuned("f1", "f1", "", MODEL_FULL), MODEL_LIVE, i % 3 == 0)) TEST_FAIL("f1");
        if (i % 10 == 9) registry_remove(arg, "f1");
    }
    return NULL;
}
static void *namer(void *arg) {
    for (size_t i = 0; i < ROUNDS; i++) {
        const struct stored_alias a = {.alias = "prod", .model = i % 2 ? "base" : "f2", .owner = ""};
        if (!registry_alias(arg, &a, NULL)) TEST_FAIL("alias");
        if (i % 7 == 0) registry_remove(arg, "prod");
        (void)!registry_warm(arg, &admin, "f2", NULL);
    }
    return NULL;
}

TEST(hammer) {
    struct registry *r = open_with(2, LIST(spec("base", "base"), spec("one", "one")));
    CHECK(put(r, tuned("f2", "f2", "", MODEL_FULL), MODEL_TUNED, false));
    void *(*const work[])(void *) = {reader, lister, changer, namer};
    pthread_t threads[ARRAY_LEN(work)];
    for (size_t i = 0; i < ARRAY_LEN(work); i++)
        if (pthread_create(&threads[i], NULL, work[i], r)) abort();
    for (size_t i = 0; i < ARRAY_LEN(work); i++) pthread_join(threads[i], NULL);
    CHECK(fake_lanes >= 1 && fake_lanes <= 3);
    registry_destroy(r);
}

int main(int argc, char **argv) {
    if (!mkdtemp(root)) abort();
    make("base", 11, NULL), make("one", 21, "base"), make("two", 22, "base"), make("full", 31, NULL), make("newer", 32, NULL);
    make("f1", 41, NULL), make("f2", 42, NULL), make("f3", 43, NULL);
    int status = test_main("registry", argc, argv);
    if (!dir_remove(root, NULL)) status = 1;
    return status;
}
