// SPDX-License-Identifier: MIT
// PyTorch state dicts (torch.save, zip format): root/data.pkl names the tensors, root/data/KEY hold their numbers.
//
// Names: Hugging Face's, with or without "transformer.", and those of the GPTModel of S. Raschka's book and its descendants
// (tok_emb, trf_blocks.N.att.W_query, ...), whose nn.Linear weights lie (out, in): that is tensor.transposed, so only query, key and
// value are copied, into one. A tensor with strides of its own is copied too.
// Invariants: (1) a tensor's elements lie inside its storage, whatever its strides; (2) copies are bounded by the file's size. Any
// thread.
#include "engine/model/pth.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/model/model_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct stored { // of the state dict, bounded
    const char *name;
    struct tensor t;          // as stored: shape and type; n_bytes of its elements
    const unsigned char *at;  // first element
    size_t stride[2];         // elements
};
struct state {
    struct stored *tensors; // by name
    size_t n_tensors;
    bool linear; // names of the seed's and rasbt's GPTModel: nn.Linear (out, in), query, key and value apart
};
struct reader {
    struct model_file *f;
    struct zip zip;
    const char *root; // "archive" of "archive/data.pkl"
    size_t root_len;
    struct arena arena;
    struct state state;
    size_t cap, copies_left; // bytes
    struct err *err;
};

static const unsigned char legacy_magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

static bool is_legacy(const unsigned char *data, size_t len) {
    return len >= sizeof(legacy_magic) && memcmp(data, legacy_magic, sizeof(legacy_magic)) == 0;
}

bool pth_is_file(const unsigned char *data, size_t len) { return (len >= 4 && memcmp(data, "PK\3\4", 4) == 0) || is_legacy(data, len); }

// ---- the state dict

static bool has_tensor(const struct pickle_value *v) {
    if (!v || v->kind != PICKLE_DICT) return false;
    for (const struct pickle_item *i = v->items.first; i; i = i->next)
        if (i->key->kind == PICKLE_TEXT && i->value->kind == PICKLE_TENSOR) return true;
    return false;
}

// Training scripts save the optimizer beside the model, and perhaps a loss, which is a tensor too: so the parts come first.
static const struct pickle_value *model_part(const struct pickle_value *root) {
    static const char *const keys[] = {"model_state_dict", "state_dict", "model", "module", "model_state"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const struct pickle_value *v = pickle_get(root, keys[i]);
        if (has_tensor(v)) return v;
    }
    return has_tensor(root) ? root : NULL;
}

static bool zip_entry_get(const struct reader *r, const char *name, size_t len, const struct zip_entry **out) {
    char path[512];
    if (r->root_len + 6 + len > sizeof(path)) return false;
    const int n = snprintf(path, sizeof(path), "%.*s/%.*s", (int)r->root_len, r->root, (int)len, name);
    *out = zip_find(&r->zip, path, (size_t)n);
    return *out != NULL;
}

static bool type_of(const char *storage, enum dtype *out) {
    if (strcmp(storage, "FloatStorage") == 0) return *out = DTYPE_F32, true;
    if (strcmp(storage, "HalfStorage") == 0) return *out = DTYPE_F16, true;
    if (strcmp(storage, "BFloat16Storage") == 0) return *out = DTYPE_BF16, true;
    return false;
}

static size_t span(size_t n, size_t stride) { // elements from the first to the last; SIZE_MAX: too many
    size_t s;
    return size_mul(n - 1, stride, &s) ? s : SIZE_MAX;
}

// By strides of zero a few bytes can stand for any number of elements.
static bool too_repetitive(struct reader *r) {
    return err_set(r->err, ERR_TOO_LARGE, "the state dict's tensors repeat few numbers to far more than the file");
}

