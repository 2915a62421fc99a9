// SPDX-License-Identifier: MIT
// The field reader, the limits of a body, and hostile values through every field of every table.
#include "../test.h"
#include "fake_server.h"
#include "server/chat.h"
#include "server/completions.h"
#include "server/inspection.h"
#include "server/routes.h"
#include "server/tokenize.h"

#include "base/mem.h"

static const char *parse(const char *body, size_t len) { // error code or ""
    struct http_request r = {.body = body, .body_len = len};
    json_t *v = json_body_parse(&r);
    json_decref(v);
    arena_finish(&r.arena);
    return v ? "" : r.err_code;
}
static const char *parse_repeated(const char *head, const char *part, size_t n, const char *tail) {
    struct buf b = {0};
    buf_add_str(&b, head);
    for (size_t i = 0; i < n; i++) buf_add_str(&b, part);
    buf_add_str(&b, tail);
    const char *code = parse(b.data, b.len);
    buf_finish(&b);
    return code;
}

TEST(bodies) {
    CHECK_STR(parse("{}", 2), "");
    CHECK_STR(parse("", 0), "invalid_json");
    CHECK_STR(parse("{", 1), "invalid_json");
    CHECK_STR(parse("{}x", 3), "invalid_json");
    CHECK_STR(parse("\"a\"", 3), "invalid_json");
    CHECK_STR(parse("{\"a\":\"\xff\"}", 9), "invalid_utf8");
    CHECK_STR(parse("{\"a\":\"\\u0000\"}", 14), "");
    CHECK_STR(parse("{\"a\":1e999}", 11), "invalid_json");
    CHECK_STR(parse("{\"a\":99999999999999999999}", 26), "invalid_json");
    CHECK_STR(parse_repeated("{\"a\":", "[", 63, "]"), "invalid_json"); // unbalanced, but not too deep
    CHECK_STR(parse_repeated("{\"a\":", "[", 100000, ""), "invalid_json");
    CHECK_STR(parse_repeated("{\"a\":[", "{},", 300000, "1]}"), "invalid_json");
    CHECK_STR(parse_repeated("{\"a\":[", "1,", 300000, "1]}"), "");
    CHECK_STR(parse_repeated("{\"a\":\"", "[{,:", 300000, "\"}"), ""); // inside a string
    CHECK_STR(parse_repeated("{\"a\":\"", "\\\"", 100, "\"}"), "");
}

struct sample {
    struct text text;
    int64_t count, maybe;
    double share;
    bool flag;
    struct texts list;
    struct id_list ids;
    struct bias_list bias;
};
#define ROW(n, k, lo, hi, items, def)                                                                                  \
    {                                                                                                                  \
        .name = #n, .kind = k, .offset = offsetof(struct sample, n), .min = lo, .max = hi, .max_items = items,         \
        .default_text = def, .doc = ""                                                                                 \
    }
static const struct field sample_fields[] = {
    ROW(text, FIELD_STRING, 1, 4, 0, NULL),
    ROW(count, FIELD_INTEGER, -1, 10, 0, "3"),
    ROW(maybe, FIELD_INTEGER, 0, 9223372036854775808.0, 0, NULL),
    ROW(share, FIELD_NUMBER, 0, 1, 0, "0.5"),
    ROW(flag, FIELD_BOOLEAN, 0, 0, 0, "true"),
    ROW(list, FIELD_STRINGS, 1, 3, 2, NULL),
    ROW(ids, FIELD_IDS, 0, 0, 3, NULL),
    ROW(bias, FIELD_BIAS, -1, 1, 2, NULL),
    {.name = "old", .kind = FIELD_REFUSED, .doc = "Gone."},
};
static const struct field_table sample_table = {"Sample", sample_fields, ARRAY_LEN(sample_fields), NULL};

// The error's code, or "".
static const char *read_sample(const char *body, struct sample *out) {
    static struct http_request r;
    arena_finish(&r.arena);
    r = (struct http_request){.body = body, .body_len = strlen(body)};
    json_t *tree = json_body_parse(&r);
    *out = (struct sample){0};
    bool ok = tree && fields_read(&r, &sample_table, tree, out);
    json_decref(tree);
    return ok ? "" : r.err_code;
}

