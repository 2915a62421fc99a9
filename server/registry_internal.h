// SPDX-License-Identifier: MIT
// What registry.c (names) and registry_load.c (weights) share.
//
// Invariants. (1) `lock` guards everything below it. (2) Entries and aliases come, go and change their model in the hands of one thread alone, the one
// between registry_begin and registry_end: it may read them without the lock and writes them under it. No file is read under the lock.
#pragma once

#include "server/registry.h"

#include <pthread.h>

struct registry_entry {
    struct registry_entry *next;
    char *id;      // NULL: a base that only adapters need
    char *path;    // the model's file or directory; an adapter's: its base's
    char *real;    // path without links and dots: what a base is known by; NULL: nothing is there
    char *adapter; // its directory; NULL: a whole model
    char *parent, *owner, *job;
    enum registry_origin origin;
    bool shared;
    int64_t created_s;
    uint64_t used;      // by registry.clock: when it was last asked for
    uint64_t loaded_ns; // clock_ns
    struct model *model; // one reference; NULL: cold
};

struct registry_alias {
    struct registry_alias *next;
    char *id, *model, *owner;
    bool shared;
    int64_t created_s;
};

struct registry {
    struct registry_config config; // set once, before the other threads come
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool changing; // between registry_begin and registry_end
    struct registry_entry *entries; // command line first, then by age
    struct registry_alias *aliases;
    uint64_t clock;
};

// Waits for the thread that changes the registry now.
void registry_begin(struct registry *r);
void registry_end(struct registry *r);

struct registry_entry *registry_entry_of(const struct registry *r, const char *id); // NULL: there is none; lock or begun
void registry_link(struct registry *r, struct registry_entry *e); // last; begun
void registry_entry_free(struct registry_entry *e); // with its reference
bool registry_alias_put(struct registry *r, const struct stored_alias *a, struct err *err) MUST_CHECK; // begun; the target may be missing

// All begun. Loads a cold entry, and its base; makes room first. The entry need not be linked.
bool registry_entry_load(struct registry *r, struct registry_entry *e, struct err *err) MUST_CHECK;
// Lets go of the entry's model and of its loaded adapters': no new requests find them.
void registry_entry_cool(struct registry *r, struct registry_entry *e);
// The entry of what a job made, not linked and cold. NULL: its directory is not there, or its base cannot be found.
struct registry_entry *registry_entry_stored(struct registry *r, const struct stored_model *m, enum registry_origin origin, struct err *err) MUST_CHECK;
