// SPDX-License-Identifier: MIT
// The kernel contract (kernels.h K1-K4): every table against the plain C one, AVX2 against AVX-512 bit for bit, a row's bits
// whatever the number of rows, quantised panels against the f32 panels of the same values.
#include "base/mem.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/pack.h"
#include "tests/unit/test.h"

static uint64_t state = 88172645463325252ull;
static double uniform(void) { // xorshift, [-1, 1)
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) * 0x1p-52 - 1;
}
static float *random_floats(size_t n, double scale) {
    float *x = mem_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(scale * uniform());
    return x;
}

static const struct kernels *tables[3];
static size_t list_tables(void) {
    size_t n = 0;
    const char *names[] = {"c", "avx2", "avx512"};
    for (size_t i = 0; i < 3; i++) {
        const struct kernels *k = kernels_by_name(names[i], NULL);
        if (k) tables[n++] = k;
    }
    return n;
}
static bool is_c(const struct kernels *k) { return strcmp(k->name, "c") == 0; }

// Random weights in `type`; *values gets the f32 value of each weight [n_out][n_in].
static struct packed random_packed(enum pack_type type, size_t n_out, size_t n_in, bool bias, float *values) {
    struct packed w;
    struct err err;
    if (!packed_init(&w, type, n_out, n_in, bias, &err)) abort();
    if (pack_block(type) == 1) {
        for (size_t i = 0; i < n_out * n_in; i++) {
            values[i] = (float)uniform();
            uint32_t bits; // by memcpy: gcc 12 with both sanitizers drops the mask of a union here
            memcpy(&bits, &values[i], sizeof bits);
            if (type != PACK_F32) bits &= 0xffff0000; // 8 significant bits: exact in bf16 and, at this size, in f16
            memcpy(&values[i], &bits, sizeof bits);
        }
        for (size_t p = 0; p < w.n_panels; p++)
            pack_panel_f32(&w, p, values + p * PANEL * n_in, MIN((size_t)PANEL, n_out - p * PANEL));
    } else {
        size_t step = pack_block(type);
        for (size_t o = 0; o < n_out; o++)
            for (size_t b = 0; b < n_in / step; b++) {
                struct pack_block block = {.scale = (float)(1 + (int)(100 * (uniform() + 1))) / 1024, .minimum = (float)(int)(50 * uniform()) / 64};
                if (type == PACK_Q8S) block.scale = (float)uniform() * 0.01f;
                if (type != PACK_Q4) block.minimum = 0;
                for (size_t k = 0; k < step; k++) {
                    block.q[k] = (int8_t)(type == PACK_Q4 ? 8 + 7.99 * uniform() : 127 * uniform());
                    values[o * n_in + b * step + k] = block.scale * (float)block.q[k] + block.minimum;
                }
                pack_block_put(&w, o, b, &block);
            }
    }
    if (bias)
        for (size_t o = 0; o < n_out; o++) ((float *)(uintptr_t)w.bias)[o] = (float)uniform();
    return w;
}

