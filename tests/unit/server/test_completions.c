// SPDX-License-Identifier: MIT
// /v1/completions from body to answer, on a fake engine: prompts, parameters, replies, chunks, cancelling.
#include "../test.h"
#include "fake_server.h"
#include "server/routes.h"

#include "base/mem.h"

static void setup(void) {
    fake_eos_after = 0;
    fake_fails = false;
    fake_cancelled = 0;
    fake_server_init(fake_model_create(fake_tokenizer_create(NULL, false), 64), "nano");
}
static void teardown(void) {
    CHECK_INT(fake_live, 0);
    fake_server_finish();
}
static json_t *ask(struct exchange *x, const char *body) {
    return exchange_json(x, completion_routes, "/v1/completions", body);
}

// The value at a path such as "choices.0.text".
static json_t *at(json_t *v, const char *path) {
    char copy[128];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *save = NULL, *key = strtok_r(copy, ".", &save); key && v; key = strtok_r(NULL, ".", &save))
        v = json_is_array(v) ? json_array_get(v, strtoul(key, NULL, 10)) : json_object_get(v, key);
    return v;
}
static void check_text(json_t *v, const char *path, const char *expected) {
    json_t *s = at(v, path);
    CHECK_STR(json_is_string(s) ? json_string_value(s) : "(no string)", expected);
}
static void check_json(json_t *v, const char *path, const char *expected) {
    json_t *sub = at(v, path);
    char *text = sub ? json_dumps(sub, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(7)) : NULL;
    CHECK_STR(text ? text : "(absent)", expected);
    free(text);
}
static void check_error(const char *body, int status, const char *code, const char *param) {
    struct exchange x;
    json_t *v = ask(&x, body);
    if (x.status != status || strcmp(json_string_value(at(v, "error.code")), code) != 0 ||
        strcmp(json_string_value(at(v, "error.param")), param) != 0)
        TEST_FAIL("%s\n  gave %d %s", body, x.status, buf_str(&x.body));
    json_decref(v);
    exchange_free(&x);
}

TEST(text_prompt) {
    setup();
    struct exchange x;
    json_t *v = ask(&x, "{\"model\":\"nano\",\"prompt\":\"\",\"max_tokens\":8,\"temperature\":0,\"logprobs\":null,"
                        "\"logit_bias\":{},\"seed\":null,\"stop\":null,\"n\":null}");
    CHECK_INT(x.status, 200);
    check_text(v, "object", "text_completion");
    check_text(v, "model", "nano");
    check_text(v, "system_fingerprint", "fp_0123456789abcdef");
    check_text(v, "choices.0.text", "he sea, "); // prompt "" is <|endoftext|>, one token
    check_json(v, "choices.0.logprobs", "null");
    check_json(v, "choices.0.index", "0");
    check_text(v, "choices.0.finish_reason", "length");
    check_json(v, "usage",
               "{\"prompt_tokens\":1,\"completion_tokens\":8,\"total_tokens\":9,\"prompt_tokens_details\":{\"cached_"
               "tokens\":0}}");
    CHECK(strncmp(json_string_value(at(v, "id")), "cmpl-", 5) == 0);
    json_decref(v);
    exchange_free(&x);
    teardown();
}

TEST(lm_eval_payload) {
    setup();
    struct exchange x;
    json_t *v = ask(&x, "{\"model\":\"nano\",\"prompt\":[[72,105,33],[65,66]],\"temperature\":0,\"max_tokens\":1,"
                        "\"logprobs\":1,\"seed\":1234,\"echo\":true}");
    CHECK_INT(x.status, 200);
    check_text(v, "choices.0.text", "Hi! ");
    check_json(v, "choices.0.logprobs.tokens", "[\"H\",\"i\",\"!\",\" \"]");
    check_json(v, "choices.0.logprobs.token_logprobs", "[null,-0.625,-0.75,-0.5]");
    check_json(v, "choices.0.logprobs.top_logprobs", "[null,{\"i\":-0.625},{\"!\":-0.75},{\" \":-0.5}]");
    check_json(v, "choices.0.logprobs.text_offset", "[0,1,2,3]");
    check_text(v, "choices.1.text", "ABe");
    check_json(v, "choices.1.index", "1");
    CHECK_INT(json_array_size(at(v, "choices.1.logprobs.tokens")), 3);
    CHECK(fake_last_request.params.prompt_logprobs && fake_last_request.params.n_logprobs == 1 &&
          fake_last_request.params.temperature == 0);
    CHECK_INT(fake_last_request.n_prompt, 2); // no BOS
    json_decref(v);
    exchange_free(&x);
    teardown();
}

