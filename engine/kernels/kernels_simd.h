// SPDX-License-Identifier: MIT
// Every vector kernel, written once against v16 and compiled once per instruction set. The including file defines
// KERNELS_NAME (a string), KERNELS_TABLE (the symbol) and TILE_ROWS: rows of one register tile (12 with 32 registers, 3 with 16).
//
// matmul has two shapes with the same bits. Few rows: the weights stream from memory once, expanded in registers. Many
// rows: a stretch of a panel is expanded into an L1-sized buffer, then register tiles of TILE_ROWS x PANEL run over all rows.
#include "engine/kernels/kernels.h"
#include "engine/kernels/vec.h"

enum { FEW_ROWS = TILE_ROWS < 4 ? TILE_ROWS : 4 }; // expanded in registers up to here
enum { K_CHUNK = 256 };                            // k of one expansion buffer: 32 KB
enum { PREFETCH = 4096 };                          // bytes ahead

#define UNROLL _Pragma("GCC unroll 16")

// ---- panels -------------------------------------------------------------------------------------------------------

// Bytes of a panel that hold k in [0, k); k is a multiple of the type's block.
INLINE size_t panel_offset(enum pack_type type, size_t k) {
    switch (type) {
    case PACK_F32: return k * PANEL * 4;
    case PACK_F16:
    case PACK_BF16: return k * PANEL * 2;
    case PACK_Q8: return k / 32 * (PANEL * 2 + PANEL * 32);
    case PACK_Q8S: return k / 16 * (PANEL * 4 + PANEL * 16);
    default: return k / 32 * (PANEL * 4 + PANEL * 16);
    }
}

// What expanding one k needs to know of its block; a block is `step` k long.
struct block {
    v16 d[2], m[2];
    const unsigned char *q;
};

INLINE size_t block_step(enum pack_type type) { return type == PACK_Q8 || type == PACK_Q4 ? 32 : type == PACK_Q8S ? 16 : 2; }

INLINE const unsigned char *block_open(enum pack_type type, struct block *b, const unsigned char *p) {
    const uint16_t *h = (const uint16_t *)(const void *)p;
    switch (type) {
    case PACK_Q8:
        UNROLL for (int j = 0; j < 2; j++) b->d[j] = v16_from_f16(h + 16 * j);
        b->q = p + PANEL * 2;
        return b->q + 32 * PANEL;
    case PACK_Q8S:
        UNROLL for (int j = 0; j < 2; j++) b->d[j] = v16_load((const float *)(const void *)p + 16 * j);
        b->q = p + PANEL * 4;
        return b->q + 16 * PANEL;
    case PACK_Q4:
        UNROLL for (int j = 0; j < 2; j++) {
            b->d[j] = v16_from_f16(h + 16 * j);
            b->m[j] = v16_from_f16(h + PANEL + 16 * j);
        }
        b->q = p + PANEL * 4;
        return b->q + 16 * PANEL;
    case PACK_F32: b->q = p; return p + 2 * PANEL * 4;
    default: b->q = p; return p + 2 * PANEL * 2;
    }
}

// The PANEL weights of k and of k + 1 (k even, counted inside the block).
INLINE void block_expand2(enum pack_type type, const struct block *b, size_t k, v16 table, v16 w0[2], v16 w1[2]) {
    UNROLL for (int j = 0; j < 2; j++) {
        const unsigned char *q = b->q;
        switch (type) {
        case PACK_F32:
            w0[j] = v16_load((const float *)(const void *)q + k * PANEL + 16 * j);
            w1[j] = v16_load((const float *)(const void *)q + (k + 1) * PANEL + 16 * j);
            break;
        case PACK_F16:
            w0[j] = v16_from_f16((const uint16_t *)(const void *)q + k * PANEL + 16 * j);
            w1[j] = v16_from_f16((const uint16_t *)(const void *)q + (k + 1) * PANEL + 16 * j);
            break;
        case PACK_BF16:
            w0[j] = v16_from_bf16((const uint16_t *)(const void *)q + k * PANEL + 16 * j);
            w1[j] = v16_from_bf16((const uint16_t *)(const void *)q + (k + 1) * PANEL + 16 * j);
            break;
        case PACK_Q4: {
            i16x x = i16x_from_u8(q + k / 2 * PANEL + 16 * j);
            w0[j] = v16_fma(v16_low_nibble(x, table), b->d[j], b->m[j]);
            w1[j] = v16_fma(v16_high_nibble(x, table), b->d[j], b->m[j]);
            break;
        }
        default:
            w0[j] = v16_mul(v16_from_i8((const int8_t *)q + k * PANEL + 16 * j), b->d[j]);
            w1[j] = v16_mul(v16_from_i8((const int8_t *)q + (k + 1) * PANEL + 16 * j), b->d[j]);
        }
    }
}

