// SPDX-License-Identifier: MIT
// Checkpoints on disk. Thread: the trainer's; hashing on its pool.
//
// Invariants: (1) nothing under the name step-* is ever partly written or partly removed: it is renamed into place and renamed away.
// (2) params and moments are written to only after every hash and every tensor's name and size was found right.
#include "engine/train/checkpoint.h"

#include "base/failpoint.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "engine/model/model_write.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { STATE_BYTES_MAX = 1 << 16, HEX_BYTES = 65 };
#define STATE_FORMAT "couplet checkpoint 1"

static char *step_path(const char *dir, const char *prefix, uint64_t step) {
    struct buf b = {0};
    buf_printf(&b, "%s/%s-%08llu", dir, prefix, (unsigned long long)step);
    return buf_detach(&b);
}

char *checkpoint_path(const char *dir, uint64_t step) {
    return step_path(dir, "step", step);
}

// ---- state.json: one table for writing and reading ----

struct manifest { // state.json's content
    struct checkpoint_state state;
    uint64_t optimizer_steps;
    char run_hash[HEX_BYTES], weights[HEX_BYTES], optimizer[HEX_BYTES]; // SHA-256; optimizer "": there is no such file
};
enum field_kind { FIELD_COUNT, FIELD_REAL, FIELD_FLAG, FIELD_HEX };
#define STATE_FIELD(name, kind) {#name, kind, offsetof(struct manifest, state.name)}
static const struct field {
    const char *name;
    enum field_kind kind;
    size_t at;
} fields[] = {
    {"run_hash", FIELD_HEX, offsetof(struct manifest, run_hash)},
    STATE_FIELD(step, FIELD_COUNT),
    STATE_FIELD(epoch, FIELD_COUNT),
    STATE_FIELD(index, FIELD_COUNT),
    STATE_FIELD(tokens, FIELD_COUNT),
    STATE_FIELD(supervised, FIELD_COUNT),
    STATE_FIELD(log_position, FIELD_COUNT),
    STATE_FIELD(best_valid_loss, FIELD_REAL),
    STATE_FIELD(first_valid_loss, FIELD_REAL),
    STATE_FIELD(last_valid_loss, FIELD_REAL),
    STATE_FIELD(last_train_loss, FIELD_REAL),
    STATE_FIELD(best_step, FIELD_COUNT),
    STATE_FIELD(evals_without_gain, FIELD_COUNT),
    STATE_FIELD(skipped, FIELD_COUNT),
    STATE_FIELD(window_loss, FIELD_REAL),
    STATE_FIELD(window_targets, FIELD_COUNT),
    STATE_FIELD(regular_step, FIELD_COUNT),
    STATE_FIELD(evaluated, FIELD_FLAG),
    {"optimizer_steps", FIELD_COUNT, offsetof(struct manifest, optimizer_steps)},
    {"weights_sha256", FIELD_HEX, offsetof(struct manifest, weights)},
    {"optimizer_sha256", FIELD_HEX, offsetof(struct manifest, optimizer)},
};
#define STATE_SEAL ",\n\"state_sha256\":" // of everything before

static void manifest_write(const struct manifest *m, struct buf *out) {
    char hex[HEX_BYTES];
    buf_printf(out, "{\"format\":\"%s\"", STATE_FORMAT);
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const void *at = (const char *)m + fields[i].at;
        buf_printf(out, ",\n\"%s\":", fields[i].name);
        switch (fields[i].kind) {
        case FIELD_COUNT: buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)at); break;
        case FIELD_REAL: buf_add_json_number(out, *(const double *)at); break;
        case FIELD_FLAG: buf_add_str(out, *(const bool *)at ? "true" : "false"); break;
        case FIELD_HEX: buf_add_json_string(out, at, strlen(at)); break;
        }
    }
    sha256_hex(out->data, out->len, hex);
    buf_printf(out, STATE_SEAL "\"%s\"}\n", hex);
}

// Reads one value at *at, as manifest_write spelled it, and goes past it.
static bool field_read(const char **at, const struct field *f, struct manifest *m) {
    void *to = (char *)m + f->at;
    const char *begin = *at;
    char *end = NULL;
    switch (f->kind) {
    case FIELD_COUNT: *(uint64_t *)to = strtoull(begin, &end, 10); break;
    case FIELD_REAL: *(double *)to = strncmp(begin, "null", 4) == 0 ? NAN : strtod(begin, &end); break;
    case FIELD_FLAG: *(bool *)to = *begin == 't'; break;
    case FIELD_HEX: snprintf(to, HEX_BYTES, "%.*s", (int)strspn(begin + 1, "0123456789abcdef"), begin + 1); break;
    }
    *at = end ? end : begin + strcspn(begin, ",");
    return *at > begin;
}

