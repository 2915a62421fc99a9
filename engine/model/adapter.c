// SPDX-License-Identifier: MIT
// Reading and writing an adapter's directory. See adapter.h.
//
// Invariants after adapter_load: (1) every module has exactly its two factors, of one rank, finite; (2) nothing in the configuration asks
// for more than scale * B A. Memory: the factors, in f32.
#include "engine/model/adapter.h"

#include "base/json.h"
#include "base/mem.h"
#include "engine/model/model_internal.h"
#include "engine/model/model_write.h"
#include "engine/model/tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_MAX = 1 << 20, RANK_MAX = 1 << 16 };
#define CONFIG_NAME "adapter_config.json"
#define WEIGHTS_NAME "adapter_model.safetensors"

struct alpha { // one entry of alpha_pattern
    const char *suffix;
    double value;
};
struct settings { // of adapter_config.json, while loading
    struct arena arena;
    const char *peft_type, *base, *bias, *init;
    size_t rank;
    double alpha;
    bool rslora, rank_pattern; // rank_pattern: some modules have another rank
    struct alpha *alphas;
    size_t n_alphas, alphas_cap;
};

// ---- adapter_config.json ----

static bool text_read(struct json *j, struct arena *arena, const char **out, struct err *err) {
    if (json_peek(j) == JSON_NULL) return json_read_null(j, err);
    struct buf b = {0};
    bool ok = json_read_string(j, &b, err);
    if (ok && memchr(buf_str(&b), 0, b.len)) ok = json_fail(j, err, "a text here holds a NUL");
    if (ok) *out = arena_strndup(arena, buf_str(&b), b.len);
    buf_finish(&b);
    return ok;
}

// Skips a value; *off: it was null, false, 0, "", [] or {}.
static bool off_read(struct json *j, bool *off, struct err *err) {
    const enum json_type type = json_peek(j);
    const char *begin = j->at;
    if (!json_skip(j, err)) return false;
    size_t len = (size_t)(j->at - begin);
    while (len && strchr(" \t\r\n", *begin)) begin++, len--;
    *off = type == JSON_NULL || (len == 5 && memcmp(begin, "false", 5) == 0) || (len == 1 && *begin == '0');
    if (type == JSON_STRING || type == JSON_ARRAY || type == JSON_OBJECT)
        *off = strspn(begin + 1, " \t\r\n") + 2 == len;
    return true;
}

static bool alphas_read(struct json *j, struct settings *s, struct err *err) {
    if (json_peek(j) == JSON_NULL) return json_read_null(j, err);
    struct buf key = {0};
    bool ok = json_open(j, '{', err);
    while (ok && json_next_key(j, &key, err)) {
        struct alpha a = {.suffix = arena_strndup(&s->arena, buf_str(&key), key.len)};
        if (strpbrk(a.suffix, "^$*+?()[]{}|\\"))
            ok = json_fail(j, err, "alpha_pattern \"%s\" is a regular expression; only module names are supported", a.suffix);
        ok = ok && json_read_double(j, &a.value, err);
        mem_grow(&s->alphas, &s->alphas_cap, s->n_alphas + 1);
        s->alphas[s->n_alphas++] = a;
    }
    buf_finish(&key);
    return ok && !j->failed;
}

