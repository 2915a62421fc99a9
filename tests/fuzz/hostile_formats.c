// SPDX-License-Identifier: MIT
// Damages a PyTorch file, by seed, and opens it; with a second argument a TensorFlow index, whose records are walked. One line of
// result; needs a sanitizer to see reads past the end.
//
//     hostile_formats FILE.pth MODEL.ckpt.index [MUTATIONS] [SEED]
#include "tests/fuzz/hostile.h"

#include "engine/model/tf_table.h"

static size_t opened, faults;

static void attempt_pth(const char *path, const unsigned char *data, size_t len) {
    struct err err = {0};
    struct model_file *f = mem_new(struct model_file);
    if (pth_load(f, path, data, len, &err) && model_file_finish(f, &err)) opened++, (void)hostile_exercise(f);
    else if (hostile_error_fault(&err)) faults++, fprintf(stderr, "%s: \"%s\"\n", hostile_error_fault(&err), err.message);
    model_file_close(f);
}

static bool visit(void *ctx, const char *key, size_t len, struct bytes value, struct err *err) {
    size_t *sum = ctx;
    for (size_t i = 0; i < len; i++) *sum += (unsigned char)key[i];
    for (struct proto_field f; proto_next(&value, &f);) *sum += f.is_bytes ? (size_t)(f.bytes.end - f.bytes.at) : f.value;
    return true;
}

static void set_u32(unsigned char *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(v >> (8 * i));
}

// Checksums are mended, or hardly a mutation would come past them: the data block is all before the empty meta index block.
static void attempt_index(unsigned char *data, size_t len, size_t data_block, size_t index_block, size_t index_end) {
    struct err err = {0};
    size_t sum = 0;
    if (len > index_end) {
        set_u32(data + data_block + 1, crc32c_masked(data, data_block + 1));
        set_u32(data + index_end + 1, crc32c_masked(data + index_block, index_end - index_block + 1));
    }
    if (tf_table_walk(data, len, visit, &sum, &err)) opened++;
    else if (hostile_error_fault(&err)) faults++, fprintf(stderr, "%s: \"%s\"\n", hostile_error_fault(&err), err.message);
}

int main(int argc, char **argv) {
    struct err err = {0};
    struct file_map pth = {0}, index = {0};
    if (argc < 3) return fprintf(stderr, "usage: hostile_formats FILE.pth MODEL.ckpt.index [MUTATIONS] [SEED]\n"), 2;
    const size_t n = argc > 3 ? strtoull(argv[3], NULL, 10) : 10000;
    uint64_t state = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    if (!file_map_open(&pth, argv[1], &err) || !file_map_open(&index, argv[2], &err)) return fprintf(stderr, "%s\n", err.message), 1;
    hostile_memory_start();
    for (size_t i = 0; i < n; i++) {
        size_t len = pth.len;
        unsigned char *bad = hostile_mutate(pth.data, &len, i % 2 ? len : MIN(len, (size_t)4096), hostile_random(&state));
        attempt_pth(argv[1], bad, len);
        free(bad);
    }
    const size_t peak = hostile_memory_peak();
    // Footer: meta index offset and size, index offset and size, each a varint of up to two bytes in a small file.
    const unsigned char *f = index.data + index.len - 48;
    uint64_t at[4] = {0};
    for (size_t i = 0; i < 4; i++)
        for (unsigned shift = 0;; shift += 7) {
            at[i] |= (uint64_t)(*f & 127) << shift;
            if (*f++ < 128) break;
        }
    for (size_t i = 0; i < n; i++) {
        size_t len = index.len;
        unsigned char *bad = hostile_mutate(index.data, &len, len, hostile_random(&state));
        attempt_index(bad, len, at[0] - 5, at[2], at[2] + at[3]);
        free(bad);
    }
    const bool ok = faults == 0 && peak <= hostile_memory_bound(pth.len);
    printf("hostile_formats: 2 x %zu mutations, %zu opened, peak %.1f MiB, %zu faults: %s\n", n, opened, (double)peak / (1 << 20), faults,
           ok ? "passed" : "FAILED");
    file_map_close(&pth);
    file_map_close(&index);
    return ok ? 0 : 1;
}