// The seal holds: these are the very bytes of manifest_write, fields in the table's order, or those of another version of it.
static bool manifest_parse(const char *at, struct manifest *m) {
    static const char head[] = "{\"format\":\"" STATE_FORMAT "\"";
    if (strncmp(at, head, sizeof(head) - 1) != 0) return false;
    at += sizeof(head) - 1;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const size_t len = strlen(fields[i].name);
        if (strncmp(at, ",\n\"", 3) != 0 || strncmp(at + 3, fields[i].name, len) != 0 || strncmp(at + 3 + len, "\":", 2) != 0) return false;
        at += len + 5;
        if (!field_read(&at, &fields[i], m)) return false;
    }
    return strncmp(at, STATE_SEAL, strlen(STATE_SEAL)) == 0;
}

static bool manifest_read(const char *path, struct manifest *m, struct err *err) {
    char *name = path_join(path, "state.json"), hex[HEX_BYTES];
    char *text = file_read(name, STATE_BYTES_MAX, NULL, err);
    free(name);
    if (!text) return false;
    const char *seal = strstr(text, STATE_SEAL);
    sha256_hex(text, seal ? (size_t)(seal - text) : 0, hex);
    bool ok = (seal && strncmp(seal + strlen(STATE_SEAL) + 1, hex, HEX_BYTES - 1) == 0) || err_set(err, ERR_CORRUPT, "state.json is damaged");
    ok = ok && (manifest_parse(text, m) || err_set(err, ERR_UNSUPPORTED, "state.json is not of the format \"%s\"", STATE_FORMAT));
    free(text);
    return ok;
}

// ---- the arrays ----

struct array_file {
    const char *name;
    struct tensor_out *arrays; // by name; data: the run's own arrays, which loading writes to
    size_t n;                  // 0: there is no such file
    struct file_map map;       // while reading
    char hex[HEX_BYTES];       // found
    struct err err;
};

static size_t array_bytes(const struct tensor_out *t) {
    return t->shape[0] * (t->n_dims == 2 ? t->shape[1] : 1) * sizeof(float);
}

static int compare_arrays(const void *a, const void *b) {
    return strcmp(((const struct tensor_out *)a)->name, ((const struct tensor_out *)b)->name);
}

static void array_add(struct array_file *f, const char *name, int n_dims, const size_t shape[2], const float *data) {
    f->arrays[f->n++] = (struct tensor_out){.name = name, .n_dims = n_dims, .shape = {shape[0], shape[1]}, .data = data};
}

struct file_set {
    const char *dir;
    struct array_file files[2]; // weights, moments
};

// o NULL: the weights alone.
static void file_set_init(struct file_set *s, const char *dir, const struct params *p, const struct optimizer *o) {
    struct array_file weights = {.name = "weights.safetensors", .arrays = mem_alloc(p->n_items, sizeof(struct tensor_out))};
    struct array_file moments = {.name = "optimizer.safetensors", .arrays = mem_alloc(2, sizeof(struct tensor_out))};
    const size_t flat[2] = {p->n_trained, 1};
    for (size_t i = 0; i < p->n_items; i++)
        if (p->items[i].grad) array_add(&weights, p->items[i].name, p->items[i].n_dims, p->items[i].shape, p->items[i].w);
    qsort(weights.arrays, weights.n, sizeof(*weights.arrays), compare_arrays);
    if (o && o->m) array_add(&moments, "m", 1, flat, o->m);
    if (o && o->v) array_add(&moments, "v", 1, flat, o->v);
    *s = (struct file_set){.dir = dir, .files = {weights, moments}};
}

static void file_set_finish(struct file_set *s) {
    for (size_t i = 0; i < 2; i++) {
        file_map_close(&s->files[i].map);
        free(s->files[i].arrays);
    }
}

// Part of a pool_run: one file's bytes mapped and hashed.
static void file_open_hash(void *ctx, size_t part) {
    struct file_set *s = ctx;
    struct array_file *f = &s->files[part];
    if (f->n == 0) return;
    char *path = path_join(s->dir, f->name);
    if (file_map_open(&f->map, path, &f->err)) sha256_hex(f->map.data, f->map.len, f->hex);
    free(path);
}

