// SPDX-License-Identifier: MIT
// Checkpoints: the round trip by bits, every kind of damage, another run's, pruning, a disk that refuses, the lock.
#include "tests/unit/test.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "engine/train/checkpoint.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const unsigned char run_hash[32] = {1, 2, 3, 255};
static char warnings[2000];

static void warn(void *ctx, const char *message) {
    strncat(warnings, message, sizeof(warnings) - strlen(warnings) - 2);
    strcat(warnings, "\n");
}

struct rig {
    char dir[64];
    struct params *p;
    struct optimizer o;
};

static void rig_fill(struct rig *r, float seed) {
    for (size_t i = 0; i < r->p->n_items; i++)
        for (size_t k = 0; k < r->p->items[i].n; k++) {
            const size_t at = (size_t)(r->p->items[i].w - r->p->trained) + k;
            r->p->trained[at] = seed + (float)at;
            if (r->o.m) r->o.m[at] = seed - (float)at;
            if (r->o.v) r->o.v[at] = seed * (float)at;
        }
}

static bool rig_holds(const struct rig *r, float seed) {
    for (size_t i = 0; i < r->p->n_items; i++)
        for (size_t k = 0; k < r->p->items[i].n; k++) {
            const size_t at = (size_t)(r->p->items[i].w - r->p->trained) + k;
            if (r->p->trained[at] != seed + (float)at) return false;
            if (r->o.m && r->o.m[at] != seed - (float)at) return false;
            if (r->o.v && r->o.v[at] != seed * (float)at) return false;
        }
    return true;
}

static bool rig_init(struct rig *r, enum optimizer_kind kind, float beta1) {
    const struct model_config model = {.arch = ARCH_GPT2, .n_layer = 2, .n_head = 2, .n_kv_head = 2, .head_size = 8, .n_embd = 16, .n_inner = 64,
                                       .n_vocab = 50, .n_ctx = 8, .norm_eps = 1e-5f, .attn_bias = true, .mlp_bias = true, .tied_head = true};
    const struct optimizer_config c = {.kind = kind, .beta1 = beta1, .beta2 = 0.9f, .eps = 1e-8f};
    struct err err = {0};
    *r = (struct rig){.dir = "/tmp/test_checkpoint.XXXXXX"};
    warnings[0] = 0;
    r->p = params_random(&model, INIT_GPT2, 1, &(struct params_options){0}, NULL, &err);
    return mkdtemp(r->dir) && r->p && optimizer_init(&r->o, &c, r->p, NULL, &err);
}

static void rig_finish(struct rig *r) {
    CHECK(dir_remove(r->dir, NULL));
    optimizer_finish(&r->o);
    params_destroy(r->p);
}

// A checkpoint of `step` whose arrays were made from that number.
static bool rig_save(struct rig *r, uint64_t step, struct err *err) {
    struct checkpoint_state s = {.step = step, .epoch = 3, .index = 7, .tokens = UINT64_MAX / 3, .best_valid_loss = 1.0 / 3, .first_valid_loss = NAN,
                                 .window_loss = 1e-310, .best_step = 2, .evaluated = true, .regular_step = step};
    memcpy(s.run_hash, run_hash, 32);
    rig_fill(r, (float)step);
    r->o.steps = step + 100;
    return checkpoint_save(r->dir, &s, &r->o, err);
}

static bool rig_load(struct rig *r, struct checkpoint_state *s, bool *found, struct err *err) {
    rig_fill(r, -1);
    return checkpoint_load_newest(r->dir, run_hash, s, &r->o, found, warn, NULL, err);
}

static bool exists(const struct rig *r, uint64_t step) {
    char *path = checkpoint_path(r->dir, step);
    bool there = dir_exists(path);
    free(path);
    return there;
}

