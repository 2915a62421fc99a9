// SPDX-License-Identifier: MIT
// Damaged model files: every one is refused with one clear sentence or opens as a model that can be read throughout;
// memory stays within 4 x the file + 64 MiB. Cut at every byte of the header, 1,000 seeded mutations of each file.
// Meant to run under ASan too.
#include "tests/unit/test.h"

#include "base/file.h"
#include "engine/model/gguf.h"
#include "tests/fuzz/hostile.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOLDEN "tests/golden/"
enum { MUTATIONS = 1000 };

// A file in memory, opened as GGUF or, with a configuration, as safetensors.
struct subject {
    const char *path, *config_path;
    unsigned char *data;
    char *config;
    size_t len, config_len, header, data_end; // header: bytes before the tensors' data
};

static struct model_file *subject_open(const struct subject *s, const void *data, size_t len, struct err *err) {
    if (s->config) return model_file_open_hf_memory(s->config, s->config_len, data, len, err);
    return model_file_open_gguf_memory(data, len, err);
}

static bool subject_load(struct subject *s, const char *path, const char *config_path) {
    struct err err = {0};
    *s = (struct subject){.path = path, .config_path = config_path};
    s->data = (unsigned char *)file_read(path, 1 << 20, &s->len, &err);
    s->config = config_path ? file_read(config_path, 1 << 20, &s->config_len, &err) : NULL;
    if (!s->data || (config_path && !s->config)) return TEST_FAIL("%s", err.message), false;
    struct model_file *f = subject_open(s, s->data, s->len, &err);
    if (!f) return TEST_FAIL("%s: %s", path, err.message), false;
    const unsigned char *first = s->data + s->len;
    for (size_t i = 0; i < model_file_tensor_count(f); i++) first = MIN(first, model_file_tensor_at(f, i)->data);
    s->header = (size_t)(first - s->data);
    s->data_end = hostile_data_end(f, s->data);
    model_file_close(f);
    return true;
}

static void subject_finish(struct subject *s) {
    free(s->data);
    free(s->config);
}

// Opens, reads, closes; returns whether it opened.
static bool survive(const struct subject *s, const void *data, size_t len, size_t damage) {
    struct err err = {0};
    struct model_file *f = subject_open(s, data, len, &err);
    if (f) {
        (void)hostile_exercise(f);
        model_file_close(f);
        return true;
    }
    const char *fault = hostile_error_fault(&err);
    if (fault) TEST_FAIL("%s, damage %zu: the error has %s: \"%s\"", s->path, damage, fault, err.message);
    return false;
}

static void truncate_everywhere(const struct subject *s) {
    hostile_memory_start();
    for (size_t cut = 0; cut < s->data_end; cut += cut <= s->header ? 1 : 997) {
        unsigned char *part = malloc(cut ? cut : 1);
        memcpy(part, s->data, cut);
        if (survive(s, part, cut, cut)) TEST_FAIL("%s opens when cut to %zu of %zu bytes", s->path, cut, s->len);
        free(part);
    }
    if (hostile_memory_peak() > hostile_memory_bound(s->len))
        TEST_FAIL("%s: %zu bytes in use", s->path, hostile_memory_peak());
}

static void mutate_often(const struct subject *s) {
    size_t opened = 0;
    hostile_memory_start();
    for (size_t i = 0; i < MUTATIONS; i++) {
        size_t len = s->len;
        unsigned char *bad = hostile_mutate(s->data, &len, s->header, i);
        opened += survive(s, bad, len, i);
        free(bad);
    }
    if (hostile_memory_peak() > hostile_memory_bound(s->len) + 4 * s->len)
        TEST_FAIL("%s: %zu bytes in use", s->path, hostile_memory_peak());
    if (opened > MUTATIONS / 2) TEST_FAIL("%s: %zu of %d mutations were not noticed", s->path, opened, MUTATIONS);
}

static void both(const char *path, const char *config_path) {
    struct subject s;
    if (subject_load(&s, path, config_path)) {
        CHECK(s.header <= 12288);
        truncate_everywhere(&s);
        mutate_often(&s);
    }
    subject_finish(&s);
}

TEST(safetensors_gpt2) { both(GOLDEN "parity/gpt2/model.safetensors", GOLDEN "parity/gpt2/config.json"); }
TEST(safetensors_llama) { both(GOLDEN "parity/llama/model.safetensors", GOLDEN "parity/llama/config.json"); }
TEST(gguf_gpt2) { both(GOLDEN "gguf/gpt2_q4_0.gguf", NULL); }
TEST(gguf_llama) { both(GOLDEN "gguf/llama_q4_1.gguf", NULL); }
TEST(gguf_llama_with_vocabulary) { both(GOLDEN "gguf/llama_f16.gguf", NULL); }

