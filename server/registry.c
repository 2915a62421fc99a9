// SPDX-License-Identifier: MIT
// Names: who finds what. See registry.h; weights are registry_load.c's.
#include "server/registry_internal.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

static char *copy(const char *s) { return s ? mem_strdup(s) : NULL; }

// ---- life ----

struct registry *registry_create(void) {
    struct registry *r = mem_new(struct registry);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->ended, NULL);
    return r;
}

void registry_entry_free(struct registry_entry *e) {
    if (!e) return;
    model_release(e->model);
    char *const texts[] = {e->id, e->path, e->real, e->adapter, e->parent, e->owner, e->job};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) free(texts[i]);
    free(e);
}

static void alias_free(struct registry_alias *a) {
    free(a->id);
    free(a->model);
    free(a->owner);
    free(a);
}

void registry_destroy(struct registry *r) {
    if (!r) return;
    for (struct registry_entry *e; (e = r->entries);) {
        r->entries = e->next;
        registry_entry_free(e);
    }
    for (struct registry_alias *a; (a = r->aliases);) {
        r->aliases = a->next;
        alias_free(a);
    }
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->ended);
    free(r);
}

void registry_begin(struct registry *r) {
    pthread_mutex_lock(&r->lock);
    while (r->changing) pthread_cond_wait(&r->ended, &r->lock);
    r->changing = true;
    pthread_mutex_unlock(&r->lock);
}

void registry_end(struct registry *r) {
    pthread_mutex_lock(&r->lock);
    r->changing = false;
    pthread_cond_signal(&r->ended);
    pthread_mutex_unlock(&r->lock);
}

// ---- the command line ----

static bool id_valid(const char *id) {
    size_t n = strlen(id);
    if (n == 0 || n > 256 || !utf8_valid(id, n)) return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)id[i] < ' ' || id[i] == 0x7f) return false;
    return true;
}

bool registry_add(struct registry *r, const char *spec, const char *adapter, struct err *err) {
    const char *equals = strchr(spec, '=');
    char *id = equals ? mem_strndup(spec, (size_t)(equals - spec)) : path_stem(spec);
    const char *path = equals ? equals + 1 : spec;
    bool ok = id_valid(id) || err_set_param(err, ERR_INVALID, "--model", "'%s' gives the model no usable name; write NAME=PATH", spec);
    if (ok && !*path) ok = err_set_param(err, ERR_INVALID, "--model", "'%s' has no path", spec);
    if (ok && registry_entry_of(r, id)) ok = err_set_param(err, ERR_INVALID, "--model", "two models are named '%s'", id);
    if (!ok) {
        free(id);
        return false;
    }
    struct registry_entry *e = mem_new(struct registry_entry);
    *e = (struct registry_entry){.id = id, .path = mem_strdup(path), .adapter = copy(adapter), .origin = MODEL_SERVED};
    registry_link(r, e);
    return true;
}

// ---- finding ----

struct registry_entry *registry_entry_of(const struct registry *r, const char *id) {
    struct registry_entry *e = r->entries;
    while (e && !(e->id && strcmp(e->id, id) == 0)) e = e->next;
    return e;
}

static struct registry_alias **alias_link_of(struct registry *r, const char *id) {
    struct registry_alias **link = &r->aliases;
    while (*link && strcmp((*link)->id, id) != 0) link = &(*link)->next;
    return link;
}

static bool may_see(const struct viewer *v, const char *owner, bool shared) {
    return !owner || shared || v->all || strcmp(owner, v->key) == 0;
}

// The only model of the command line.
static struct registry_entry *entry_default(const struct registry *r) {
    struct registry_entry *only = NULL;
    for (struct registry_entry *e = r->entries; e; e = e->next) {
        if (e->origin != MODEL_SERVED || !e->id) continue;
        if (only) return NULL;
        only = e;
    }
    return only;
}

// What `id` means to v: an entry, through *alias if it is one's name. Under the lock.
static struct registry_entry *entry_seen(struct registry *r, const struct viewer *v, const char *id, struct registry_alias **alias) {
    *alias = NULL;
    struct registry_entry *e = id && *id ? registry_entry_of(r, id) : entry_default(r);
    if (!e && id) {
        struct registry_alias *a = *alias_link_of(r, id);
        if (!a || !may_see(v, a->owner, a->shared)) return NULL;
        *alias = a;
        e = registry_entry_of(r, a->model);
    }
    return e && may_see(v, e->owner, e->shared) ? e : NULL;
}

