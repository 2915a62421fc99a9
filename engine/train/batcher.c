// SPDX-License-Identifier: MIT
// Batches of a view. The order of an epoch is drawn from (seed, epoch) alone, so a cursor of two numbers finds any update again.
//
// Rows of unlike length share a batch at no cost, for nothing is padded: there is no sorting by length, and none of its bias.
#include "engine/train/dataset.h"

#include "base/mem.h"
#include "base/rng.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_AHEAD = 64, STREAM_SHUFFLE = 0x73687566 }; // the stream: apart from dropout's draws under the same seed

struct batcher {
    struct data_view view; // items are ours
    struct batcher_config config;
    size_t rows_per_update, max_rows, max_segment;
    uint64_t epoch; // the next update's
    size_t index;
    // The order of one epoch.
    bool ordered;
    uint64_t ordered_epoch;
    uint32_t *order;      // [view.n] examples, row by row
    uint32_t *row_starts; // [n_rows + 1] in order; NULL without packing: every example is a row
    bool *placed;         // [view.n], while rows are packed
    size_t n_rows;
    // The update that was handed out.
    uint32_t *ids, *starts;
    int32_t *targets;
    struct batch *batches;
    size_t starts_cap, batches_cap;
};

static size_t saturating_mul(size_t a, size_t b) {
    size_t product;
    return size_mul(a, b, &product) ? product : SIZE_MAX;
}

static size_t row_begin(const struct batcher *b, size_t row) { return b->row_starts ? b->row_starts[row] : row; }
static size_t length_of(const struct batcher *b, uint32_t item) { return dataset_length(b->view.data, item); }

// ---- the order of an epoch

// Fisher-Yates. 64 random bits times n, high word: the bias is below n / 2^64.
static void shuffle(uint32_t *items, size_t n, uint64_t seed, uint64_t epoch) {
    for (size_t i = n; i > 1; i--) {
        uint32_t counter[4] = {(uint32_t)i, (uint32_t)epoch, (uint32_t)(epoch >> 32), STREAM_SHUFFLE}, word[4];
        philox4x32(seed, counter, word);
        uint64_t draw = (uint64_t)word[1] << 32 | word[0];
        size_t k = (size_t)((__uint128_t)draw * i >> 64);
        uint32_t swap = items[i - 1];
        items[i - 1] = items[k];
        items[k] = swap;
    }
}

// First fit in order: a row takes the first example left, and of the LOOK_AHEAD next ones left each that still fits.
static void pack(struct batcher *b, const uint32_t *items) {
    size_t n = b->view.n, used = 0;
    memset(b->placed, 0, n * sizeof *b->placed);
    b->n_rows = 0;
    for (size_t first = 0; first < n; first++) {
        if (b->placed[first]) continue;
        b->row_starts[b->n_rows++] = (uint32_t)used;
        size_t room = MAX(b->config.context, length_of(b, items[first]));
        for (size_t i = first, seen = 0; i < n && seen < LOOK_AHEAD && room; i++) {
            if (b->placed[i]) continue;
            seen++;
            size_t len = length_of(b, items[i]);
            if (len > room) continue;
            b->placed[i] = true;
            b->order[used++] = items[i];
            room -= len;
        }
    }
    b->row_starts[b->n_rows] = (uint32_t)used;
    assert(used == n);
}

static bool order_epoch(struct batcher *b, uint64_t epoch, struct err *err) {
    if (b->ordered && (b->ordered_epoch == epoch || !b->config.shuffle)) return true;
    size_t n = b->view.n;
    uint32_t *items = b->order;
    if (b->config.packing && !(items = mem_try_alloc(n, sizeof *items, "the order of an epoch", err))) return false;
    memcpy(items, b->view.items, n * sizeof *items);
    if (b->config.shuffle) shuffle(items, n, b->config.seed, epoch);
    b->n_rows = n;
    if (b->config.packing) {
        pack(b, items);
        free(items);
    }
    b->ordered = true;
    b->ordered_epoch = epoch;
    return true;
}

static size_t n_updates(const struct batcher *b) { return (b->n_rows - 1) / b->rows_per_update + 1; }

// ---- life

// The rows of the batch_size longest examples; packed, of batch_size full rows. Never more than the view has.
static bool measure(struct batcher *b, size_t *total, struct err *err) {
    size_t left = b->config.batch_size;
    *total = 0;
    for (size_t i = 0; i < b->view.n; i++) {
        size_t len = length_of(b, b->view.items[i]);
        *total += len;
        b->max_segment = MAX(b->max_segment, len);
    }
    if (b->config.packing) {
        b->max_rows = MIN(saturating_mul(left, MAX(b->config.context, b->max_segment)), *total);
        return true;
    }
    size_t *count = mem_try_alloc(b->max_segment + 1, sizeof *count, "the lengths of examples", err);
    if (!count) return false;
    for (size_t i = 0; i < b->view.n; i++) count[length_of(b, b->view.items[i])]++;
    for (size_t len = b->max_segment; len && left; len--) {
        size_t take = MIN(count[len], left);
        b->max_rows += take * len;
        left -= take;
    }
    free(count);
    return true;
}

