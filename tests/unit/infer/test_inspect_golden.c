// SPDX-License-Identifier: MIT
// Inspection against PyTorch: tests/golden/inspect (made by make_inspect.py there) holds what transformers shows of
// tests/golden/parity's models; the worked examples of the seed's notebook stand here as constants.
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/infer/inspect.h"
#include "engine/infer/weights.h"
#include "tests/unit/test.h"

#ifndef GOLDEN_DIR
#define GOLDEN_DIR "tests/golden"
#endif

enum { MIB = 1 << 20 };

// ---- models ---------------------------------------------------------------------------------------------------------------

struct numbers {
    float *v;
    size_t n, cap;
};
struct looks { // of one case
    struct numbers attentions, blocks, final_norm, lens_ids, lens_values, mask;
};

static bool read_numbers(struct json *j, struct numbers *out, struct err *err) {
    double x;
    if (!json_open(j, '[', err)) return false;
    while (json_next_item(j, err)) {
        if (!json_read_double(j, &x, err)) return false;
        mem_grow(&out->v, &out->cap, out->n + 1);
        out->v[out->n++] = (float)x;
    }
    return !j->failed;
}

static bool read_looks(struct json *j, struct looks *e, struct err *err) {
    struct buf key = {0};
    const struct {
        const char *name;
        struct numbers *to;
    } fields[] = {{"attentions", &e->attentions}, {"blocks", &e->blocks},           {"final_norm", &e->final_norm},
                  {"lens_ids", &e->lens_ids},     {"lens_values", &e->lens_values}, {"mask", &e->mask}};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err))
        for (size_t i = 0; i < ARRAY_LEN(fields); i++)
            if (buf_is(&key, fields[i].name)) ok = read_numbers(j, fields[i].to, err);
    buf_finish(&key);
    return ok && !j->failed;
}

static void looks_finish(struct looks *e) {
    free(e->attentions.v), free(e->blocks.v), free(e->final_norm.v), free(e->lens_ids.v), free(e->lens_values.v), free(e->mask.v);
}

static void check_near(const char *what, const float *a, const float *b, size_t n, double tolerance) {
    double most = 0;
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i]) most = fmax(most, isfinite(a[i]) ? fabs((double)a[i] - (double)b[i]) : INFINITY);
    if (most > tolerance) TEST_FAIL("%s: %g apart", what, most);
}

static void check_dropout(struct inspect_request *r, const struct looks *e) {
    struct err err = {0};
    struct inspection plain, dropped;
    r->what = INSPECT_WEIGHTS, r->layer = 0; // one layer: later ones read what dropout did
    REQUIRE(inspect_model(r, &plain, &err));
    r->dropout = (struct inspect_dropout){0.25, 5};
    REQUIRE(inspect_model(r, &dropped, &err));
    const size_t n = plain.weights.shape[0] * r->n_ids * r->n_ids;
    CHECK_INT(e->mask.n, n * model_config(r->model)->n_layer);
    for (size_t i = 0; i < n; i++) CHECK_NEAR(dropped.weights.data[i], plain.weights.data[i] * e->mask.v[i], 1e-6);
    inspection_finish(&plain), inspection_finish(&dropped);
    r->layer = 1; // the stream goes on: what is 0 in the mask is 0
    REQUIRE(inspect_model(r, &dropped, &err));
    for (size_t i = 0; i < n; i++)
        CHECK((dropped.weights.data[i] == 0) == (e->mask.v[n + i] == 0 || i % r->n_ids > i / r->n_ids % r->n_ids));
    inspection_finish(&dropped);
}