static void check_matmul(enum pack_type type, size_t n_out, size_t n_in, size_t n_rows, bool bias) {
    size_t n_tables = list_tables(), xs = n_in + 16, ys = n_out + 3;
    float *values = mem_alloc(n_out * n_in, sizeof *values), *x = random_floats((n_rows - 1) * xs + n_in, 1);
    struct packed w = random_packed(type, n_out, n_in, bias, values), f32 = {0};
    if (!packed_init(&f32, PACK_F32, n_out, n_in, bias, NULL)) abort();
    for (size_t p = 0; p < w.n_panels; p++) pack_panel_f32(&f32, p, values + p * PANEL * n_in, MIN((size_t)PANEL, n_out - p * PANEL));
    if (bias) memcpy((float *)(uintptr_t)f32.bias, w.bias, n_out * sizeof(float));
    unsigned char *mapped = w.data; // a copy of exactly its size, where a sanitizer sees what is read past the end
    w.data = memcpy(mem_alloc(1, packed_bytes(&w)), mapped, packed_bytes(&w));
    float *y[3], *one = mem_alloc(ys, sizeof *one), *exact = mem_alloc(n_rows * ys, sizeof *exact);
    for (size_t t = 0; t < n_tables; t++) {
        const struct kernels *k = tables[t];
        y[t] = mem_alloc(n_rows * ys, sizeof *y[t]);
        for (size_t i = 0; i < n_rows * ys; i++) y[t][i] = -777;
        size_t half = w.n_panels / 2; // two calls, as two threads would
        k->matmul(&w, 0, half, x, xs, n_rows, y[t], ys);
        k->matmul(&w, half, w.n_panels - half, x, xs, n_rows, y[t], ys);
        size_t wrong = 0, differs = 0, rows = 0;
        for (size_t r = 0; r < n_rows; r++) {
            for (size_t o = 0; o < n_out; o++) {
                double sum = bias ? w.bias[o] : 0, size = 1;
                for (size_t i = 0; i < n_in; i++) {
                    double p = (double)x[r * xs + i] * values[o * n_in + i];
                    sum += p;
                    size += fabs(p);
                }
                wrong += !(fabs(sum - y[t][r * ys + o]) <= 1e-6 * size);
            }
            for (size_t o = n_out; o < ys; o++) wrong += y[t][r * ys + o] != -777; // nothing past the row
            k->matmul(&w, 0, w.n_panels, x + r * xs, xs, 1, one, ys);
            rows += memcmp(one, y[t] + r * ys, n_out * sizeof *one) != 0; // K1
        }
        k->matmul(&f32, 0, f32.n_panels, x, xs, n_rows, exact, ys);
        for (size_t r = 0; r < n_rows; r++) differs += memcmp(exact + r * ys, y[t] + r * ys, n_out * sizeof *exact) != 0; // K3
        if (wrong || rows || differs)
            TEST_FAIL("%s %s %zux%zu rows %zu: %zu wrong, %zu rows vary, %zu differ from f32", k->name, pack_type_name(type), n_out, n_in,
                      n_rows, wrong, rows, differs);
        if (t && !is_c(tables[t - 1]) && memcmp(y[t], y[t - 1], n_rows * ys * sizeof **y)) TEST_FAIL("K4: %s differs", k->name);
    }
    for (size_t t = 0; t < n_tables; t++) free(y[t]);
    free(values), free(x), free(one), free(exact), free(w.data);
    w.data = mapped;
    packed_finish(&w), packed_finish(&f32);
}

TEST(matmul_every_type_and_shape) {
    size_t rows[] = {1, 2, 3, 4, 5, 12, 13, 31, 100};
    for (int type = 0; type < PACK_TYPES; type++)
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            check_matmul(type, 32, 32, rows[i], false);
            check_matmul(type, 100, 96, rows[i], true);
            check_matmul(type, 17, 320, rows[i], i % 2);
            if (pack_block(type) == 1) check_matmul(type, 65, 37, rows[i], true);
        }
}

// Around the kernels' own numbers: panels of 32, halves of 16, stretches of 256 inputs, groups of 96 (64) rows.
TEST(matmul_at_the_edges) {
    size_t rows[] = {1, 3, 4, 24, 64, 65, 96, 97, 193}, outs[] = {1, 15, 16, 31, 33, 48, 63, 95}, ins[] = {1, 2, 3, 31, 255, 257, 513};
    for (int type = 0; type < PACK_TYPES; type++)
        for (size_t i = 0; i < ARRAY_LEN(outs); i++) {
            check_matmul(type, outs[i], pack_block(type) == 1 ? ins[i % ARRAY_LEN(ins)] : 32 * (1 + i), rows[i], i % 2);
            check_matmul(type, outs[i], pack_block(type) == 1 ? ins[(i + 3) % ARRAY_LEN(ins)] : 288, rows[i + 1], true);
        }
}

