// SPDX-License-Identifier: MIT
// Damages a PyTorch file and a TensorFlow checkpoint's index, by seed, and opens them. One line of result; needs a sanitizer to see
// reads past the end.
//
//     hostile_formats FILE.pth TF_DIR [MUTATIONS] [SEED]
#include "tests/fuzz/hostile.h"

#include "engine/model/tf_table.h"

#include <unistd.h>

static size_t opened, faults;

static void attempt_end(struct model_file *f, bool ok, const struct err *err) {
    if (ok) opened++, (void)hostile_exercise(f);
    else if (hostile_error_fault(err)) faults++, fprintf(stderr, "%s: \"%s\"\n", hostile_error_fault(err), err->message);
    model_file_close(f);
}

static void attempt_pth(const char *path, const unsigned char *data, size_t len) {
    struct err err = {0};
    struct model_file *f = mem_new(struct model_file);
    attempt_end(f, pth_load(f, path, data, len, &err) && model_file_finish(f, &err), &err);
}

static uint64_t varint(const unsigned char **p) {
    uint64_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        v |= (uint64_t)(**p & 127) << shift;
        if (*(*p)++ < 128) return v;
    }
}

// Where the checksums of a small index stand: behind its one data block, which ends where the meta index block begins, and behind
// the index block. They are mended, or hardly a mutation would come past them.
struct blocks {
    size_t data_end, index, index_end;
};

static void mend(unsigned char *data, size_t from, size_t end) {
    const uint32_t crc = crc32c_masked(data + from, end - from + 1);
    for (int i = 0; i < 4; i++) data[end + 1 + (size_t)i] = (unsigned char)(crc >> (8 * i));
}

static struct blocks blocks_find(const struct file_map *m) {
    const unsigned char *footer = m->data + m->len - 48;
    const size_t meta = varint(&footer), meta_size = varint(&footer), index = varint(&footer);
    (void)meta_size;
    return (struct blocks){meta - 5, index, index + varint(&footer)};
}

static void attempt_tf(const char *dir, const char *path, unsigned char *data, size_t len, const struct blocks *b) {
    struct err err = {0};
    if (len > b->index_end + 5) mend(data, 0, b->data_end), mend(data, b->index, b->index_end);
    unlink(path); // truncating a file makes some file systems wait for the disk
    FILE *out = fopen(path, "w");
    if (!out || fwrite(data, 1, len, out) != len || fclose(out) != 0) abort();
    struct model_file *f = mem_new(struct model_file);
    attempt_end(f, tf_load_dir(f, dir, &err) && model_file_finish(f, &err), &err);
}

int main(int argc, char **argv) {
    struct err err = {0};
    struct file_map pth = {0}, index = {0};
    if (argc < 3) return fprintf(stderr, "usage: hostile_formats FILE.pth TF_DIR [MUTATIONS] [SEED]\n"), 2;
    const size_t n = argc > 3 ? strtoull(argv[3], NULL, 10) : 10000;
    uint64_t state = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    char dir[] = "/tmp/couplet-hostile-XXXXXX", command[512];
    if (!mkdtemp(dir)) return 1;
    snprintf(command, sizeof command, "cp '%s'/* %s", argv[2], dir);
    char *index_path = path_join(dir, "model.ckpt.index");
    if (system(command) != 0 || !file_map_open(&pth, argv[1], &err) || !file_map_open(&index, index_path, &err)) return fprintf(stderr, "%s\n", err.message), 1;
    const struct blocks blocks = blocks_find(&index);
    unsigned char *whole = malloc(index.len);
    memcpy(whole, index.data, index.len); // the file itself is overwritten
    hostile_memory_start();
    for (size_t i = 0; i < n; i++) {
        size_t len = pth.len;
        unsigned char *bad = hostile_mutate(pth.data, &len, i % 2 ? len : MIN(len, (size_t)4096), hostile_random(&state));
        attempt_pth(argv[1], bad, len);
        free(bad);
    }
    const size_t pth_opened = opened;
    for (size_t i = 0; i < n; i++) {
        size_t len = index.len;
        unsigned char *bad = hostile_mutate(whole, &len, len, hostile_random(&state));
        attempt_tf(dir, index_path, bad, len, &blocks);
        free(bad);
    }
    const size_t peak = hostile_memory_peak();
    const bool ok = faults == 0 && peak <= hostile_memory_bound(pth.len);
    printf("hostile_formats: 2 x %zu mutations, %zu and %zu opened, peak %.1f MiB, %zu faults: %s\n", n, pth_opened, opened - pth_opened,
           (double)peak / (1 << 20), faults, ok ? "passed" : "FAILED");
    file_map_close(&pth);
    file_map_close(&index);
    free(whole);
    free(index_path);
    return dir_remove(dir, NULL) && ok ? 0 : 1;
}
