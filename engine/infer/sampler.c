// SPDX-License-Identifier: MIT
// See sampler.h. What makes it fast on 50,000 tokens: maxima of blocks of 128, found in the one pass that greedy needs
// anyway, bound what any "k best" can hold; a bound on the tail's weight leaves top_p a shorter list; a cut is found by
// a histogram over keys, then by weighted quickselect inside the one bucket it falls in. Copies that keep some elements
// are written without branches.
//
// Invariants
//   S1 candidates are in order of ids: the draw's order never depends on how a filter found its cut
//   S2 a cut is a (key, id) pair in the total order "key descending, id ascending": a filter's outcome is a set, not a
//      permutation
// Thread: the engine's; a struct sampler is used by one thread at a time.
#include "engine/infer/sampler.h"

#include "base/mem.h"
#include "base/rng.h"
#include "engine/infer/best.h"
#include "engine/infer/logit_row.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float BANNED = -FLT_MAX;  // finite: row_max's check then finds the model's own infinities
static const double MASS_ONE = 0x1p40; // fixed point of the largest weight; 2^24 tokens fit in 64 bits

enum { BUCKETS = 1024, BUCKETS_PER_UNIT = 16 }; // of keys below the largest; the last one takes the rest

struct pick { // an element of a selection
    float key;
    uint32_t id;
    uint64_t mass;
};
struct cut { // S2
    float key;
    uint32_t id;
};

struct sampler {
    size_t n_vocab;
    float *row;               // [V] adjusted logits
    float *weight;            // [V] exp of the scaled row
    float *block_max;         // [V / 128]
    double *block_sum;        // [V / 128]
    uint64_t bucket[BUCKETS]; // mass
    struct pick *picks;       // [V] scratch of find_cut
    // candidates (S1)
    size_t n;
    uint32_t *id; // [V]
    float *y;     // [V] (logit - largest) / temperature
    float *w;     // [V] exp(y)
};

struct sampler *sampler_create(size_t n_vocab, struct err *err) {
    assert(n_vocab > 0);
    size_t blocks = row_blocks(n_vocab);
    struct sampler *s = mem_new(struct sampler);
    s->n_vocab = n_vocab;
    bool made = (s->row = mem_try_alloc(n_vocab, sizeof *s->row, "the sampler", err)) &&
                (s->weight = mem_try_alloc(n_vocab, sizeof *s->weight, "the sampler", err)) &&
                (s->block_max = mem_try_alloc(blocks, sizeof *s->block_max, "the sampler", err)) &&
                (s->block_sum = mem_try_alloc(blocks, sizeof *s->block_sum, "the sampler", err)) &&
                (s->picks = mem_try_alloc(n_vocab, sizeof *s->picks, "the sampler", err)) &&
                (s->id = mem_try_alloc(n_vocab, sizeof *s->id, "the sampler", err)) &&
                (s->y = mem_try_alloc(n_vocab, sizeof *s->y, "the sampler", err)) &&
                (s->w = mem_try_alloc(n_vocab, sizeof *s->w, "the sampler", err));
    if (made) return s;
    sampler_destroy(s);
    return NULL;
}

void sampler_destroy(struct sampler *s) {
    if (!s) return;
    free(s->row);
    free(s->weight);
    free(s->block_max);
    free(s->block_sum);
    free(s->picks);
    free(s->id);
    free(s->y);
    free(s->w);
    free(s);
}

// ---- 1: the raw distribution ----

// logit - logsumexp, in the one expression that chosen and top tokens share.
static float logprob_of(float logit, double logsumexp) { return (float)((double)logit - logsumexp); }

// Everything of the record but the token: the row's logsumexp and the best.
static bool record_row(struct sampler *s, const float *logits, size_t n_vocab, size_t n_top,
                       struct token_record *record, double *logsumexp) {
    float max;
    size_t arg_max;
    if (!row_max(logits, n_vocab, s->block_max, &max, &arg_max)) return false;
    *logsumexp = row_logsumexp(logits, n_vocab, max);
    record->n_top = (uint32_t)row_best(logits, n_vocab, s->block_max, n_top, record->top);
    for (size_t i = 0; i < record->n_top; i++) record->top[i].logprob = logprob_of(record->top[i].logprob, *logsumexp);
    return true;
}

// And what is the token's own.
static void record_token(const float *logits, size_t n_vocab, uint32_t id, double logsumexp, bool ranked, struct token_record *record) {
    record->logprob = logprob_of(logits[id], logsumexp);
    if (ranked) record->rank = row_rank(logits, n_vocab, id);
}

