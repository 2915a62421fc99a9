// SPDX-License-Identifier: MIT
// See token_counts.h. Open addressing with linear probing; nothing is ever removed.
#include "engine/infer/token_counts.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

bool token_counts_init(struct token_counts *c, size_t cap, struct err *err) {
    struct token_counts made = {.cap = cap, .n_slots = 16};
    if (cap >= UINT32_MAX / 4) return err_set(err, ERR_TOO_LARGE, "a sequence of %zu tokens is too long", cap);
    while (made.n_slots < 2 * cap) made.n_slots *= 2;
    made.items = mem_try_alloc(cap, sizeof *made.items, "the penalties' token table", err);
    if (!made.items) return false;
    made.slots = mem_try_alloc(made.n_slots, sizeof *made.slots, "the penalties' token table", err);
    if (!made.slots) {
        free(made.items);
        return false;
    }
    *c = made;
    return true;
}

void token_counts_finish(struct token_counts *c) {
    free(c->items);
    free(c->slots);
    *c = (struct token_counts){0};
}

static struct token_count *token_counts_find_or_add(struct token_counts *c, uint32_t id) {
    size_t mask = c->n_slots - 1, slot = (id * UINT32_C(0x9E3779B1)) & mask; // neighbouring ids do not cluster
    for (; c->slots[slot]; slot = (slot + 1) & mask)
        if (c->items[c->slots[slot] - 1].id == id) return &c->items[c->slots[slot] - 1];
    assert(c->n < c->cap);
    c->items[c->n] = (struct token_count){.id = id};
    c->slots[slot] = (uint32_t)++c->n;
    return &c->items[c->n - 1];
}

void token_counts_add_prompt(struct token_counts *c, const uint32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) token_counts_find_or_add(c, ids[i]);
}

void token_counts_add_generated(struct token_counts *c, uint32_t id) { token_counts_find_or_add(c, id)->generated++; }