static void check_case(struct model *m, const uint32_t *ids, size_t n_ids, const char *name, const struct looks *e) {
    static const struct head_place heads[] = {{0, 1}, {1, 0}};
    struct err err = {0};
    struct inspection i;
    struct inspect_request r = {.model = m,
                                .ids = ids,
                                .n_ids = n_ids,
                                .what = INSPECT_WEIGHTS | INSPECT_BLOCK | INSPECT_LENS,
                                .layer = -1,
                                .head = -1,
                                .n_best = 5,
                                .lens_rows = 1,
                                .max_bytes = MIB,
                                .n_threads = 2};
    r.no_mask = strcmp(name, "no_mask") == 0;
    r.no_positions = strcmp(name, "no_positions") == 0;
    if (strcmp(name, "ablated") == 0) r.ablate = heads, r.n_ablate = 2;
    if (strcmp(name, "dropout") == 0) {
        check_dropout(&r, e);
        return;
    }
    REQUIRE(inspect_model(&r, &i, &err));
    const struct model_config *c = model_config(m);
    CHECK_INT(e->attentions.n, c->n_layer * c->n_head * n_ids * n_ids);
    CHECK_INT(e->blocks.n, (c->n_layer - 1) * n_ids * c->n_embd);
    CHECK_INT(e->final_norm.n, n_ids * c->n_embd);
    check_near(name, i.weights.data, e->attentions.v, e->attentions.n, 1e-5);
    check_near(name, i.block.data, e->blocks.v, e->blocks.n, 1e-4);
    check_near(name, i.final_norm.data, e->final_norm.v, e->final_norm.n, 1e-4);
    for (size_t k = 0; k < e->lens_ids.n; k++) {
        CHECK_INT(i.lens.ids[5 + k], e->lens_ids.v[k]); // after one block
        CHECK_NEAR(i.lens.values[5 + k], e->lens_values.v[k], 1e-6);
    }
    inspection_finish(&i);
}

static bool check_model(const char *name, struct json *j, struct err *err) {
    char *path = path_join(GOLDEN_DIR "/parity", name);
    struct model_file *file = model_file_open(path, err);
    struct model *m = file ? model_create(file, WEIGHTS_AUTO, NULL, err) : NULL;
    struct numbers numbers = {0};
    struct buf key = {0};
    uint32_t ids[16];
    bool ok = m && json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) {
        struct looks e = {0};
        if (buf_is(&key, "ids")) {
            ok = read_numbers(j, &numbers, err) && numbers.n <= ARRAY_LEN(ids);
            for (size_t i = 0; ok && i < numbers.n; i++) ids[i] = (uint32_t)numbers.v[i];
            continue;
        }
        ok = read_looks(j, &e, err);
        if (ok) check_case(m, ids, numbers.n, buf_str(&key), &e);
        looks_finish(&e);
    }
    model_release(m);
    free(numbers.v);
    buf_finish(&key);
    free(path);
    return ok;
}

TEST(attentions_and_hidden_states_equal_pytorch) {
    struct err err = {0};
    size_t len, models = 0;
    char *text = file_read(GOLDEN_DIR "/inspect/expected.json", MIB, &len, &err);
    if (!text) TEST_FAIL("%s", err.message);
    REQUIRE(text);
    struct json j;
    struct buf key = {0};
    json_init(&j, text, len);
    bool ok = json_open(&j, '{', &err);
    while (ok && json_next_key(&j, &key, &err)) {
        ok = check_model(buf_str(&key), &j, &err);
        models++;
    }
    if (!ok) TEST_FAIL("%s", err.message);
    CHECK_INT(models, 2);
    buf_finish(&key);
    free(text);
}

// ---- the seed's worked examples -------------------------------------------------------------------------------------------

static const float X[6][3] = {{0.43f, 0.15f, 0.89f}, {0.55f, 0.87f, 0.66f}, {0.57f, 0.85f, 0.64f},
                              {0.22f, 0.58f, 0.33f}, {0.77f, 0.25f, 0.10f}, {0.05f, 0.80f, 0.55f}};

struct found {
    struct inspection i;
    struct inspect_array output;
};
static struct found attend(struct inspect_matrices m) {
    struct found f = {0};
    struct err err = {0};
    m.inputs = X[0], m.n_tokens = 6, m.d_in = 3, m.max_bytes = MIB;
    if (m.n_heads == 0) m.n_heads = 1;
    if (m.n_matrices == 0) m.n_matrices = 1;
    if (!inspect_matrices(&m, &f.i, &f.output, &err)) TEST_FAIL("%s", err.message);
    return f;
}
static void found_finish(struct found *f) {
    inspection_finish(&f->i);
    free(f->output.data);
}

TEST(simple_self_attention) { // scores x x^T, not scaled; weights; context vectors
    static const float scores[6] = {0.954400003f, 1.495000005f, 1.475400090f, 0.843400002f, 0.707000017f, 1.086500049f};
    static const float weights[6] = {0.138547584f, 0.237891287f, 0.233274043f, 0.123991594f, 0.108181871f, 0.158113614f};
    static const float context[18] = {0.442059427f, 0.593098640f, 0.578989148f, 0.441865742f, 0.651481986f, 0.568308890f,
                                      0.443127543f, 0.649594665f, 0.567073107f, 0.430389732f, 0.629828095f, 0.551027060f,
                                      0.467101753f, 0.590992749f, 0.526596546f, 0.417724490f, 0.650323212f, 0.564535201f};
    struct found f = attend((struct inspect_matrices){.no_mask = true});
    CHECK(f.i.scale == 1 && !f.i.q.data && f.i.weights.n_dims == 2 && f.i.context.n_dims == 2 && f.output.n_dims == 2);
    check_near("scores", f.i.scores.data + 6, scores, 6, 3e-7);
    check_near("weights", f.i.weights.data + 6, weights, 6, 1e-7);
    check_near("context", f.i.context.data, context, 18, 2e-7);
    check_near("output", f.output.data, f.i.context.data, 18, 0);
    found_finish(&f);
}