static bool file_set_hash(struct file_set *s, struct pool *pool, struct err *err) {
    pool_run(pool, file_open_hash, s, 2);
    for (size_t i = 0; i < 2; i++)
        if (s->files[i].err.code) return err_set(err, s->files[i].err.code, "%s", s->files[i].err.message);
    return true;
}

static bool array_file_write(const struct array_file *f, const char *dir, struct err *err) {
    if (f->n == 0) return true;
    char *path = path_join(dir, f->name);
    bool ok = safetensors_write(path, f->arrays, f->n, WRITE_F32, NULL, err);
    free(path);
    return ok;
}

// Where the arrays begin in a mapped file of right hash, which safetensors_write made: by name, without gaps, up to the end. NULL: other arrays.
static const unsigned char *array_file_data(const struct array_file *f) {
    size_t bytes = 0;
    for (size_t i = 0; i < f->n; i++) bytes += array_bytes(&f->arrays[i]);
    if (bytes > f->map.len) return NULL;
    for (size_t i = 0; i < f->n; i++)
        if (!memmem(f->map.data, f->map.len - bytes, f->arrays[i].name, strlen(f->arrays[i].name))) return NULL;
    return f->map.data + (f->map.len - bytes);
}

static bool file_set_load(struct file_set *s, const struct manifest *m, struct pool *pool, struct err *err) {
    const char *const expected[2] = {m->weights, m->optimizer};
    const unsigned char *from[2] = {NULL, NULL};
    if (!file_set_hash(s, pool, err)) return false;
    for (size_t i = 0; i < 2; i++) {
        const struct array_file *f = &s->files[i];
        if (f->n == 0) continue;
        if (strcmp(f->hex, expected[i]) != 0) return err_set(err, ERR_CORRUPT, "%s is damaged: its SHA-256 is not the one recorded", f->name);
        if (!(from[i] = array_file_data(f))) return err_set(err, ERR_CORRUPT, "%s holds other arrays than this model trains", f->name);
    }
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < s->files[i].n; k++) {
            const struct tensor_out *t = &s->files[i].arrays[k];
            memcpy((void *)(uintptr_t)t->data, from[i], array_bytes(t));
            from[i] += array_bytes(t);
        }
    }
    return true;
}

// ---- saving ----

static bool checkpoint_fill(const char *path, const struct checkpoint_state *s, const struct optimizer *o, struct err *err) {
    struct manifest m = {.state = *s, .optimizer_steps = o->steps};
    struct file_set set;
    struct buf text = {0};
    char *name = path_join(path, "state.json");
    file_set_init(&set, path, o->params, o);
    bool ok = array_file_write(&set.files[0], path, err) && array_file_write(&set.files[1], path, err) && file_set_hash(&set, o->pool, err);
    if (ok) {
        hex_write(s->run_hash, sizeof(s->run_hash), m.run_hash);
        memcpy(m.weights, set.files[0].hex, HEX_BYTES);
        memcpy(m.optimizer, set.files[1].hex, HEX_BYTES);
        manifest_write(&m, &text);
        ok = file_write_atomic(name, text.data, text.len, 0644, err);
    }
    file_set_finish(&set);
    buf_finish(&text);
    free(name);
    return ok;
}

// Renamed away first: a removal that is cut short leaves no torn checkpoint.
void checkpoint_remove(const char *dir, uint64_t step) {
    char *path = checkpoint_path(dir, step), *temp = step_path(dir, ".tmp-old", step);
    if (dir_remove(temp, NULL) && rename(path, temp) == 0) (void)!dir_remove(temp, NULL);
    free(path);
    free(temp);
}

bool checkpoint_save(const char *dir, const struct checkpoint_state *s, const struct optimizer *o, struct err *err) {
    char *temp = step_path(dir, ".tmp-new", s->step), *path = checkpoint_path(dir, s->step);
    bool ok = dir_remove(temp, err) && dir_make(temp, err) && checkpoint_fill(temp, s, o, err);
    if (ok) {
        failpoint("trainer.before_checkpoint_rename");
        checkpoint_remove(dir, s->step); // a damaged one that a resumed run went past again, or an equal one
        ok = rename(temp, path) == 0 || err_set(err, err_code_of(errno), "cannot rename %s: %s", temp, strerror(errno));
    }
    ok = ok && dir_sync(dir, err);
    if (!ok) (void)!dir_remove(temp, NULL);
    free(temp);
    free(path);
    return ok;
}

// ---- loading ----