INLINE void row_store(const struct packed *w, size_t panel, float *y, v16 a0, v16 a1) {
    size_t o = panel * PANEL, left = w->n_out - o;
    if (w->bias) {
        a0 = v16_add(a0, v16_load(w->bias + o));
        a1 = v16_add(a1, v16_load(w->bias + o + 16));
    }
    if (left >= PANEL) {
        v16_store(y + o, a0);
        v16_store(y + o + 16, a1);
    } else if (left >= 16) {
        v16_store(y + o, a0);
        v16_store_first(y + o + 16, a1, left - 16);
    } else {
        v16_store_first(y + o, a0, left);
    }
}

// ---- few rows: weights expanded in registers ------------------------------------------------------------------------

// R rows against P neighbouring panels (two panels hide the latency of the additions when there is one row).
INLINE void few_rows_tile(enum pack_type type, size_t R, size_t P, const struct packed *w, size_t panel, const float *x, size_t x_stride,
                          float *y, size_t y_stride) {
    v16 acc[4][2][2], table = v16_nibble_table();
    UNROLL for (size_t r = 0; r < R; r++)
        UNROLL for (size_t p = 0; p < P; p++) acc[r][p][0] = acc[r][p][1] = v16_zero();
    const unsigned char *at[2] = {w->data + panel * w->panel_bytes, w->data + (panel + P - 1) * w->panel_bytes};
    size_t step = block_step(type), n_blocks = w->n_in / step;
    for (size_t i = 0; i < n_blocks; i++) {
        struct block b[2];
        UNROLL for (size_t p = 0; p < P; p++) at[p] = block_open(type, &b[p], at[p]);
        for (size_t k = 0; k < step; k += 2) {
            UNROLL for (size_t p = 0; p < P; p++) {
                v16 w0[2], w1[2];
                block_expand2(type, &b[p], k, table, w0, w1);
                _mm_prefetch((const char *)b[p].q + k * PANEL + PREFETCH, _MM_HINT_T0);
                UNROLL for (size_t r = 0; r < R; r++) {
                    v16 x0 = v16_set(x[r * x_stride + i * step + k]), x1 = v16_set(x[r * x_stride + i * step + k + 1]);
                    UNROLL for (int j = 0; j < 2; j++) acc[r][p][j] = v16_fma(x0, w0[j], acc[r][p][j]);
                    UNROLL for (int j = 0; j < 2; j++) acc[r][p][j] = v16_fma(x1, w1[j], acc[r][p][j]);
                }
            }
        }
    }
    if (w->n_in % step) { // only unquantised weights have an odd number of inputs
        UNROLL for (size_t p = 0; p < P; p++) {
            struct block b;
            v16 w0[2], w1[2];
            block_open(type, &b, at[p]);
            block_expand2(type, &b, 0, table, w0, w1); // the panel is padded: reading one k past the end is defined
            UNROLL for (size_t r = 0; r < R; r++)
                UNROLL for (int j = 0; j < 2; j++) acc[r][p][j] = v16_fma(v16_set(x[r * x_stride + w->n_in - 1]), w0[j], acc[r][p][j]);
        }
    }
    UNROLL for (size_t r = 0; r < R; r++)
        UNROLL for (size_t p = 0; p < P; p++) row_store(w, panel + p, y + r * y_stride, acc[r][p][0], acc[r][p][1]);
}