// Fills `out` from the pickled tensor, every element inside its storage.
static bool tensor_bound(struct reader *r, const char *name, const struct pickle_value *v, struct stored *out) {
    const struct pickle_value *storage = v->tensor.storage, *key = storage->storage.key;
    const size_t n_dims = v->tensor.n_dims, *shape = v->tensor.shape, *stride = v->tensor.stride;
    enum dtype type;
    if (!type_of(storage->storage.type, &type))
        return err_set(r->err, ERR_UNSUPPORTED, "the tensor %s is a torch.%s; Float, Half and BFloat16 are supported", name, storage->storage.type);
    if (n_dims < 1 || n_dims > 2 || shape[0] == 0 || (n_dims == 2 && shape[1] == 0))
        return err_set(r->err, ERR_UNSUPPORTED, "the tensor %s is empty or has %zu dimensions, not 1 or 2", name, n_dims);
    struct stored t = {.name = name, .t = {.type = type, .n_dims = (int)n_dims, .shape = {shape[0], n_dims == 2 ? shape[1] : 1}},
                           .stride = {stride[0], n_dims == 2 ? stride[1] : 1}};
    const size_t size = dtype_block_bytes(type);
    if (!size_mul(t.t.shape[0], t.t.shape[1], &t.t.n_bytes) || !size_mul(t.t.n_bytes, size, &t.t.n_bytes))
        return err_set(r->err, ERR_CORRUPT, "the tensor %s is too large for any file", name);
    if (t.t.n_bytes > r->copies_left) return too_repetitive(r);
    char entry[64];
    const struct zip_entry *e;
    const int n = key->text.len < 32 ? snprintf(entry, sizeof(entry), "data/%.*s", (int)key->text.len, key->text.s) : 0;
    if (!zip_entry_get(r, entry, (size_t)n, &e)) return err_set(r->err, ERR_CORRUPT, "the numbers of the tensor %s are not in the archive", name);
    size_t last = v->tensor.offset;
    for (size_t i = 0; i < n_dims; i++)
        if (!size_add(last, span(shape[i], stride[i]), &last)) last = SIZE_MAX;
    if (last >= e->len / size) return err_set(r->err, ERR_CORRUPT, "the tensor %s reaches outside its storage", name);
    t.at = e->data + v->tensor.offset * size;
    *out = t;
    return true;
}

// The name without what wrappers put before it; HF's with "transformer.". NULL: too long or holding a NUL.
static const char *name_clean(struct reader *r, const struct pickle_value *key, bool linear) {
    static const char *const wrappers[] = {"module.", "_orig_mod."}; // DataParallel, torch.compile
    const char *s = key->text.s;
    size_t len = key->text.len;
    for (size_t i = 0; i < ARRAY_LEN(wrappers); i++) {
        const size_t n = strlen(wrappers[i]);
        if (len > n && memcmp(s, wrappers[i], n) == 0) s += n, len -= n;
    }
    if (len == 0 || len > MODEL_MAX_NAME - 32 || memchr(s, 0, len)) return NULL;
    const bool bare = !linear && (strncmp(s, "wte.", 4) == 0 || strncmp(s, "wpe.", 4) == 0 || strncmp(s, "h.", 2) == 0 || strncmp(s, "ln_f.", 5) == 0);
    return arena_printf(&r->arena, "%s%.*s", bare ? "transformer." : "", (int)len, s);
}

static int compare_tensors(const void *a, const void *b) { return strcmp(((const struct stored *)a)->name, ((const struct stored *)b)->name); }

static bool state_read(struct reader *r, const struct pickle_value *dict) {
    struct state *s = &r->state;
    for (const struct pickle_item *i = dict->items.first; i; i = i->next)
        if (i->key->kind == PICKLE_TEXT && i->key->text.len >= 14 && memcmp(i->key->text.s + i->key->text.len - 14, "tok_emb.weight", 14) == 0)
            s->linear = true;
    for (const struct pickle_item *i = dict->items.first; i; i = i->next) {
        if (i->key->kind != PICKLE_TEXT || i->value->kind != PICKLE_TENSOR) continue;
        const char *name = name_clean(r, i->key, s->linear);
        if (!name) return err_set(r->err, ERR_CORRUPT, "the state dict has a name of %zu bytes", i->key->text.len);
        if (name_is_buffer(name)) continue;
        if (s->n_tensors == MODEL_MAX_TENSORS) return err_set(r->err, ERR_TOO_LARGE, "the state dict has more than %d tensors", MODEL_MAX_TENSORS);
        mem_grow(&s->tensors, &r->cap, s->n_tensors + 1);
        if (!tensor_bound(r, name, i->value, &s->tensors[s->n_tensors])) return false;
        s->n_tensors++;
    }
    qsort(s->tensors, s->n_tensors, sizeof(*s->tensors), compare_tensors);
    for (size_t i = 1; i < s->n_tensors; i++)
        if (compare_tensors(&s->tensors[i - 1], &s->tensors[i]) == 0)
            return err_set(r->err, ERR_CORRUPT, "the state dict has the tensor %s twice", s->tensors[i].name);
    return true;
}

static const struct stored *tensor_find(const struct state *s, const char *name) {
    const struct stored wanted = {.name = name};
    return s->n_tensors ? bsearch(&wanted, s->tensors, s->n_tensors, sizeof(*s->tensors), compare_tensors) : NULL;
}

