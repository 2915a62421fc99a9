// SPDX-License-Identifier: MIT
// Block formats against PyPI gguf (tests/golden/gguf/blocks.bin), half precision both ways, every way to look at a
// linear weight.
#include "tests/unit/test.h"

#include "base/file.h"
#include "base/mem.h"
#include "engine/model/tensor.h"

static enum dtype dtype_find(const char *name) {
    int t = 0;
    while (t < DTYPE_COUNT && strcmp(dtype_name((enum dtype)t), name) != 0) t++;
    return (enum dtype)t;
}

TEST(blocks_equal_python) {
    struct err err = {0};
    size_t len, records = 0;
    char *file = file_read("tests/golden/gguf/blocks.bin", 1 << 20, &len, &err);
    if (!file) TEST_FAIL("%s", err.message);
    REQUIRE(file);
    for (const char *p = file; p < file + len; records++) {
        char name[9] = "";
        uint32_t n, n_bytes;
        memcpy(name, p, 8);
        memcpy(&n, p + 8, 4);
        memcpy(&n_bytes, p + 12, 4);
        p += 16;
        const enum dtype type = dtype_find(name);
        REQUIRE(type < DTYPE_COUNT);
        CHECK_INT(n_bytes, n / dtype_block(type) * dtype_block_bytes(type));
        float *out = mem_alloc(n, sizeof(float));
        char *shifted = mem_alloc(1, n_bytes + 1); // one byte off: no alignment may be assumed
        memcpy(shifted + 1, p, n_bytes);
        dequantize(type, shifted + 1, out, n);
        if (memcmp(out, p + n_bytes, n * sizeof(float)) != 0) TEST_FAIL("%s differs from PyPI gguf", name);
        free(out);
        free(shifted);
        p += n_bytes + n * sizeof(float);
    }
    CHECK_INT(records, DTYPE_COUNT);
    free(file);
}

TEST(half_round_trip) {
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = f16_to_f32((uint16_t)h);
        if ((h & 0x7c00) == 0x7c00 && (h & 0x3ff))
            CHECK(isnan(f) && isnan(f16_to_f32(f32_to_f16(f))));
        else if (f32_to_f16(f) != h)
            TEST_FAIL("%04x became %04x", h, f32_to_f16(f));
    }
    CHECK_INT(f32_to_f16(65519.99f), 0x7bff);
    CHECK_INT(f32_to_f16(65520.0f), 0x7c00);
    CHECK_INT(f32_to_f16(-1e30f), 0xfc00);
    CHECK_INT(f32_to_f16(1.0f + 0x1p-11f), 0x3c00);            // a tie goes to even
    CHECK_INT(f32_to_f16(1.0f + 3 * 0x1p-11f), 0x3c02);        // here upwards
    CHECK_INT(f32_to_f16(1.0f + 0x1p-11f + 0x1p-20f), 0x3c01); // past the tie
    CHECK_INT(f32_to_f16(0x1p-25f), 0);                        // half of the smallest
    CHECK_INT(f32_to_f16(0x1.8p-25f), 1);
    CHECK_INT(f32_to_f16(0x1.ffcp-15f), 0x0400); // rounds up into the normals
}

// All four layouts of the same numbers give the same rows and the same outputs, whatever the stretch asked for.
static void check_layout(const float *w, size_t rows, size_t cols, bool transposed, bool conv1d) {
    float *data = mem_alloc(rows * cols, sizeof(float)), *row = mem_alloc(cols, sizeof(float));
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) data[transposed ? c * rows + r : r * cols + c] = w[r * cols + c];
    const struct tensor t = {"w", DTYPE_F32, 2, {rows, cols}, (unsigned char *)data, rows * cols * 4, transposed, 0};
    const struct linear_view v = {&t, conv1d, conv1d ? cols : rows, conv1d ? rows : cols};
    for (size_t r = 0; r < rows; r++) {
        tensor_row(&t, r, row);
        CHECK(memcmp(row, w + r * cols, cols * sizeof(float)) == 0);
    }
    CHECK_INT(linear_view_contiguous(&v), conv1d == transposed);
    for (size_t o0 = 0; o0 < v.n_out; o0 += 13)
        for (size_t n = 0; n <= v.n_out - o0; n += 29) {
            float *out = mem_alloc(n * v.n_in, sizeof(float));
            linear_view_expand(&v, o0, n, out);
            for (size_t i = 0; i < n * v.n_in; i++) {
                const size_t o = o0 + i / v.n_in, in = i % v.n_in;
                CHECK(out[i] == w[conv1d ? in * cols + o : o * cols + in]);
            }
            free(out);
        }
    if (linear_view_contiguous(&v)) CHECK(linear_view_blocks(&v, 3) == (unsigned char *)(data + 3 * v.n_in));
    free(data);
    free(row);
}

TEST(linear_layouts) {
    enum { ROWS = 70, COLS = 41 };
    static float w[ROWS * COLS];
    for (size_t i = 0; i < ROWS * COLS; i++) w[i] = (float)i;
    for (int k = 0; k < 4; k++) check_layout(w, ROWS, COLS, k & 1, k & 2);
}

TEST(quantised_columns) { // blocks lie along the outputs: a stretch that begins inside one
    enum { IN = 3, OUT = 96 };
    static unsigned char data[IN * OUT / 32 * 34];
    static float whole[IN * OUT], part[50 * IN];
    for (size_t i = 0; i < sizeof(data); i++) data[i] = (unsigned char)(i % 34 == 1 ? 0x3c : i * 7);
    const struct tensor t = {"w", DTYPE_Q8_0, 2, {IN, OUT}, data, sizeof(data), false, 0};
    const struct linear_view v = {&t, true, OUT, IN};
    dequantize(DTYPE_Q8_0, data, whole, IN * OUT);
    linear_view_expand(&v, 20, 50, part);
    for (size_t o = 0; o < 50; o++)
        for (size_t i = 0; i < IN; i++) CHECK(part[o * IN + i] == whole[i * OUT + 20 + o]);
}

TEST(rope_rows) { // reshape(heads, 2, hs / 2).swapaxes(1, 2): HF row 0 1 2 3 of a head of 4 lie at 0 2 1 3
    static const size_t want[] = {0, 2, 1, 3, 4, 6, 5, 7};
    static float data[8] = {0, 1, 2, 3, 4, 5, 6, 7}, out[8];
    const struct tensor t = {"q", DTYPE_F32, 1, {8, 1}, (unsigned char *)data, sizeof(data), false, 2};
    for (size_t r = 0; r < 8; r++) CHECK_INT(tensor_file_row(&t, r), want[r]);
    tensor_vector(&t, out);
    for (size_t r = 0; r < 8; r++) CHECK(out[r] == (float)want[r]);
}

TEST_MAIN("model_dequantize")