TEST(pure_scoring_and_the_end_token) {
    setup();
    struct exchange x;
    json_t *v = ask(&x, "{\"model\":\"nano\",\"prompt\":\"ab\",\"max_tokens\":0,\"logprobs\":0,\"echo\":true}");
    check_text(v, "choices.0.text", "ab");
    check_json(v, "choices.0.logprobs.token_logprobs", "[null,-0.625]");
    check_json(v, "choices.0.logprobs.top_logprobs", "[null,{\"b\":-0.625}]");
    json_decref(v);
    exchange_free(&x);
    fake_eos_after = 2;
    v = ask(&x, "{\"model\":\"nano\",\"prompt\":\"ab\",\"max_tokens\":9,\"temperature\":0,\"logprobs\":0,\"return_"
                "token_ids\":true}");
    check_text(v, "choices.0.finish_reason", "stop");
    check_json(v, "choices.0.stop_reason", "null");
    check_json(v, "choices.0.logprobs.tokens", "[\"e\",\" \",\"<|endoftext|>\"]");
    check_json(v, "choices.0.logprobs.text_offset", "[2,3,4]");
    check_json(v, "choices.0.prompt_token_ids", "[97,98]");
    check_json(v, "choices.0.token_ids", "[101,32,256]");
    json_decref(v);
    exchange_free(&x);
    teardown();
}

TEST(characters_cut_between_tokens) {
    setup();
    struct exchange x;
    // 11 bytes of prompt in 10 characters: the text goes on with "e \xc3\xa9t".
    json_t *v = ask(&x, "{\"model\":\"nano\",\"prompt\":\"\\u00e9bcdefghij\",\"max_tokens\":5,\"temperature\":0,"
                        "\"logprobs\":0,\"echo\":true}");
    check_text(v, "choices.0.text",
               "\xc3\xa9"
               "bcdefghije \xc3\xa9t");
    check_json(v, "choices.0.logprobs.tokens",
               "[\"bytes:\\\\xc3\",\"bytes:\\\\xa9\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\",\"e\",\" "
               "\",\"bytes:\\\\xc3\",\"bytes:\\\\xa9\",\"t\"]");
    check_json(v, "choices.0.logprobs.text_offset", "[0,0,1,2,3,4,5,6,7,8,9,10,11,12,12,13]");
    json_decref(v);
    exchange_free(&x);
    teardown();
}

TEST(without_a_tokenizer) {
    fake_eos_after = 0;
    fake_server_init(fake_model_create(NULL, 64), "ids");
    struct exchange x;
    json_t *v =
        ask(&x, "{\"model\":\"ids\",\"prompt\":[5,6],\"max_tokens\":1,\"temperature\":0,\"logprobs\":2,\"echo\":true}");
    check_json(v, "choices.0.logprobs.tokens", "[\"<5>\",\"<6>\",\"<101>\"]");
    check_json(v, "choices.0.logprobs.top_logprobs.2", "{\"<101>\":-0.5,\"<102>\":-1.5}");
    check_text(v, "choices.0.text", "<5><6><101>");
    check_json(v, "choices.0.logprobs.text_offset", "[0,3,6]");
    json_decref(v);
    exchange_free(&x);
    check_error("{\"model\":\"ids\",\"prompt\":\"text\"}", 400, "unsupported_parameter", "prompt");
    teardown();
}

