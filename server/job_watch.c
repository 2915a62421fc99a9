// SPDX-License-Identifier: MIT
// "Something about this job has changed in the store", from whoever changed it to those who follow the job (event streams, the registry).
// Ids are gathered, each once, and handed out on the loop; what changed is for the listeners to look up.
// Thread: server_job_changed any; the rest loop.
#include "server/server_internal.h"

#include <stdlib.h>
#include <string.h>

struct job_watch {
    struct job_watch *next;
    void (*fn)(void *ctx, const char *job_id); // NULL: gone, freed after the round
    void *ctx;
};

struct job_watches {
    uv_async_t wake;
    uv_mutex_t lock;
    char (*changed)[STORE_ID_SIZE]; // under lock
    size_t n_changed, cap_changed;
    struct job_watch *first; // the loop's
    bool telling;
};

static void sweep(struct job_watches *w) {
    for (struct job_watch **link = &w->first, *one; (one = *link);) {
        if (one->fn) {
            link = &one->next;
            continue;
        }
        *link = one->next;
        free(one);
    }
}

static void on_wake(uv_async_t *async) {
    struct job_watches *w = async->data;
    uv_mutex_lock(&w->lock);
    char(*changed)[STORE_ID_SIZE] = w->changed;
    size_t n = w->n_changed;
    w->changed = NULL;
    w->n_changed = w->cap_changed = 0;
    uv_mutex_unlock(&w->lock);
    w->telling = true;
    for (size_t i = 0; i < n; i++)
        for (struct job_watch *one = w->first; one; one = one->next)
            if (one->fn) one->fn(one->ctx, changed[i]);
    w->telling = false;
    sweep(w);
    free(changed);
}

void job_watches_open(struct server *s) {
    struct job_watches *w = s->priv->job_watches = mem_new(struct job_watches);
    uv_mutex_init(&w->lock);
    uv_async_init(&s->priv->loop, &w->wake, on_wake);
    w->wake.data = w;
}

void job_watches_close(struct server *s) {
    struct job_watches *w = s->priv->job_watches;
    if (!w) return;
    for (struct job_watch *one = w->first; one; one = one->next) one->fn = NULL;
    sweep(w);
    uv_mutex_destroy(&w->lock);
    free(w->changed);
    free(w);
    s->priv->job_watches = NULL;
}

void server_job_changed(struct server *s, const char *job_id) {
    struct job_watches *w = s->priv->job_watches;
    uv_mutex_lock(&w->lock);
    bool known = false;
    for (size_t i = 0; i < w->n_changed; i++) known |= strcmp(w->changed[i], job_id) == 0;
    if (!known) {
        mem_grow(&w->changed, &w->cap_changed, w->n_changed + 1);
        snprintf(w->changed[w->n_changed++], STORE_ID_SIZE, "%s", job_id);
    }
    uv_mutex_unlock(&w->lock);
    uv_async_send(&w->wake);
}

void job_watches_drain(struct server *s) {
    struct job_watches *w = s->priv->job_watches;
    w->telling = true;
    for (struct job_watch *one = w->first; one; one = one->next)
        if (one->fn) one->fn(one->ctx, NULL);
    w->telling = false;
    sweep(w);
}

void server_watch_jobs(struct server *s, void (*fn)(void *ctx, const char *job_id), void *ctx) {
    struct job_watch *one = mem_new(struct job_watch);
    *one = (struct job_watch){s->priv->job_watches->first, fn, ctx};
    s->priv->job_watches->first = one;
}

void server_unwatch_jobs(struct server *s, void (*fn)(void *ctx, const char *job_id), void *ctx) {
    struct job_watches *w = s->priv->job_watches;
    for (struct job_watch *one = w->first; one; one = one->next)
        if (one->fn == fn && one->ctx == ctx) one->fn = NULL;
    if (!w->telling) sweep(w);
}
