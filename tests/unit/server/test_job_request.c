// SPDX-License-Identifier: MIT
// A job's request: every "auto" resolved, every mistake named, hostile values through every field; its settings there and back through the store's
// JSON, and the arguments that a trainer gets of them. A real store, models made of memory.
#include "../test.h"
#include "fake_engine.h"
#include "server/job_api.h"
#include "server/job_fields.h"

#include "base/file.h"
#include "base/mem.h"

#include <unistd.h>

static struct server server;
static struct model *model;
static char dir[] = "/tmp/couplet-jobs-XXXXXX";
static char rows_id[STORE_ID_SIZE], text_id[STORE_ID_SIZE], other_id[STORE_ID_SIZE], result_id[STORE_ID_SIZE];
static const char *idempotency_key;

// ---- the server's functions, made of memory: models "nano", "adapter" of it, "other" (adapter of another), "live", "file" (a GGUF) ----

struct viewer http_viewer(const struct http_request *r) { return (struct viewer){r->key_id, !r->key_id[0]}; }
const char *http_header(const struct http_request *r, const char *name) { return strcmp(name, "idempotency-key") == 0 ? idempotency_key : NULL; }
void model_info_finish(struct model_info *m) { model_release(m->model); }
enum registry_answer registry_find(struct registry *r, const struct viewer *v, const char *id, struct model_info *out) {
    const char *const names[] = {"nano", "adapter", "other", "live", "file"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(id, names[i]) != 0) continue;
        *out = (struct model_info){.origin = strcmp(id, "live") == 0 ? MODEL_LIVE : MODEL_SERVED, .model = model_acquire(model)};
        return REGISTRY_FOUND;
    }
    return REGISTRY_UNKNOWN;
}
enum registry_answer registry_source(struct registry *r, const struct viewer *v, const char *id, struct arena *a, struct model_source *out) {
    const bool adapter = strcmp(id, "adapter") == 0, other = strcmp(id, "other") == 0;
    *out = (struct model_source){.base_path = other ? "/models/else" : strcmp(id, "file") == 0 ? "/models/file.gguf" : dir,
                                 .adapter_dir = adapter || other ? dir : NULL, .base_model = "nano"};
    return REGISTRY_FOUND;
}

static void file_add(char id[STORE_ID_SIZE], const char *name, const char *purpose, const char *owner) {
    struct err err = {0};
    store_make_id(id, "file-");
    const struct stored_file f = {.id = id, .owner = owner, .filename = name, .purpose = purpose, .sha256 = "", .bytes = 1};
    CHECK(store_file_add(server.store, &f, &err));
}

static void setup(void) {
    static const char adapter[] = "{\"r\":4,\"lora_alpha\":12,\"target_modules\":[\"c_attn\",\"c_fc\"]}";
    struct err err = {0};
    if (server.store) return;
    CHECK(mkdtemp(dir) != NULL);
    char *path = path_join(dir, "adapter_config.json");
    CHECK(file_write_atomic(path, adapter, sizeof adapter - 1, 0600, &err));
    free(path);
    server.store = store_open(dir, &err);
    atomic_store(&server.state, SERVER_READY);
    model = fake_model_create(NULL, 128);
    file_add(rows_id, "rows.jsonl", "fine-tune", "k1");
    file_add(text_id, "text.txt", "fine-tune", "k1");
    file_add(other_id, "rows.jsonl", "fine-tune", "k2");
    file_add(result_id, "results.csv", "fine-tune-results", "k1");
}

// ---- reading ----

struct read {
    struct http_request r;
    struct job_request q;
    struct buf body;
    bool ok;
};

