// SPDX-License-Identifier: MIT
// Weights: opening, sharing of bases, room for what jobs made. See registry_internal.h: everything here is called between registry_begin and
// registry_end, or by the loader before other threads come.
#include "server/registry_internal.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/infer/engine.h"
#include "engine/model/adapter.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// ---- bases ----

static bool entry_is_base(const struct registry_entry *e, const char *real) { return !e->adapter && e->real && strcmp(e->real, real) == 0; }

// The loaded base of an adapter: the entry whose files they are, or a hidden one.
static struct registry_entry *base_get(struct registry *r, const struct registry_entry *adapter, struct err *err) {
    if (!adapter->real) {
        err_set(err, ERR_NOT_FOUND, "%s: no such file or directory", adapter->path);
        return NULL;
    }
    struct registry_entry *e = r->entries;
    while (e && !entry_is_base(e, adapter->real)) e = e->next;
    if (!e) {
        e = mem_new(struct registry_entry);
        *e = (struct registry_entry){.path = mem_strdup(adapter->path), .real = mem_strdup(adapter->real), .origin = adapter->origin};
        registry_link(r, e);
    }
    return e->model || registry_entry_load(r, e, err) ? e : NULL;
}

// ---- opening ----

// A whole model comes with its lane.
static struct model *whole_open(struct registry *r, const struct registry_entry *e, struct err *err) {
    const struct registry_config *c = &r->config;
    struct model_file *file = model_file_open(e->path, err);
    struct model *m = file ? model_create(file, c->mode, c->pool, err) : NULL;
    if (!m || !c->engine || engine_add_model(c->engine, m, c->kv_bytes, err)) return m;
    model_release(m);
    return NULL;
}

static struct model *adapted_open(struct registry *r, const struct registry_entry *e, struct err *err) {
    const struct registry_entry *base = base_get(r, e, err);
    struct adapter a = {0};
    if (!base || !adapter_load(&a, e->adapter, err)) return NULL;
    struct model *m = model_create_adapted(base->model, &a, err);
    adapter_finish(&a);
    return m;
}

static bool counts_as_full(const struct registry_entry *e) { return e->model && !e->adapter && e->origin != MODEL_SERVED; }

// Before another full model of a job's is loaded: those unused longest go cold. `id` is about to be replaced and stays till then.
static void room_make(struct registry *r, const char *id) {
    for (;;) {
        size_t n = 0;
        struct registry_entry *oldest = NULL;
        pthread_mutex_lock(&r->lock);
        for (struct registry_entry *e = r->entries; e; e = e->next) {
            if (!counts_as_full(e) || (id && e->id && strcmp(e->id, id) == 0)) continue;
            n++;
            if (!oldest || e->used < oldest->used) oldest = e;
        }
        pthread_mutex_unlock(&r->lock);
        if (n < r->config.max_loaded) return;
        const uint64_t over_ns = oldest->loaded_ns + r->config.stay_ms * UINT64_C(1000000), now_ns = clock_ns();
        if (now_ns < over_ns) {
            usleep((useconds_t)((over_ns - now_ns) / 1000 + 1));
            continue; // another may be the oldest by then
        }
        log_line(LOG_INFO, "model set aside", "id", oldest->id ? oldest->id : "(base of adapters)", NULL);
        registry_entry_cool(r, oldest);
    }
}

bool registry_entry_load(struct registry *r, struct registry_entry *e, struct err *err) {
    const uint64_t begin = clock_ns();
    if (!e->adapter && e->origin != MODEL_SERVED) room_make(r, e->id);
    struct model *m = e->adapter ? adapted_open(r, e, err) : whole_open(r, e, err);
    if (!m) return false;
    log_line(LOG_INFO, "model loaded", "id", e->id ? e->id : "(base of adapters)", "weights", e->adapter ? "adapter" : model_weights_name(m), "mib",
             log_value("%zu", model_own_bytes(m) >> 20), "ms", log_value("%.0f", (double)(clock_ns() - begin) / 1e6), NULL);
    pthread_mutex_lock(&r->lock);
    e->model = m;
    e->used = ++r->clock;
    e->loaded_ns = clock_ns();
    pthread_mutex_unlock(&r->lock);
    return true;
}

void registry_entry_cool(struct registry *r, struct registry_entry *e) {
    struct model *m = e->model;
    if (!m) return;
    for (struct registry_entry *other = e->adapter ? NULL : r->entries; other; other = other->next)
        if (other != e && other->model && model_base(other->model) == m) registry_entry_cool(r, other);
    pthread_mutex_lock(&r->lock);
    e->model = NULL;
    pthread_mutex_unlock(&r->lock);
    if (!e->adapter && r->config.engine) engine_remove_model(r->config.engine, m);
    model_release(m);
}

