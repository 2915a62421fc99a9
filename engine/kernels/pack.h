// SPDX-License-Identifier: MIT
// Laying weights out in panels (struct packed). Knows layouts, not file formats: callers hand over scales and quants.
// Different panels of one matrix may be filled by different threads.
#pragma once

#include "engine/kernels/kernels.h"

const char *pack_type_name(enum pack_type type); // "f32", "f16", "bf16", "q8", "q8s", "q4"

// Allocates the panels (zero weights) and, if asked, the bias. n_in is a multiple of the type's block (pack_block).
bool packed_init(struct packed *w, enum pack_type type, size_t n_out, size_t n_in, bool bias, struct err *err) MUST_CHECK;
void packed_finish(struct packed *w); // accepts a zeroed one
size_t packed_bytes(const struct packed *w);
size_t pack_block(enum pack_type type); // inputs that share a scale: 1, 16 or 32

// Unquantised types: panel from f32 rows[n][n_in] of its first n outputs (values must be representable in the type).
void pack_panel_f32(struct packed *w, size_t panel, const float *rows, size_t n);
// PACK_Q8 from f32 rows, quantised as Q8_0 does: d = amax / 127 rounded to f16, q = round(x / d).
void pack_panel_quantize(struct packed *w, size_t panel, const float *rows, size_t n);

// One output's weights in one block along the inputs, for the quantised types.
struct pack_block {
    float scale, minimum; // exactly representable in the type's own scale (f16 for Q8 and Q4); minimum for Q4 alone
    int8_t q[32];         // Q8, Q8S: -128..127; Q4: 0..15; pack_block(type) of them
};
void pack_block_put(struct packed *w, size_t output, size_t block, const struct pack_block *b);