INLINE void few_rows(enum pack_type type, const struct packed *w, size_t panel, size_t n_panels, const float *x, size_t x_stride,
                     size_t n_rows, float *y, size_t y_stride) {
    size_t end = panel + n_panels;
    switch (n_rows) {
    case 1:
        for (; panel + 2 <= end; panel += 2) few_rows_tile(type, 1, 2, w, panel, x, x_stride, y, y_stride);
        for (; panel < end; panel++) few_rows_tile(type, 1, 1, w, panel, x, x_stride, y, y_stride);
        break;
    case 2:
        for (; panel < end; panel++) few_rows_tile(type, 2, 1, w, panel, x, x_stride, y, y_stride);
        break;
    case 3:
        for (; panel < end; panel++) few_rows_tile(type, 3, 1, w, panel, x, x_stride, y, y_stride);
        break;
    default:
        for (; panel < end; panel++) few_rows_tile(type, FEW_ROWS, 1, w, panel, x, x_stride, y, y_stride);
    }
}

// ---- many rows: weights expanded once into a buffer -----------------------------------------------------------------

// Expands k in [0, n) of a stretch of a panel that starts at a block: out[n][PANEL].
INLINE void panel_expand(enum pack_type type, const unsigned char *p, size_t n, float *out) {
    v16 table = v16_nibble_table();
    size_t step = block_step(type);
    for (size_t i = 0; i < n; i += step) {
        struct block b;
        p = block_open(type, &b, p);
        size_t m = n - i < step ? n - i : step;
        for (size_t k = 0; k < m; k += 2) {
            v16 w0[2], w1[2];
            block_expand2(type, &b, k, table, w0, w1);
            UNROLL for (int j = 0; j < 2; j++) v16_store(out + (i + k) * PANEL + 16 * j, w0[j]);
            if (k + 1 < m) UNROLL for (int j = 0; j < 2; j++) v16_store(out + (i + k + 1) * PANEL + 16 * j, w1[j]);
        }
    }
}

// acc[R][PANEL] (rows of `c`, PANEL apart) += x[R][0..n) * w[n][PANEL]
INLINE void tile(size_t R, const float *w, size_t n, const float *x, size_t x_stride, float *c) {
    v16 acc[12][2];
    UNROLL for (size_t r = 0; r < R; r++)
        UNROLL for (int j = 0; j < 2; j++) acc[r][j] = v16_load(c + r * PANEL + 16 * j);
    for (size_t k = 0; k < n; k++) {
        v16 w0 = v16_load(w + k * PANEL), w1 = v16_load(w + k * PANEL + 16);
        UNROLL for (size_t r = 0; r < R; r++) {
            v16 xr = v16_set(x[r * x_stride + k]);
            acc[r][0] = v16_fma(xr, w0, acc[r][0]);
            acc[r][1] = v16_fma(xr, w1, acc[r][1]);
        }
    }
    UNROLL for (size_t r = 0; r < R; r++)
        UNROLL for (int j = 0; j < 2; j++) v16_store(c + r * PANEL + 16 * j, acc[r][j]);
}

#define TILE_CASE(R) \
    case R: tile(R, w, n, x, x_stride, c); break;
static void tile_rows(size_t rows, const float *w, size_t n, const float *x, size_t x_stride, float *c) {
    switch (rows) {
        TILE_CASE(1)
        TILE_CASE(2)
        TILE_CASE(3)
#if TILE_ROWS > 3
        TILE_CASE(4)
        TILE_CASE(5)
        TILE_CASE(6)
        TILE_CASE(7)
        TILE_CASE(8)
        TILE_CASE(9)
        TILE_CASE(10)
        TILE_CASE(11)
        TILE_CASE(12)
#endif
    }
}

enum { ROWS_AT_ONCE = 96 }; // rows whose partial sums are kept while a panel's chunks pass: 12 KB

