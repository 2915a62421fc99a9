// SPDX-License-Identifier: MIT
// POST /v1/inspect between HTTP and the engine: what the engine is asked, what its arrays become, what its errors become.
#include "../test.h"
#include "fake_server.h"
#include "server/inspection.h"
#include "server/routes.h"

#include "base/mem.h"

static struct exchange x;

static int ask(const char *body) {
    exchange_free(&x);
    json_decref(exchange_json(&x, inspect_routes, "/v1/inspect", body));
    return x.status;
}
static bool says(const char *part) {
    if (strstr(buf_str(&x.body), part)) return true;
    fprintf(stderr, "%s\nlacks %s\n", buf_str(&x.body), part);
    return false;
}

static void begin(void) {
    fake_server_init(fake_model_create(fake_tokenizer_create(NULL, true), 64), "nano");
    fake_look_error = ERR_NONE;
    x = (struct exchange){0};
}
static void end(void) {
    exchange_free(&x);
    fake_server_finish();
}

TEST(what_the_engine_is_asked) {
    begin();
    CHECK_INT(ask("{\"model\":\"nano\",\"prompt\":\"ab\"}"), 200);
    const struct inspect_request *q = &fake_last_look;
    CHECK(q->n_ids == 3 && q->what == 0 && q->layer == -1 && q->head == -1 && !q->no_mask && !q->no_positions && q->n_ablate == 0); // BOS, a, b
    CHECK(q->dropout.p == 0 && q->n_best == 5 && q->lens_rows == 16 && q->max_bytes == 64 << 20 && q->n_threads == 1);
    CHECK(!q->cancelled(q->ctx));
    fake_cancelled_request = true;
    CHECK(q->cancelled(q->ctx));
    fake_cancelled_request = false;
    CHECK_INT(ask("{\"model\":\"nano\",\"prompt\":[7],\"what\":[\"qkv\",\"lens\"],\"layer\":0,\"head\":0,\"mask\":\"none\",\"positions\":\"off\",\"ablate\":[[0,0],[0,0]],"
                  "\"dropout\":{\"p\":0.25,\"seed\":9},\"top_k\":20,\"lens_tokens\":0}"), 200);
    CHECK(q->n_ids == 1 && q->what == (INSPECT_QKV | INSPECT_LENS) && q->layer == 0 && q->head == 0 && q->no_mask && q->no_positions && q->n_ablate == 2);
    CHECK(q->dropout.p == 0.25 && q->dropout.seed == 9 && q->n_best == 20 && q->lens_rows == 0);
    CHECK_INT(ask("{\"matrices\":{\"inputs\":[[1,2,3]],\"W_q\":[[1,2],[3,4],[5,6]],\"W_k\":[[1,2],[3,4],[5,6]],\"W_v\":[[1,2],[3,4],[5,6]],\"n_head\":2,"
                  "\"W_o\":[[1],[2]],\"b_o\":[3]},\"mask\":\"none\"}"), 200);
    const struct inspect_matrices *m = &fake_last_matrices;
    CHECK(m->n_tokens == 1 && m->d_in == 3 && m->n_matrices == 1 && m->d_out == 2 && m->n_heads == 2 && m->heads_dimension && m->d_o == 1 && m->no_mask);
    CHECK_INT(ask("{\"matrices\":{\"inputs\":[[1],[2]]}}"), 200);
    CHECK(m->n_tokens == 2 && !m->w_q && !m->w_o && !m->b_o && m->n_heads == 1 && !m->heads_dimension && m->max_bytes == 64 << 20 && m->cancelled);
    CHECK_INT(ask("{\"matrices\":{\"inputs\":[[1]],\"W_q\":[[[1]]],\"W_k\":[[[1]]],\"W_v\":[[[1]]]}}"), 200);
    CHECK(m->n_matrices == 1 && m->n_heads == 1 && m->heads_dimension);
    end();
}

TEST(numbers_and_bytes) {
    begin();
    CHECK_INT(ask("{\"model\":\"nano\",\"prompt\":[97,195],\"what\":[\"weights\",\"scores\",\"embeddings\",\"lens\"]}"), 200);
    CHECK(says("\"tokens\":{\"ids\":[97,195],\"texts\":[\"a\",\"\xef\xbf\xbd\"]}"));
    CHECK(says("\"weights\":{\"shape\":[2,3],\"data\":[null,-0.25,0,0.1,1,2]}"));
    CHECK(says("\"embeddings\":{\"token\":null,\"position\":null,\"sum\":null}"));
    CHECK(says("\"lens\":{\"shape\":[1,2],\"ids\":[97,195],\"texts\":[\"a\",\"\xef\xbf\xbd\"],\"probabilities\":[0.5,0.25],\"first_token\":0}"));
    CHECK(says("\"scale\":0.5") && says("\"dropout\":null,\"ablate\":[]") && says("\"positions\":\"learned\",\"rope_theta\":null"));
    CHECK_INT(ask("{\"model\":\"nano\",\"prompt\":[97],\"what\":[\"weights\",\"scores\"],\"encoding\":\"uint8\"}"), 200);
    CHECK(says("\"weights\":{\"shape\":[2,3],\"encoding\":\"uint8\",\"data\":\"AAAAGv//\"}")); // 0 0 0 26 255 255
    CHECK(says("\"scores\":{\"shape\":[2,3],\"encoding\":\"float32\",\"data\":\"AACA/wAAgL4AAAAAzczMPQAAgD8AAABA\"}"));
    CHECK_INT(ask("{\"matrices\":{\"inputs\":[[1]]},\"what\":[],\"encoding\":\"float32\"}"), 200);
    CHECK(says("\"output\":{\"shape\":[2,3],\"encoding\":\"float32\",\"data\":\"AACA/wAAgL4AAAAAzczMPQAAgD8AAABA\"}") && says("\"model\":null"));
    end();
}

TEST(what_errors_become) {
    begin();
    const char *body = "{\"model\":\"nano\",\"prompt\":[97]}";
    fake_look_error = ERR_TOO_LARGE;
    CHECK_INT(ask(body), 400);
    CHECK(says("inspection_too_large") && says("layer"));
    fake_look_error = ERR_NO_MEMORY;
    (void)ask(body);
    CHECK(x.r.err.code == ERR_NO_MEMORY && x.r.err_status == 0); // api_error.c's matter
    fake_look_error = ERR_NONE;
    fake_lane_full = true;
    CHECK_INT(ask(body), 429);
    CHECK(says("rate_limit_exceeded"));
    CHECK_INT(fake_server.metrics.counters[METRIC_REJECTED], 1);
    fake_lane_full = false;
    CHECK_INT(ask("{\"model\":\"nano\",\"prompt\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}"), 200);
    CHECK_INT(ask("{\"model\":\"nano\",\"prompt\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}"), 400);
    CHECK(says("context_length_exceeded") && says("48")); // the server's limit, which is below the context of 64
    end();
}

TEST(a_cold_model_is_loaded_first) {
    begin();
    fake_cold = true;
    size_t before = fake_n_warmed;
    CHECK_INT(ask("{\"model\":\"nano\",\"prompt\":[97],\"what\":\"weights\"}"), 200);
    CHECK_INT(fake_n_warmed, before + 1);
    CHECK(says("\"weights\":{"));
    end();
}

TEST_MAIN("server/inspect")
