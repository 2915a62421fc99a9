// SPDX-License-Identifier: MIT
// Batches: the seed's collate example, the order as a function of seed and epoch, cursors, packing, accumulation.
#include "tests/unit/train/data_test.h"

// n rows; row i has lengths[i % n_lengths] inputs, all of them i.
static bool open_rows(struct data *d, size_t n, const size_t *lengths, size_t n_lengths) {
    struct buf file = {0};
    for (size_t i = 0; i < n; i++) {
        buf_printf(&file, "{\"tokens\":[%zu", i);
        for (size_t k = 0; k < lengths[i % n_lengths]; k++) buf_printf(&file, ",%zu", i);
        buf_add_str(&file, "]}\n");
    }
    d->options.n_vocab = 1000;
    bool ok = data_rows(d, file.data);
    if (!ok) TEST_FAIL("%s", d->err.message);
    buf_finish(&file);
    return ok;
}

static struct batcher *make(const struct data *d, struct batcher_config c) {
    struct data_view all;
    struct err err = {0};
    data_view_all(&all, d->set);
    struct batcher *b = batcher_create(&all, &c, &err);
    if (!b) TEST_FAIL("%s", err.message);
    data_view_finish(&all);
    return b;
}

// The seed pads [0..4], [5,6], [7,8,9] to one width, the first end token a target, the others ignored. Here nothing is padded: a segment is
// the row up to its first ignored target.
TEST(seed_collate_example) {
    struct data d;
    data_init(&d);
    d.options.n_vocab = 50257;
    REQUIRE(data_rows(&d, "{\"tokens\":[0,1,2,3,4,50256]}\n{\"tokens\":[5,6,50256]}\n{\"tokens\":[7,8,9,50256]}\n"));
    struct batcher *b = make(&d, (struct batcher_config){.batch_size = 3, .accumulate = 1});
    REQUIRE(b);
    struct update u;
    REQUIRE(batcher_next(b, &u, NULL));
    static const uint32_t ids[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, starts[] = {0, 5, 7, 10};
    static const int32_t targets[] = {1, 2, 3, 4, 50256, 6, 50256, 8, 9, 50256};
    REQUIRE(u.n_batches == 1 && u.batches[0].n_rows == 10 && u.batches[0].n_segments == 3);
    CHECK(!memcmp(u.batches[0].ids, ids, sizeof ids));
    CHECK(!memcmp(u.batches[0].targets, targets, sizeof targets));
    CHECK(!memcmp(u.batches[0].starts, starts, sizeof starts));
    CHECK(u.n_supervised == 10 && u.n_rows == 10 && u.of == 1 && u.index == 0 && u.epoch == 0);
    CHECK_INT(batcher_max_rows(b), 10);
    CHECK_INT(batcher_max_segment(b), 5);
    batcher_destroy(b);
    data_finish(&d);
}

static const size_t lengths[] = {3, 1, 4, 1, 5, 9, 2, 6};

// One update as text: per batch its examples (named by their first id), batches apart by |.
static const char *shown(const struct update *u) {
    static struct buf b;
    buf_clear(&b);
    size_t rows = 0, supervised = 0;
    for (size_t i = 0; i < u->n_batches; i++) {
        const struct batch *batch = &u->batches[i];
        CHECK_INT(batch->first_row, rows);
        CHECK_INT(batch->starts[0], 0);
        CHECK_INT(batch->starts[batch->n_segments], batch->n_rows);
        for (size_t s = 0; s < batch->n_segments; s++) {
            uint32_t id = batch->ids[batch->starts[s]];
            CHECK_INT(batch->starts[s + 1] - batch->starts[s], lengths[id % ARRAY_LEN(lengths)]);
            for (size_t r = batch->starts[s]; r < batch->starts[s + 1]; r++) CHECK(batch->ids[r] == id && batch->targets[r] == (int32_t)id);
            buf_printf(&b, s ? " %u" : i ? " | %u" : "%u", id);
        }
        rows += batch->n_rows;
        supervised += batch->n_supervised;
    }
    CHECK_INT(u->n_rows, rows);
    CHECK_INT(u->n_supervised, supervised);
    return buf_str(&b);
}

TEST(in_order_with_a_short_last_update) {
    struct data d;
    struct update u;
    data_init(&d);
    REQUIRE(open_rows(&d, 10, lengths, ARRAY_LEN(lengths)));
    struct batcher *b = make(&d, (struct batcher_config){.batch_size = 2, .accumulate = 3});
    REQUIRE(b);
    CHECK_INT(batcher_updates_per_epoch(b, 0), 2);
    CHECK_INT(batcher_max_rows(b), 15);
    for (int epoch = 0; epoch < 2; epoch++) {
        REQUIRE(batcher_next(b, &u, NULL));
        CHECK_STR(shown(&u), "0 1 | 2 3 | 4 5");
        CHECK(u.epoch == (uint64_t)epoch && u.index == 0 && u.of == 2);
        REQUIRE(batcher_next(b, &u, NULL));
        CHECK_STR(shown(&u), "6 7 | 8 9");
        CHECK(u.epoch == (uint64_t)epoch && u.index == 1);
    }
    batcher_destroy(b);
    b = make(&d, (struct batcher_config){.batch_size = SIZE_MAX, .accumulate = SIZE_MAX}); // everything at once
    REQUIRE(b && batcher_next(b, &u, NULL));
    CHECK_STR(shown(&u), "0 1 2 3 4 5 6 7 8 9");
    batcher_destroy(b);
    data_finish(&d);
}

// All of an epoch's updates, a line each.
static void epoch_shown(struct batcher *b, uint64_t epoch, struct buf *out) {
    struct update u;
    buf_clear(out);
    REQUIRE(batcher_seek(b, epoch, 0, NULL));
    for (size_t i = 0, n = batcher_updates_per_epoch(b, epoch); i < n; i++) {
        REQUIRE(batcher_next(b, &u, NULL));
        CHECK(u.epoch == epoch && u.index == i && u.of == n);
        for (size_t k = 0; k < u.n_batches; k++) CHECK(u.batches[k].n_rows <= batcher_max_rows(b));
        buf_add_str(out, shown(&u));
        buf_add_byte(out, '\n');
    }
}

// Every example once?
static bool is_whole(const struct buf *b, size_t n) {
    bool *seen = mem_alloc(n, sizeof *seen);
    size_t count = 0;
    for (const char *p = b->data; *p;) {
        char *end;
        size_t id = strtoull(p, &end, 10);
        if (end == p) {
            p++;
            continue;
        }
        if (id < n && !seen[id]) seen[id] = true, count++;
        p = end;
    }
    free(seen);
    return count == n;
}

TEST(shuffle_by_seed_and_epoch_alone) {
    struct data d;
    struct buf first = {0}, second = {0}, other = {0}, again = {0};
    data_init(&d);
    REQUIRE(open_rows(&d, 50, lengths, ARRAY_LEN(lengths)));
    for (int packing = 0; packing < 2; packing++) {
        struct batcher_config c = {.batch_size = 4, .accumulate = 2, .context = 10, .shuffle = true, .packing = packing, .seed = 11};
        struct batcher *a = make(&d, c), *b = make(&d, c);
        c.seed = 12;
        struct batcher *e = make(&d, c);
        REQUIRE(a && b && e);
        epoch_shown(a, 0, &first);
        epoch_shown(a, 1, &second);
        epoch_shown(e, 0, &other);
        CHECK(is_whole(&first, 50) && is_whole(&second, 50) && is_whole(&other, 50));
        CHECK(strcmp(first.data, second.data) && strcmp(first.data, other.data));
        epoch_shown(b, 1, &again); // without having seen epoch 0
        CHECK_STR(again.data, second.data);
        epoch_shown(b, 0, &again);
        CHECK_STR(again.data, first.data);
        struct update u; // a cursor finds its update, whatever was asked in between
        REQUIRE(batcher_seek(b, 1, 2, NULL));
        CHECK(batcher_updates_per_epoch(b, 5) > 0);
        REQUIRE(batcher_next(b, &u, NULL));
        CHECK(u.epoch == 1 && u.index == 2 && strstr(second.data, shown(&u)));
        size_t n = batcher_updates_per_epoch(b, 0);
        REQUIRE(batcher_seek(b, 0, n, NULL) && batcher_next(b, &u, NULL)); // behind the last: the next epoch
        CHECK(u.epoch == 1 && u.index == 0);
        CHECK(!batcher_seek(b, 0, n + 1, NULL));
        batcher_destroy(a), batcher_destroy(b), batcher_destroy(e);
    }
    buf_finish(&first), buf_finish(&second), buf_finish(&other), buf_finish(&again);
    data_finish(&d);
}

TEST(shuffle_is_fair) { // 24 orders of four examples over 24,000 epochs: chi-square with 23 degrees of freedom, p = 1e-4 at 59
    struct data d;
    struct update u;
    size_t count[256] = {0};
    data_init(&d);
    REQUIRE(open_rows(&d, 4, lengths, ARRAY_LEN(lengths)));
    struct batcher *b = make(&d, (struct batcher_config){.batch_size = 4, .accumulate = 1, .shuffle = true, .seed = 3});
    REQUIRE(b);
    for (int i = 0; i < 24000; i++) {
        REQUIRE(batcher_next(b, &u, NULL));
        const struct batch *x = &u.batches[0];
        size_t code = 0;
        for (size_t s = 0; s < 4; s++) code = code << 2 | x->ids[x->starts[s]];
        count[code]++;
    }
    double chi = 0;
    for (size_t i = 0; i < 256; i++)
        if (count[i]) chi += ((double)count[i] - 1000) * ((double)count[i] - 1000) / 1000;
    CHECK(chi < 59);
    batcher_destroy(b);
    data_finish(&d);
}

TEST(packing_first_fit_in_order) {
    struct data d;
    struct update u;
    data_init(&d);
    REQUIRE(open_rows(&d, 8, lengths, ARRAY_LEN(lengths))); // 3 1 4 1 5 9 2 6
    struct batcher *b = make(&d, (struct batcher_config){.batch_size = 1, .accumulate = 100, .context = 10, .packing = true});
    REQUIRE(b && batcher_next(b, &u, NULL));
    CHECK_STR(shown(&u), "0 1 2 3 | 4 6 | 5 | 7");
    CHECK_INT(batcher_max_rows(b), 10);
    batcher_destroy(b);
    b = make(&d, (struct batcher_config){.batch_size = 2, .accumulate = 1, .context = 5, .packing = true}); // shorter than the longest
    REQUIRE(b && batcher_next(b, &u, NULL));
    CHECK_STR(shown(&u), "0 1 3 2"); // rows: 0 1 3 | 2
    CHECK_INT(batcher_max_rows(b), 18);
    batcher_destroy(b);
    data_finish(&d);
}

TEST(eight_times_one_is_one_times_eight) {
    struct data d;
    struct update u, v;
    data_init(&d);
    REQUIRE(open_rows(&d, 30, lengths, ARRAY_LEN(lengths)));
    struct batcher *a = make(&d, (struct batcher_config){.batch_size = 8, .accumulate = 1, .shuffle = true, .seed = 5});
    struct batcher *b = make(&d, (struct batcher_config){.batch_size = 1, .accumulate = 8, .shuffle = true, .seed = 5});
    REQUIRE(a && b);
    for (int i = 0; i < 9; i++) {
        REQUIRE(batcher_next(a, &u, NULL) && batcher_next(b, &v, NULL));
        CHECK(u.n_rows == v.n_rows && u.n_supervised == v.n_supervised && u.n_batches == 1);
        for (size_t k = 0; k < v.n_batches; k++)
            CHECK(!memcmp(u.batches[0].ids + v.batches[k].first_row, v.batches[k].ids, v.batches[k].n_rows * sizeof(uint32_t)));
    }
    batcher_destroy(a), batcher_destroy(b);
    data_finish(&d);
}

TEST_MAIN("batcher")