// FILE, TEXT, OTHER, RESULT in `body` stand for ids.
static void read_body(struct read *x, const char *body) {
    static const struct {
        const char *word, *id;
    } words[] = {{"ROWS", rows_id}, {"TEXT", text_id}, {"OTHER", other_id}, {"RESULT", result_id}};
    setup();
    *x = (struct read){.r = {.server = &server, .key_id = "k1"}};
    while (*body) {
        size_t i = 0;
        while (i < ARRAY_LEN(words) && strncmp(body, words[i].word, strlen(words[i].word)) != 0) i++;
        if (i < ARRAY_LEN(words)) buf_add_str(&x->body, words[i].id), body += strlen(words[i].word);
        else buf_add_byte(&x->body, (unsigned char)*body++);
    }
    x->r.body = buf_str(&x->body);
    x->r.body_len = x->body.len;
    x->ok = job_request_read(&x->r, true, &x->q);
}
static void read_finish(struct read *x) {
    arena_finish(&x->r.arena);
    buf_finish(&x->body);
}

static void check_refused(const char *body, int status, const char *code, const char *param) {
    struct read x;
    read_body(&x, body);
    if (x.ok) TEST_FAIL("accepted: %s", body);
    else if (x.r.err_status != status || strcmp(x.r.err_code, code) != 0 || strcmp(x.r.err.param, param) != 0)
        TEST_FAIL("%s gave %d %s %s: %s", body, x.r.err_status, x.r.err_code, x.r.err.param, x.r.err.message);
    if (strstr(x.r.err.message, dir) || strstr(x.r.err.message, "evil")) TEST_FAIL("%s quotes: %s", body, x.r.err.message);
    read_finish(&x);
}

TEST(defaults_are_resolved) {
    struct read x;
    read_body(&x, "{\"model\":\"nano\",\"training_file\":\"ROWS\",\"method\":{\"type\":\"supervised\",\"supervised\":{\"hyperparameters\":{"
                  "\"n_epochs\":\"auto\",\"batch_size\":\"auto\",\"learning_rate_multiplier\":\"auto\"}}}}");
    REQUIRE(x.ok);
    const struct job_spec *s = &x.q.spec;
    CHECK(s->lora);
    CHECK_INT(s->n_epochs, 3);
    CHECK_INT(s->batch_size, 8);
    CHECK_INT(s->lora_r, 8);
    CHECK_NEAR(s->lora_alpha, 16, 0);
    CHECK_NEAR(s->learning_rate, 2e-4, 0);
    CHECK_STR(s->lr_scheduler, "linear");
    CHECK_NEAR(s->max_grad_norm, 1, 0);
    CHECK_INT(s->context_length, 128);
    CHECK_INT(s->n_evals, 3);
    CHECK_INT(s->n_checkpoints, 3);
    CHECK(s->seed <= 2147483647);
    CHECK_STR(s->base_path, dir);
    CHECK_STR(s->base_model, "nano");
    CHECK_STR(x.q.job.training_file, rows_id);
    CHECK_STR(x.q.job.owner, "k1");
    CHECK_STR(x.q.job.metadata, "{}");
    read_finish(&x);
}

TEST(settings_are_kept) {
    struct read x;
    read_body(&x, "{\"model\":\"nano\",\"training_file\":\"TEXT\",\"suffix\":\"my-Run_1.0\",\"seed\":7,\"metadata\":{\"team\":\"red\"},\"unknown\":1,"
                  "\"hyperparameters\":{\"n_epochs\":2,\"learning_rate_multiplier\":0.5},"
                  "\"couplet\":{\"training_type\":{\"type\":\"full\"},\"max_steps\":50,\"n_evals\":5,\"stride\":16,\"context_length\":64,\"odd\":1,\"even\":2,"
                  "\"validation_split\":0.1,\"early_stopping\":2,\"sample_prompts\":[\"Once\",\"Twice\"],\"shared\":true}}");
    REQUIRE(x.ok);
    CHECK(!x.q.spec.lora);
    CHECK_NEAR(x.q.spec.learning_rate, 2.5e-5, 0);
    CHECK_INT(x.q.spec.n_checkpoints, 5);
    CHECK_INT(x.q.spec.max_steps, 50);
    CHECK_INT(x.q.job.total_steps, 50);
    CHECK_INT(x.q.spec.stride, 16);
    CHECK_INT(x.q.spec.seed, 7);
    CHECK_STR(x.q.job.suffix, "my-Run_1.0");
    CHECK_STR(x.q.job.metadata, "{\"team\":\"red\"}");
    CHECK_STR(x.q.ignored, "unknown, couplet.odd, couplet.even");
    CHECK(x.q.job.shared);
    read_finish(&x);
}