// Few outputs: near plain C, a row's bits whatever the number of rows and outputs beside it, nothing written outside.
static void check_dots(size_t n_out, size_t n_in, size_t n_rows) {
    size_t n_tables = list_tables(), xs = n_in + 3, ts = n_out + 2;
    float *a = random_floats(n_out * n_in, 1), *x = random_floats(n_rows * xs, 1), *t[3], alone;
    for (size_t i = 0; i < n_tables; i++) {
        const struct kernels *k = tables[i];
        t[i] = mem_alloc(n_rows * ts, sizeof **t);
        k->dots(a, n_out, n_in, x, xs, n_rows, t[i], ts);
        for (size_t r = 0; r < n_rows; r++) {
            for (size_t j = 0; j < n_out; j++) {
                k->dots(a + j * n_in, 1, n_in, x + r * xs, xs, 1, &alone, 1);
                CHECK(memcmp(&alone, &t[i][r * ts + j], sizeof alone) == 0);
                CHECK_NEAR(alone, t[0][r * ts + j], 1e-6 * (double)n_in + 1e-6);
            }
            CHECK(t[i][r * ts + n_out] == 0 && t[i][r * ts + n_out + 1] == 0);
        }
        if (i > 0 && !is_c(tables[i - 1])) CHECK(memcmp(t[i], t[i - 1], n_rows * ts * sizeof **t) == 0); // K4
    }
    for (size_t i = 0; i < n_tables; i++) free(t[i]);
    free(a);
    free(x);
}

TEST(dots_every_shape) {
    static const size_t inputs[] = {1, 5, 16, 17, 40, 257, 576}, outputs[] = {1, 3, 4, 9};
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++)
        for (size_t j = 0; j < ARRAY_LEN(outputs); j++) check_dots(outputs[j], inputs[i], 1 + (i + j) % 4);
}

TEST(quantize_as_q8_0) {
    size_t n_in = 64;
    float *x = random_floats(PANEL * n_in, 2), *y = mem_alloc(PANEL, sizeof *y), *unit = mem_alloc(n_in, sizeof *unit);
    struct packed w;
    REQUIRE(packed_init(&w, PACK_Q8, PANEL, n_in, false, NULL));
    pack_panel_quantize(&w, 0, x, PANEL);
    for (size_t k = 0; k < n_in; k++) {
        unit[k] = 1;
        kernels_c.matmul(&w, 0, 1, unit, n_in, 1, y, PANEL);
        for (size_t o = 0; o < PANEL; o++) CHECK_NEAR(y[o], x[o * n_in + k], 2.0 / 127 * 0.51);
        unit[k] = 0;
    }
    packed_finish(&w);
    free(x), free(y), free(unit);
}