static void entry_touch(struct registry *r, struct registry_entry *e) {
    e->used = ++r->clock;
    if (!e->model || !e->adapter) return;
    for (struct registry_entry *base = r->entries; base; base = base->next)
        if (base->model == model_base(e->model)) base->used = r->clock;
}

static struct model_info info_of(const struct registry_entry *e, const struct registry_alias *alias) {
    struct model_info m = {.origin = e->origin, .adapter = e->adapter != NULL, .shared = e->shared, .cold = !e->model, .created_s = e->created_s};
    m.id = mem_strdup(alias ? alias->id : e->id);
    m.alias_of = alias ? mem_strdup(e->id) : NULL;
    m.parent = copy(e->parent);
    m.owner = copy(alias ? alias->owner : e->owner);
    m.job = copy(e->job);
    if (alias) m.shared = alias->shared, m.created_s = alias->created_s;
    if (e->model) m.model = model_acquire(e->model), m.bytes = model_own_bytes(e->model);
    return m;
}

void model_info_finish(struct model_info *m) {
    char *const texts[] = {m->id, m->parent, m->owner, m->job, m->alias_of};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) free(texts[i]);
    model_release(m->model);
    *m = (struct model_info){0};
}

enum registry_answer registry_find(struct registry *r, const struct viewer *v, const char *id, struct model_info *out) {
    struct registry_alias *alias;
    pthread_mutex_lock(&r->lock);
    struct registry_entry *e = entry_seen(r, v, id, &alias);
    if (e) {
        entry_touch(r, e);
        *out = info_of(e, alias);
    }
    pthread_mutex_unlock(&r->lock);
    return !e ? REGISTRY_UNKNOWN : out->cold ? REGISTRY_COLD : REGISTRY_FOUND;
}

bool registry_warm(struct registry *r, const struct viewer *v, const char *id, struct err *err) {
    struct registry_alias *alias;
    registry_begin(r);
    pthread_mutex_lock(&r->lock);
    struct registry_entry *e = entry_seen(r, v, id, &alias);
    if (e) entry_touch(r, e);
    pthread_mutex_unlock(&r->lock);
    bool ok = e ? e->model || registry_entry_load(r, e, err) : err_set_param(err, ERR_NOT_FOUND, "model", "the model does not exist");
    registry_end(r);
    return ok;
}

void registry_list(struct registry *r, const struct viewer *v, struct model_info **out, size_t *n) {
    size_t cap = 0;
    *out = NULL;
    *n = 0;
    pthread_mutex_lock(&r->lock);
    for (const struct registry_entry *e = r->entries; e; e = e->next) {
        if (!e->id || !may_see(v, e->owner, e->shared)) continue;
        mem_grow(out, &cap, *n + 1);
        (*out)[(*n)++] = info_of(e, NULL);
    }
    for (const struct registry_alias *a = r->aliases; a; a = a->next) {
        struct registry_alias *alias;
        const struct registry_entry *e = entry_seen(r, v, a->id, &alias);
        if (!e || !alias) continue;
        mem_grow(out, &cap, *n + 1);
        (*out)[(*n)++] = info_of(e, a);
    }
    pthread_mutex_unlock(&r->lock);
}

void registry_figures(struct registry *r, struct registry_figures *out) {
    *out = (struct registry_figures){0};
    pthread_mutex_lock(&r->lock);
    for (const struct registry_entry *e = r->entries; e; e = e->next) {
        if (!e->model) out->cold += e->id != NULL;
        else if (e->adapter) out->adapters++;
        else out->full++;
    }
    pthread_mutex_unlock(&r->lock);
}

enum registry_answer registry_source(struct registry *r, const struct viewer *v, const char *id, struct arena *a, struct model_source *out) {
    struct registry_alias *alias;
    pthread_mutex_lock(&r->lock);
    const struct registry_entry *e = entry_seen(r, v, id, &alias), *base = e;
    const enum registry_answer answer = !e ? REGISTRY_UNKNOWN : e->model ? REGISTRY_FOUND : REGISTRY_COLD;
    if (e && e->adapter)
        for (base = r->entries; base; base = base->next)
            if (base->id && !base->adapter && base->real && e->real && strcmp(base->real, e->real) == 0) break;
    if (e) {
        *out = (struct model_source){.base_path = arena_strndup(a, e->path, strlen(e->path))};
        if (e->adapter) out->adapter_dir = arena_strndup(a, e->adapter, strlen(e->adapter));
        if (base) out->base_model = arena_strndup(a, base->id, strlen(base->id));
    }
    pthread_mutex_unlock(&r->lock);
    return answer;
}

