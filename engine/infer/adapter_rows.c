// SPDX-License-Identifier: MIT
// From an adapter's named modules to factors beside the linear layers. See adapter_rows.h.
#include "engine/infer/adapter_rows.h"

#include "base/mem.h"
#include "base/sha256.h"
#include "engine/model/adapter.h"

#include <stdlib.h>
#include <string.h>

struct building {
    const struct weights *w;
    struct adapter_rows *rows;
    const struct adapter_module **modules; // [linears][3]: the module of each part, NULL: none
};

static const struct adapter_module **module_of(const struct building *b, size_t linear, size_t part) { return &b->modules[linear * 3 + part]; }

// Writes the module to its part's place; the part's name is the tensor's without ".weight".
static bool module_place(const struct building *b, const struct adapter_module *m, const char *tensor, struct err *err) {
    const size_t len = strlen(tensor) - strlen(".weight");
    for (size_t i = 0; i < weights_linears(b->w); i++) {
        const struct linear *l = weights_linear(b->w, i);
        for (size_t k = 0; k < l->n_parts; k++) {
            if (strlen(l->parts[k].name) != len || memcmp(l->parts[k].name, tensor, len) != 0) continue;
            if (*module_of(b, i, k)) return err_set(err, ERR_INVALID, "the adapter changes module \"%s\" under two names", m->name);
            *module_of(b, i, k) = m;
            return true;
        }
    }
    return err_set(err, ERR_INVALID, "the adapter changes module \"%s\", which is no linear layer of the forward", m->name);
}

static bool modules_place(const struct building *b, const struct model_file *file, const struct adapter *a, struct err *err) {
    for (size_t i = 0; i < a->n; i++) {
        const struct adapter_module *m = &a->modules[i];
        bool conv1d;
        const struct tensor *t = adapter_target(file, m, &conv1d, err);
        if (!t || !module_place(b, m, t->name, err)) return false;
        if (m->r > ADAPTER_MAX_RANK)
            return err_set(err, ERR_UNSUPPORTED, "the adapter's module \"%s\" has rank %zu; served adapters have at most %d", m->name, m->r,
                           ADAPTER_MAX_RANK);
    }
    return true;
}

// What kernels read: PANEL outputs side by side for every k of the rank.
static struct packed packed_b(const struct adapter_module *m) {
    struct packed b = {.type = PACK_F32, .n_out = m->n_out, .n_in = m->r, .n_panels = (m->n_out - 1) / PANEL + 1};
    b.panel_bytes = m->r * PANEL * sizeof(float);
    return b;
}

// Sums are bounded: the factors lie in memory, and a panel's padding is less than PANEL x rank of a module.
static bool block_alloc(struct building *b, struct err *err) {
    size_t bytes = PANEL * sizeof(float); // an odd rank's last pair reads one k past the end
    for (size_t i = 0; i < weights_linears(b->w) * 3; i++) {
        const struct adapter_module *m = b->modules[i];
        if (!m) continue;
        struct packed p = packed_b(m);
        bytes += packed_bytes(&p) + m->r * m->n_in * sizeof(float);
    }
    b->rows->factor_bytes = bytes;
    b->rows->factors = mem_map_array(bytes, "an adapter's factors", err);
    return b->rows->factors != NULL;
}

static void pack_b(struct packed *to, const struct adapter_module *m) {
    for (size_t o = 0; o < m->n_out; o++) {
        float *panel = (float *)(void *)(to->data + o / PANEL * to->panel_bytes);
        for (size_t k = 0; k < m->r; k++) panel[k * PANEL + o % PANEL] = m->scale * m->b[o * m->r + k];
    }
}

static void factors_fill(struct building *b) {
    unsigned char *at = b->rows->factors;
    for (size_t i = 0; i < weights_linears(b->w); i++) // panels first: their sizes keep each other aligned
        for (size_t k = 0; k < 3; k++) {
            const struct adapter_module *m = *module_of(b, i, k);
            if (!m) continue;
            struct adapter_linear *l = &b->rows->linears[i];
            struct adapter_part *part = &l->parts[k];
            *part = (struct adapter_part){.r = m->r, .low = l->rank, .b = packed_b(m)};
            l->rank += m->r;
            part->b.data = at;
            at += packed_bytes(&part->b);
            pack_b(&part->b, m);
        }
    at += PANEL * sizeof(float);
    for (size_t i = 0; i < weights_linears(b->w) * 3; i++) {
        const struct adapter_module *m = b->modules[i];
        if (!m) continue;
        const size_t n = m->r * m->n_in;
        b->rows->linears[i / 3].parts[i % 3].a = memcpy(at, m->a, n * sizeof(float));
        at += n * sizeof(float);
    }
}

static void version_make(struct building *b) {
    struct sha256 s;
    sha256_init(&s);
    for (size_t i = 0; i < weights_linears(b->w) * 3; i++) {
        const struct adapter_module *m = b->modules[i];
        if (!m) continue;
        const struct adapter_part *p = &b->rows->linears[i / 3].parts[i % 3];
        sha256_update(&s, (uint64_t[]){i, m->r, m->n_in, m->n_out}, 4 * sizeof(uint64_t));
        sha256_update(&s, p->a, m->r * m->n_in * sizeof(float));
        sha256_update(&s, p->b.data, packed_bytes(&p->b));
    }
    sha256_digest(&s, b->rows->hash);
    memcpy(&b->rows->version, b->rows->hash, sizeof b->rows->version);
    if (!b->rows->version) b->rows->version = 1;
}

struct adapter_rows *adapter_rows_create(const struct weights *w, const struct model_file *file, const struct adapter *a, struct err *err) {
    struct building b = {.w = w, .rows = mem_new(struct adapter_rows)};
    b.rows->linears = mem_alloc(weights_linears(w), sizeof *b.rows->linears);
    b.modules = mem_alloc(weights_linears(w) * 3, sizeof *b.modules);
    bool ok = modules_place(&b, file, a, err) && block_alloc(&b, err);
    if (ok) {
        factors_fill(&b);
        version_make(&b);
    } else {
        adapter_rows_destroy(b.rows);
    }
    free((void *)b.modules);
    return ok ? b.rows : NULL;
}

void adapter_rows_destroy(struct adapter_rows *a) {
    if (!a) return;
    mem_unmap_array(a->factors, a->factor_bytes);
    free(a->linears);
    free(a);
}

size_t adapter_rows_bytes(const struct adapter_rows *a, const struct weights *w) {
    return a->factor_bytes + weights_linears(w) * sizeof *a->linears;
}