bool sampler_score(struct sampler *s, const float *logits, size_t n_vocab, uint32_t id, size_t n_top, bool ranked,
                   struct token_record *record) {
    assert(n_vocab <= s->n_vocab && id < n_vocab);
    double logsumexp;
    if (!record_row(s, logits, n_vocab, n_top, record, &logsumexp)) return false;
    record->id = id;
    record->has_logprob = true;
    record->rank = 0;
    record_token(logits, n_vocab, id, logsumexp, ranked, record);
    return true;
}

// ---- 2-5: adjusted logits ----

bool sampler_needs_counts(const struct sampling_params *p) {
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

// The row to draw from: the caller's, or an adjusted copy.
static const float *adjusted_row(struct sampler *s, const struct sampler_input *in) {
    const struct sampling_params *p = in->params;
    bool penalties = sampler_needs_counts(p);
    assert(!penalties || in->counts);
    if (!p->n_logit_bias && !penalties && !in->n_banned) return in->logits;
    float *x = s->row;
    memcpy(x, in->logits, in->n_vocab * sizeof *x);
    for (size_t i = 0; i < p->n_logit_bias; i++) x[p->logit_bias[i].id] += p->logit_bias[i].bias;
    for (size_t i = 0; penalties && i < in->counts->n; i++) {
        const struct token_count *c = &in->counts->items[i];
        float v = x[c->id];
        v = v > 0 ? v / p->repetition_penalty : v * p->repetition_penalty;
        v -= (float)c->generated * p->frequency_penalty;
        if (c->generated) v -= p->presence_penalty;
        x[c->id] = v;
    }
    for (size_t i = 0; i < in->n_banned; i++)
        if (in->banned[i] < in->n_vocab) x[in->banned[i]] = BANNED; // a tokenizer may know ids that the model lacks
    return x;
}

// ---- selection (S2) ----

static bool pick_before(const struct pick *a, const struct pick *b) {
    return a->key > b->key || (a->key == b->key && a->id < b->id);
}

static struct pick pick_median(const struct pick *p, size_t n) {
    const struct pick *a = &p[0], *b = &p[n / 2], *c = &p[n - 1];
    if (pick_before(a, b)) return pick_before(b, c) ? *b : pick_before(a, c) ? *c : *a;
    return pick_before(a, c) ? *a : pick_before(b, c) ? *c : *b;
}

// The last element of the shortest prefix, in order, whose mass reaches target; the last of all when none does.
// Permutes p. Expected O(n): quickselect that follows the half where the target lies.
static struct pick select_cut(struct pick *p, size_t n, uint64_t target) {
    assert(n > 0);
    while (n > 1) {
        struct pick pivot = pick_median(p, n);
        uint64_t mass = 0;
        size_t before = 0, after = n; // [0, before) precede the pivot, [after, n) are it or follow it
        while (before < after) {
            if (pick_before(&p[before], &pivot)) {
                mass += p[before++].mass;
            } else {
                struct pick swap = p[--after];
                p[after] = p[before];
                p[before] = swap;
            }
        }
        if (mass >= target && before > 0) {
            n = before;
            continue;
        }
        // ids are distinct, so exactly one element equals the pivot
        if (mass + pivot.mass >= target || before + 1 == n) return pivot;
        target -= mass + pivot.mass;
        size_t at = before;
        while (p[at].id != pivot.id) at++;
        p[at] = p[before];
        p += before + 1;
        n -= before + 1;
    }
    return p[0];
}

static uint64_t mass_of(double weight) { return (uint64_t)(int64_t)(weight * MASS_ONE); }

static size_t bucket_of(float key, float largest) {
    float d = (largest - key) * BUCKETS_PER_UNIT;
    return d < BUCKETS - 1 ? (size_t)(int)d : BUCKETS - 1;
}

// Of n elements with keys up to `largest`, w NULL: each has mass 1. Returns the mass of all.
static uint64_t buckets_fill(struct sampler *s, const float *key, const float *w, size_t n, float largest) {
    uint64_t total = 0;
    memset(s->bucket, 0, sizeof s->bucket);
    for (size_t i = 0; i < n; i++) s->bucket[bucket_of(key[i], largest)] += w ? mass_of(w[i]) : 1;
    for (size_t b = 0; b < BUCKETS; b++) total += s->bucket[b];
    return total;
}

// Where the mass, in order, reaches target (at most the total). After buckets_fill of the same elements. id NULL: 0, 1,
// 2...
static struct cut find_cut(struct sampler *s, const float *key, const uint32_t *id, const float *w, size_t n,
                           float largest, uint64_t target) {
    size_t at = 0, picked = 0;
    for (; at + 1 < BUCKETS && s->bucket[at] < target; at++) target -= s->bucket[at];
    for (size_t i = 0; i < n; i++) {
        if (bucket_of(key[i], largest) != at) continue;
        s->picks[picked++] =
            (struct pick){.key = key[i], .id = id ? id[i] : (uint32_t)i, .mass = w ? mass_of(w[i]) : 1};
    }
    struct pick last = select_cut(s->picks, picked, target);
    return (struct cut){.key = last.key, .id = last.id};
}

static bool within(struct cut cut, float key, uint32_t id) { return key > cut.key || (key == cut.key && id <= cut.id); }

// Candidate i moves to place *kept if it stays.
static void candidate_keep(struct sampler *s, size_t i, bool stays, size_t *kept) {
    s->id[*kept] = s->id[i];
    s->y[*kept] = s->y[i];
    s->w[*kept] = s->w[i];
    *kept += stays;
}

// Keeps the fewest candidates, largest key first, that have this share of the mass of all and of the tail.
static void candidates_share(struct sampler *s, const float *key, double share, uint64_t tail) {
    uint64_t total = buckets_fill(s, key, s->w, s->n, 0);
    double target = ceil((double)(total + tail) * share);
    struct cut cut = find_cut(s, key, s->id, s->w, s->n, 0, target < 1 ? 1 : MIN((uint64_t)target, total));
    size_t kept = 0;
    for (size_t i = 0; i < s->n; i++) candidate_keep(s, i, within(cut, key[i], s->id[i]), &kept);
    s->n = kept;
}

// ---- 7, 8: candidates ----

// A value that at least k elements reach: the k-th largest block maximum. -FLT_MAX when there are fewer blocks.
static float top_k_bound(struct sampler *s, size_t n_vocab, size_t k, float max) {
    size_t blocks = row_blocks(n_vocab);
    if (k > blocks) return -FLT_MAX;
    buckets_fill(s, s->block_max, NULL, blocks, max);
    return find_cut(s, s->block_max, NULL, NULL, blocks, max, k).key;
}

static void candidates_top_k(struct sampler *s, const float *x, size_t n_vocab, size_t k, float max, float scale) {
    float bound = top_k_bound(s, n_vocab, k, max);
    float *key = s->weight; // no dense weights on this path
    size_t n = 0;
    for (size_t b = 0, at = 0; at < n_vocab; b++, at += ROW_BLOCK) {
        if (s->block_max[b] < bound) continue;
        for (size_t i = at; i < MIN(at + ROW_BLOCK, n_vocab); i++) {
            s->id[n] = (uint32_t)i;
            key[n] = x[i];
            n += x[i] >= bound;
        }
    }
    buckets_fill(s, key, NULL, n, max);
    struct cut cut = find_cut(s, key, s->id, NULL, n, max, k);
    s->n = 0;
    for (size_t i = 0; i < n; i++) { // the list shrinks in place: s->n <= i
        uint32_t id = s->id[i];
        s->id[s->n] = id;
        s->y[s->n] = (key[i] - max) * scale;
        s->n += within(cut, key[i], id);
    }
    for (size_t i = 0; i < s->n; i++) s->w[i] = exp_nonpositive(s->y[i]);
}

// Candidates of at least `floor` in weight, from the dense weights.
static void candidates_dense(struct sampler *s, const float *x, size_t n_vocab, float max, float scale, float floor) {
    size_t n = 0;
    for (size_t b = 0, at = 0; at < n_vocab; b++, at += ROW_BLOCK) {
        if (s->block_sum[b] < floor) continue;
        for (size_t i = at; i < MIN(at + ROW_BLOCK, n_vocab); i++) {
            s->id[n] = (uint32_t)i;
            s->y[n] = (x[i] - max) * scale;
            s->w[n] = s->weight[i];
            n += s->weight[i] >= floor;
        }
    }
    s->n = n;
}

// ---- 9-11: filters on candidates ----

static void filter_min_p(struct sampler *s, float min_p) {
    size_t kept = 0;
    for (size_t i = 0; i < s->n; i++) candidate_keep(s, i, s->w[i] >= min_p, &kept); // the largest weight is 1
    s->n = kept;
}

// -log p = log Z - y and the entropy is log Z - E[y], so the distance to it is |y - E[y]|.
static void filter_typical(struct sampler *s, double typical_p) {
    double z = 0, zy = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->w[i] == 0) continue; // y may be -inf
        z += s->w[i];
        zy += (double)s->w[i] * s->y[i];
    }
    double mean = zy / z;
    float *key = s->weight; // the dense weights are no longer needed
    for (size_t i = 0; i < s->n; i++) key[i] = (float)-fabs(s->y[i] - mean);
    candidates_share(s, key, typical_p, 0);
}