// ---- changes ----

void registry_link(struct registry *r, struct registry_entry *e) {
    pthread_mutex_lock(&r->lock);
    struct registry_entry **last = &r->entries;
    while (*last) last = &(*last)->next;
    *last = e;
    pthread_mutex_unlock(&r->lock);
}

// Takes `old` out and puts `fresh` (NULL: nothing) in its place; begun.
static void entry_replace(struct registry *r, struct registry_entry *old, struct registry_entry *fresh) {
    pthread_mutex_lock(&r->lock);
    struct registry_entry **link = &r->entries;
    while (*link != old) link = &(*link)->next;
    *link = old->next;
    if (fresh) {
        fresh->next = *link;
        fresh->used = ++r->clock;
        *link = fresh;
    }
    pthread_mutex_unlock(&r->lock);
    registry_entry_cool(r, old);
    registry_entry_free(old);
}

static bool put_begun(struct registry *r, const struct stored_model *m, enum registry_origin origin, bool load, struct err *err) {
    struct registry_entry *old = registry_entry_of(r, m->id);
    if (!id_valid(m->id) || (old && old->origin == MODEL_SERVED))
        return err_set_param(err, ERR_INVALID, "model", "a model of that name is served already");
    struct registry_entry *fresh = registry_entry_stored(r, m, origin, err);
    if (!fresh) return false;
    if (load && !registry_entry_load(r, fresh, err)) {
        registry_entry_free(fresh);
        return false;
    }
    if (old) entry_replace(r, old, fresh);
    else registry_link(r, fresh);
    return true;
}

bool registry_put(struct registry *r, const struct stored_model *m, enum registry_origin origin, bool load, struct err *err) {
    registry_begin(r);
    const bool ok = put_begun(r, m, origin, load, err);
    registry_end(r);
    return ok;
}

static void aliases_remove(struct registry *r, const char *name, const char *target) {
    pthread_mutex_lock(&r->lock);
    for (struct registry_alias **link = &r->aliases; *link;) {
        struct registry_alias *a = *link;
        if ((name && strcmp(a->id, name) == 0) || (target && strcmp(a->model, target) == 0)) {
            *link = a->next;
            alias_free(a);
        } else {
            link = &a->next;
        }
    }
    pthread_mutex_unlock(&r->lock);
}

void registry_remove(struct registry *r, const char *id) {
    registry_begin(r);
    struct registry_entry *e = registry_entry_of(r, id);
    if (!e) aliases_remove(r, id, NULL);
    else if (e->origin != MODEL_LIVE) aliases_remove(r, NULL, id);
    struct registry_entry *live = e && e->origin != MODEL_LIVE && !e->adapter ? r->entries : NULL;
    while (live && !(live->origin == MODEL_LIVE && !live->adapter && strcmp(live->path, e->path) == 0)) live = live->next;
    if (live) entry_replace(r, live, NULL);
    if (e) entry_replace(r, e, NULL);
    registry_end(r);
}

bool registry_alias_put(struct registry *r, const struct stored_alias *a, struct err *err) {
    struct registry_alias **link = alias_link_of(r, a->alias), *old = *link;
    if (!id_valid(a->alias) || registry_entry_of(r, a->alias) || (old && strcmp(old->owner, a->owner) != 0))
        return err_set_param(err, ERR_INVALID, "model", "the name is taken");
    struct registry_alias *fresh = mem_new(struct registry_alias);
    *fresh = (struct registry_alias){old ? old->next : NULL, mem_strdup(a->alias), mem_strdup(a->model), mem_strdup(a->owner), a->shared, a->created_s};
    pthread_mutex_lock(&r->lock);
    *link = fresh;
    pthread_mutex_unlock(&r->lock);
    if (old) alias_free(old);
    return true;
}

bool registry_alias(struct registry *r, const struct stored_alias *a, struct err *err) {
    registry_begin(r);
    const bool ok = registry_entry_of(r, a->model) ? registry_alias_put(r, a, err)
                                                   : err_set_param(err, ERR_NOT_FOUND, "model", "the model does not exist");
    registry_end(r);
    return ok;
}
