// SPDX-License-Identifier: MIT
// See job_publish.h.
#include "server/jobs/job_publish.h"

#include "base/failpoint.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RESULT_FILE_BYTES = 256 << 20 };
typedef unsigned long long llu;

void job_place_init(struct job_place *p, const char *data_dir, const char *job_id, struct arena *a) {
    const char *dash = strchr(job_id, '-');
    p->data_dir = data_dir;
    p->id = job_id;
    p->dir = arena_printf(a, "%s/jobs/%s", data_dir, job_id);
    p->out = arena_printf(a, "%s/out", p->dir);
    p->model = arena_printf(a, "models/model-%s", dash ? dash + 1 : job_id);
}

static bool rename_durably(const char *from, const char *to, const char *parent, struct err *err) {
    if (rename(from, to) != 0) return err_set(err, err_code_of(errno), "the model could not be put in its place");
    return dir_sync(parent, err);
}

// ---- models ----

bool publish_checkpoint(const struct job_place *p, uint64_t step, struct arena *a, const char **dir, struct err *err) {
    const char *from = arena_printf(a, "%s/snapshots/step-%llu", p->out, (llu)step);
    const char *relative = arena_printf(a, "%s-step-%llu", p->model, (llu)step), *to = arena_printf(a, "%s/%s", p->data_dir, relative);
    if (dir_exists(to)) { // a resumed run makes it again, the same to the byte
        if (!dir_remove(from, err)) return false;
    } else if (!dir_exists(from)) {
        relative = NULL;
    } else if (!rename_durably(from, to, arena_printf(a, "%s/models", p->data_dir), err)) {
        return false;
    }
    *dir = relative;
    return true;
}

// What the trainer leaves in OUT beside the model.
static bool is_model_file(const char *name) {
    static const char *const others[] = {"log.jsonl", "results.csv", "report.md", "report.json", "results.html", "results.json"};
    const size_t n = strlen(name);
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (strcmp(name, others[i]) == 0) return false;
    return name[0] != '.' && !(n > 4 && strcmp(name + n - 4, ".svg") == 0);
}

typedef bool entry_fn(void *ctx, const char *dir, const char *name, const struct stat *st, struct err *err);

static bool directory_walk(const char *path, entry_fn *fn, void *ctx, struct err *err) {
    DIR *d = opendir(path);
    bool ok = d != NULL || errno == ENOENT || err_set(err, ERR_IO, "a directory cannot be read");
    for (struct dirent *e; ok && d && (e = readdir(d));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) ok = fn(ctx, path, e->d_name, &st, err);
    }
    if (d) closedir(d);
    return ok;
}

static bool entry_add_bytes(void *ctx, const char *dir, const char *name, const struct stat *st, struct err *err) {
    if (S_ISREG(st->st_mode)) *(uint64_t *)ctx += (uint64_t)st->st_size;
    return true;
}

uint64_t directory_bytes(const char *path) {
    uint64_t bytes = 0;
    struct err err = {0};
    return directory_walk(path, entry_add_bytes, &bytes, &err) ? bytes : 0;
}

static bool entry_move(void *ctx, const char *dir, const char *name, const struct stat *st, struct err *err) {
    const char *to_dir = ctx;
    if (!S_ISREG(st->st_mode) || !is_model_file(name)) return true;
    char *from = path_join(dir, name), *to = path_join(to_dir, name);
    const bool ok = rename(from, to) == 0 || err_set(err, err_code_of(errno), "the model could not be put in its place");
    free(from);
    free(to);
    return ok;
}

bool publish_is_done(const struct job_place *p) {
    char *to = path_join(p->data_dir, p->model);
    const bool done = dir_exists(to);
    free(to);
    return done;
}

// The trainer has its files on the disk. A kill between two of them: what was gathered is still there, the rest follows it.
bool publish_result(const struct job_place *p, struct err *err) {
    if (publish_is_done(p)) return true;
    struct arena a = {0};
    char *gathered = arena_printf(&a, "%s/result", p->dir);
    int failed = 0;
    bool ok = dir_make(gathered, err) && directory_walk(p->out, entry_move, gathered, err) && dir_sync(gathered, err);
    if (ok && (failed = failpoint("runner.before_publish_rename"))) ok = err_set(err, err_code_of(failed), "the model could not be put in its place");
    ok = ok && rename_durably(gathered, arena_printf(&a, "%s/%s", p->data_dir, p->model), arena_printf(&a, "%s/models", p->data_dir), err);
    if (ok) failpoint("runner.after_publish_rename");
    arena_finish(&a);
    return ok;
}

// ---- result files ----

bool publish_file(const struct job_place *p, const char *path, const char *filename, struct arena *a, struct stored_file *out, bool *there, struct err *err) {
    char id[STORE_ID_SIZE], hash[65];
    size_t len;
    *there = file_exists(path);
    if (!*there) return true;
    char *bytes = file_read(path, RESULT_FILE_BYTES, &len, err);
    if (!bytes) return false;
    store_make_id(id, "file-");
    sha256_hex(bytes, len, hash);
    *out = (struct stored_file){
        .id = arena_strndup(a, id, strlen(id)),
        .filename = filename,
        .purpose = "fine-tune-results",
        .sha256 = arena_strndup(a, hash, 64),
        .bytes = (int64_t)len,
    };
    const bool ok = file_write_atomic(arena_printf(a, "%s/files/%s", p->data_dir, id), bytes, len, 0600, err);
    free(bytes);
    return ok;
}