TEST(round_trip) {
    struct rig r;
    struct checkpoint_state s = {0};
    struct err err = {0};
    bool found = true;
    REQUIRE(rig_init(&r, OPTIMIZER_ADAMW, 0.9f));
    CHECK(rig_load(&r, &s, &found, &err));
    CHECK(!found);
    CHECK(rig_save(&r, 2, &err) && rig_save(&r, 10, &err) && rig_save(&r, 10, &err)); // the same step again replaces it
    REQUIRE(rig_load(&r, &s, &found, &err));
    CHECK(found);
    CHECK(rig_holds(&r, 10));
    CHECK_INT(s.step, 10);
    CHECK(s.tokens == UINT64_MAX / 3 && s.epoch == 3 && s.index == 7 && s.best_valid_loss == 1.0 / 3 && isnan(s.first_valid_loss));
    CHECK(s.window_loss == 1e-310 && s.evaluated && s.best_step == 2 && memcmp(s.run_hash, run_hash, 32) == 0);
    CHECK_INT(r.o.steps, 110);
    CHECK_STR(warnings, "");
    rig_fill(&r, 5);
    CHECK(checkpoint_load_weights(r.dir, 2, r.p, &err));
    CHECK_NEAR(r.p->trained[1], 3, 0);
    CHECK_NEAR(r.o.m[1], 4, 0); // untouched
    CHECK(checkpoint_load(r.dir, 2, run_hash, &s, &r.o, &err));
    CHECK(rig_holds(&r, 2));
    CHECK(!checkpoint_load_weights(r.dir, 3, r.p, &err));
    rig_finish(&r);
}

// The weights are a model's file: tensors under their own names, nothing but them.
TEST(weights_are_safetensors) {
    struct rig r;
    struct err err = {0};
    REQUIRE(rig_init(&r, OPTIMIZER_ADAMW, 0.9f));
    REQUIRE(rig_save(&r, 1, &err));
    char *path = checkpoint_path(r.dir, 1), *name = path_join(path, "weights.safetensors");
    struct file_map m;
    REQUIRE(file_map_open(&m, name, &err));
    const char wanted[] = "\"transformer.h.0.attn.c_attn.weight\":{\"dtype\":\"F32\",\"shape\":[16,48],";
    CHECK(memmem(m.data, m.len, wanted, sizeof(wanted) - 1) != NULL);
    file_map_close(&m);
    free(name);
    free(path);
    rig_finish(&r);
}

static void file_damage(const char *path, long flip_at, long cut_to) {
    FILE *f = fopen(path, "r+b");
    if (!f) return;
    if (flip_at >= 0) {
        fseek(f, flip_at, SEEK_SET);
        const int c = fgetc(f);
        fseek(f, flip_at, SEEK_SET);
        fputc(c ^ 0x10, f);
    }
    fclose(f);
    if (cut_to >= 0) CHECK(truncate(path, cut_to) == 0);
}

// kind 0: one bit flipped at `at`; 1: cut to `at` bytes; 2: gone.
static void damage_one(const char *file, int kind, long at) {
    struct rig r;
    struct checkpoint_state s = {0};
    struct err err = {0};
    bool found = false;
    REQUIRE(rig_init(&r, OPTIMIZER_ADAMW, 0.9f));
    REQUIRE(rig_save(&r, 4, &err) && rig_save(&r, 6, &err));
    char *path = checkpoint_path(r.dir, 6), *name = path_join(path, file);
    if (kind < 2) file_damage(name, kind == 0 ? at : -1, kind == 1 ? at : -1);
    else CHECK(unlink(name) == 0);
    CHECK(rig_load(&r, &s, &found, &err));
    CHECK(found && s.step == 4 && rig_holds(&r, 4));
    if (!strstr(warnings, "step-00000006")) TEST_FAIL("%s kind %d at %ld: warned \"%s\"", file, kind, at, warnings);
    const bool moments = strcmp(file, "optimizer.safetensors") == 0; // which the weights alone do not need
    CHECK(checkpoint_load_weights(r.dir, 6, r.p, &err) == moments);
    CHECK(moments || rig_holds(&r, 4));
    CHECK(rig_save(&r, 6, &err)); // the resumed run comes past it again
    CHECK(rig_load(&r, &s, &found, &err) && s.step == 6);
    free(path);
    free(name);
    rig_finish(&r);
}

TEST(damage_is_passed_over) {
    const char *const names[] = {"weights.safetensors", "optimizer.safetensors", "state.json"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const long offsets[] = {0, 9, 300, 500};
        for (size_t k = 0; k < ARRAY_LEN(offsets); k++) damage_one(names[i], 0, offsets[k]);
        damage_one(names[i], 1, 0);
        damage_one(names[i], 1, 100);
        damage_one(names[i], 2, 0);
    }
}

TEST(only_damaged_ones_are_none) {
    struct rig r;
    struct checkpoint_state s = {.step = 77};
    struct err err = {0};
    bool found = true;
    REQUIRE(rig_init(&r, OPTIMIZER_ADAMW, 0.9f));
    REQUIRE(rig_save(&r, 4, &err));
    char *path = checkpoint_path(r.dir, 4), *name = path_join(path, "optimizer.safetensors");
    file_damage(name, 4000, -1);
    CHECK(rig_load(&r, &s, &found, &err));
    CHECK(!found && s.step == 77 && rig_holds(&r, -1));
    free(path);
    free(name);
    rig_finish(&r);
}