struct batcher *batcher_create(const struct data_view *v, const struct batcher_config *c, struct err *err) {
    assert(v->n > 0 && c->batch_size > 0 && c->accumulate > 0 && (!c->packing || c->context > 0));
    struct batcher *b = mem_new(struct batcher);
    *b = (struct batcher){.view = {.data = v->data, .n = v->n}, .config = *c};
    b->rows_per_update = saturating_mul(c->batch_size, c->accumulate);
    size_t n = v->n, total = 0;
    b->view.items = mem_try_alloc(n, sizeof *b->view.items, "the examples of a view", err);
    if (!b->view.items) goto fail;
    memcpy(b->view.items, v->items, n * sizeof *v->items);
    if (!measure(b, &total, err)) goto fail;
    if (b->max_rows > UINT32_MAX) {
        err_set(err, ERR_TOO_LARGE, "a batch of %zu tokens is too large", b->max_rows);
        goto fail;
    }
    size_t rows = MIN(saturating_mul(b->max_rows, c->accumulate), total);
    if (!(b->order = mem_try_alloc(n, sizeof *b->order, "the order of an epoch", err))) goto fail;
    if (c->packing) {
        if (!(b->row_starts = mem_try_alloc(n + 1, sizeof *b->row_starts, "the rows of an epoch", err))) goto fail;
        if (!(b->placed = mem_try_alloc(n, sizeof *b->placed, "the rows of an epoch", err))) goto fail;
    }
    if (!(b->ids = mem_try_alloc(rows, sizeof *b->ids, "an update's tokens", err))) goto fail;
    if (!(b->targets = mem_try_alloc(rows, sizeof *b->targets, "an update's targets", err))) goto fail;
    return b;
fail:
    batcher_destroy(b);
    return NULL;
}

void batcher_destroy(struct batcher *b) {
    if (!b) return;
    data_view_finish(&b->view);
    free(b->order);
    free(b->row_starts);
    free(b->placed);
    free(b->ids);
    free(b->starts);
    free(b->targets);
    free(b->batches);
    free(b);
}

size_t batcher_max_rows(const struct batcher *b) { return b->max_rows; }
size_t batcher_max_segment(const struct batcher *b) { return b->max_segment; }

size_t batcher_updates_per_epoch(struct batcher *b, uint64_t epoch) { return order_epoch(b, epoch, NULL) ? n_updates(b) : 0; }

bool batcher_seek(struct batcher *b, uint64_t epoch, size_t index, struct err *err) {
    if (!order_epoch(b, epoch, err)) return false;
    if (index > n_updates(b)) return err_set(err, ERR_INVALID, "epoch %llu has no update %zu", (unsigned long long)epoch, index);
    b->epoch = epoch;
    b->index = index;
    return true;
}

// ---- updates

// Rows [from, to) of the epoch become one batch; its arrays begin at ids, targets and starts.
static bool fill_batch(struct batcher *b, size_t from, size_t to, uint32_t *ids, int32_t *targets, uint32_t *starts, struct batch *out,
                       struct err *err) {
    *out = (struct batch){.ids = ids, .targets = targets, .starts = starts};
    starts[0] = 0;
    for (size_t i = row_begin(b, from); i < row_begin(b, to); i++) {
        size_t at = out->n_rows, len = length_of(b, b->order[i]);
        if (!dataset_read(b->view.data, b->order[i], ids + at, targets + at, err)) return false;
        for (size_t t = at; t < at + len; t++) out->n_supervised += targets[t] != TARGET_IGNORED;
        out->n_rows += len;
        starts[++out->n_segments] = (uint32_t)out->n_rows;
    }
    return true;
}

bool batcher_next(struct batcher *b, struct update *out, struct err *err) {
    if (!order_epoch(b, b->epoch, err)) return false;
    if (b->index == n_updates(b)) {
        b->epoch++;
        b->index = 0;
        if (!order_epoch(b, b->epoch, err)) return false;
    }
    size_t from = b->index * b->rows_per_update, to = from + MIN(b->rows_per_update, b->n_rows - from);
    struct update u = {.n_batches = (to - from - 1) / b->config.batch_size + 1, .epoch = b->epoch, .index = b->index, .of = n_updates(b)};
    mem_grow(&b->batches, &b->batches_cap, u.n_batches);
    mem_grow(&b->starts, &b->starts_cap, row_begin(b, to) - row_begin(b, from) + u.n_batches);
    u.batches = b->batches;
    uint32_t *starts = b->starts;
    for (size_t i = 0; i < u.n_batches; i++) {
        struct batch *batch = &b->batches[i];
        size_t row = from + i * b->config.batch_size;
        if (!fill_batch(b, row, MIN(row + b->config.batch_size, to), b->ids + u.n_rows, b->targets + u.n_rows, starts, batch, err)) return false;
        batch->first_row = u.n_rows;
        u.n_rows += batch->n_rows;
        u.n_supervised += batch->n_supervised;
        starts += batch->n_segments + 1;
    }
    b->index++;
    *out = u;
    return true;
}