static void check_attention(size_t n_rows, size_t n_group, size_t position, size_t head_size) {
    size_t n_tables = list_tables(), last = position + n_rows, n_blocks = (last + KV_BLOCK - 1) / KV_BLOCK, vs = (head_size + 15) / 16 * 16;
    size_t stride = KV_BLOCK * (head_size + vs), qs = n_group * head_size + 5;
    float *kv = random_floats(2 * n_blocks * stride, 1), *q = random_floats((n_rows - 1) * qs + n_group * head_size, 1);
    uint32_t *table = mem_alloc(n_blocks, sizeof *table);
    for (size_t b = 0; b < n_blocks; b++) {
        table[b] = (uint32_t)(2 * (n_blocks - 1 - b) + 1); // scattered and backwards
        for (size_t i = last - b * KV_BLOCK; i < KV_BLOCK; i++)  // what lies past the last position must not matter
            for (size_t d = 0; d < vs; d++) kv[table[b] * stride + KV_BLOCK * head_size + i * vs + d] = NAN;
        for (size_t i = last - b * KV_BLOCK; i < KV_BLOCK; i++)
            for (size_t d = 0; d < head_size; d++) kv[table[b] * stride + d * KV_BLOCK + i] = NAN;
    }
    float *out[3], *one = mem_alloc(n_group * head_size, sizeof *one);
    struct attention_task t = {.n_rows = n_rows, .n_group = n_group, .position = position, .head_size = head_size, .v_stride = vs,
                               .scale = 0.3f, .q = q, .q_stride = qs, .out_stride = n_group * head_size, .kv = kv, .table = table,
                               .kv_stride = stride, .key_at = 0, .value_at = KV_BLOCK * head_size, .score_stride = n_blocks * KV_BLOCK};
    t.scores = mem_alloc(n_rows * n_group * t.score_stride, sizeof *t.scores);
    for (size_t i = 0; i < n_tables; i++) {
        out[i] = mem_alloc(n_rows * n_group * head_size, sizeof *out[i]);
        t.out = out[i];
        tables[i]->attention(&t);
        for (size_t j = 0; j < n_rows * n_group * head_size; j++) CHECK_NEAR(out[i][j], out[0][j], 2e-6);
        for (size_t r = 0; r < n_rows; r++) { // one row at a time gives the same bits
            struct attention_task s = t;
            s.n_rows = 1, s.position = position + r, s.q = q + r * qs, s.out = one;
            tables[i]->attention(&s);
            if (memcmp(one, out[i] + r * n_group * head_size, n_group * head_size * sizeof *one))
                TEST_FAIL("%s: row %zu of %zu varies", tables[i]->name, r, n_rows);
        }
        if (i && !is_c(tables[i - 1]) && memcmp(out[i], out[i - 1], n_rows * n_group * head_size * sizeof *one)) TEST_FAIL("K4: attention");
    }
    for (size_t i = 0; i < n_tables; i++) free(out[i]);
    free(kv), free(q), free(table), free(one), free(t.scores);
}

TEST(attention_shapes) {
    check_attention(1, 1, 0, 16);
    check_attention(1, 3, 31, 64);
    check_attention(1, 1, 32, 64);
    check_attention(7, 1, 40, 64);
    check_attention(16, 3, 0, 64);
    check_attention(5, 2, 100, 24);
    check_attention(3, 4, 61, 80);
    check_attention(2, 1, 200, 128);
    check_attention(1, 1, 0, 1);
    check_attention(33, 7, 0, 2);
    check_attention(4, 5, 29, 17);
    check_attention(16, 1, 16, 63);
    check_attention(2, 13, 63, 65);
    check_attention(3, 2, 95, 130);
}

static void check_rows(size_t n) {
    size_t n_tables = list_tables();
    float *x = random_floats(n, 4), *w = random_floats(n, 1), *b = random_floats(n, 1), *y[3][5];
    for (size_t i = 0; i < n_tables; i++) {
        for (int j = 0; j < 5; j++) y[i][j] = mem_alloc(n + 1, sizeof(float));
        const struct kernels *k = tables[i];
        k->layernorm(y[i][0], x, w, b, n, 1e-5f);
        k->rmsnorm(y[i][1], x, w, n, 1e-5f);
        k->gelu_tanh(y[i][2], x, n);
        k->swiglu(y[i][3], x, w, n);
        memcpy(y[i][4], x, n * sizeof *x);
        k->add(y[i][4], w, n);
        for (int j = 0; j < 5; j++) {
            CHECK(y[i][j][n] == 0);
            for (size_t e = 0; e < n; e++) CHECK_NEAR(y[i][j][e], y[0][j][e], 2e-6 * (1 + fabs(y[0][j][e])));
            if (i && !is_c(tables[i - 1]) && memcmp(y[i][j], y[i - 1][j], n * sizeof *x)) TEST_FAIL("K4: row kernel %d of %zu", j, n);
        }
    }
    for (size_t e = 0; e < n; e++) { // the reference itself against libm in double
        double v = x[e];
        CHECK_NEAR(y[0][2][e], 0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))), 1e-6);
        CHECK_NEAR(y[0][3][e], v / (1 + exp(-v)) * w[e], 1e-6);
    }
    for (size_t i = 0; i < n_tables; i++)
        for (int j = 0; j < 5; j++) free(y[i][j]);
    free(x), free(w), free(b);
}