// ---- 12: draw ----

static uint32_t draw_candidate(const struct sampler *s, double u) {
    double z = 0, sum = 0;
    for (size_t i = 0; i < s->n; i++) z += s->w[i];
    uint32_t last = s->id[0];
    for (size_t i = 0; i < s->n; i++) {
        if (s->w[i] == 0) continue;
        sum += s->w[i];
        last = s->id[i];
        if (sum > u * z) break;
    }
    return last;
}

static uint32_t draw_dense(const struct sampler *s, size_t n_vocab, double z, double u) {
    double target = u * z, sum = 0;
    size_t b = 0, blocks = row_blocks(n_vocab);
    while (b + 1 < blocks && sum + s->block_sum[b] <= target) sum += s->block_sum[b++];
    // A block's sum and the sum of its elements round differently: past its end the search goes on in the next one.
    for (size_t i = b * ROW_BLOCK; i < n_vocab; i++) {
        sum += s->weight[i];
        if (sum > target && s->weight[i] > 0) return (uint32_t)i;
    }
    size_t last = n_vocab - 1; // u within rounding of 1
    while (s->weight[last] == 0) last--;
    return (uint32_t)last;
}

static uint32_t draw(struct sampler *s, const float *x, size_t n_vocab, float max, const struct sampler_input *in) {
    const struct sampling_params *p = in->params;
    float scale = MIN(1 / p->temperature, FLT_MAX); // a denormal temperature must not make 0 * inf
    double u = rng_uniform(p->seed, in->position);
    uint64_t tail = 0;
    if (p->top_k > 0 && p->top_k < n_vocab) {
        candidates_top_k(s, x, n_vocab, p->top_k, max, scale);
    } else {
        double z = row_exp(x, n_vocab, max, scale, s->weight, s->block_sum);
        if (p->top_p >= 1 && p->min_p <= 0 && p->typical_p >= 1) return draw_dense(s, n_vocab, z, u);
        // All weights below floor together are less than half of what top_p leaves out: none of them can be in.
        double floor = p->top_p < 1 ? (1 - (double)p->top_p) * z / (double)n_vocab * 0.5 : p->min_p;
        candidates_dense(s, x, n_vocab, max, scale, (float)MAX(floor, FLT_MIN));
        double kept = 0;
        for (size_t i = 0; i < s->n; i++) kept += s->w[i];
        tail = kept < z ? mass_of(z - kept) : 0;
    }
    if (p->top_p < 1) candidates_share(s, s->y, p->top_p, tail);
    if (p->min_p > 0) filter_min_p(s, p->min_p);
    if (p->typical_p < 1) filter_typical(s, p->typical_p);
    return draw_candidate(s, u);
}

bool sampler_draw(struct sampler *s, const struct sampler_input *in, struct token_record *record) {
    const struct sampling_params *p = in->params;
    size_t n_vocab = in->n_vocab, arg_max;
    assert(n_vocab > 0 && n_vocab <= s->n_vocab);
    double logsumexp = 0;
    record->has_logprob = p->n_logprobs >= 0;
    record->logprob = 0;
    record->rank = 0;
    record->n_top = 0;
    if (record->has_logprob && !record_row(s, in->logits, n_vocab, (size_t)p->n_logprobs, record, &logsumexp))
        return false;
    const float *x = adjusted_row(s, in);
    float max;
    if (!row_max(x, n_vocab, s->block_max, &max, &arg_max) || max == BANNED) return false;
    record->id = (uint32_t)arg_max;
    if (p->temperature > 0) record->id = draw(s, x, n_vocab, max, in);
    if (record->has_logprob) record_token(in->logits, n_vocab, record->id, logsumexp, p->ranks, record);
    return true;
}