static const unsigned char *element(const struct stored *t, size_t row, size_t col) {
    return t->at + (row * t->stride[0] + col * t->stride[1]) * dtype_block_bytes(t->t.type);
}

static bool tensors_equal(const struct stored *a, const struct stored *b) {
    if (a->t.type != b->t.type || a->t.n_dims != b->t.n_dims || a->t.shape[0] != b->t.shape[0] || a->t.shape[1] != b->t.shape[1]) return false;
    if (a->at == b->at && a->stride[0] == b->stride[0] && a->stride[1] == b->stride[1]) return true;
    const size_t size = dtype_block_bytes(a->t.type);
    for (size_t r = 0; r < a->t.shape[0]; r++)
        for (size_t c = 0; c < a->t.shape[1]; c++)
            if (memcmp(element(a, r, c), element(b, r, c), size) != 0) return false;
    return true;
}

// ---- configuration: config.json beside the file (Hugging Face's, or rasbt's with n_heads), otherwise the tensors' shapes. All that shapes
// do not tell is the number of heads: 64 wide, as in every public GPT-2.

struct hints { // of a config.json
    bool hf;   // it is Hugging Face's
    size_t n_head;
};

static bool hints_read(const char *text, size_t len, struct hints *h, struct err *err) {
    struct json j;
    struct buf key = {0};
    json_init(&j, text, len);
    bool ok = json_open(&j, '{', err);
    while (ok && json_next_key(&j, &key, err)) {
        const bool heads = buf_is(&key, "n_heads") || buf_is(&key, "num_heads") || buf_is(&key, "n_head");
        h->hf |= buf_is(&key, "model_type") || buf_is(&key, "architectures");
        ok = heads ? json_read_size(&j, &h->n_head, err) : json_skip(&j, err);
    }
    ok = ok && !j.failed && json_finish(&j, err);
    buf_finish(&key);
    return ok || json_corrupt(err);
}

static size_t dim(const struct stored *t, size_t i) { return t && t->t.n_dims == 2 ? t->t.shape[i] : 0; }

// The output head is the embedding: it is missing or holds the same numbers.
static bool head_tied(const struct state *s) {
    const struct stored *head = tensor_find(s, s->linear ? "out_head.weight" : "lm_head.weight");
    const struct stored *embedding = tensor_find(s, s->linear ? "tok_emb.weight" : "transformer.wte.weight");
    return !head || !embedding || tensors_equal(head, embedding);
}

static bool config_from_shapes(struct model_config *c, const struct state *s, size_t n_head, struct err *err) {
    const struct stored *embedding = tensor_find(s, s->linear ? "tok_emb.weight" : "transformer.wte.weight");
    const struct stored *positions = tensor_find(s, s->linear ? "pos_emb.weight" : "transformer.wpe.weight");
    const struct stored *inner = tensor_find(s, s->linear ? "trf_blocks.0.ff.layers.0.weight" : "transformer.h.0.mlp.c_fc.weight");
    const size_t width = dim(embedding, 1);
    if (!width || !positions || !inner)
        return err_set(err, ERR_UNSUPPORTED, "the state dict is none of GPT-2's (no token embedding, position embedding or first layer by its names); "
                                             "for another model put its config.json beside the file");
    if (n_head == 0 && width % 64 != 0)
        return err_set(err, ERR_INVALID, "a state dict does not say how many heads attention has, and %zu is not divisible into heads of 64: put "
                                         "a config.json with n_head beside the file", width);
    size_t n_layer = 0;
    for (char name[64];; n_layer++) {
        snprintf(name, sizeof(name), s->linear ? "trf_blocks.%zu.norm1.scale" : "transformer.h.%zu.ln_1.weight", n_layer);
        if (!tensor_find(s, name)) break;
    }
    *c = config_gpt2(n_layer, n_head ? n_head : width / 64, width, dim(inner, s->linear ? 0 : 1), dim(embedding, 0), dim(positions, 0));
    return true;
}

static bool config_find(struct model_config *c, const struct state *s, const char *dir, struct err *err) {
    char *path = path_join(dir, "config.json"), *text = NULL;
    struct hints hints = {0};
    size_t len = 0;
    bool ok = !file_exists(path) || ((text = file_read(path, 1 << 20, &len, err)) && (hints_read(text, len, &hints, err) || err_prefix(err, "config.json")));
    if (ok && hints.hf) ok = config_hf_parse(text, len, c, err) || err_prefix(err, "config.json");
    else if (ok) ok = config_from_shapes(c, s, hints.n_head, err);
    free(path);
    free(text);
    if (!ok || (hints.hf && !s->linear)) return ok; // Hugging Face's names under its config: that says all
    c->tied_head = head_tied(s);
    c->qkv_bias = tensor_find(s, s->linear ? "trf_blocks.0.att.W_query.bias" : "transformer.h.0.attn.c_attn.bias") != NULL;
    return true;
}