static bool setting_read(struct json *j, const char *key, struct settings *s, struct err *err) {
    // What changes the computation, or the base itself, in ways that scale * B A does not express.
    static const char *const refused[] = {
        "use_dora",        "use_qalora",       "use_bdlora",        "lora_bias",     "modules_to_save",
        "megatron_config", "layer_replication", "target_parameters", "arrow_config",  "trainable_token_indices",
        "velora_config",   "kasa_config",      "monteclora_config", "alora_invocation_tokens",
    };
    bool off;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        if (strcmp(key, refused[i]) != 0) continue;
        return off_read(j, &off, err) && (off || err_set_param(err, ERR_UNSUPPORTED, key, "adapters with %s are not supported", key));
    }
    if (strcmp(key, "peft_type") == 0) return text_read(j, &s->arena, &s->peft_type, err);
    if (strcmp(key, "base_model_name_or_path") == 0) return text_read(j, &s->arena, &s->base, err);
    if (strcmp(key, "bias") == 0) return text_read(j, &s->arena, &s->bias, err);
    if (strcmp(key, "r") == 0) return json_read_size(j, &s->rank, err);
    if (strcmp(key, "lora_alpha") == 0) return json_read_double(j, &s->alpha, err);
    if (strcmp(key, "use_rslora") == 0) return off_read(j, &off, err) && ((s->rslora = !off), true);
    if (strcmp(key, "rank_pattern") == 0) return off_read(j, &off, err) && ((s->rank_pattern = !off), true);
    if (strcmp(key, "alpha_pattern") == 0) return alphas_read(j, s, err);
    if (strcmp(key, "init_lora_weights") == 0 && json_peek(j) == JSON_STRING) return text_read(j, &s->arena, &s->init, err);
    return json_skip(j, err);
}

static bool settings_check(const struct settings *s, struct err *err) {
    if (!s->peft_type) return err_set_param(err, ERR_CORRUPT, "peft_type", "the configuration has no peft_type");
    if (strcmp(s->peft_type, "LORA") != 0)
        return err_set_param(err, ERR_UNSUPPORTED, "peft_type", "adapters of type %s are not supported, only LORA", s->peft_type);
    if (s->bias && strcmp(s->bias, "none") != 0)
        return err_set_param(err, ERR_UNSUPPORTED, "bias", "adapters with bias \"%s\" are not supported, only \"none\"", s->bias);
    // These two draw only the factors' first values; the others (pissa, olora, corda, loftq, ...) take something off the base.
    if (s->init && strcmp(s->init, "gaussian") != 0 && strcmp(s->init, "orthogonal") != 0 && strcmp(s->init, "eva") != 0)
        return err_set_param(err, ERR_UNSUPPORTED, "init_lora_weights", "adapters that began with init_lora_weights \"%s\" are not supported",
                             s->init);
    if (s->rank < 1 || s->rank > RANK_MAX)
        return err_set_param(err, ERR_CORRUPT, "r", "the adapter's rank is %zu, outside 1 to %d", s->rank, RANK_MAX);
    if (isnan(s->alpha)) return err_set_param(err, ERR_CORRUPT, "lora_alpha", "the configuration has no lora_alpha");
    return true;
}

static bool settings_parse(struct settings *s, const char *text, size_t len, struct err *err) {
    struct json j;
    struct buf key = {0};
    json_init(&j, text, len);
    bool ok = json_open(&j, '{', err);
    while (ok && json_next_key(&j, &key, err)) ok = setting_read(&j, buf_str(&key), s, err);
    ok = ok && !j.failed && json_finish(&j, err);
    buf_finish(&key);
    return ok ? settings_check(s, err) : json_corrupt(err);
}

static bool settings_load(struct settings *s, const char *dir, struct err *err) {
    size_t len;
    char *path = path_join(dir, CONFIG_NAME), *text = file_read(path, CONFIG_MAX, &len, err);
    const bool ok = text && (settings_parse(s, text, len, err) || err_prefix(err, CONFIG_NAME));
    free(path);
    free(text);
    return ok;
}

// PEFT: alpha_pattern's key is the whole name or ends it behind a dot; the first that does counts.
static double alpha_of(const struct settings *s, const char *module) {
    const size_t n = strlen(module);
    for (size_t i = 0; i < s->n_alphas; i++) {
        const size_t m = strlen(s->alphas[i].suffix);
        if (n >= m && strcmp(module + n - m, s->alphas[i].suffix) == 0 && (n == m || module[n - m - 1] == '.')) return s->alphas[i].value;
    }
    return s->alpha;
}

// ---- adapter_model.safetensors ----

// Factors come by name, so that a module's two are neighbours.
static struct adapter_module *module_get(struct adapter *a, const char *name, size_t len) {
    struct adapter_module *last = a->n ? &a->modules[a->n - 1] : NULL;
    if (last && strlen(last->name) == len && memcmp(last->name, name, len) == 0) return last;
    a->modules[a->n].name = mem_strndup(name, len);
    return &a->modules[a->n++];
}