TEST(row_kernels) {
    check_rows(1);
    check_rows(2);
    check_rows(15);
    check_rows(16);
    check_rows(17);
    check_rows(31);
    check_rows(64);
    check_rows(577);
}

TEST(extreme_activations_stay_finite) {
    float x[] = {-1e30f, -200, -90, -0.0f, 0, 90, 200, 1e30f}, up[8] = {1, 1, 1, 1, 1, 1, 1, 1}, y[8];
    for (size_t i = 0, n = list_tables(); i < n; i++) {
        tables[i]->swiglu(y, x, up, 8);
        CHECK(y[0] <= 0 && y[0] > -1 && y[7] == 1e30f);
        tables[i]->gelu_tanh(y, x + 1, 6);
        CHECK(y[0] <= 0 && y[0] > -1e-30f && y[5] == 200);
    }
}

// A number that overflowed must reach the logits, where the engine ends the sequence with an error: not look like a score.
TEST(not_a_number_stays_one) {
    float x[32], up[32], y[32], scores[32], q[16], *kv = random_floats(2 * KV_BLOCK * 16, 1);
    uint32_t table = 0;
    struct attention_task t = {.n_rows = 1, .n_group = 1, .position = 20, .head_size = 16, .v_stride = 16, .scale = 1, .q = q, .q_stride = 16,
                               .out = y, .out_stride = 16, .kv = kv, .table = &table, .value_at = KV_BLOCK * 16, .scores = scores,
                               .score_stride = KV_BLOCK};
    for (size_t i = 0, n = list_tables(); i < n; i++)
        for (size_t at = 0; at <= 20; at++) {
            for (size_t k = 0; k < 32; k++) x[k] = up[k] = 1;
            x[at] = NAN;
            tables[i]->swiglu(y, x, up, 21);
            CHECK(isnan(y[at]) && !isnan(y[at ? 0 : 1]));
            tables[i]->gelu_tanh(y, x, 21);
            CHECK(isnan(y[at]));
            for (size_t k = 0; k < 16; k++) q[k] = 1;
            float key = kv[at]; // of dimension 0 at position `at`
            kv[at] = at % 2 ? NAN : INFINITY;
            tables[i]->attention(&t);
            for (size_t d = 0; d < 16; d++) CHECK(isnan(y[d]));
            kv[at] = key;
            q[at % 16] = NAN;
            tables[i]->attention(&t);
            for (size_t d = 0; d < 16; d++) CHECK(isnan(y[d]));
        }
    free(kv);
}

TEST(rope_rotates_halves) {
    float c[] = {0.6f, 1}, s[] = {0.8f, 0};
    for (size_t i = 0, n = list_tables(); i < n; i++) {
        float x[] = {1, 2, 3, 4, 5, 6, 7, 8};
        tables[i]->rope(x, c, s, 2, 4);
        CHECK_NEAR(x[0], 1 * 0.6 - 3 * 0.8, 1e-6);
        CHECK_NEAR(x[2], 3 * 0.6 + 1 * 0.8, 1e-6);
        CHECK_NEAR(x[5], 6, 0);
        CHECK_NEAR(x[6], 7 * 0.6 + 5 * 0.8, 1e-6);
    }
}

TEST(unknown_instruction_set_is_named) {
    struct err err = {0};
    CHECK(!kernels_by_name("sse9", &err));
    CHECK(strstr(err.message, "sse9"));
}

TEST_MAIN("kernels")