TEST(queries_keys_values) { // self_attention_v1: weights drawn after manual_seed(123)
    static const float q[] = {0.296111941f, 0.516562283f, 0.251670718f, 0.688556790f, 0.073972464f, 0.866521955f};
    static const float k[] = {0.136579871f, 0.102479041f, 0.184056461f, 0.726446748f, 0.315253913f, 0.687106669f};
    static const float v[] = {0.075635314f, 0.196638167f, 0.316411972f, 0.401740134f, 0.118568301f, 0.827395380f};
    static const float scores_2[] = {1.270483017f, 1.852384567f, 1.811106801f, 1.079517245f, 0.557730556f, 1.543970585f};
    static const float weights_2[] = {0.150019482f, 0.226383790f, 0.219871640f, 0.131070063f, 0.090628892f, 0.182026088f};
    static const float context[] = {0.299582064f, 0.805314124f, 0.306100219f, 0.821030319f, 0.305781096f, 0.820295751f,
                                    0.294765949f, 0.793866336f, 0.292706072f, 0.789084315f, 0.299010038f, 0.804036796f};
    struct found f = attend((struct inspect_matrices){.w_q = q, .w_k = k, .w_v = v, .d_out = 2, .no_mask = true});
    CHECK_NEAR(f.i.scale, 0.70710678, 1e-7);
    check_near("query", f.i.q.data + 2, (const float[]){0.430636942f, 1.455058217f}, 2, 2e-7);
    check_near("key", f.i.k.data + 2, (const float[]){0.443315625f, 1.141862512f}, 2, 2e-7);
    check_near("scores", f.i.scores.data + 6, scores_2, 6, 5e-7);
    check_near("weights", f.i.weights.data + 6, weights_2, 6, 1e-7);
    check_near("context", f.i.context.data, context, 12, 2e-7);
    found_finish(&f);
}

TEST(causal_mask_and_dropout) { // self_attention_v2 (nn.Linear, transposed), then torch.manual_seed(123), Dropout(0.5)
    static const float q[] = {0.316059083f, -0.168285400f, 0.456808567f, -0.337877035f, 0.511834860f, -0.091773868f};
    static const float k[] = {0.405805826f, 0.213360742f, -0.470420539f, -0.260050654f, 0.236805201f, -0.510542989f};
    static const float v[] = {0.252569884f, 0.519107401f, -0.141478270f, -0.085167579f, -0.196181342f, -0.204327047f};
    static const float causal[6][6] = {
        {1},
        {0.551678061f, 0.448321968f},
        {0.379967183f, 0.309713513f, 0.310319245f},
        {0.275842845f, 0.246028453f, 0.246247143f, 0.231881544f},
        {0.217515394f, 0.198280945f, 0.198397964f, 0.188752949f, 0.197052822f},
        {0.193472371f, 0.166332990f, 0.166568086f, 0.154186234f, 0.166560829f, 0.152879536f},
    };
    static const float mask[6][6] = {{2, 2, 0, 2, 2, 0}, {0, 0, 0, 2, 0, 2}, {2, 2, 2, 2, 0, 2}, {0, 2, 2, 0, 0, 2}, {0, 2, 0, 2, 0, 2}, {0, 2, 2, 2, 2, 0}};
    struct inspect_matrices m = {.w_q = q, .w_k = k, .w_v = v, .d_out = 2};
    struct found f = attend(m);
    check_near("weights", f.i.weights.data, causal[0], 36, 1e-7);
    CHECK(f.i.scores.data[1] == -INFINITY && f.i.weights.data[1] == 0);
    check_near("score", &f.i.scores.data[6], (const float[]){0.465642422f}, 1, 2e-7);
    m.dropout = (struct inspect_dropout){0.5, 123};
    struct found d = attend(m);
    for (size_t i = 0; i < 36; i++) CHECK(d.i.weights.data[i] == f.i.weights.data[i] * mask[i / 6][i % 6]);
    found_finish(&f), found_finish(&d);
    f = attend((struct inspect_matrices){.w_q = q, .w_k = k, .w_v = v, .d_out = 2, .no_mask = true});
    check_near("context", f.i.context.data, (const float[]){-0.073890246f, 0.071289904f, -0.074810714f, 0.070309296f}, 4, 2e-7);
    found_finish(&f);
}

