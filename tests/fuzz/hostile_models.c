// SPDX-License-Identifier: MIT
// Damages a real GGUF file: cut at random offsets (half of them inside the header), then mutated headers. One line of
// result.
//
//     hostile_models MODEL.gguf [CUTS] [MUTATIONS] [SEED]          defaults 1000 100 1; build with -Db_sanitize=address
#include "tests/fuzz/hostile.h"

#include <time.h>

static size_t opened, refused, faults;

static void attempt(const void *data, size_t len, const char *kind, size_t at) {
    struct err err = {0};
    struct model_file *f = model_file_open_gguf_memory(data, len, &err);
    const char *fault = f ? NULL : hostile_error_fault(&err);
    if (fault) faults++, fprintf(stderr, "%s %zu: the error has %s: \"%s\"\n", kind, at, fault, err.message);
    if (f)
        opened++, (void)hostile_exercise(f);
    else
        refused++;
    model_file_close(f);
}

// Cuts near the front are copied to a block of their own size, so that a sanitizer sees a read past the cut; the rest
// reads the mapping.
static void cut(const struct file_map *m, size_t at) {
    enum { COPY_MAX = 8 << 20 };
    if (at > COPY_MAX) {
        attempt(m->data, at, "cut", at);
        return;
    }
    unsigned char *part = malloc(at ? at : 1);
    memcpy(part, m->data, at);
    attempt(part, at, "cut", at);
    free(part);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    struct err err = {0};
    struct file_map m = {0};
    if (argc < 2) return fprintf(stderr, "usage: hostile_models MODEL.gguf [CUTS] [MUTATIONS] [SEED]\n"), 2;
    const size_t cuts = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000,
                 mutations = argc > 3 ? strtoull(argv[3], NULL, 10) : 100;
    uint64_t state = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    if (!file_map_open(&m, argv[1], &err)) return fprintf(stderr, "%s\n", err.message), 1;
    struct model_file *whole = model_file_open_gguf_memory(m.data, m.len, &err);
    if (!whole) return fprintf(stderr, "%s\n", err.message), 1;
    const size_t data_end = hostile_data_end(whole, m.data);
    model_file_close(whole);
    const double start = seconds();
    const size_t front = MIN(m.len, (size_t)2 << 20);
    hostile_memory_start();
    for (size_t i = 0; i < cuts; i++) cut(&m, hostile_random(&state) % MIN(i % 2 ? front : m.len, data_end));
    const size_t cut_opened = opened, peak = hostile_memory_peak();
    for (size_t i = 0; i < mutations; i++) {
        size_t len = m.len;
        unsigned char *bad = hostile_mutate(m.data, &len, front, hostile_random(&state));
        attempt(bad, len, "mutation", i);
        free(bad);
    }
    const bool ok = faults == 0 && cut_opened == 0 && peak <= hostile_memory_bound(m.len);
    printf("hostile_models: %zu cuts (%zu opened, peak %.1f MiB), %zu mutations (%zu opened, %zu refused), %zu faults, "
           "%.1f s: %s\n",
           cuts, cut_opened, (double)peak / (1 << 20), mutations, opened - cut_opened, refused - (cuts - cut_opened),
           faults, seconds() - start, ok ? "passed" : "FAILED");
    file_map_close(&m);
    return ok ? 0 : 1;
}
