// SPDX-License-Identifier: MIT
// OpenAI's TensorFlow directories: the same numbers as the Hugging Face directory, in one shard and in three with an optimizer's
// slots; every kind of damage is refused.
#include "tests/unit/model/same_model.h"

#include "engine/model/tf_table.h"

#include <unistd.h>

TEST(same_numbers) {
    check_same_model(FORMATS "hf", FORMATS "tf");
    check_same_model(FORMATS "hf", FORMATS "tf_split");
    struct model_file *f = open_format(FORMATS "tf");
    CHECK(f && strcmp(model_file_format(f), "tensorflow") == 0);
    model_file_close(f);
}

TEST(checksum) { // RFC 3720, B.4: 32 bytes of zero give aa 36 91 8a
    unsigned char zeros[32] = {0};
    const uint32_t crc = 0x8a9136aa;
    CHECK_INT(crc32c_masked(zeros, 32), (uint32_t)((crc >> 15 | crc << 17) + 0xa282ead8u));
    const uint32_t nine = 0xe3069283; // "123456789", the usual check value: a length that is no multiple of four
    CHECK_INT(crc32c_masked((const unsigned char *)"123456789", 9), (uint32_t)((nine >> 15 | nine << 17) + 0xa282ead8u));
}

// ---- copies of the directory with something wrong ----

static char root[] = "/tmp/couplet-tf-XXXXXX";

static void put(const char *name, const void *data, size_t len) {
    char *path = path_join(root, name);
    CHECK(file_write_atomic(path, data, len, 0644, NULL));
    free(path);
}

static char *get(const char *name, size_t *len) {
    char *path = path_join(FORMATS "tf", name), *data = file_read(path, 1 << 20, len, NULL);
    free(path);
    return data;
}

// Copies tf/ but for `name`, which gets `data` (NULL: it is left out).
static void copy_but(const char *name, const void *data, size_t data_len) {
    static const char *const files[] = {"hparams.json", "checkpoint", "model.ckpt.index", "model.ckpt.data-00000-of-00001"};
    CHECK(dir_remove(root, NULL) && dir_make(root, NULL));
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        size_t len;
        char *whole = get(files[i], &len);
        if (!whole) TEST_FAIL("%s cannot be read", files[i]);
        else if (strcmp(files[i], name) != 0) put(files[i], whole, len);
        else if (data) put(name, data, data_len);
        free(whole);
    }
}

static void refused_with(const char *name, const void *data, size_t len, enum err_code code, const char *part) {
    copy_but(name, data, len);
    check_refused(root, code, part);
}

TEST(damage_refused) {
    static const char no_layers[] = "{\"n_vocab\":19,\"n_ctx\":10,\"n_embd\":8,\"n_head\":2}";
    static const char other_vocab[] = "{\"n_vocab\":18,\"n_ctx\":10,\"n_embd\":8,\"n_head\":2,\"n_layer\":2}";
    REQUIRE(mkdtemp(root));
    size_t len, index_len;
    char *data = get("model.ckpt.data-00000-of-00001", &len), *index = get("model.ckpt.index", &index_len);
    REQUIRE(data && index);
    data[1000] ^= 4;
    refused_with("model.ckpt.data-00000-of-00001", data, len, ERR_CORRUPT, "wrong checksum");
    data[1000] ^= 4;
    refused_with("model.ckpt.data-00000-of-00001", data, len - 1, ERR_CORRUPT, "outside the");
    refused_with("model.ckpt.data-00000-of-00001", NULL, 0, ERR_NOT_FOUND, "data-00000-of-00001");
    refused_with("model.ckpt.index", index, index_len - 1, ERR_CORRUPT, "does not end as");
    index[100] ^= 1;
    refused_with("model.ckpt.index", index, index_len, ERR_CORRUPT, "block's checksum");
    refused_with("hparams.json", no_layers, sizeof no_layers - 1, ERR_CORRUPT, "n_layer");
    refused_with("hparams.json", other_vocab, sizeof other_vocab - 1, ERR_CORRUPT, "19 x 8");
    refused_with("hparams.json", "{", 1, ERR_CORRUPT, "hparams.json");
    free(data);
    free(index);
    copy_but("checkpoint", NULL, 0); // the only .index is taken
    check_same_model(FORMATS "hf", root);
    static const char moved[] = "model_checkpoint_path: \"/somewhere/else/model.ckpt\"\n";
    copy_but("checkpoint", moved, sizeof moved - 1);
    check_same_model(FORMATS "hf", root);
    copy_but("checkpoint", NULL, 0);
    put("other.index", "x", 1);
    check_refused(root, ERR_NOT_FOUND, "several checkpoints");
    CHECK(dir_remove(root, NULL));
}

TEST_MAIN("model_tf_checkpoint")