// ---- from the state dict to the model's tensors

static bool contiguous(const struct stored *t) { // a stride along one element means nothing
    return (t->t.shape[1] == 1 || t->stride[1] == 1) && (t->t.shape[0] == 1 || t->stride[0] == t->t.shape[1]);
}

static unsigned char *copy_make(struct reader *r, size_t n_bytes) { // belongs to the model
    if (n_bytes > r->copies_left) {
        (void)too_repetitive(r);
        return NULL;
    }
    struct model_file *f = r->f;
    unsigned char *p = mem_try_alloc(1, n_bytes, "weights", r->err);
    if (!p) return NULL;
    r->copies_left -= n_bytes;
    mem_grow(&f->blocks, &f->blocks_cap, f->n_blocks + 1);
    f->blocks[f->n_blocks++] = p;
    return p;
}

static void gather(const struct stored *t, unsigned char *out) {
    const size_t size = dtype_block_bytes(t->t.type);
    for (size_t row = 0; row < t->t.shape[0]; row++)
        for (size_t col = 0; col < t->t.shape[1]; col++, out += size) memcpy(out, element(t, row, col), size);
}

// Parts one below the other, as one tensor called `name`. One part that lies as it should is not copied. linear: the rows are
// out-features where the model's names say in-features.
static bool tensor_add(struct reader *r, const struct stored *const *parts, size_t n, bool linear, const char *name) {
    struct tensor t = parts[0]->t;
    for (size_t i = 1; i < n; i++) {
        const struct tensor *p = &parts[i]->t;
        if (p->type != t.type || p->n_dims != t.n_dims || p->shape[0] != parts[0]->t.shape[0] || p->shape[1] != t.shape[1])
            return err_set(r->err, ERR_CORRUPT, "the tensors %s and %s are of different shapes or types", parts[0]->name, parts[i]->name);
        if (!size_add(t.n_bytes, p->n_bytes, &t.n_bytes)) return err_set(r->err, ERR_CORRUPT, "the tensor %s is too large", parts[0]->name);
        t.shape[0] += p->shape[0];
    }
    if (n == 1 && contiguous(parts[0])) {
        t.data = parts[0]->at;
    } else {
        unsigned char *at = copy_make(r, t.n_bytes);
        if (!at) return false;
        t.data = at;
        for (size_t i = 0; i < n; at += parts[i++]->t.n_bytes) gather(parts[i], at);
    }
    if (linear && t.n_dims == 2) {
        const size_t rows = t.shape[0];
        t.shape[0] = t.shape[1], t.shape[1] = rows;
        t.transposed = true;
    }
    return model_file_add(r->f, &t, name, r->err);
}

static const struct {
    const char *from, *to;
    bool linear;
} names[] = { // of a layer; .weight and .bias, or .scale and .shift, follow
    {"att.out_proj.weight", "attn.c_proj.weight", true}, {"att.out_proj.bias", "attn.c_proj.bias"},
    {"ff.layers.0.weight", "mlp.c_fc.weight", true},     {"ff.layers.0.bias", "mlp.c_fc.bias"},
    {"ff.layers.2.weight", "mlp.c_proj.weight", true},   {"ff.layers.2.bias", "mlp.c_proj.bias"},
    {"norm1.scale", "ln_1.weight"},                      {"norm1.shift", "ln_1.bias"},
    {"norm2.scale", "ln_2.weight"},                      {"norm2.shift", "ln_2.bias"},
}, outer_names[] = {
    {"tok_emb.weight", "transformer.wte.weight"},   {"pos_emb.weight", "transformer.wpe.weight"}, {"final_norm.scale", "transformer.ln_f.weight"},
    {"final_norm.shift", "transformer.ln_f.bias"}, {"out_head.weight", "lm_head.weight"},
};

// The three of attention, joined where W_query comes by; key and value were found with it.
static bool qkv_add(struct reader *r, const struct stored *query, size_t layer, const char *kind) {
    char name[MODEL_MAX_NAME + 1];
    const struct stored *parts[3] = {query};
    for (size_t i = 1; i < 3; i++) {
        snprintf(name, sizeof(name), "trf_blocks.%zu.att.%s.%s", layer, i == 1 ? "W_key" : "W_value", kind);
        parts[i] = tensor_find(&r->state, name);
        if (!parts[i]) return err_set(r->err, ERR_CORRUPT, "the tensor %s is missing", name);
    }
    snprintf(name, sizeof(name), "transformer.h.%zu.attn.c_attn.%s", layer, kind);
    return tensor_add(r, parts, 3, true, name);
}