static const float Q[] = {-0.235429645f, 0.217726618f, 0.019124476f, -0.491934210f, -0.286745936f, 0.423223078f};
static const float K[] = {-0.419641405f, 0.261478186f, -0.459017664f, -0.213326395f, -0.364820182f, 0.216052175f};
static const float V[] = {-0.490014136f, -0.113460720f, -0.350292057f, -0.440439373f, -0.211989194f, 0.378043622f};

TEST(heads_of_their_own) { // the wrapper of two heads, side by side
    static const float q2[] = {-0.136157170f, 0.107563816f, 0.185322329f, 0.157876849f, 0.408269495f, 0.557292342f};
    static const float k2[] = {-0.260390401f, 0.412603170f, 0.182876408f, 0.461104512f, -0.256872445f, -0.532300949f};
    static const float v2[] = {0.492852628f, 0.237680584f, 0.275693059f, 0.479950726f, 0.251590222f, -0.076233067f};
    static const float expected[] = {-0.451920271f, 0.221604824f, 0.477195889f, 0.106347837f,
                                     -0.587435067f, 0.005776115f, 0.589073062f, 0.325660497f};
    float q[12], k[12], v[12];
    memcpy(q, Q, sizeof Q), memcpy(q + 6, q2, sizeof q2), memcpy(k, K, sizeof K), memcpy(k + 6, k2, sizeof k2), memcpy(v, V, sizeof V),
        memcpy(v + 6, v2, sizeof v2);
    struct found f = attend((struct inspect_matrices){.w_q = q, .w_k = k, .w_v = v, .d_out = 2, .n_matrices = 2, .n_heads = 2});
    CHECK(f.i.weights.n_dims == 3 && f.i.weights.shape[0] == 2 && f.output.shape[0] == 6 && f.output.shape[1] == 4);
    check_near("output", f.output.data, expected, 8, 3e-7);
    check_near("context", f.i.context.data + 12, expected + 2, 2, 3e-7);
    found_finish(&f);
}

TEST(columns_divided_among_heads) { // MultiHeadAttention with its output projection
    static const float o[] = {-0.166757792f, 0.500025988f, 0.226972580f, 0.131738231f}, b[] = {0.193358868f, 0.682540953f};
    static const float expected[] = {0.319018304f, 0.485762894f, 0.294346005f, 0.389676273f, 0.285574675f, 0.359277695f,
                                     0.269263685f, 0.387326658f, 0.263870537f, 0.392795712f, 0.257473588f, 0.402782619f};
    struct found f =
        attend((struct inspect_matrices){.w_q = Q, .w_k = K, .w_v = V, .d_out = 2, .n_heads = 2, .w_o = o, .b_o = b, .d_o = 2});
    CHECK(f.i.context.n_dims == 3 && f.i.context.shape[2] == 1 && f.i.scale == 1);
    check_near("output", f.output.data, expected, 12, 3e-7);
    found_finish(&f);
    f = attend((struct inspect_matrices){.w_q = Q, .w_k = K, .w_v = V, .d_out = 2, .heads_dimension = true});
    CHECK(f.i.q.n_dims == 3 && f.i.q.shape[0] == 1);
    check_near("context", f.i.context.data, (const float[]){-0.451920271f, 0.221604824f, -0.587435067f, 0.005776115f}, 4, 3e-7);
    found_finish(&f);
}

static bool always(void *ctx) { return true; }

TEST(matrices_have_limits) {
    struct inspect_matrices m = {.inputs = X[0], .n_tokens = 6, .d_in = 3, .n_matrices = 1, .n_heads = 1};
    struct found f = {.i.scale = 7};
    struct err err = {0};
    CHECK(!inspect_matrices(&m, &f.i, &f.output, &err) && err.code == ERR_TOO_LARGE);
    m.max_bytes = MIB, m.cancelled = always;
    CHECK(!inspect_matrices(&m, &f.i, &f.output, &err) && err.code == ERR_BUSY && f.i.scale == 7 && !f.output.data);
}

TEST_MAIN("inspect_golden")
