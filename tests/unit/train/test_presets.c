// SPDX-License-Identifier: MIT
// Presets and --init's CONFIG.json: parameter counts as published, the keys of our own, and what is refused.
#include "engine/train/presets.h"

#include "tests/unit/test.h"

static uint64_t preset_parameters(const char *name, size_t n_ctx, bool qkv_bias, bool tied) {
    struct model_init m;
    if (!model_init_preset(name, &m)) return 0;
    m.config.n_ctx = n_ctx;
    m.config.qkv_bias = qkv_bias;
    m.config.tied_head = tied;
    return model_config_parameters(&m.config);
}

// GPT-2's own counts (tied), and those that rasbt's notebooks print for the model with a head of its own.
TEST(parameter_counts) {
    CHECK_INT(preset_parameters("gpt2-124m", 1024, true, true), 124439808);
    CHECK_INT(preset_parameters("gpt2-124m", 1024, true, false), 163037184);
    CHECK_INT(preset_parameters("gpt2-124m", 1024, false, false), 163009536);
    CHECK_INT(preset_parameters("gpt2-124m", 1024, false, true), 124412160);
    CHECK_INT(preset_parameters("gpt2-124m", 256, false, false), 162419712);
    CHECK_INT(preset_parameters("gpt2-355m", 1024, true, true), 354823168);
    CHECK_INT(preset_parameters("gpt2-355m", 1024, true, false), 406286336);
    CHECK_INT(preset_parameters("gpt2-774m", 1024, true, true), 774030080);
    CHECK_INT(preset_parameters("gpt2-774m", 1024, true, false), 838359040);
    CHECK_INT(preset_parameters("gpt2-1558m", 1024, true, true), 1557611200);
    CHECK_INT(preset_parameters("gpt2-1558m", 1024, true, false), 1638022400);
    CHECK_INT(preset_parameters("gpt2-nano", 256, true, true), 957184);
    CHECK_INT(preset_parameters("gpt2-nano-2", 256, true, true), 0);
}

static bool parse(const char *text, struct model_init *m, struct err *err) {
    *err = (struct err){0};
    return model_init_parse(text, strlen(text), m, err);
}

#define SHAPE "\"model_type\":\"gpt2\",\"n_layer\":12,\"n_head\":12,\"n_embd\":768,\"n_positions\":256,\"vocab_size\":50257"

TEST(the_seeds_model) {
    struct model_init m;
    struct err err;
    CHECK(parse("{" SHAPE ",\"tie_word_embeddings\":false,\"qkv_bias\":false,\"init\":\"torch\",\"decay\":\"all\",\"drop_rate\":0.1}", &m, &err));
    CHECK_INT(model_config_parameters(&m.config), 162419712);
    CHECK_INT(m.init, INIT_TORCH);
    CHECK(m.decay_all);
    CHECK_NEAR(m.dropout, 0.1, 0);
    CHECK(!m.own_vocabulary);
}

TEST(defaults) {
    struct model_init m;
    struct err err;
    CHECK(parse("{" SHAPE "}", &m, &err));
    CHECK_INT(m.init, INIT_GPT2);
    CHECK(!m.decay_all && m.config.tied_head && m.config.qkv_bias);
    CHECK_NEAR(m.dropout, 0, 0);
    CHECK(parse("{" SHAPE ",\"embd_pdrop\":0.1,\"attn_pdrop\":0.1,\"resid_pdrop\":0.1}", &m, &err));
    CHECK_NEAR(m.dropout, 0.1, 0);
}

TEST(llama_counts) { // SmolLM2-135M: 134,515,008
    struct model_init m;
    struct err err;
    CHECK(parse("{\"model_type\":\"llama\",\"hidden_size\":576,\"intermediate_size\":1536,\"num_hidden_layers\":30,\"num_attention_heads\":9,"
                "\"num_key_value_heads\":3,\"vocab_size\":49152,\"max_position_embeddings\":8192,\"tie_word_embeddings\":true}",
                &m, &err));
    CHECK_INT(model_config_parameters(&m.config), 134515008);
}

TEST(refused) {
    static const char *const bad[] = {
        ("{" SHAPE ",\"init\":\"xavier\"}"),
        ("{" SHAPE ",\"decay\":\"none\"}"),
        ("{" SHAPE ",\"drop_rate\":1}"),
        ("{" SHAPE ",\"drop_rate\":-0.1}"),
        ("{" SHAPE ",\"embd_pdrop\":0.1,\"attn_pdrop\":0.2}"),
        ("{" SHAPE ",\"init\":7}"),
        ("{" SHAPE),
        "[]",
        "",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct model_init m;
        struct err err;
        if (parse(bad[i], &m, &err)) TEST_FAIL("accepted: %s", bad[i]);
        else if (!err.message[0]) TEST_FAIL("no message: %s", bad[i]);
    }
    struct model_init m;
    struct err err = {0};
    CHECK(!model_init_open("gpt2-huge", &m, &err));
    CHECK_STR(err.param, "--init");
}

TEST_MAIN("train_presets")