TEST(cold_and_replaced_models) {
    setup();
    struct exchange x;
    fake_cold = fake_gone = true; // loaded first, then replaced between work and start, then found
    fake_n_warmed = 0;
    json_t *v = ask(&x, "{\"model\":\"nano\",\"prompt\":\"ab\",\"max_tokens\":3,\"temperature\":0,\"shape\":1}");
    check_text(v, "choices.0.text", "e s");
    CHECK_STR(buf_str(&x.headers), "x-couplet-ignored: shape\n");
    CHECK(fake_n_warmed == 1 && !fake_cold && !fake_gone);
    json_decref(v);
    exchange_free(&x);
    fake_cold = true;
    v = exchange_json(&x, tokenize_routes, "/tokenize", "{\"prompt\":\"ab\"}");
    check_json(v, "count", "2");
    CHECK_INT(fake_n_warmed, 2);
    json_decref(v);
    exchange_free(&x);
    teardown();
}

TEST(colliding_names_keep_the_maximum) {
    setup();
    struct exchange x; // the two holes of the vocabulary both read ""
    json_t *v = ask(&x, "{\"model\":\"nano\",\"prompt\":[65,258],\"max_tokens\":0,\"logprobs\":3,\"echo\":true,\"return_token_ids\":true}");
    check_json(v, "choices.0.logprobs.top_logprobs.1", "{\"<|im_end|>\":-0.625,\"\":-1.625}");
    check_json(v, "choices.0.logprobs.top_token_ids", "[null,[258,259]]");
    check_json(v, "choices.0.logprobs.token_ranks", "[null,7]");
    json_decref(v);
    exchange_free(&x);
    teardown();
}

TEST(n_best_of_and_order) {
    setup();
    struct exchange x;
    json_t *v = ask(&x, "{\"model\":\"nano\",\"prompt\":[\"a\",\"b\"],\"n\":2,\"max_tokens\":3,\"seed\":7}");
    CHECK_INT(json_array_size(at(v, "choices")), 4);
    for (int i = 0; i < 4; i++) {
        char path[32];
        snprintf(path, sizeof path, "choices.%d.index", i);
        CHECK_INT(json_integer_value(at(v, path)), i);
    }
    // The same seed for the same k, whatever the prompt's place.
    CHECK_STR(json_string_value(at(v, "choices.0.text")), json_string_value(at(v, "choices.2.text")));
    CHECK(strcmp(json_string_value(at(v, "choices.0.text")), json_string_value(at(v, "choices.1.text"))) != 0);
    check_json(v, "usage.prompt_tokens", "2");
    check_json(v, "usage.completion_tokens", "12");
    json_decref(v);
    exchange_free(&x);
    v = ask(&x, "{\"model\":\"nano\",\"prompt\":\"a\",\"best_of\":5,\"n\":2,\"max_tokens\":3}");
    CHECK_INT(json_array_size(at(v, "choices")), 2);
    check_json(v, "choices.0.logprobs", "null");
    check_json(v, "usage.completion_tokens", "15");
    CHECK_INT(fake_last_request.params.n_logprobs, 0);
    json_decref(v);
    exchange_free(&x);
    teardown();
}

TEST(stops) {
    setup();
    struct exchange x;
    json_t *v =
        ask(&x, "{\"model\":\"nano\",\"prompt\":\"\",\"max_tokens\":40,\"temperature\":0,\"stop\":[\"zzz\",\", t\"]}");
    check_text(v, "choices.0.finish_reason", "stop");
    check_text(v, "choices.0.stop_reason", ", t");
    json_decref(v);
    exchange_free(&x);
    v = ask(&x, "{\"model\":\"nano\",\"prompt\":\"\",\"max_tokens\":40,\"temperature\":0,\"stop_token_ids\":[115]}");
    check_text(v, "choices.0.text", "he ");
    check_json(v, "choices.0.stop_reason", "115");
    json_decref(v);
    exchange_free(&x);
    teardown();
}