// ---- what goes ----

void publish_undo(const struct job_place *p, const struct stored_file *files, size_t n) {
    struct err err = {0};
    char *path = path_join(p->data_dir, p->model);
    (void)!dir_remove(path, &err); // what cannot be removed is swept at the next start
    free(path);
    for (size_t i = 0; i < n; i++) {
        char *folder = path_join(p->data_dir, "files"), *file = path_join(folder, files[i].id ? files[i].id : ".none");
        unlink(file);
        free(file);
        free(folder);
    }
}

// Half-written files; where ctx is the trainer's directory the model's too.
static bool entry_remove_model_file(void *ctx, const char *dir, const char *name, const struct stat *st, struct err *err) {
    char *path = path_join(dir, name);
    if (S_ISREG(st->st_mode) && (name[0] == '.' || (dir == ctx && is_model_file(name)))) unlink(path);
    free(path);
    return true;
}

static void dirs_remove(const struct job_place *p, const char *const *dirs, size_t n) {
    struct err err = {0};
    for (size_t i = 0; i < n; i++) {
        char *path = path_join(p->dir, dirs[i]);
        (void)!dir_remove(path, &err); // what cannot be removed is tried again at the next start
        free(path);
    }
}

void job_place_trim(const struct job_place *p) {
    static const char *const dirs[] = {"out/checkpoints", "out/snapshots", "out/live"};
    dirs_remove(p, dirs, ARRAY_LEN(dirs));
}

void job_place_clean(const struct job_place *p) {
    static const char *const dirs[] = {"result", "tokenizer"};
    static const char *const files[] = {"pid", "trained"};
    struct err err = {0};
    job_place_trim(p);
    dirs_remove(p, dirs, ARRAY_LEN(dirs));
    (void)!directory_walk(p->out, entry_remove_model_file, (void *)(uintptr_t)p->out, &err);
    (void)!directory_walk(p->dir, entry_remove_model_file, (void *)(uintptr_t)p->out, &err);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char *path = path_join(p->dir, files[i]);
        unlink(path);
        free(path);
    }
}

struct sweep {
    struct store *store;
    const char *data_dir;
    bool quick; // only jobs that have checkpoints
    const struct stored_model *models;
    size_t n_models;
    struct arena arena;
};

// A job that may still publish, by its id.
static bool job_is_open(struct sweep *s, const char *id, bool *known) {
    struct stored_job j;
    struct err err = {0};
    *known = store_job_get(s->store, &(struct viewer){"", true}, id, &s->arena, &j, &err) || err.code != ERR_NOT_FOUND;
    return *known && (err.code || !job_status_final(j.status)); // a store that fails knows nothing: nothing is removed
}

static bool entry_sweep_model(void *ctx, const char *dir, const char *name, const struct stat *st, struct err *err) {
    struct sweep *s = ctx;
    bool known;
    if (strncmp(name, "model-", 6) != 0) return true;
    for (size_t i = 0; i < s->n_models; i++) {
        const char *slash = strrchr(s->models[i].dir, '/');
        if (strcmp(slash ? slash + 1 : s->models[i].dir, name) == 0) return true;
    }
    const char *id = arena_printf(&s->arena, "ftjob-%.*s", (int)strcspn(name + 6, "-"), name + 6);
    return job_is_open(s, id, &known) || dir_remove(arena_printf(&s->arena, "%s/%s", dir, name), err);
}

static bool entry_sweep_job(void *ctx, const char *dir, const char *name, const struct stat *st, struct err *err) {
    struct sweep *s = ctx;
    struct job_place p;
    bool known;
    if (strncmp(name, "ftjob-", 6) != 0) return true;
    job_place_init(&p, s->data_dir, arena_strndup(&s->arena, name, strlen(name)), &s->arena);
    if ((s->quick && !dir_exists(arena_printf(&s->arena, "%s/checkpoints", p.out))) || job_is_open(s, name, &known)) return true;
    if (!known) return dir_remove(p.dir, err);
    job_place_clean(&p);
    return true;
}

bool publish_sweep(struct store *store, const char *data_dir, struct err *err) {
    struct sweep s = {.store = store, .data_dir = data_dir};
    struct stored_model *models;
    bool ok = store_model_list(store, &s.arena, &models, &s.n_models, err);
    s.models = models;
    ok = ok && directory_walk(arena_printf(&s.arena, "%s/models", data_dir), entry_sweep_model, &s, err) &&
         directory_walk(arena_printf(&s.arena, "%s/jobs", data_dir), entry_sweep_job, &s, err);
    arena_finish(&s.arena);
    return ok;
}

bool publish_sweep_ended(struct store *store, const char *data_dir, struct err *err) {
    struct sweep s = {.store = store, .data_dir = data_dir, .quick = true};
    const bool ok = directory_walk(arena_printf(&s.arena, "%s/jobs", data_dir), entry_sweep_job, &s, err);
    arena_finish(&s.arena);
    return ok;
}