TEST(both_places_of_hyperparameters_count) {
    struct read x;
    read_body(&x, "{\"model\":\"nano\",\"training_file\":\"ROWS\",\"hyperparameters\":{\"n_epochs\":2,\"batch_size\":4},"
                  "\"method\":{\"type\":\"supervised\",\"supervised\":{\"hyperparameters\":{\"n_epochs\":5}}}}");
    REQUIRE(x.ok);
    CHECK_INT(x.q.spec.n_epochs, 5);
    CHECK_INT(x.q.spec.batch_size, 4);
    read_finish(&x);
}

TEST(adapters_are_trained_on) {
    struct read x;
    read_body(&x, "{\"model\":\"adapter\",\"training_file\":\"ROWS\"}");
    REQUIRE(x.ok);
    CHECK_STR(x.q.spec.lora_init, dir);
    CHECK_INT(x.q.spec.lora_r, 4);
    CHECK_NEAR(x.q.spec.lora_alpha, 12, 0);
    CHECK_STR(x.q.spec.lora_modules, "c_attn,c_fc");
    read_finish(&x);
    read_body(&x, "{\"model\":\"nano\",\"training_file\":\"ROWS\",\"couplet\":{\"from_checkpoint\":\"adapter\"}}");
    CHECK(x.ok && x.q.spec.lora_init && strcmp(x.q.spec.from_checkpoint, "adapter") == 0);
    read_finish(&x);
}

TEST(new_models) {
    struct read x;
    read_body(&x, "{\"model\":\"new\",\"training_file\":\"TEXT\",\"couplet\":{\"architecture\":{\"n_layer\":2,\"n_head\":2,\"n_embd\":32,\"n_ctx\":64},"
                  "\"tokenizer\":\"train\",\"vocab_size\":300}}");
    REQUIRE(x.ok);
    CHECK_STR(x.q.spec.architecture, "{\"model_type\":\"gpt2\",\"n_layer\":2,\"n_head\":2,\"n_embd\":32,\"n_positions\":64,\"n_ctx\":64,\"vocab_size\":300}");
    CHECK_INT(x.q.spec.context_length, 64);
    CHECK(!x.q.spec.lora && !x.q.spec.base_path);
    CHECK_NEAR(x.q.spec.learning_rate, 5e-5, 0);
    read_finish(&x);
    read_body(&x, "{\"model\":\"new\",\"training_file\":\"ROWS\",\"couplet\":{\"architecture\":{\"preset\":\"gpt2-mini\"},\"tokenizer\":\"nano\"}}");
    REQUIRE(x.ok);
    CHECK_STR(x.q.spec.tokenizer, dir);
    CHECK_STR(x.q.spec.tokenizer_model, "nano");
    CHECK_INT(x.q.spec.context_length, 512);
    read_finish(&x);
}