// The data of a stream's events, as a JSON array; [DONE] must come last.
static json_t *stream_events(struct exchange *x) {
    json_t *list = json_array();
    bool done = false;
    for (const char *p = buf_str(&x->body); *p;) {
        const char *end = strstr(p, "\n\n");
        if (!end || strncmp(p, "data: ", 6) != 0 || done) {
            TEST_FAIL("bad framing at: %s", p);
            return list;
        }
        if (strncmp(p + 6, "[DONE]", 6) == 0) done = true;
        else json_array_append_new(list, json_loadb(p + 6, (size_t)(end - p - 6), 0, NULL));
        p = end + 2;
    }
    CHECK(done);
    return list;
}

TEST(stream) {
    setup();
    struct exchange x;
    ask(&x, "{\"model\":\"nano\",\"prompt\":\"ab\",\"max_tokens\":9,\"temperature\":0,\"echo\":true,\"logprobs\":1,"
            "\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    json_t *events = stream_events(&x);
    struct buf text = {0};
    size_t n = json_array_size(events), n_tokens = 0, n_finished = 0;
    for (size_t i = 0; i < n; i++) {
        json_t *e = json_array_get(events, i);
        if (i + 1 == n) {
            check_json(e, "choices", "[]");
            check_json(e, "usage.completion_tokens", "9");
            break;
        }
        check_json(e, "usage", "null");
        buf_add_str(&text, json_string_value(at(e, "choices.0.text")));
        n_tokens += json_array_size(at(e, "choices.0.logprobs.tokens"));
        n_finished += json_is_string(at(e, "choices.0.finish_reason"));
    }
    CHECK_STR(buf_str(&text), "abe sea, th");
    CHECK_INT(n_tokens, 11);
    CHECK_INT(n_finished, 1);
    buf_finish(&text);
    json_decref(events);
    exchange_free(&x);
    teardown();
}

TEST(client_gone) {
    setup();
    struct exchange x;
    const char *body = "{\"model\":\"nano\",\"prompt\":[\"a\",\"b\"],\"n\":3,\"max_tokens\":60,\"stream\":true}";
    exchange_begin(&x, completion_routes, "/v1/completions", body, strlen(body));
    fake_deliver();
    CHECK_INT(fake_live, 6);
    exchange_end(&x);
    CHECK_INT(fake_live, 0);
    CHECK_INT(fake_cancelled, 6);
    exchange_free(&x);
    teardown();
}

TEST(engine_failure_and_full_queue) {
    setup();
    struct exchange x;
    fake_fails = true;
    json_t *v = ask(&x, "{\"model\":\"nano\",\"prompt\":\"a\",\"n\":2}");
    CHECK_INT(x.status, 500);
    json_decref(v);
    exchange_free(&x);
    ask(&x, "{\"model\":\"nano\",\"prompt\":\"a\",\"n\":2,\"stream\":true}");
    CHECK(strstr(buf_str(&x.body), "\"error\":{") && x.closed && !strstr(buf_str(&x.body), "[DONE]"));
    exchange_free(&x);
    fake_fails = false;
    struct exchange big;
    const char *prompts = "{\"model\":\"nano\",\"prompt\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\","
                          "\"k\",\"l\"],\"n\":20,\"max_tokens\":60}";
    exchange_begin(&big, completion_routes, "/v1/completions", prompts, strlen(prompts));
    CHECK_INT(fake_live, 240);
    v = ask(&x, prompts);
    CHECK_INT(x.status, 429);
    check_text(v, "error.code", "rate_limit_exceeded");
    json_decref(v);
    exchange_free(&x);
    CHECK_INT(fake_live, 240); // all or none
    exchange_end(&big);
    exchange_free(&big);
    teardown();
}

TEST(refusals) {
    setup();
    check_error("", 400, "invalid_json", "");
    check_error("[]", 400, "invalid_json", "");
    check_error("{\"model\":\"nano\",\"model\":\"nano\"}", 400, "invalid_json", "");
    check_error("{\"prompt\":\"a\"}", 400, "missing_required_parameter", "model");
    check_error("{\"model\":\"other\",\"prompt\":\"a\"}", 404, "model_not_found", "model");
    check_error("{\"model\":\"nano\\u0000\",\"prompt\":\"a\"}", 404, "model_not_found", "model");
    check_error("{\"model\":\"nano\",\"prompt\":[]}", 400, "value_out_of_range", "prompt");
    check_error("{\"model\":\"nano\",\"prompt\":[[]]}", 400, "value_out_of_range", "prompt[0]");
    check_error("{\"model\":\"nano\",\"prompt\":{}}", 400, "invalid_type", "prompt");
    check_error("{\"model\":\"nano\",\"prompt\":[1,\"a\"]}", 400, "invalid_type", "prompt");
    check_error("{\"model\":\"nano\",\"prompt\":[\"a\",1]}", 400, "invalid_type", "prompt[1]");
    check_error("{\"model\":\"nano\",\"prompt\":[261]}", 400, "invalid_token_id", "prompt");
    check_error("{\"model\":\"nano\",\"prompt\":[-1]}", 400, "invalid_token_id", "prompt");
    check_error("{\"model\":\"nano\",\"prompt\":\"a\",\"max_tokens\":64}", 400, "context_length_exceeded",
                "max_tokens");
    check_error("{\"model\":\"nano\",\"prompt\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
                400, "context_length_exceeded", "prompt");
    check_error("{\"model\":\"nano\",\"prompt\":\"a\",\"suffix\":\"b\"}", 400, "unsupported_parameter", "suffix");
    check_error("{\"model\":\"nano\",\"prompt\":\"a\",\"n\":3,\"best_of\":2}", 400, "value_out_of_range", "best_of");
    check_error("{\"model\":\"nano\",\"prompt\":\"a\",\"best_of\":2,\"stream\":true}", 400, "unsupported_parameter",
                "best_of");
    check_error("{\"model\":\"nano\",\"prompt\":\"a\",\"stream_options\":{}}", 400, "unsupported_parameter",
                "stream_options");
    check_error("{\"model\":\"nano\",\"prompt\":\"a\",\"logit_bias\":{\"261\":1}}", 400, "invalid_token_id",
                "logit_bias");
    check_error("{\"model\":\"nano\",\"prompt\":\"a\",\"stop_token_ids\":[300]}", 400, "invalid_token_id",
                "stop_token_ids");
    check_error("{\"model\":\"nano\",\"prompt\":\"a\",\"stop\":\"\"}", 400, "value_out_of_range", "stop");
    teardown();
}

TEST(default_length_is_what_is_left) {
    setup();
    struct exchange x;
    struct buf body = {0};
    buf_add_str(&body, "{\"model\":\"nano\",\"prompt\":\"");
    for (int i = 0; i < 60; i++) buf_add_byte(&body, 'a');
    buf_add_str(&body, "\"}");
    json_decref(ask(&x, body.data));
    CHECK_INT(fake_last_request.params.max_tokens, 4);
    exchange_free(&x);
    buf_finish(&body);
    json_decref(ask(&x, "{\"model\":\"nano\",\"prompt\":\"a\",\"zebra\":1,\"x y\\n\":2}"));
    CHECK_INT(fake_last_request.params.max_tokens, 16);
    CHECK(strstr(buf_str(&x.headers), "x-couplet-ignored: "));
    CHECK(strstr(buf_str(&x.headers), "zebra") && strstr(buf_str(&x.headers), "x?y?"));
    exchange_free(&x);
    teardown();
}

TEST(special_tokens_in_prompts) {
    setup();
    struct exchange x;
    json_decref(ask(&x, "{\"model\":\"nano\",\"prompt\":\"<|im_start|>a\"}"));
    CHECK_INT(fake_last_request.n_prompt, 2);
    exchange_free(&x);
    json_decref(ask(&x, "{\"model\":\"nano\",\"prompt\":\"<|im_start|>a\",\"parse_special\":false}"));
    CHECK_INT(fake_last_request.n_prompt, 13);
    exchange_free(&x);
    teardown();
}

TEST_MAIN("server/completions")