static bool arrays_load(const char *path, const struct manifest *m, struct params *p, struct optimizer *o, struct err *err) {
    struct file_set set;
    file_set_init(&set, path, p, o);
    const bool ok = file_set_load(&set, m, o ? o->pool : NULL, err);
    file_set_finish(&set);
    return ok;
}

bool checkpoint_load(const char *dir, uint64_t step, const unsigned char run_hash[32], struct checkpoint_state *s, struct optimizer *o,
                     struct err *err) {
    char *path = checkpoint_path(dir, step), hex[HEX_BYTES];
    struct manifest m = {0};
    hex_write(run_hash, 32, hex);
    bool ok = manifest_read(path, &m, err);
    if (ok && strcmp(m.run_hash, hex) != 0)
        ok = err_set_param(err, ERR_INVALID, "resume",
                           "%s was made with other data, options or another base model: resume with those, or remove the checkpoints to begin anew", path);
    ok = ok && arrays_load(path, &m, o->params, o, err);
    if (ok) {
        *s = m.state;
        memcpy(s->run_hash, run_hash, 32);
        o->steps = m.optimizer_steps;
    }
    free(path);
    return ok;
}

bool checkpoint_load_weights(const char *dir, uint64_t step, struct params *p, struct err *err) {
    char *path = checkpoint_path(dir, step);
    struct manifest m = {0};
    const bool ok = manifest_read(path, &m, err) && arrays_load(path, &m, p, NULL, err);
    free(path);
    return ok;
}

// ---- the directory ----

static int compare_newest(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x > y ? -1 : x < y;
}

// Steps of the checkpoints in dir, newest first; malloc'ed. A directory that cannot be read has none.
static uint64_t *steps_list(const char *dir, size_t *n) {
    uint64_t *steps = NULL;
    size_t cap = 0;
    *n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char *end;
        if (strncmp(e->d_name, "step-", 5) != 0 || e->d_name[5] < '0' || e->d_name[5] > '9') continue;
        const uint64_t step = strtoull(e->d_name + 5, &end, 10);
        if (*end) continue;
        mem_grow(&steps, &cap, *n + 1);
        steps[(*n)++] = step;
    }
    if (d) closedir(d);
    if (*n) qsort(steps, *n, sizeof(*steps), compare_newest);
    return steps;
}

bool checkpoint_load_newest(const char *dir, const unsigned char run_hash[32], struct checkpoint_state *s, struct optimizer *o, bool *found,
                            checkpoint_warn_fn *warn, void *warn_ctx, struct err *err) {
    size_t n;
    uint64_t *steps = steps_list(dir, &n);
    bool ok = true, loaded = false;
    for (size_t i = 0; i < n && ok && !loaded; i++) {
        struct err fault = {0};
        loaded = checkpoint_load(dir, steps[i], run_hash, s, o, &fault);
        if (loaded) continue;
        if (fault.code == ERR_INVALID && fault.param[0]) {
            ok = err_set_param(err, fault.code, fault.param, "%s", fault.message);
        } else if (warn) {
            struct buf text = {0};
            buf_printf(&text, "checkpoint step-%08llu is passed over: %s", (unsigned long long)steps[i], fault.message);
            warn(warn_ctx, buf_str(&text));
            buf_finish(&text);
        }
    }
    free(steps);
    if (ok) *found = loaded;
    return ok;
}

static void temps_remove(const char *dir) {
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, ".tmp-", 5) != 0) continue;
        char *path = path_join(dir, e->d_name);
        (void)!dir_remove(path, NULL);
        free(path);
    }
    if (d) closedir(d);
}

void checkpoint_prune(const char *dir, size_t keep, uint64_t best_step) {
    size_t n;
    uint64_t *steps = steps_list(dir, &n);
    for (size_t i = MAX(keep, 1); i < n; i++)
        if (steps[i] != best_step) checkpoint_remove(dir, steps[i]);
    free(steps);
    temps_remove(dir);
}

int checkpoint_lock(const char *dir, struct err *err) {
    char *path = path_join(dir, "lock"), *parent = path_join(dir, "..");
    bool made = dir_make(dir, err) && dir_sync(parent, err);
    free(parent);
    int fd = made ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd < 0 && made) {
        err_set(err, err_code_of(errno), "cannot open %s: %s", path, strerror(errno));
    } else if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK) err_set(err, ERR_BUSY, "another run is writing checkpoints to %s", dir);
        else err_set(err, ERR_IO, "cannot lock %s: %s", path, strerror(errno));
        close(fd);
        fd = -1;
    }
    free(path);
    return fd;
}