// Sums live in `c` between the chunks of k: storing and reloading an f32 changes no bit.
INLINE void many_rows(enum pack_type type, const struct packed *w, size_t panel, const float *x, size_t x_stride, size_t n_rows, float *y,
                      size_t y_stride) {
    _Alignas(64) float expanded[K_CHUNK * PANEL];
    _Alignas(64) float c[ROWS_AT_ONCE * PANEL];
    const unsigned char *data = w->data + panel * w->panel_bytes;
    for (size_t r0 = 0; r0 < n_rows; r0 += ROWS_AT_ONCE) {
        size_t rows = n_rows - r0 < ROWS_AT_ONCE ? n_rows - r0 : ROWS_AT_ONCE;
        memset(c, 0, rows * PANEL * sizeof *c);
        for (size_t k = 0; k < w->n_in; k += K_CHUNK) {
            size_t n = w->n_in - k < K_CHUNK ? w->n_in - k : K_CHUNK;
            const float *wk = expanded;
            if (type == PACK_F32) wk = (const float *)(const void *)(data + panel_offset(type, k));
            else panel_expand(type, data + panel_offset(type, k), n, expanded);
            for (size_t r = 0; r < rows; r += TILE_ROWS)
                tile_rows(rows - r < TILE_ROWS ? rows - r : TILE_ROWS, wk, n, x + (r0 + r) * x_stride + k, x_stride, c + r * PANEL);
        }
        for (size_t r = 0; r < rows; r++)
            row_store(w, panel, y + (r0 + r) * y_stride, v16_load(c + r * PANEL), v16_load(c + r * PANEL + 16));
    }
}

INLINE void matmul_of(enum pack_type type, const struct packed *w, size_t panel, size_t n_panels, const float *x, size_t x_stride,
                      size_t n_rows, float *y, size_t y_stride) {
    if (n_rows <= FEW_ROWS) {
        few_rows(type, w, panel, n_panels, x, x_stride, n_rows, y, y_stride);
        return;
    }
    for (size_t end = panel + n_panels; panel < end; panel++) many_rows(type, w, panel, x, x_stride, n_rows, y, y_stride);
}

#define MATMUL_OF(type)                                                                                                                      \
    static void matmul_##type(const struct packed *w, size_t panel, size_t n_panels, const float *x, size_t x_stride, size_t n_rows, float *y, \
                              size_t y_stride) {                                                                                             \
        matmul_of(type, w, panel, n_panels, x, x_stride, n_rows, y, y_stride);                                                               \
    }
MATMUL_OF(PACK_F32)
MATMUL_OF(PACK_F16)
MATMUL_OF(PACK_BF16)
MATMUL_OF(PACK_Q8)
MATMUL_OF(PACK_Q8S)
MATMUL_OF(PACK_Q4)

static void matmul(const struct packed *w, size_t panel, size_t n_panels, const float *x, size_t x_stride, size_t n_rows, float *y,
                   size_t y_stride) {
    static void (*const of[PACK_TYPES])(const struct packed *, size_t, size_t, const float *, size_t, size_t, float *, size_t) = {
        [PACK_F32] = matmul_PACK_F32, [PACK_F16] = matmul_PACK_F16, [PACK_BF16] = matmul_PACK_BF16,
        [PACK_Q8] = matmul_PACK_Q8,   [PACK_Q8S] = matmul_PACK_Q8S, [PACK_Q4] = matmul_PACK_Q4,
    };
    of[w->type](w, panel, n_panels, x, x_stride, n_rows, y, y_stride);
}

// ---- dots -------------------------------------------------------------------------------------------------------------

enum { DOTS = 4 }; // outputs that share the loads of x

INLINE void dots_step(size_t J, const float *a, size_t n_in, const float *x, size_t m, v16 acc[DOTS]) {
    v16 xi = v16_load_m(x, m);
    UNROLL for (size_t j = 0; j < J; j++) acc[j] = v16_fma(xi, v16_load_m(a + j * n_in, m), acc[j]);
}

INLINE void dots_tile(size_t J, const float *a, size_t n_in, const float *x, float *t) {
    v16 acc[DOTS];
    UNROLL for (size_t j = 0; j < J; j++) acc[j] = v16_zero();
    ROW_LOOP(n_in, dots_step(J, a + i, n_in, x + i, m, acc););
    UNROLL for (size_t j = 0; j < J; j++) t[j] = v16_sum(acc[j]);
}