#define JOB(rest) "{\"model\":\"nano\",\"training_file\":\"ROWS\"" rest "}"
#define COUPLET(rest) JOB(",\"couplet\":{" rest "}")
#define TEXT_COUPLET(rest) "{\"model\":\"nano\",\"training_file\":\"TEXT\",\"couplet\":{" rest "}}"
#define NEW(rest) "{\"model\":\"new\",\"training_file\":\"TEXT\",\"couplet\":{" rest "}}"
#define LAYERS "couplet.training_type.lora_trainable_modules"
static const struct {
    const char *body;
    int status;
    const char *code, *param;
} refusals[] = {
    {"{\"training_file\":\"ROWS\"}", 400, "missing_required_parameter", "model"},
    {"{\"model\":\"nano\"}", 400, "missing_required_parameter", "training_file"},
    {"{\"model\":\"evil\",\"training_file\":\"ROWS\"}", 404, "model_not_found", "model"},
    {"{\"model\":\"nano\\u0000\",\"training_file\":\"ROWS\"}", 404, "model_not_found", "model"},
    {"{\"model\":\"live\",\"training_file\":\"ROWS\"}", 400, "value_out_of_range", "model"},
    {"{\"model\":\"nano\",\"training_file\":\"../evil\"}", 404, "file_not_found", "training_file"},
    {"{\"model\":\"nano\",\"training_file\":\"/etc/passwd\"}", 404, "file_not_found", "training_file"},
    {"{\"model\":\"nano\",\"training_file\":\"ROWS\\u0000\"}", 404, "file_not_found", "training_file"},
    {"{\"model\":\"nano\",\"training_file\":\"OTHER\"}", 404, "file_not_found", "training_file"},
    {"{\"model\":\"nano\",\"training_file\":\"RESULT\"}", 400, "invalid_purpose", "training_file"},
    {JOB(",\"validation_file\":\"OTHER\""), 404, "file_not_found", "validation_file"},
    {JOB(",\"suffix\":\"a b\""), 400, "value_out_of_range", "suffix"},
    {JOB(",\"suffix\":\"\""), 400, "value_out_of_range", "suffix"},
    {JOB(",\"suffix\":\"a\\u0000\""), 400, "value_out_of_range", "suffix"},
    {JOB(",\"suffix\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""), 400, "value_out_of_range", "suffix"},
    {JOB(",\"seed\":-1"), 400, "value_out_of_range", "seed"},
    {JOB(",\"seed\":2147483648"), 400, "value_out_of_range", "seed"},
    {JOB(",\"integrations\":[{\"type\":\"wandb\"}]"), 400, "unsupported_parameter", "integrations"},
    {JOB(",\"metadata\":[]"), 400, "invalid_type", "metadata"},
    {JOB(",\"metadata\":{\"a\":1}"), 400, "invalid_type", "metadata"},
    {JOB(",\"metadata\":{\"\":\"a\"}"), 400, "value_out_of_range", "metadata"},
    {JOB(",\"metadata\":{\"a\":\"b\\u0000c\"}"), 400, "value_out_of_range", "metadata"},
    {JOB(",\"metadata\":{\"a\":\"\",\"b\":\"\",\"c\":\"\",\"d\":\"\",\"e\":\"\",\"f\":\"\",\"g\":\"\",\"h\":\"\",\"i\":\"\",\"j\":\"\",\"k\":\"\",\"l\":\"\","
         "\"m\":\"\",\"n\":\"\",\"o\":\"\",\"p\":\"\",\"q\":\"\"}"), 400, "value_out_of_range", "metadata"},
    {JOB(",\"method\":{\"type\":\"dpo\"}"), 400, "value_out_of_range", "method.type"},
    {JOB(",\"method\":{\"type\":\"supervised\",\"dpo\":{}}"), 400, "unsupported_parameter", "method.dpo"},
    {JOB(",\"method\":{\"supervised\":{\"hyperparameters\":{\"n_epochs\":0}}}"), 400, "value_out_of_range", "method.supervised.hyperparameters.n_epochs"},
    {JOB(",\"method\":{\"supervised\":{\"hyperparameters\":{\"learning_rate_multiplier\":0}}}"), 400, "value_out_of_range",
     "method.supervised.hyperparameters.learning_rate_multiplier"},
    {JOB(",\"hyperparameters\":{\"batch_size\":257}"), 400, "value_out_of_range", "hyperparameters.batch_size"},
    {JOB(",\"hyperparameters\":{\"batch_size\":\"Auto\"}"), 400, "invalid_type", "hyperparameters.batch_size"},
    {COUPLET("\"training_type\":{\"type\":\"qlora\"}"), 400, "value_out_of_range", "couplet.training_type.type"},
    {COUPLET("\"training_type\":{\"type\":\"full\",\"lora_r\":4}"), 400, "unsupported_parameter", "couplet.training_type"},
    {COUPLET("\"training_type\":{\"lora_trainable_modules\":[\"c_attn,evil\"]}"), 400, "value_out_of_range", LAYERS},
    {COUPLET("\"training_type\":{\"lora_trainable_modules\":[\"a\\u0000\"]}"), 400, "value_out_of_range", LAYERS},
    {COUPLET("\"stride\":4"), 400, "unsupported_parameter", "couplet.stride"},
    {COUPLET("\"context_length\":129"), 400, "value_out_of_range", "couplet.context_length"},
    {COUPLET("\"early_stopping\":1"), 400, "unsupported_parameter", "couplet.early_stopping"},
    {COUPLET("\"validation_split\":1"), 400, "value_out_of_range", "couplet.validation_split"},
    {COUPLET("\"sample_prompts\":[\"a\\u0000b\"]"), 400, "value_out_of_range", "couplet.sample_prompts"},
    {COUPLET("\"lr_scheduler\":\"step\""), 400, "value_out_of_range", "couplet.lr_scheduler"},
    {COUPLET("\"from_checkpoint\":\"other\""), 400, "value_out_of_range", "couplet.from_checkpoint"},
    {COUPLET("\"from_checkpoint\":\"evil\""), 404, "model_not_found", "couplet.from_checkpoint"},
    {COUPLET("\"architecture\":{\"preset\":\"gpt2-nano\"}"), 400, "unsupported_parameter", "couplet.architecture"},
    {COUPLET("\"tokenizer\":\"nano\""), 400, "unsupported_parameter", "couplet.tokenizer"},
    {"{\"model\":\"adapter\",\"training_file\":\"ROWS\",\"couplet\":{\"training_type\":{\"type\":\"full\"}}}", 400, "unsupported_parameter",
     "couplet.training_type.type"},
    {"{\"model\":\"adapter\",\"training_file\":\"ROWS\",\"couplet\":{\"training_type\":{\"lora_r\":8}}}", 400, "value_out_of_range",
     "couplet.training_type.lora_r"},
    {TEXT_COUPLET("\"packing\":true"), 400, "unsupported_parameter", "couplet.packing"},
    {TEXT_COUPLET("\"train_on_inputs\":true"), 400, "unsupported_parameter", "couplet.train_on_inputs"},
    {TEXT_COUPLET("\"excess_length\":\"drop\""), 400, "unsupported_parameter", "couplet.excess_length"},
    {TEXT_COUPLET("\"context_length\":32,\"stride\":33"), 400, "value_out_of_range", "couplet.stride"},
    {NEW("\"architecture\":{\"preset\":\"gpt2-nano\"}"), 400, "missing_required_parameter", "couplet.tokenizer"},
    {NEW("\"tokenizer\":\"OTHER\""), 404, "model_not_found", "couplet.tokenizer"},
    {NEW("\"tokenizer\":\"train\",\"architecture\":{\"n_layer\":2}"), 400, "value_out_of_range", "couplet.architecture"},
    {NEW("\"tokenizer\":\"train\",\"architecture\":{\"n_layer\":2,\"n_head\":3,\"n_embd\":32,\"n_ctx\":8}"), 400, "value_out_of_range", "couplet.architecture.n_embd"},
    {NEW("\"tokenizer\":\"train\",\"architecture\":{\"preset\":\"gpt2-nano\"},\"training_type\":{\"type\":\"lora\"}"), 400, "unsupported_parameter",
     "couplet.training_type.type"},
    {NEW("\"tokenizer\":\"file\",\"architecture\":{\"preset\":\"gpt2-nano\"}"), 400, "unsupported_parameter", "couplet.tokenizer"},
    {NEW("\"tokenizer\":\"nano\",\"vocab_size\":300,\"architecture\":{\"preset\":\"gpt2-nano\"}"), 400, "unsupported_parameter", "couplet.vocab_size"},
    {"{\"model\":\"new\",\"training_file\":\"ROWS\",\"couplet\":{\"tokenizer\":\"train\",\"architecture\":{\"preset\":\"gpt2-nano\"}}}", 400,
     "unsupported_parameter", "couplet.tokenizer"},
};

TEST(mistakes_are_named) {
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) check_refused(refusals[i].body, refusals[i].status, refusals[i].code, refusals[i].param);
    idempotency_key = "";
    check_refused(JOB(""), 400, "value_out_of_range", "Idempotency-Key");
    idempotency_key = NULL;
}

// Every field of every table, at its place, with values that fit nothing.
static const char *const hostile[] = {"null", "true", "0", "-1", "1e308", "9223372036854775807", "1e-320", "\"\"", "\"\\u0000\"", "\"--model=/etc/passwd\"",
                                      "\"\\ud83d\\ude00\"", "\"../../x\"", "[]", "[[]]", "[\"\"]", "[\"-\"]", "{}", "{\"type\":[]}", "{\"a\":{\"a\":[]}}", "\"auto\""};
static void attack(const struct field_table *t, const char *before, const char *after) {
    for (size_t i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        struct buf head = {0}, tail = {0};
        if (f->kind == FIELD_OBJECT) {
            buf_printf(&head, "%s,\"%s\":{\"_\":0", before, f->name);
            buf_printf(&tail, "}%s", after);
            attack(f->object, head.data, tail.data);
        }
        for (size_t h = 0; h < ARRAY_LEN(hostile); h++) {
            struct read x;
            struct buf body = {0};
            buf_printf(&body, "%s,\"%s\":%s%s", before, f->name, hostile[h], after);
            read_body(&x, body.data);
            const bool twice = strcmp(x.r.err_code ? x.r.err_code : "", "invalid_json") == 0; // model and training_file
            if (!x.ok && !twice && x.r.err_status != 400 && x.r.err_status != 404) TEST_FAIL("%s gave %d", body.data, x.r.err_status);
            if (!x.ok && strchr(x.r.err.message, '/')) TEST_FAIL("%s: %s", body.data, x.r.err.message);
            if (x.ok) {
                struct job_spec back;
                CHECK(job_spec_read(x.q.job.spec, &x.r.arena, &back, NULL));
                CHECK(job_train_arguments(&x.q.job, &back, "/j", "/f", 2, &x.r.arena) != NULL);
            }
            buf_finish(&body);
            read_finish(&x);
        }
        buf_finish(&head);
        buf_finish(&tail);
    }
}
TEST(hostile_values) { attack(&job_table, "{\"model\":\"nano\",\"training_file\":\"ROWS\"", "}"); }

TEST(the_same_request_has_the_same_hash) {
    struct read a, b, c;
    read_body(&a, "{\"model\":\"nano\",\"training_file\":\"ROWS\",\"seed\":1}");
    read_body(&b, "{ \"seed\": 1, \"training_file\":\"ROWS\", \"model\" : \"nano\"}");
    read_body(&c, "{\"model\":\"nano\",\"training_file\":\"ROWS\",\"seed\":2}");
    CHECK_STR(a.q.hash, b.q.hash);
    CHECK(strcmp(a.q.hash, c.q.hash) != 0);
    read_finish(&a), read_finish(&b), read_finish(&c);
}

// ---- settings and arguments ----

static const char *joined(const char *const *argv) {
    static struct buf out;
    buf_clear(&out);
    for (; argv && *argv; argv++) buf_printf(&out, "%s|", *argv);
    return buf_str(&out);
}

TEST(settings_come_back) {
    struct arena a = {0};
    const char *const prompts[] = {"one", "two \"\n"};
    const struct job_spec s = {.base_path = "/m", .base_model = "m", .lora = true, .training_name = "a.jsonl", .n_epochs = 2, .batch_size = 3, .lora_r = 4,
                               .context_length = 5, .n_evals = 6, .n_checkpoints = 7, .learning_rate = 0.1, .learning_rate_multiplier = 1.0 / 3,
                               .lora_alpha = 1e-300, .lr_scheduler = "cosine", .excess_length = "drop", .packing = true, .sample_prompts = prompts,
                               .n_sample_prompts = 2, .seed = 2147483647};
    struct job_spec back;
    struct buf json = {0}, again = {0};
    job_spec_write(&s, &json);
    REQUIRE(job_spec_read(json.data, &a, &back, NULL));
    job_spec_write(&back, &again);
    CHECK_STR(json.data, again.data);
    CHECK(back.learning_rate_multiplier == s.learning_rate_multiplier && back.lora_alpha == s.lora_alpha);
    CHECK_STR(back.sample_prompts[1], prompts[1]);
    CHECK(!back.lora_init && !back.tokenizer);
    CHECK(!job_spec_read("[]", &a, &back, NULL));
    CHECK(!job_spec_read("{\"n_epochs\":-1}", &a, &back, NULL));
    CHECK(!job_spec_read("{\"lora\":1}", &a, &back, NULL));
    CHECK(!job_spec_read("{", &a, &back, NULL));
    CHECK(job_spec_read("{}", &a, &back, NULL));
    buf_finish(&json), buf_finish(&again);
    arena_finish(&a);
}

TEST(arguments) {
    struct arena a = {0};
    const char *const prompts[] = {"-x"};
    const struct stored_job j = {.training_file = "file-1", .validation_file = "file-2"};
    struct job_spec s = {.base_path = "/m", .lora = true, .lora_init = "/ad", .training_name = "--a.jsonl", .validation_name = "b.txt", .n_epochs = 2,
                         .batch_size = 8, .lora_r = 4, .lora_alpha = 8, .learning_rate = 0.5, .lr_scheduler = "linear", .excess_length = "error",
                         .sample_prompts = prompts, .n_sample_prompts = 1, .n_evals = 2, .n_checkpoints = 1, .context_length = 16};
    CHECK_STR(joined(job_train_arguments(&j, &s, "/job", "/files", 0, &a)),
              "train|--model=/m|--method=lora|--lora-rank=4|--lora-alpha=8|--lora-dropout=0|--lora-init=/ad/adapter_model.safetensors|--data=/files/file-1|"
              "--data-name=--a.jsonl|--validation=/files/file-2|--validation-name=b.txt|--train-on-inputs=off|--packing=off|--excess-length=error|--epochs=2|"
              "--batch-size=8|--context=16|--lr=0.5|--schedule=linear|--warmup-ratio=0|--weight-decay=0|--clip=0|--dropout=0|--seed=0|--evals=2|--checkpoints=1|"
              "--sample-prompt=-x|--out=/job/out|--resume|--supervised|--json|--snapshots|--live-every=10|");
    CHECK(!job_tokenizer_arguments(&j, &s, "/job", "/files", &a));
    CHECK(!job_eval_arguments(&j, &s, "ft:x", "/job", "/files", &a)); // the held-out data is a text
    s = (struct job_spec){.architecture = "{}", .tokenizer = "train", .vocab_size = 300, .training_name = "a.txt", .max_steps = 5, .stride = 4,
                          .lr_scheduler = "constant", .validation_split = 0.5};
    CHECK_STR(joined(job_estimate_arguments(&(struct stored_job){.training_file = "f"}, &s, "/job", "/files", 3, &a)),
              "train|--init=/job/config.json|--tokenizer=/job/tokenizer|--method=full|--data=/files/f|--data-name=a.txt|--validation-split=0.5|--stride=4|--steps=5|"
              "--lr=0|--schedule=constant|--warmup-ratio=0|--weight-decay=0|--clip=0|--dropout=0|--seed=0|--threads=3|--estimate|--supervised|--json|");
    CHECK_STR(joined(job_tokenizer_arguments(&j, &s, "/job", "/files", &a)), "tokenizer|train|--vocab-size=300|--out=/job/tokenizer|/files/file-1|");
    s.training_name = "a.json";
    CHECK_STR(joined(job_eval_arguments(&(struct stored_job){.training_file = "f", .model = "new"}, &s, "ft:new", "/job", "/files", &a)),
              "eval|--model=/job/out|--data=/files/f|--model-name=ft:new|--base-name=new|--cards=/job/results.json|--html=/job/results.html|--validation-split=0.5|--seed=0|--metrics=exact_match,token_f1,rouge_l|--limit=8|"
              "--max-tokens=64|");
    arena_finish(&a);
}

TEST(the_end) { // not a test: what setup made goes
    struct err err = {0};
    setup();
    store_close(server.store);
    server.store = NULL;
    model_release(model);
    CHECK(dir_remove(dir, &err));
}

TEST_MAIN("job_request")