static bool factor_take(struct adapter *a, const struct tensor *t, struct err *err) {
    static const char prefix[] = "base_model.model.", suffix_a[] = ".lora_A.weight", suffix_b[] = ".lora_B.weight";
    const size_t begin = sizeof(prefix) - 1, end = sizeof(suffix_a) - 1, len = strlen(t->name);
    const bool is_a = len > end && strcmp(t->name + len - end, suffix_a) == 0, is_b = len > end && strcmp(t->name + len - end, suffix_b) == 0;
    if (len <= begin + end || strncmp(t->name, prefix, begin) != 0 || (!is_a && !is_b) || t->n_dims != 2)
        return err_set(err, ERR_UNSUPPORTED, "tensor \"%s\" is not a linear layer's lora_A or lora_B", t->name);
    struct adapter_module *m = module_get(a, t->name + begin, len - begin - end);
    const size_t rank = t->shape[is_a ? 0 : 1], n = t->shape[0] * t->shape[1]; // inside the file, so it does not overflow
    if (rank < 1 || rank > RANK_MAX || (m->r && m->r != rank))
        return err_set(err, ERR_CORRUPT, "tensor \"%s\" has rank %zu, which cannot be", t->name, rank);
    m->r = rank;
    float *x = mem_try_alloc(n, sizeof(*x), t->name, err);
    if (!x) return false;
    *(is_a ? &m->a : &m->b) = x; // no name twice: safetensors_load saw to it
    *(is_a ? &m->n_in : &m->n_out) = t->shape[is_a ? 1 : 0];
    dequantize(t->type, t->data, x, n);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return err_set(err, ERR_CORRUPT, "tensor \"%s\" holds a value that is not a finite number", t->name);
    return true;
}

