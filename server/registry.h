// SPDX-License-Identifier: MIT
// The models by id: those of the command line, and what jobs made (results, checkpoints, a running job's live weights), and aliases.
//
// Invariants. (1) A reference that was handed out stays valid whatever becomes of the entry: replaced and removed models live until their last
// request is over. (2) Adapters of one base share its packed weights; a base is opened once, also when only adapters of it are served. (3) What jobs
// made is loaded when it is first asked for (cold), or at once by registry_put; cold entries take no memory but their names. At most
// config.max_loaded full models made by jobs stay loaded: the one unused longest goes cold, and its adapters with it.
// Threads: any. Find and list never wait for a file; whatever changes the registry does, for a model that is being read too: loader, slow lane, runner.
#pragma once

#include "engine/infer/model.h"
#include "server/store/store.h"

#include <stdint.h>

struct registry;
struct engine;

enum registry_origin { MODEL_SERVED, MODEL_TUNED, MODEL_CHECKPOINT, MODEL_LIVE };

struct model_info { // one entry, as lists show it
    char *id, *parent; // parent: the base's id; NULL: none
    char *owner, *job; // of what jobs made, else NULL
    char *alias_of;    // an alias: the id it stands for
    enum registry_origin origin;
    bool adapter, shared, cold;
    int64_t created_s;
    uint64_t bytes;      // in memory for itself (an adapter: its factors); 0: cold
    struct model *model; // a reference; NULL: cold
};
void model_info_finish(struct model_info *m); // accepts a zeroed one

struct registry_config {
    enum weights_mode mode;
    struct pool *pool;     // used by registry_load alone
    struct engine *engine; // gets and loses lanes; NULL: tests
    size_t kv_bytes, max_loaded;
    unsigned stay_ms; // a model that was loaded is not set aside before this: whoever asked for it gets to use it
    const char *data_dir;
};
struct registry *registry_create(void);
void registry_destroy(struct registry *r); // accepts NULL; after the engine

// Command line, before anything is loaded: `spec` is "[NAME=]PATH", NAME ending at the first '='; without it the id is the path's stem. Refuses an
// empty or doubled id.
bool registry_add(struct registry *r, const char *spec, const char *adapter, struct err *err) MUST_CHECK;
// Opens and packs every model of the command line, then makes what the store knows findable (store may be NULL). Once, on the loader thread.
bool registry_load(struct registry *r, const struct registry_config *c, struct store *store, struct err *err) MUST_CHECK;
struct registry_figures {
    size_t full, adapters, cold; // full, adapters: loaded
};
void registry_figures(struct registry *r, struct registry_figures *out);

enum registry_answer { REGISTRY_FOUND, REGISTRY_UNKNOWN, REGISTRY_COLD };
// id NULL or "": the only model of the command line where there is exactly one. FOUND: *out is filled, with references of its own; COLD: so it is, but
// for the model.
enum registry_answer registry_find(struct registry *r, const struct viewer *v, const char *id, struct model_info *out) MUST_CHECK;
// Loads a cold entry. ERR_NOT_FOUND: it went away meanwhile.
bool registry_warm(struct registry *r, const struct viewer *v, const char *id, struct err *err) MUST_CHECK;
// All that v may see: command line first, in its order, then the others by age, then aliases.
void registry_list(struct registry *r, const struct viewer *v, struct model_info **out, size_t *n); // free each and the array

// Makes a job's model findable, or replaces it (live weights). load: at once, so that the first request does not wait.
bool registry_put(struct registry *r, const struct stored_model *m, enum registry_origin origin, bool load, struct err *err) MUST_CHECK;
// A model, with its aliases (those of live weights stay: a job that goes on brings them back) and live weights that are the same files, or an alias;
// unknown ids are ignored.
void registry_remove(struct registry *r, const char *id);
// New, or pointed elsewhere by its owner. ERR_INVALID: the name is a model's, or another key's; ERR_NOT_FOUND: no such target.
bool registry_alias(struct registry *r, const struct stored_alias *a, struct err *err) MUST_CHECK;

// Where a model's files are, for a trainer or a tool. base_path: directory or file of the base; adapter_dir NULL for whole models; base_model: the
// served base's id, NULL where only adapters need it.
struct model_source {
    const char *base_path, *adapter_dir, *base_model; // in the arena
};
enum registry_answer registry_source(struct registry *r, const struct viewer *v, const char *id, struct arena *a, struct model_source *out) MUST_CHECK;