static void dots(const float *a, size_t n_out, size_t n_in, const float *x, size_t x_stride, size_t n_rows, float *t, size_t t_stride) {
    size_t j = 0;
    for (; j + DOTS <= n_out; j += DOTS)
        for (size_t r = 0; r < n_rows; r++) dots_tile(DOTS, a + j * n_in, n_in, x + r * x_stride, t + r * t_stride + j);
    for (; j < n_out; j++)
        for (size_t r = 0; r < n_rows; r++) dots_tile(1, a + j * n_in, n_in, x + r * x_stride, t + r * t_stride + j);
}

// ---- attention --------------------------------------------------------------------------------------------------------

enum { QUERIES = TILE_ROWS < 4 ? 3 : 6 }; // query vectors that share one pass over a key block

INLINE const float *query(const struct attention_task *t, size_t i) {
    return t->q + i / t->n_group * t->q_stride + i % t->n_group * t->head_size;
}

// scores[i][32 positions of block] = scale * q_i . k, for R query vectors from i on
INLINE void score_block(size_t R, const struct attention_task *t, size_t i, size_t block) {
    const float *k = attention_keys(t, block), *q[QUERIES];
    v16 acc[QUERIES][2], scale = v16_set(t->scale);
    UNROLL for (size_t r = 0; r < R; r++) {
        q[r] = query(t, i + r);
        acc[r][0] = acc[r][1] = v16_zero();
    }
    for (size_t d = 0; d < t->head_size; d++) {
        v16 k0 = v16_load(k + d * KV_BLOCK), k1 = v16_load(k + d * KV_BLOCK + 16);
        UNROLL for (size_t r = 0; r < R; r++) {
            v16 qd = v16_set(q[r][d]);
            acc[r][0] = v16_fma(qd, k0, acc[r][0]);
            acc[r][1] = v16_fma(qd, k1, acc[r][1]);
        }
    }
    UNROLL for (size_t r = 0; r < R; r++) {
        float *s = t->scores + (i + r) * t->score_stride + block * KV_BLOCK;
        v16_store(s, v16_mul(acc[r][0], scale));
        v16_store(s + 16, v16_mul(acc[r][1], scale));
    }
}

#define SCORE_CASE(R) \
    case R: score_block(R, t, i, block); break;
static void scores_fill(const struct attention_task *t, size_t n_queries, size_t n_blocks) {
    for (size_t block = 0; block < n_blocks; block++)
        for (size_t i = 0; i < n_queries; i += QUERIES) switch (n_queries - i < QUERIES ? n_queries - i : QUERIES) {
                SCORE_CASE(1)
                SCORE_CASE(2)
                SCORE_CASE(3)
#if TILE_ROWS > 3
                SCORE_CASE(4)
                SCORE_CASE(5)
                SCORE_CASE(6)
#endif
            }
}

// s[0..n) becomes e^(s - max); returns 1 / sum.
static float softmax_row(float *s, size_t n) {
    v16 sum = v16_zero(), max = v16_set(row_max(s, n));
    ROW_LOOP(n, v16 e = v16_exp(v16_sub(v16_load_m(s + i, m), max)); v16_store_m(s + i, e, m); sum = v16_add(sum, v16_first_m(e, m)););
    return 1.0f / v16_sum(sum);
}

// out[16 lanes x W] = sum over t of p[t] * v[t], positions in order; then times `norm`.
INLINE void values_sum(size_t W, const struct attention_task *t, const float *p, size_t n, size_t d, float norm, float *out) {
    v16 acc[4];
    UNROLL for (size_t j = 0; j < W; j++) acc[j] = v16_zero();
    for (size_t i = 0; i < n; i += KV_BLOCK) {
        const float *v = attention_values(t, i / KV_BLOCK) + d;
        size_t m = n - i < KV_BLOCK ? n - i : KV_BLOCK;
        for (size_t k = 0; k < m; k++) {
            v16 pk = v16_set(p[i + k]);
            UNROLL for (size_t j = 0; j < W; j++) acc[j] = v16_fma(pk, v16_load(v + k * t->v_stride + 16 * j), acc[j]);
        }
    }
    UNROLL for (size_t j = 0; j < W; j++) {
        size_t left = t->head_size - d - 16 * j;
        v16 a = v16_mul(acc[j], v16_set(norm));
        if (left >= 16) v16_store(out + d + 16 * j, a);
        else v16_store_first(out + d + 16 * j, a, left);
    }
}