static int compare_tensors(const void *a, const void *b) {
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

static bool modules_check(struct adapter *a, const struct settings *s, struct err *err) {
    for (size_t i = 0; i < a->n; i++) {
        struct adapter_module *m = &a->modules[i];
        if (!m->a || !m->b) return err_set(err, ERR_CORRUPT, "module \"%s\" has only one of lora_A and lora_B", m->name);
        if (m->r != s->rank && !s->rank_pattern)
            return err_set(err, ERR_CORRUPT, "module \"%s\" has rank %zu, but " CONFIG_NAME " says %zu", m->name, m->r, s->rank);
        m->scale = (float)(alpha_of(s, m->name) / (s->rslora ? sqrt((double)m->r) : (double)m->r));
        if (!isfinite(m->scale)) return err_set(err, ERR_CORRUPT, "the scale of module \"%s\" is not a finite number", m->name);
    }
    return true;
}

static bool weights_read(struct adapter *a, const struct settings *s, const char *path, struct err *err) {
    struct model_file f = {.raw_names = true};
    struct file_map m = {0};
    if (!file_map_open(&m, path, err)) return false;
    bool ok = safetensors_load(&f, m.data, m.len, NULL, NULL, err);
    a->modules = mem_alloc(f.n_tensors, sizeof(*a->modules));
    if (ok) qsort(f.tensors, f.n_tensors, sizeof(*f.tensors), compare_tensors);
    for (size_t i = 0; ok && i < f.n_tensors; i++) ok = factor_take(a, &f.tensors[i], err);
    ok = ok && modules_check(a, s, err);
    free(f.tensors);
    arena_finish(&f.names);
    file_map_close(&m);
    return ok;
}

bool adapter_load(struct adapter *out, const char *dir, struct err *err) {
    struct settings s = {.alpha = NAN};
    struct adapter a = {0};
    bool ok = settings_load(&s, dir, err);
    if (ok) {
        a = (struct adapter){.rank = s.rank, .alpha = (float)s.alpha, .base = s.base ? mem_strdup(s.base) : NULL};
        char *path = path_join(dir, WEIGHTS_NAME);
        ok = weights_read(&a, &s, path, err) || err_prefix(err, WEIGHTS_NAME);
        free(path);
    }
    free(s.alphas);
    arena_finish(&s.arena);
    if (ok) *out = a;
    else adapter_finish(&a);
    return ok;
}

bool adapter_load_file(struct adapter *out, const char *path, struct err *err) {
    const struct settings any = {.alpha = 1, .rank_pattern = true};
    struct adapter a = {0};
    const bool ok = weights_read(&a, &any, path, err);
    if (ok) *out = a;
    else adapter_finish(&a);
    return ok;
}

void adapter_finish(struct adapter *a) {
    for (size_t i = 0; i < a->n; i++) {
        free(a->modules[i].name);
        free(a->modules[i].a);
        free(a->modules[i].b);
    }
    free(a->modules);
    free(a->base);
    *a = (struct adapter){0};
}

bool adapter_is_dir(const char *path) {
    char *config = path_join(path, CONFIG_NAME);
    const bool is = file_exists(config);
    free(config);
    return is;
}

// ---- the base ----

static bool path_is_model(const char *path) { return dir_exists(path) || file_exists(path); }

static char *base_find(const char *base, const char *dir, struct err *err) {
    char *path = base && base[0] ? path_join(dir, base) : NULL;
    if (!path) {
        (void)err_set_param(err, ERR_NOT_FOUND, "--adapter", "the adapter does not name its base model: give --model BASE --adapter DIR");
        return NULL;
    }
    if (base[0] != '/' && path_is_model(path)) return path;
    free(path);
    if (path_is_model(base)) return mem_strdup(base);
    (void)err_set_param(err, ERR_NOT_FOUND, "--adapter", "the adapter's base model \"%s\" is no path here: give --model BASE --adapter DIR", base);
    return NULL;
}

char *adapter_base_path(const char *dir, struct err *err) {
    struct settings s = {.alpha = NAN};
    char *path = settings_load(&s, dir, err) ? base_find(s.base, dir, err) : NULL;
    free(s.alphas);
    arena_finish(&s.arena);
    return path;
}

// ---- writing ----

static void config_write(const struct adapter_meta *m, struct buf *out) {
    buf_add_str(out, "{\n  \"peft_type\": \"LORA\",\n  \"task_type\": \"CAUSAL_LM\",\n  \"base_model_name_or_path\": ");
    if (m->base) buf_add_json_string(out, m->base, strlen(m->base));
    else buf_add_str(out, "null");
    buf_printf(out, ",\n  \"r\": %zu,\n  \"lora_alpha\": ", m->rank);
    buf_add_json_float(out, m->alpha);
    buf_add_str(out, ",\n  \"lora_dropout\": ");
    buf_add_json_float(out, m->dropout);
    buf_add_str(out, ",\n  \"target_modules\": [");
    for (size_t i = 0; i < m->n_targets; i++) {
        if (i) buf_add_str(out, ", ");
        buf_add_json_string(out, m->targets[i], strlen(m->targets[i]));
    }
    buf_printf(out, "],\n  \"fan_in_fan_out\": %s,\n", m->conv1d ? "true" : "false");
    buf_add_str(out, "  \"bias\": \"none\",\n  \"use_rslora\": false,\n  \"use_dora\": false,\n  \"modules_to_save\": null,\n"
                     "  \"rank_pattern\": {},\n  \"alpha_pattern\": {},\n  \"init_lora_weights\": true,\n  \"inference_mode\": true\n}\n");
}

bool adapter_write(const char *dir, const struct adapter_meta *m, const struct tensor_out *tensors, size_t n, struct err *err) {
    if (!dir_make(dir, err)) return false;
    char *weights = path_join(dir, WEIGHTS_NAME), *config = path_join(dir, CONFIG_NAME);
    struct buf text = {0};
    config_write(m, &text);
    const bool ok = safetensors_write(weights, tensors, n, WRITE_F32, "{\"format\":\"pt\"}", err) &&
                    file_write_atomic(config, text.data, text.len, 0644, err);
    buf_finish(&text);
    free(weights);
    free(config);
    return ok;
}