static bool linear_add(struct reader *r, const struct stored *t) {
    char name[MODEL_MAX_NAME + 1];
    size_t layer;
    const char *rest = name_layer(t->name, "trf_blocks.", &layer);
    if (rest) {
        for (size_t i = 0; i < ARRAY_LEN(names); i++) {
            if (strcmp(rest, names[i].from) != 0) continue;
            snprintf(name, sizeof(name), "transformer.h.%zu.%s", layer, names[i].to);
            return tensor_add(r, &t, 1, names[i].linear, name);
        }
        if (strcmp(rest, "att.W_query.weight") == 0 || strcmp(rest, "att.W_query.bias") == 0) return qkv_add(r, t, layer, strrchr(rest, '.') + 1);
        if (strncmp(rest, "att.W_key.", 10) == 0 || strncmp(rest, "att.W_value.", 12) == 0) return true; // W_query takes them along
    }
    for (size_t i = 0; i < ARRAY_LEN(outer_names); i++)
        if (strcmp(t->name, outer_names[i].from) == 0)
            return (r->f->config.tied_head && strcmp(outer_names[i].to, "lm_head.weight") == 0) || tensor_add(r, &t, 1, false, outer_names[i].to);
    return err_set(r->err, ERR_UNSUPPORTED, "the state dict has a tensor \"%s\" that its model does not account for", t->name);
}

static bool tensors_add(struct reader *r) {
    char name[MODEL_MAX_NAME + 1];
    for (size_t i = 0; i < r->state.n_tensors; i++) {
        const struct stored *t = &r->state.tensors[i];
        if (r->state.linear ? !linear_add(r, t) : hf_name_normalize(&r->f->config, t->name, name) && !tensor_add(r, &t, 1, false, name)) return false;
    }
    return true;
}

// ---- the file

static bool archive_read(struct reader *r, const struct pickle_value **state) {
    static const char pickle_name[] = "/data.pkl";
    const size_t suffix = sizeof(pickle_name) - 1;
    const struct zip_entry *pickle = NULL, *order;
    for (size_t i = 0; i < r->zip.n_entries && !pickle; i++) {
        const struct zip_entry *e = &r->zip.entries[i];
        if (e->name_len > suffix && memcmp(e->name + e->name_len - suffix, pickle_name, suffix) == 0) pickle = e;
    }
    if (!pickle) return err_set(r->err, ERR_UNSUPPORTED, "this zip archive is none that torch.save writes: it has no data.pkl");
    r->root = pickle->name, r->root_len = pickle->name_len - suffix;
    if (zip_entry_get(r, "byteorder", 9, &order) && (order->len != 6 || memcmp(order->data, "little", 6) != 0))
        return err_set(r->err, ERR_UNSUPPORTED, "the file's numbers are not little-endian");
    const struct pickle_value *root = pickle_read(&r->arena, pickle->data, pickle->len, r->err);
    if (!root) return false;
    *state = model_part(root);
    return *state || err_set(r->err, ERR_UNSUPPORTED, "the file holds no state dict: no tensors by name, nor any under model_state_dict, "
                                                      "state_dict or model");
}

static char *directory_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? mem_strndup(path, (size_t)(slash - path) + 1) : mem_strdup(".");
}

bool pth_load(struct model_file *f, const char *path, const unsigned char *data, size_t len, struct err *err) {
    if (is_legacy(data, len))
        return err_set(err, ERR_UNSUPPORTED, "this is PyTorch's format before version 1.6: load it and torch.save it again with a newer one");
    struct reader r = {.f = f, .err = err};
    const struct pickle_value *state = NULL;
    if (!size_mul(len, 2, &r.copies_left) || !size_add(r.copies_left, (size_t)32 << 20, &r.copies_left)) r.copies_left = SIZE_MAX;
    if (!zip_open(&r.zip, data, len, err)) return false;
    char *dir = directory_of(path);
    const bool ok = archive_read(&r, &state) && state_read(&r, state) && config_find(&f->config, &r.state, dir, err) && tensors_add(&r) &&
                    tokenizer_load_beside(f, dir, err);
    free(dir);
    free(r.state.tensors);
    arena_finish(&r.arena);
    zip_close(&r.zip);
    return ok;
}
