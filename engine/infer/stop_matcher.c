// SPDX-License-Identifier: MIT
// See stop_matcher.h.
#include "engine/infer/stop_matcher.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void borders_fill(uint16_t *border, const unsigned char *p, size_t len) {
    border[0] = 0;
    for (size_t i = 1, k = 0; i < len; i++) {
        while (k > 0 && p[i] != p[k]) k = border[k - 1];
        if (p[i] == p[k]) k++;
        border[i] = (uint16_t)k;
    }
}

void stop_matcher_init(struct stop_matcher *m, const struct stop_string *stops, size_t n) {
    assert(n <= ENGINE_MAX_STOPS);
    *m = (struct stop_matcher){.n = n};
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        assert(stops[i].len >= 1 && stops[i].len <= ENGINE_MAX_STOP_BYTES);
        total += stops[i].len;
    }
    if (n == 0) return;
    uint16_t *border = m->block = mem_alloc(total, sizeof *border + 1);
    unsigned char *bytes = (unsigned char *)(border + total);
    for (size_t i = 0; i < n; i++) {
        size_t len = stops[i].len;
        memcpy(bytes, stops[i].bytes, len);
        borders_fill(border, bytes, len);
        m->patterns[i] = (struct stop_pattern){.bytes = bytes, .border = border, .len = (uint16_t)len};
        bytes += len;
        border += len;
    }
}

void stop_matcher_finish(struct stop_matcher *m) {
    free(m->block);
    *m = (struct stop_matcher){0};
}

// One byte into one automaton: true when the pattern is whole.
static bool pattern_step(struct stop_pattern *p, unsigned char c) {
    size_t k = p->state;
    while (k > 0 && p->bytes[k] != c) k = p->border[k - 1];
    if (p->bytes[k] == c) k++;
    p->state = (uint16_t)k;
    return k == p->len;
}

bool stop_matcher_feed(struct stop_matcher *m, const char *bytes, size_t len, size_t *used, size_t *index) {
    for (size_t i = 0; m->n > 0 && i < len; i++) {
        size_t longest = 0;
        for (size_t k = 0; k < m->n; k++) {
            assert(m->patterns[k].state < m->patterns[k].len); // not spent
            if (!pattern_step(&m->patterns[k], (unsigned char)bytes[i]) || m->patterns[k].len <= longest) continue;
            longest = m->patterns[k].len;
            *index = k;
        }
        if (!longest) continue;
        *used = i + 1;
        return true;
    }
    return false;
}

size_t stop_matcher_length(const struct stop_matcher *m, size_t index) {
    assert(index < m->n);
    return m->patterns[index].len;
}

size_t stop_matcher_held(const struct stop_matcher *m) {
    size_t held = 0;
    for (size_t k = 0; k < m->n; k++) held = MAX(held, m->patterns[k].state);
    return held;
}