TEST(config_json) {
    struct subject s;
    if (!subject_load(&s, GOLDEN "parity/llama/model.safetensors", GOLDEN "parity/llama/config.json")) return;
    char *whole = s.config;
    const size_t whole_len = s.config_len;
    for (size_t i = 0; i < whole_len + MUTATIONS; i++) {
        s.config_len = i < whole_len ? i : whole_len;
        s.config = i < whole_len ? mem_strndup(whole, i)
                                 : (char *)hostile_mutate((unsigned char *)whole, &s.config_len, whole_len, i);
        (void)survive(&s, s.data, s.len, i);
        free(s.config);
    }
    s.config = whole;
    subject_finish(&s);
}

// ---- directories: the index, strange files ----
static char directory[64];

static void put(const char *name, const void *data, size_t len) {
    char *path = path_join(directory, name);
    struct err err = {0};
    if (!file_write_atomic(path, data, len, 0600, &err)) TEST_FAIL("%s", err.message);
    free(path);
}

static void copy_here(const char *from, const char *name) {
    size_t len;
    struct err err = {0};
    char *data = file_read(from, 1 << 20, &len, &err);
    if (!data)
        TEST_FAIL("%s", err.message);
    else
        put(name, data, len);
    free(data);
}

static void forget(const char *name) {
    char *path = path_join(directory, name);
    if (unlink(path) != 0) (void)rmdir(path);
    free(path);
}

static bool directory_start(void) {
    snprintf(directory, sizeof(directory), "/tmp/couplet-hostile-XXXXXX");
    return mkdtemp(directory) != NULL;
}

