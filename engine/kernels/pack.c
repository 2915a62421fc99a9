// SPDX-License-Identifier: MIT
// Panel layouts: see enum pack_type. The kernels read what these functions write; test_kernels.c holds the two together.
#include "engine/kernels/pack.h"

#include "base/float16.h"
#include "base/mem.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t block, block_bytes; // block along k, bytes of PANEL outputs of it
} types[PACK_TYPES] = {
    [PACK_F32] = {"f32", 1, PANEL * 4},
    [PACK_F16] = {"f16", 1, PANEL * 2},
    [PACK_BF16] = {"bf16", 1, PANEL * 2},
    [PACK_Q8] = {"q8", 32, PANEL * (2 + 32)},
    [PACK_Q8S] = {"q8s", 16, PANEL * (4 + 16)},
    [PACK_Q4] = {"q4", 32, PANEL * (4 + 16)},
};

const char *pack_type_name(enum pack_type type) { return types[type].name; }
size_t pack_block(enum pack_type type) { return types[type].block; }
size_t packed_bytes(const struct packed *w) { return w->n_panels * w->panel_bytes; }

bool packed_init(struct packed *w, enum pack_type type, size_t n_out, size_t n_in, bool bias, struct err *err) {
    assert(n_out > 0 && n_in > 0 && n_in % types[type].block == 0);
    struct packed p = {.type = type, .n_out = n_out, .n_in = n_in, .n_panels = (n_out - 1) / PANEL + 1};
    size_t blocks = n_in / types[type].block + (types[type].block == 1 && n_in % 2); // kernels read unquantised k in pairs
    size_t total;
    if (!size_mul(blocks, types[type].block_bytes, &p.panel_bytes) || !size_mul(p.n_panels, p.panel_bytes, &total))
        return err_set(err, ERR_NO_MEMORY, "a weight of %zu x %zu is too large for memory", n_out, n_in);
    float *b = NULL;
    if (bias) {
        b = mem_try_alloc(p.n_panels * PANEL, sizeof *b, "a bias", err);
        if (!b) return false;
    }
    p.data = mem_map_array(total, "packed weights", err);
    if (!p.data) {
        free(b);
        return false;
    }
    p.bias = b;
    *w = p;
    return true;
}

void packed_finish(struct packed *w) {
    if (w->data) mem_unmap_array(w->data, packed_bytes(w));
    free((void *)(uintptr_t)w->bias);
    *w = (struct packed){0};
}

static uint16_t float_to_bfloat(float f) { // callers' values are exact in bfloat16
    union { float f; uint32_t u; } v = {.f = f};
    return (uint16_t)(v.u >> 16);
}

static unsigned char *panel_at(struct packed *w, size_t panel) { return w->data + panel * w->panel_bytes; }

void pack_panel_f32(struct packed *w, size_t panel, const float *rows, size_t n) {
    assert(types[w->type].block == 1 && panel < w->n_panels && n <= PANEL);
    float *f = (float *)(void *)panel_at(w, panel);
    uint16_t *h = (uint16_t *)(void *)panel_at(w, panel);
    for (size_t o = 0; o < n; o++) {
        const float *row = rows + o * w->n_in;
        for (size_t k = 0; k < w->n_in; k++)
            if (w->type == PACK_F32) f[k * PANEL + o] = row[k];
            else h[k * PANEL + o] = w->type == PACK_F16 ? f32_to_f16(row[k]) : float_to_bfloat(row[k]);
    }
}

void pack_block_put(struct packed *w, size_t output, size_t block, const struct pack_block *b) {
    size_t o = output % PANEL;
    unsigned char *at = panel_at(w, output / PANEL) + block * types[w->type].block_bytes;
    uint16_t *halves = (uint16_t *)(void *)at;
    switch (w->type) {
    case PACK_Q8:
        halves[o] = f32_to_f16(b->scale);
        for (size_t k = 0; k < 32; k++) at[PANEL * 2 + k * PANEL + o] = (unsigned char)b->q[k];
        break;
    case PACK_Q8S:
        ((float *)(void *)at)[o] = b->scale;
        for (size_t k = 0; k < 16; k++) at[PANEL * 4 + k * PANEL + o] = (unsigned char)b->q[k];
        break;
    case PACK_Q4:
        halves[o] = f32_to_f16(b->scale);
        halves[PANEL + o] = f32_to_f16(b->minimum);
        for (size_t k = 0; k < 32; k += 2) at[PANEL * 4 + k / 2 * PANEL + o] = (unsigned char)(b->q[k] | b->q[k + 1] << 4);
        break;
    default: assert(!"not a quantised type");
    }
}

void pack_panel_quantize(struct packed *w, size_t panel, const float *rows, size_t n) {
    assert(w->type == PACK_Q8 && panel < w->n_panels && n <= PANEL);
    for (size_t o = 0; o < n; o++)
        for (size_t block = 0; block < w->n_in / 32; block++) {
            const float *x = rows + o * w->n_in + block * 32;
            struct pack_block b = {0};
            float amax = 0;
            for (size_t k = 0; k < 32; k++) amax = fmaxf(amax, fabsf(x[k]));
            b.scale = f16_to_f32(f32_to_f16(fminf(amax / 127.0f, 65504.0f)));
            float inverse = b.scale > 0 ? 1.0f / b.scale : 0.0f;
            for (size_t k = 0; k < 32; k++) b.q[k] = (int8_t)fmaxf(-127.0f, fminf(127.0f, roundf(x[k] * inverse)));
            pack_block_put(w, panel * PANEL + o, block, &b);
        }
}