TEST(values) {
    struct sample s;
    CHECK_STR(read_sample("{\"text\":null,\"count\":null,\"flag\":null,\"old\":null,\"other\":[1]}", &s), "");
    CHECK(!s.text.s && s.count == 3 && s.maybe == FIELD_ABSENT && s.share == 0.5 && s.flag && !s.list.n && !s.ids.n &&
          !s.bias.n);
    CHECK_STR(read_sample("{\"text\":\"a\\u0000b\",\"count\":-1,\"maybe\":9223372036854775807,\"share\":1,\"flag\":"
                          "false,\"list\":\"x\",\"ids\":[7,8.0],\"bias\":{\"9\":-1}}",
                          &s),
              "");
    CHECK(s.text.len == 3 && s.count == -1 && s.maybe == INT64_MAX && s.share == 1 && !s.flag);
    CHECK(s.list.n == 1 && s.list.items[0].len == 1 && s.ids.n == 2 && s.ids.items[1] == 8 && s.bias.n == 1 &&
          s.bias.items[0].id == 9);
    CHECK_STR(read_sample("{\"count\":4.0,\"list\":[\"a\",\"b\"],\"maybe\":1e3}", &s), "");
    CHECK(s.count == 4 && s.list.n == 2 && s.maybe == 1000);
}

TEST(refusals) {
    static const char *const cases[][2] = {
        {"{\"text\":1}", "invalid_type"},
        {"{\"text\":\"\"}", "value_out_of_range"},
        {"{\"text\":\"abcde\"}", "value_out_of_range"},
        {"{\"count\":\"1\"}", "invalid_type"},
        {"{\"count\":1.5}", "invalid_type"},
        {"{\"count\":11}", "value_out_of_range"},
        {"{\"count\":1e300}", "value_out_of_range"},
        {"{\"count\":true}", "invalid_type"},
        {"{\"share\":\"1\"}", "invalid_type"},
        {"{\"share\":-0.1}", "value_out_of_range"},
        {"{\"share\":1.0000001}", "value_out_of_range"},
        {"{\"flag\":1}", "invalid_type"},
        {"{\"flag\":\"true\"}", "invalid_type"},
        {"{\"list\":[1]}", "invalid_type"},
        {"{\"list\":{}}", "invalid_type"},
        {"{\"list\":[\"a\",\"b\",\"c\"]}", "value_out_of_range"},
        {"{\"list\":[\"abcd\"]}", "value_out_of_range"},
        {"{\"list\":\"\"}", "value_out_of_range"},
        {"{\"ids\":1}", "invalid_type"},
        {"{\"ids\":[\"1\"]}", "invalid_type"},
        {"{\"ids\":[-1]}", "invalid_token_id"},
        {"{\"ids\":[4294967296]}", "invalid_token_id"},
        {"{\"ids\":[1.5]}", "invalid_token_id"},
        {"{\"ids\":[1,2,3,4]}", "value_out_of_range"},
        {"{\"bias\":[]}", "invalid_type"},
        {"{\"bias\":{\"a\":1}}", "invalid_token_id"},
        {"{\"bias\":{\"-1\":1}}", "invalid_token_id"},
        {"{\"bias\":{\"\":1}}", "invalid_token_id"},
        {"{\"bias\":{\"99999999999\":1}}", "invalid_token_id"},
        {"{\"bias\":{\"1\":2}}", "value_out_of_range"},
        {"{\"bias\":{\"1\":\"a\"}}", "invalid_type"},
        {"{\"bias\":{\"1\":0,\"2\":0,\"3\":0}}", "value_out_of_range"},
        {"{\"old\":0}", "unsupported_parameter"},
        {"{\"old\":[]}", "unsupported_parameter"},
    };
    struct sample s;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *code = read_sample(cases[i][0], &s);
        if (strcmp(code, cases[i][1]) != 0) TEST_FAIL("%s: %s, expected %s", cases[i][0], code, cases[i][1]);
    }
}

// -- Every field of every table, through the routes ----------------------------------------------------------------------------
static const char *const hostile[] = {
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "-0",
    "2",
    "20",
    "21",
    "255",
    "256",
    "257",
    "65536",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "1e18",
    "1e19",
    "1e308",
    "-1e308",
    "1e-400",
    "0.5",
    "1.5",
    "2.0000001",
    "\"\"",
    "\"1\"",
    "\"AI\"",
    "\"\\u0000\"",
    "\"\\ud83d\\ude00\"",
    "\"/etc/passwd\"",
    "[]",
    "[[]]",
    "[null]",
    "[0]",
    "[-1]",
    "[1e9]",
    "[\"\"]",
    "[\"a\",1]",
    "[[0],[1e300]]",
    "{}",
    "{\"0\":0}",
    "{\"-1\":1}",
    "{\"261\":1}",
    "{\"AI\":1}",
    "{\"0\":1e300}",
    "{\"include_usage\":1}",
    "{\"include_usage\":true}",
    "{\"type\":\"text\"}",
    "[{\"role\":\"user\",\"content\":\"\"}]",
    "[{\"role\":\"user\",\"content\":[[[[[[]]]]]]}]",
    "[{}]",
};