static void directory_finish(void) {
    static const char *const names[] = {"config.json",
                                        "model.safetensors",
                                        "model.safetensors.index.json",
                                        "model-00001-of-00003.safetensors",
                                        "model-00002-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) forget(names[i]);
    CHECK(rmdir(directory) == 0);
}

static bool directory_opens(const char *what, enum err_code code) {
    struct err err = {0};
    struct model_file *f = model_file_open(directory, &err);
    const char *fault = f ? NULL : hostile_error_fault(&err);
    if (fault) TEST_FAIL("%s: the error has %s: \"%s\"", what, fault, err.message);
    if (!f && code != ERR_NONE) CHECK_INT(err.code, code);
    const bool opened = f != NULL;
    model_file_close(f);
    return opened;
}

TEST(index_json) {
    static const char *const shards[] = {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                         "model-00003-of-00003.safetensors"};
    REQUIRE(directory_start());
    for (size_t i = 0; i < ARRAY_LEN(shards); i++) {
        char from[128];
        snprintf(from, sizeof(from), GOLDEN "parity/llama_bf16/%s", shards[i]);
        copy_here(from, shards[i]);
    }
    copy_here(GOLDEN "parity/llama_bf16/config.json", "config.json");
    size_t len;
    struct err err = {0};
    char *index = file_read(GOLDEN "parity/llama_bf16/model.safetensors.index.json", 1 << 20, &len, &err);
    REQUIRE(index);
    put("model.safetensors.index.json", index, len);
    CHECK(directory_opens("whole", ERR_NONE));
    for (size_t i = 0; i < len; i += 7) {
        put("model.safetensors.index.json", index, i);
        if (directory_opens("cut", ERR_NONE) && i + 4 < len)
            TEST_FAIL("the index opens when cut to %zu of %zu bytes", i, len);
    }
    for (size_t i = 0; i < 200; i++) {
        size_t n = len;
        unsigned char *bad = hostile_mutate((unsigned char *)index, &n, len, i);
        put("model.safetensors.index.json", bad, n);
        (void)directory_opens("mutated", ERR_NONE);
        free(bad);
    }
    static const char *const bad[] = {
        "{\"weight_map\":{\"a\":\"../secret\"}}",
        "{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
        "{\"weight_map\":{\"a\":\"..\"}}",
        "{\"weight_map\":{\"a\":\"\"}}",
        "{\"weight_map\":{\"a\":\"x\\u0000\"}}",
        "{\"weight_map\":{}}",
        "{}",
        "[]",
        "",
        "{\"weight_map\":{\"a\":\"model-00001-of-00003.safetensors\",\"a\":\"model-00001-of-00003.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"model-00001-of-00003.safetensors\"}}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        put("model.safetensors.index.json", bad[i], strlen(bad[i]));
        if (directory_opens(bad[i], ERR_CORRUPT)) TEST_FAIL("opens with the index %s", bad[i]);
    }
    free(index);
    directory_finish();
}

TEST(strange_files) {
    REQUIRE(directory_start());
    char *weights = path_join(directory, "model.safetensors");
    CHECK(!directory_opens("an empty directory", ERR_NONE));
    put("config.json", "", 0);
    CHECK(!directory_opens("an empty config.json", ERR_CORRUPT));
    copy_here(GOLDEN "parity/gpt2/config.json", "config.json");
    CHECK(!directory_opens("no weights", ERR_NONE));
    put("model.safetensors", "", 0);
    CHECK(!directory_opens("empty weights", ERR_CORRUPT));
    put("model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    CHECK(!directory_opens("a header of 2^64 - 1 bytes", ERR_CORRUPT));
    forget("model.safetensors");
    CHECK(mkfifo(weights, 0600) == 0);
    CHECK(!directory_opens("a pipe", ERR_NONE));
    forget("model.safetensors");
    CHECK(mkdir(weights, 0700) == 0);
    CHECK(!directory_opens("a directory", ERR_NONE));
    copy_here(GOLDEN "parity/gpt2/config.json", "config.json");
    free(weights);
    directory_finish();
    static const char *const paths[] = {"/dev/null", "/dev/zero", "/nonexistent", GOLDEN "parity/expected.json", ""};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct err err = {0};
        CHECK(!model_file_open(paths[i], &err));
        if (hostile_error_fault(&err)) TEST_FAIL("%s: %s", paths[i], err.message);
    }
}

// ---- headers written for one fault each ----
static void refuse_safetensors(const char *what, const char *header, size_t data_len) {
    static const char config[] =
        "{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_head\":1,\"n_embd\":2,\"vocab_size\":2,\"n_positions\":2}";
    const uint64_t n = strlen(header);
    unsigned char *file = mem_alloc(1, 8 + n + data_len);
    struct err err = {0};
    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    struct model_file *f = model_file_open_hf_memory(config, sizeof(config) - 1, file, 8 + n + data_len, &err);
    if (f || !strstr(err.message, what))
        TEST_FAIL("wanted \"...%s...\" for %s, got \"%s\"", what, header, f ? "a model" : err.message);
    model_file_close(f);
    free(file);
}

TEST(safetensors_headers) {
#define A "\"wte.weight\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}"
    refuse_safetensors("hole", "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[20,24]}}", 24);
    refuse_safetensors("begins at", "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}", 16);
    refuse_safetensors("belong to nothing", "{" A "}", 17);
    refuse_safetensors("twice", "{" A "," A "}", 16);
    refuse_safetensors("not inside", "{" A "}", 15);
    refuse_safetensors("not inside", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4);
    refuse_safetensors("need 32", "{\"a\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[0,16]}}", 16);
    refuse_safetensors("too large",
                       "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,16]}}", 16);
    refuse_safetensors("safetensors header", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}", 16);
    refuse_safetensors("safetensors header",
                       "{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,16]}}", 16);
    refuse_safetensors("unknown type", "{\"a\":{\"dtype\":\"Q4_0\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16);
    refuse_safetensors("twice", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"shape\":[4],\"data_offsets\":[0,16]}}", 16);
    refuse_safetensors("lacks", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}", 16);
    refuse_safetensors("no meaning", "{\"a\":{\"dtype\":\"F32\",\"strides\":[1]}}", 16);
    refuse_safetensors("dimensions", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
                       4);
    refuse_safetensors("more than two", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4);
    refuse_safetensors("I64", "{\"wte.weight\":{\"dtype\":\"I64\",\"shape\":[2,2],\"data_offsets\":[0,32]}}", 32);
    refuse_safetensors("NUL", "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16);
    refuse_safetensors("no tensor", "{\"__metadata__\":{\"format\":\"pt\"}}", 0);
    refuse_safetensors("missing", "{" A "}", 16);
#undef A
}

// The golden Llama with n bytes changed, `skip` behind the end of the first place where `find` stands.
static void refuse_gguf(const char *what, const char *find, size_t skip, uint64_t value, size_t n) {
    struct subject s;
    struct err err = {0};
    if (!subject_load(&s, GOLDEN "gguf/llama_q4_1.gguf", NULL)) return;
    unsigned char *at = memmem(s.data, s.len, find, strlen(find));
    if (!at)
        TEST_FAIL("%s is not in the file", find);
    else
        memcpy(at + strlen(find) + skip, &value, n);
    struct model_file *f = model_file_open_gguf_memory(s.data, s.len, &err);
    if (f || !strstr(err.message, what))
        TEST_FAIL("wanted \"...%s...\" for %s, got \"%s\"", what, find, f ? "a model" : err.message);
    model_file_close(f);
    subject_finish(&s);
}

// Renames the first `find` to `name`, of the same length.
static void refuse_gguf_name(const char *what, const char *find, const char *name) {
    struct subject s;
    struct err err = {0};
    CHECK_INT(strlen(find), strlen(name));
    if (!subject_load(&s, GOLDEN "gguf/llama_q4_1.gguf", NULL)) return;
    unsigned char *at = memmem(s.data, s.len, find, strlen(find));
    if (!at)
        TEST_FAIL("%s is not in the file", find);
    else
        memcpy(at, name, strlen(name));
    struct model_file *f = model_file_open_gguf_memory(s.data, s.len, &err);
    if (f || !strstr(err.message, what))
        TEST_FAIL("wanted \"...%s...\" for %s, got \"%s\"", what, name, f ? "a model" : err.message);
    model_file_close(f);
    subject_finish(&s);
}

TEST(gguf_headers) {
    refuse_gguf("version 1 ", "GGUF", 0, 1, 4);
    refuse_gguf("version 4 ", "GGUF", 0, 4, 4);
    refuse_gguf("big-endian", "GGUF", 0, 0x03000000, 4);
    refuse_gguf("tensors", "GGUF", 4, UINT64_MAX, 8);
    refuse_gguf("tensors", "GGUF", 4, 0, 8);
    refuse_gguf("metadata values", "GGUF", 12, (uint64_t)1 << 61, 8);
    refuse_gguf("longer than the file", "general.architecture", 4, UINT64_MAX - 7, 8);
    refuse_gguf("unknown type 13", "llama.context_length", 0, 13, 4);
    refuse_gguf("not a non-negative integer", "llama.context_length", 0, GGUF_F32, 4);
    refuse_gguf("context length", "llama.context_length", 4, 0, 4);
    refuse_gguf("context length", "llama.context_length", 4, UINT32_MAX, 4);
    refuse_gguf("is missing", "llama.block_count", 4, 3, 4);
    refuse_gguf("is missing", "llama.block_count", 4, 1 << 20, 4);
    refuse_gguf("does not account for", "llama.block_count", 4, 1, 4);
    refuse_gguf("cannot share", "llama.attention.head_count", 4, 3, 4);
    refuse_gguf("configuration asks for", "llama.attention.head_count_kv", 4, 4, 4);
    refuse_gguf("vocabulary entries", "llama.vocab_size", 4, 1, 4);
    refuse_gguf("partial rotation", "llama.rope.dimension_count", 4, 4, 4);
    refuse_gguf("finite", "llama.rope.freq_base", 4, 0x7f800000, 4);
    refuse_gguf("epsilon", "llama.attention.layer_norm_rms_epsilon", 4, 0, 4);
    refuse_gguf("type Q4_K", "blk.0.ffn_up.weight", 20, 12, 4);
    refuse_gguf("unknown type 99", "blk.0.ffn_up.weight", 20, 99, 4);
    refuse_gguf("5 dimensions", "blk.0.ffn_up.weight", 0, 5, 4);
    refuse_gguf("0 dimensions", "blk.0.ffn_up.weight", 0, 0, 4);
    refuse_gguf("multiple of the block", "blk.0.ffn_up.weight", 4, 33, 8);
    refuse_gguf("too large", "blk.0.ffn_up.weight", 12, (uint64_t)1 << 62, 8);
    refuse_gguf("too large", "blk.0.ffn_up.weight", 12, 0, 8);
    refuse_gguf("expected at", "blk.0.ffn_up.weight", 24, 32, 8);
    refuse_gguf_name("given twice", "llama.context_length", "general.architecture");
    refuse_gguf_name("twice", "blk.1.ffn_up.weight", "blk.0.ffn_up.weight");
    refuse_gguf_name("does not account for", "blk.1.ffn_up.weight", "blk.1.ffn_up.wright");
    refuse_gguf_name("does not account for", "blk.1.ffn_up.weight", "blk.01.ffn_u.weight");
    refuse_gguf_name("not account for", "rope_freqs.weight", "rope_freqz.weight");
}

TEST_MAIN("model_hostile")
