// SPDX-License-Identifier: MIT
// The list of served models. Thread: see registry.h.
#include "server/registry.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "engine/model/adapter.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void registry_finish(struct registry *r) {
    for (size_t i = 0; i < r->n; i++) {
        model_release(r->entries[i].model);
        free(r->entries[i].id);
        free(r->entries[i].path);
        free(r->entries[i].adapter);
    }
    free(r->entries);
    *r = (struct registry){0};
}

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
    for (size_t i = 0; ok && i < r->n; i++)
        if (strcmp(r->entries[i].id, id) == 0) ok = err_set_param(err, ERR_INVALID, "--model", "two models are named '%s'", id);
    if (!ok) {
        free(id);
        return false;
    }
    mem_grow(&r->entries, &r->cap, r->n + 1);
    r->entries[r->n++] = (struct registry_entry){.id = id, .path = mem_strdup(path), .adapter = adapter ? mem_strdup(adapter) : NULL};
    return true;
}

bool registry_load(struct registry *r, size_t i, enum weights_mode mode, struct pool *pool, struct err *err) {
    struct registry_entry *e = &r->entries[i];
    struct model_file *file = model_file_open_adapted(e->path, e->adapter, err);
    if (!file) return false;
    struct model *model = model_create(file, mode, pool, err);
    if (!model) return false;
    e->model = model;
    e->created_s = (int64_t)time(NULL);
    return true;
}

const struct registry_entry *registry_find(const struct registry *r, const char *id) {
    if (!id || !*id) return r->n == 1 ? &r->entries[0] : NULL;
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->entries[i].id, id) == 0) return &r->entries[i];
    return NULL;
}