static void attention(const struct attention_task *t) {
    size_t n_queries = t->n_rows * t->n_group, last = t->position + t->n_rows;
    scores_fill(t, n_queries, (last + KV_BLOCK - 1) / KV_BLOCK);
    for (size_t i = 0; i < n_queries; i++) {
        size_t row = i / t->n_group, n = t->position + row + 1;
        float *p = t->scores + i * t->score_stride, norm = softmax_row(p, n);
        float *out = t->out + row * t->out_stride + i % t->n_group * t->head_size;
        size_t d = 0;
        for (; d + 64 <= t->head_size; d += 64) values_sum(4, t, p, n, d, norm, out);
        for (; d < t->head_size; d += 16) values_sum(1, t, p, n, d, norm, out);
    }
}

// ---- rows ---------------------------------------------------------------------------------------------------------------

static void layernorm(float *y, const float *x, const float *w, const float *b, size_t n, float eps) {
    float mean = row_sum(x, n) / (float)n;
    v16 c = v16_set(mean), s = v16_set(1.0f / __builtin_sqrtf(row_sum_squares(x, n, mean) / (float)n + eps));
    ROW_LOOP(n, v16 xhat = v16_mul(v16_sub(v16_load_m(x + i, m), c), s);
             v16_store_m(y + i, v16_fma(xhat, v16_load_m(w + i, m), v16_load_m(b + i, m)), m););
}

static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps) {
    v16 s = v16_set(1.0f / __builtin_sqrtf(row_sum_squares(x, n, 0) / (float)n + eps));
    ROW_LOOP(n, v16_store_m(y + i, v16_mul(v16_load_m(w + i, m), v16_mul(v16_load_m(x + i, m), s)), m););
}

INLINE v16 sigmoid_times(v16 x, v16 u) { // x / (1 + e^-u)
    return v16_div(x, v16_add(v16_set(1.0f), v16_exp(v16_sub(v16_zero(), u))));
}

// 0.5 x (1 + tanh u) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): no cancellation for very negative x
static void gelu_tanh(float *y, const float *x, size_t n) {
    v16 a = v16_set(2 * 0.7978845608028654f), c = v16_set(0.044715f);
    ROW_LOOP(n, v16 xi = v16_load_m(x + i, m); v16 u = v16_mul(a, v16_fma(v16_mul(c, v16_mul(xi, xi)), xi, xi));
             v16_store_m(y + i, sigmoid_times(xi, u), m););
}

static void swiglu(float *y, const float *gate, const float *up, size_t n) {
    ROW_LOOP(n, v16 g = v16_load_m(gate + i, m); v16_store_m(y + i, v16_mul(sigmoid_times(g, g), v16_load_m(up + i, m)), m););
}

static void add(float *y, const float *x, size_t n) {
    ROW_LOOP(n, v16_store_m(y + i, v16_add(v16_load_m(y + i, m), v16_load_m(x + i, m)), m););
}

// Halves (x1, x2) of each head become (x1 cos - x2 sin, x2 cos + x1 sin), products rounded before they are added, as in PyTorch.
static void rope(float *x, const float *cos, const float *sin, size_t n_head, size_t head_size) {
    size_t half = head_size / 2;
    for (size_t h = 0; h < n_head; h++) {
        float *a = x + h * head_size, *b = a + half;
        for (size_t i = 0; i < half; i++) {
            float x1 = a[i], x2 = b[i];
            a[i] = x1 * cos[i] - x2 * sin[i];
            b[i] = x2 * cos[i] + x1 * sin[i];
        }
    }
}

const struct kernels KERNELS_TABLE;
const struct kernels KERNELS_TABLE = {
    .name = KERNELS_NAME, .matmul = matmul, .dots = dots, .attention = attention, .layernorm = layernorm, .rmsnorm = rmsnorm,
    .gelu_tanh = gelu_tanh, .swiglu = swiglu, .add = add, .rope = rope,
};