static void attack(const struct http_route *routes, const char *path, const struct field_table *table, const char *good,
                   size_t at_least) {
    size_t accepted = 0;
    if (table->common) attack(routes, path, table->common, good, 50);
    for (size_t i = 0; i < table->n; i++) {
        for (size_t h = 0; h < ARRAY_LEN(hostile); h++) {
            struct buf body = {0};
            struct exchange x;
            json_t *tree = json_loads(good, 0, NULL),
                   *value = json_loads(hostile[h], JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
            REQUIRE(tree && value);
            json_object_set_new(tree, table->fields[i].name, value);
            char *text = json_dumps(tree, JSON_COMPACT);
            buf_add_str(&body, text);
            json_decref(exchange_json(&x, routes, path, body.data));
            if (x.status >= 500 || x.status < 200)
                TEST_FAIL("%s %s gave %d %s", path, body.data, x.status, buf_str(&x.body));
            if (x.status >= 400 && (strchr(buf_str(&x.body), '/') || strstr(buf_str(&x.body), "0x")))
                TEST_FAIL("%s: %s", body.data, buf_str(&x.body));
            accepted += x.status == 200;
            exchange_free(&x);
            buf_finish(&body);
            free(text);
            json_decref(tree);
        }
    }
    if (accepted <= at_least) TEST_FAIL("%s: %zu of the values of %s were accepted", path, accepted, table->name);
}

TEST(hostile_values) {
    fake_eos_after = 0;
    fake_server_init(fake_model_create(fake_tokenizer_create("chatml", true), 64), "nano");
    attack(completion_routes, "/v1/completions", &completion_table,
           "{\"model\":\"nano\",\"prompt\":\"a\",\"max_tokens\":4}", 30);
    attack(chat_routes, "/v1/chat/completions", &chat_table,
           "{\"model\":\"nano\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":4}", 20);
    attack(tokenize_routes, "/tokenize", &tokenize_table, "{\"prompt\":\"a\"}", 20);
    attack(tokenize_routes, "/detokenize", &detokenize_table, "{\"tokens\":[65]}", 2);
    attack(inspect_routes, "/v1/inspect", &inspect_table, "{\"model\":\"nano\",\"prompt\":\"a\"}", 20);
    CHECK_INT(fake_live, 0);
    fake_server_finish();
}

// Good bodies with bytes changed, cut out, doubled and moved: any answer but a 5xx, and nothing left behind.
TEST(mutated_bodies) {
    static const struct {
        const struct http_route *routes;
        const char *path, *body;
    } seeds[] = {
        {completion_routes, "/v1/completions",
         "{\"model\":\"nano\",\"prompt\":[[1,2],[3]],\"max_tokens\":3,\"logprobs\":2,\"echo\":true,\"stop\":[\"a\","
         "\"bc\"],\"n\":2,\"best_of\":3}"},
        {completion_routes, "/v1/completions",
         "{\"model\":\"nano\",\"prompt\":\"\\u00e9<|im_end|>\",\"stream\":true,\"stream_options\":{\"include_usage\":"
         "true},\"logit_bias\":{\"5\":-1e2}}"},
        {chat_routes, "/v1/chat/completions",
         "{\"model\":\"nano\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}],"
         "\"max_tokens\":3,\"logprobs\":true}"},
        {inspect_routes, "/v1/inspect",
         "{\"model\":\"nano\",\"prompt\":[1,2,3],\"what\":[\"weights\",\"lens\"],\"layer\":0,\"head\":0,\"ablate\":[[0,0]],\"dropout\":{\"p\":0.5,\"seed\":1}}"},
        {inspect_routes, "/v1/inspect",
         "{\"matrices\":{\"inputs\":[[1,2],[3,4]],\"W_q\":[[[1],[2]]],\"W_k\":[[[1],[2]]],\"W_v\":[[[1],[2]]],\"W_o\":[[1,2]],\"b_o\":[0,1]},\"encoding\":\"uint8\"}"},
        {tokenize_routes, "/tokenize",
         "{\"prompt\":\"a\\ud83d\\ude00\",\"with_pieces\":true,\"return_token_strs\":true}"},
        {tokenize_routes, "/detokenize", "{\"tokens\":[195,169,258]}"},
    };
    fake_server_init(fake_model_create(fake_tokenizer_create("chatml", true), 64), "nano");
    uint64_t rng = 1;
    for (size_t i = 0; i < 20000; i++) {
        char body[512];
        size_t which = i % ARRAY_LEN(seeds), len = strlen(seeds[which].body);
        memcpy(body, seeds[which].body, len);
        for (size_t edits = 1 + i % 3; edits; edits--) {
            rng = rng * 6364136223846793005u + 1442695040888963407u;
            size_t at = (rng >> 33) % len, n = MIN((size_t)(rng >> 28) % 6, len - at);
            switch ((rng >> 20) % 4) {
            case 0: body[at] = (char)(rng >> 40); break;
            case 1: body[at] = "{}[]\",:0-.ent\\"[(rng >> 45) % 15]; break;
            case 2: memmove(body + at, body + at + n, len - at - n), len -= len > 20 ? n : 0; break;
            default: memmove(body + at + n, body + at, len - at), len += len < 480 ? n : 0; break;
            }
        }
        body[len] = 0;
        struct exchange x;
        exchange_begin(&x, seeds[which].routes, seeds[which].path, body, len);
        exchange_run(&x);
        exchange_end(&x);
        if (x.status < 200 || x.status >= 500) TEST_FAIL("%d for %s", x.status, body);
        exchange_free(&x);
    }
    CHECK_INT(fake_live, 0);
    fake_server_finish();
}

// -- The small resources -----------------------------------------------------------------------------------------------------
TEST(tokenize_and_completions_agree) {
    fake_server_init(fake_model_create(fake_tokenizer_create(NULL, true), 64), "nano");
    struct exchange x;
    json_t *v = exchange_json(&x, tokenize_routes, "/tokenize", "{\"prompt\":\"a<|im_end|>\"}");
    CHECK_STR(buf_str(&x.body), "{\"count\":3,\"max_model_len\":64,\"tokens\":[256,97,258]}");
    json_decref(v);
    exchange_free(&x);
    json_decref(
        exchange_json(&x, completion_routes, "/v1/completions", "{\"model\":\"nano\",\"prompt\":\"a<|im_end|>\"}"));
    CHECK_INT(fake_last_request.n_prompt, 3);
    exchange_free(&x);
    json_decref(exchange_json(&x, completion_routes, "/v1/completions", "{\"model\":\"nano\",\"prompt\":[97,258]}"));
    CHECK_INT(fake_last_request.n_prompt, 2);
    exchange_free(&x);
    json_decref(exchange_json(&x, tokenize_routes, "/tokenize",
                              "{\"content\":\"\\u00e9\",\"with_pieces\":true,\"return_token_strs\":true}"));
    CHECK_STR(buf_str(&x.body), "{\"count\":2,\"max_model_len\":64,\"tokens\":[{\"id\":195,\"piece\":[195]},{\"id\":"
                                "169,\"piece\":[169]}],\"token_strs\":[\"\xef\xbf\xbd\",\"\xef\xbf\xbd\"]}");
    exchange_free(&x);
    json_decref(exchange_json(&x, tokenize_routes, "/detokenize", "{\"tokens\":[195,169,258,195]}"));
    CHECK_STR(buf_str(&x.body),
              "{\"prompt\":\"\xc3\xa9<|im_end|>\xef\xbf\xbd\",\"content\":\"\xc3\xa9<|im_end|>\xef\xbf\xbd\"}");
    exchange_free(&x);
    v = exchange_json(&x, tokenize_routes, "/tokenizer_info", "");
    CHECK_STR(json_string_value(json_object_get(v, "eos_token")), "<|endoftext|>");
    CHECK(json_is_null(json_object_get(v, "chat_template")));
    json_decref(v);
    exchange_free(&x);
    fake_server_finish();
}

TEST(models_and_openapi) {
    fake_server_init(fake_model_create(fake_tokenizer_create("chatml", false), 64), "ft:nano::1");
    struct exchange x;
    json_t *v = exchange_json(&x, model_routes, "/v1/models", "");
    CHECK_STR(json_string_value(json_object_get(json_array_get(json_object_get(v, "data"), 0), "id")), "ft:nano::1");
    json_decref(v);
    exchange_free(&x);
    v = exchange_json(&x, model_routes, "/v1/models/ft:nano::1", "");
    CHECK_INT(json_integer_value(json_object_get(v, "max_model_len")), 64);
    json_decref(v);
    exchange_free(&x);
    json_decref(exchange_json(&x, model_routes, "/v1/models/none", ""));
    CHECK_INT(x.status, 404);
    exchange_free(&x);
    v = exchange_json(&x, openapi_routes, "/openapi.json", "");
    REQUIRE(v);
    CHECK(json_object_get(json_object_get(v, "paths"), "/v1/models/{id}") != NULL);
    CHECK(json_object_get(json_object_get(v, "paths"), "/v1/completions") != NULL);
    json_decref(v);
    exchange_free(&x);
    fake_server_finish();
}

TEST_MAIN("server/fields")