TEST(another_run_is_refused) {
    struct rig r;
    struct checkpoint_state s = {0};
    struct err err = {0};
    bool found = false;
    const unsigned char other[32] = {9};
    REQUIRE(rig_init(&r, OPTIMIZER_ADAMW, 0.9f));
    REQUIRE(rig_save(&r, 4, &err));
    rig_fill(&r, -1);
    CHECK(!checkpoint_load_newest(r.dir, other, &s, &r.o, &found, warn, NULL, &err));
    CHECK_INT(err.code, ERR_INVALID);
    CHECK_STR(err.param, "resume");
    CHECK(!found && rig_holds(&r, -1));
    rig_finish(&r);
}

TEST(sgd_has_no_moments) {
    struct rig r;
    struct checkpoint_state s = {0};
    struct err err = {0};
    bool found = false;
    for (int momentum = 0; momentum < 2; momentum++) {
        REQUIRE(rig_init(&r, OPTIMIZER_SGD, momentum ? 0.5f : 0));
        REQUIRE(rig_save(&r, 4, &err));
        CHECK(rig_load(&r, &s, &found, &err) && found && rig_holds(&r, 4));
        rig_finish(&r);
    }
}

TEST(pruning_keeps_newest_and_best) {
    struct rig r;
    struct err err = {0};
    REQUIRE(rig_init(&r, OPTIMIZER_ADAMW, 0.9f));
    for (uint64_t step = 1; step <= 6; step++) REQUIRE(rig_save(&r, step, &err));
    char *torn = path_join(r.dir, ".tmp-new-00000009");
    REQUIRE(dir_make(torn, &err));
    checkpoint_prune(r.dir, 2, 3);
    for (uint64_t step = 1; step <= 6; step++) CHECK_INT(exists(&r, step), step == 3 || step >= 5);
    CHECK(!dir_exists(torn));
    checkpoint_prune(r.dir, 0, 0); // never the newest
    CHECK(exists(&r, 6) && !exists(&r, 5));
    free(torn);
    rig_finish(&r);
}

// A disk that takes no more than `limit` bytes a file: every place where writing can fail.
TEST(failed_write_leaves_the_old_ones) {
    struct rig r;
    struct checkpoint_state s = {0};
    struct err err = {0};
    bool found = false;
    struct rlimit old, tight;
    REQUIRE(rig_init(&r, OPTIMIZER_ADAMW, 0.9f));
    REQUIRE(rig_save(&r, 4, &err));
    char *path = checkpoint_path(r.dir, 4), *name = path_join(path, "weights.safetensors");
    struct stat st;
    REQUIRE(stat(name, &st) == 0);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    const rlim_t limits[] = {0, (rlim_t)st.st_size - 1, (rlim_t)st.st_size}; // weights fail | the same | moments fail, being twice as long
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        tight = old, tight.rlim_cur = limits[i];
        setrlimit(RLIMIT_FSIZE, &tight);
        err = (struct err){0};
        const bool saved = rig_save(&r, 6, &err), again = rig_save(&r, 4, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        CHECK(!saved && !again);
        CHECK_INT(err.code, ERR_NO_SPACE);
        CHECK(!exists(&r, 6) && exists(&r, 4));
        char *torn = path_join(r.dir, ".tmp-new-00000006");
        CHECK(!dir_exists(torn));
        free(torn);
    }
    CHECK(rig_load(&r, &s, &found, &err) && found && rig_holds(&r, 4));
    CHECK_STR(warnings, "");
    free(path);
    free(name);
    rig_finish(&r);
}

TEST(one_run_a_directory) {
    struct rig r;
    struct err err = {0};
    REQUIRE(rig_init(&r, OPTIMIZER_ADAMW, 0.9f));
    char *dir = path_join(r.dir, "out/checkpoints");
    const int fd = checkpoint_lock(dir, &err);
    CHECK(fd >= 0);
    CHECK_INT(checkpoint_lock(dir, &err), -1);
    CHECK_INT(err.code, ERR_BUSY);
    close(fd);
    const pid_t child = fork(); // dies holding it
    if (child == 0) _exit(checkpoint_lock(dir, NULL) < 0);
    int status = -1;
    waitpid(child, &status, 0);
    CHECK_INT(status, 0);
    const int again = checkpoint_lock(dir, &err);
    CHECK(again >= 0);
    close(again);
    free(dir);
    rig_finish(&r);
}

TEST_MAIN("checkpoint")