// ---- the command line ----

// "--model DIR" where DIR is an adapter's: its base is where its configuration says.
static bool served_resolve(struct registry_entry *e, struct err *err) {
    if (adapter_is_dir(e->path)) {
        if (e->adapter) return err_set_param(err, ERR_INVALID, "--adapter", "%s is an adapter itself: --adapter needs a whole model", e->path);
        e->adapter = e->path;
        e->path = adapter_base_path(e->adapter, err);
        if (!e->path) return false;
    }
    e->real = realpath(e->path, NULL);
    return true;
}

static void served_name_parents(struct registry *r) {
    for (struct registry_entry *e = r->entries; e; e = e->next)
        for (const struct registry_entry *base = e->adapter && e->real ? r->entries : NULL; base && !e->parent; base = base->next)
            if (base->id && entry_is_base(base, e->real)) e->parent = mem_strdup(base->id);
}

static bool served_load(struct registry *r, struct err *err) {
    for (struct registry_entry *e = r->entries; e; e = e->next)
        if (!served_resolve(e, err)) return err_prefix(err, "model %s", e->id);
    served_name_parents(r);
    for (struct registry_entry *e = r->entries; e; e = e->next) {
        if (!e->model && !registry_entry_load(r, e, err)) return err_prefix(err, "model %s", e->id);
        e->created_s = (int64_t)time(NULL);
    }
    return true;
}

// ---- what jobs made ----

// The base's files by the adapter's own word, which names what it was trained on; else by the id they had.
static char *stored_base_path(const struct registry *r, const struct stored_model *m, const char *dir, struct err *err) {
    char *path = adapter_base_path(dir, err);
    const struct registry_entry *base = path ? NULL : registry_entry_of(r, m->base);
    return base ? mem_strdup(base->path) : path;
}

struct registry_entry *registry_entry_stored(struct registry *r, const struct stored_model *m, enum registry_origin origin, struct err *err) {
    char *dir = path_join(r->config.data_dir, m->dir), *path = dir, *adapter = NULL;
    if (!dir_exists(dir)) {
        err_set(err, ERR_NOT_FOUND, "the model's directory is missing");
        path = NULL;
    } else if (m->kind == MODEL_ADAPTER) {
        path = stored_base_path(r, m, dir, err);
        adapter = dir;
    }
    if (!path) {
        free(dir);
        return NULL;
    }
    struct registry_entry *e = mem_new(struct registry_entry);
    *e = (struct registry_entry){.id = mem_strdup(m->id), .path = path, .adapter = adapter, .real = realpath(path, NULL),
                                 .parent = m->base && *m->base ? mem_strdup(m->base) : NULL, .owner = mem_strdup(m->owner),
                                 .job = m->job ? mem_strdup(m->job) : NULL, .origin = origin, .shared = m->shared, .created_s = m->created_s};
    return e;
}

static void restore_model(struct registry *r, const struct stored_model *m) {
    struct err err = {0};
    if (!registry_put(r, m, m->checkpoint ? MODEL_CHECKPOINT : MODEL_TUNED, false, &err))
        log_line(LOG_WARN, "model left out", "id", m->id, "message", err.message, NULL);
}

static bool restore(struct registry *r, struct store *store, struct err *err) {
    struct arena a = {0};
    struct stored_model *models = NULL;
    struct stored_alias *aliases = NULL;
    size_t n_models = 0, n_aliases = 0;
    const bool ok = store_model_list(store, &a, &models, &n_models, err) && store_alias_list(store, &a, &aliases, &n_aliases, err);
    for (size_t i = 0; ok && i < n_models; i++) restore_model(r, &models[i]);
    registry_begin(r);
    for (size_t i = 0; ok && i < n_aliases; i++) { // its target may come later: live weights do
        struct err why = {0};
        if (!registry_alias_put(r, &aliases[i], &why)) log_line(LOG_WARN, "alias left out", "id", aliases[i].alias, "message", why.message, NULL);
    }
    registry_end(r);
    arena_finish(&a);
    return ok;
}

bool registry_load(struct registry *r, const struct registry_config *c, struct store *store, struct err *err) {
    r->config = *c;
    registry_begin(r);
    const bool ok = served_load(r, err);
    r->config.pool = NULL; // from now on it is the engine's alone; and what is loaded beside streams takes one core from them, not all
    registry_end(r);
    return ok && (!store || restore(r, store, err));
}
