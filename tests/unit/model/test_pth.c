// SPDX-License-Identifier: MIT
// PyTorch state dicts: one GPT-2 under three sets of names equals its Hugging Face directory bit for bit; pickles that would execute
// something, and archives that lie about themselves, are refused.
#include "tests/unit/model/same_model.h"

#include "engine/model/pth.h"

TEST(same_numbers_in_every_format) {
    check_same_model(FORMATS "hf", FORMATS "hf.gguf");
    check_same_model(FORMATS "hf", FORMATS "pth/hf.pth");
    check_same_model(FORMATS "hf", FORMATS "pth/zip64.pth");
    check_same_model(FORMATS "hf", FORMATS "pth/seed.pth"); // joined, transposed, a head equal to the embedding, an optimizer beside it
}

TEST(seed_without_bias_and_with_its_own_head) {
    struct model_file *f = open_format(FORMATS "bare/seed.pth"), *g = open_format(FORMATS "hf");
    REQUIRE(f && g);
    CHECK_STR(model_file_format(f), "pytorch");
    CHECK(!f->config.qkv_bias && f->config.attn_bias && !f->config.tied_head);
    CHECK_INT(f->config.n_head, 2); // rasbt's n_heads: 8 is not a multiple of 64
    CHECK(!model_file_tensor(f, "transformer.h.0.attn.c_attn.bias"));
    const struct tensor *head = model_file_tensor(f, "lm_head.weight"), *wte = model_file_tensor(g, "transformer.wte.weight");
    REQUIRE(head && wte);
    CHECK_INT(head->type, DTYPE_F16);
    float a[19 * 8], b[19 * 8];
    tensor_values(head, a), tensor_values(wte, b);
    for (size_t i = 0; i < 19 * 8; i++) CHECK_NEAR(a[i], 2 * b[i], 2e-3);
    const struct tensor *x = model_file_tensor(f, "transformer.h.1.attn.c_attn.weight"), *y = model_file_tensor(g, x->name);
    float p[8 * 24], q[8 * 24];
    tensor_values(x, p), tensor_values(y, q);
    for (size_t i = 0; i < 8 * 24; i++) CHECK_NEAR(p[i], q[i], 1e-3);
    model_file_close(f);
    model_file_close(g);
}

TEST(heads_of_64_and_strides_of_zero) {
    struct model_file *f = open_format(FORMATS "wide/wide.pth");
    REQUIRE(f);
    CHECK(f->config.n_head == 1 && f->config.head_size == 64 && f->config.n_layer == 1 && f->config.tied_head && f->config.qkv_bias);
    float row[192];
    tensor_row(model_file_tensor(f, "transformer.h.0.attn.c_attn.weight"), 63, row);
    CHECK(row[0] == 0.5f && row[191] == 0.5f);
    model_file_close(f);
}

TEST(files_refused) {
    check_refused(FORMATS "evil.pth", ERR_UNSUPPORTED, "would execute posix.system");
    check_refused(FORMATS "legacy.pth", ERR_UNSUPPORTED, "before version 1.6");
    CHECK(!file_exists("/tmp/couplet-was-here"));
}

// ---- damage done to pth/hf.pth ----

static void check_damage(const char *find, size_t find_len, ptrdiff_t at, const char *put, enum err_code code, const char *part) {
    struct err err = {0};
    size_t len;
    unsigned char *data = (unsigned char *)file_read(FORMATS "pth/hf.pth", 1 << 20, &len, &err), *found;
    REQUIRE(data);
    found = memmem(data, len, find, find_len);
    if (!found) {
        TEST_FAIL("%s is not in the file", find);
    } else {
        memcpy(found + at, put, strlen(put));
        struct model_file *f = mem_new(struct model_file);
        if (pth_load(f, FORMATS "pth/hf.pth", data, len, &err) && model_file_finish(f, &err)) TEST_FAIL("opened: %s", part);
        else if (err.code != code || !strstr(err.message, part)) TEST_FAIL("code %d \"%s\", expected %d \"%s\"", err.code, err.message, code, part);
        model_file_close(f);
    }
    free(data);
}

TEST(archives_refused) {
    check_damage("PK\1\2", 4, 8, "\1", ERR_UNSUPPORTED, "is encrypted");
    check_damage("PK\1\2", 4, 10, "\10", ERR_UNSUPPORTED, "is compressed");
    check_damage("PK\5\6", 4, 0, "PK\5\7", ERR_CORRUPT, "no end record");
    check_damage("PK\6\6", 4, 48, "\xff\xff\xff", ERR_CORRUPT, "outside the file");
    check_damage("PK\1\2", 4, 20, "\xff\xff", ERR_CORRUPT, "sizes");
    check_damage("little", 6, 0, "bigger", ERR_UNSUPPORTED, "little-endian");
    check_damage("FloatStorage", 12, 0, "FloatStorafe", ERR_UNSUPPORTED, "torch.FloatStorafe");
    check_damage("transformer.wte.weight", 22, 0, "transformer.wtf", ERR_CORRUPT, "transformer.wte.weight is missing");
    check_damage("FloatStorage", 12, 0, "IntStorage\nq", ERR_UNSUPPORTED, "torch.IntStorage; Float");
}

// ---- pickles ----

#define PICKLE(s) (const unsigned char *)(s), sizeof(s) - 1

static void check_pickle(const unsigned char *s, size_t len, const char *part) { // part NULL: accepted
    struct arena a = {0};
    struct err err = {0};
    unsigned char *exact = malloc(len ? len : 1); // so that a sanitizer sees a read past the end
    memcpy(exact, s, len);
    const struct pickle_value *v = pickle_read(&a, exact, len, &err);
    if (!v != !!part) TEST_FAIL("%s: %s", part ? part : "accepted", err.message);
    else if (part && !strstr(err.message, part)) TEST_FAIL("\"%s\", expected \"%s\"", err.message, part);
    free(exact);
    arena_finish(&a);
}

TEST(pickles_that_execute_are_refused) {
    check_pickle(PICKLE("\x80\2cos\nsystem\nX\2\0\0\0ls\x85R."), "would execute os.system");
    check_pickle(PICKLE("\x80\4\x8c\5posix\x8c\6system\x93\x8c\2ls\x85R."), "would execute posix.system");
    check_pickle(PICKLE("\x80\2c__builtin__\neval\nX\1\0\0\0001\x85R."), "would execute __builtin__.eval");
    check_pickle(PICKLE("\x80\2cbuiltins\ngetattr\n."), "would execute builtins.getattr");
    check_pickle(PICKLE("(S'ls'\nios\nsystem\n."), "opcode 0x53");      // STRING, INST
    check_pickle(PICKLE("(ios\nsystem\n."), "opcode 0x69");             // INST
    check_pickle(PICKLE("(cos\nsystem\no."), "would execute");          // OBJ
    check_pickle(PICKLE("\x80\2ccollections\nOrderedDict\n)\x81."), "opcode 0x81"); // NEWOBJ
    check_pickle(PICKLE("\x80\2\x82\1."), "opcode 0x82");               // EXT1
    check_pickle(PICKLE("\x80\2ctorch._utils\n_rebuild_tensor_v2\n}b."), "has none"); // BUILD of a function
    check_pickle(PICKLE("\x80\2ccollections\nOrderedDict\nK\1\x85R."), "in a way that no state dict does");
    check_pickle(PICKLE("\x80\2ctorch\nFloatStorage\n)R."), "torch.FloatStorage in a way");
}

TEST(pickles_that_are_damaged) {
    check_pickle(PICKLE(""), "ends within");
    check_pickle(PICKLE("\x80\2"), "ends within");
    check_pickle(PICKLE("."), "empty stack");
    check_pickle(PICKLE("(."), "empty stack");
    check_pickle(PICKLE("X\xff\xff\xff\xff."), "ends within");
    check_pickle(PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), "ends within");
    check_pickle(PICKLE("cos"), "ends within a name");
    check_pickle(PICKLE("h\1."), "never remembered");
    check_pickle(PICKLE("Nr\xff\xff\xff\xff."), "remembers nothing");
    check_pickle(PICKLE("K\1\x86."), "empty stack");
    check_pickle(PICKLE("(K\1\x86."), "holds a mark");
    check_pickle(PICKLE("}K\1s."), "");
    check_pickle(PICKLE("](K\1K\2s."), "hold");
    check_pickle(PICKLE("}(K\1u."), "no value");
    check_pickle(PICKLE("t."), "mark is missing");
    check_pickle(PICKLE("NQ."), "no storage");
    check_pickle(PICKLE("ctorch._utils\n_rebuild_tensor_v2\n(K\1K\1))tR."), "tensor's parts");
}

TEST(pickles_that_are_fine) {
    check_pickle(PICKLE("\x80\2}q\0(X\1\0\0\0aq\1h\0X\1\0\0\0bh\0u."), NULL); // a dict that holds itself
    check_pickle(PICKLE("\x80\5\x95\0\0\0\0\0\0\0\0](K\1J\xff\xff\xff\xffM\1\1\x8a\1\xffG?\xf0\0\0\0\0\0\0\x88\x89NC\1xeN0."), NULL);
}

TEST_MAIN("model_pth")
