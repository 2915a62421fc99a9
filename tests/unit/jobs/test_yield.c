// SPDX-License-Identifier: MIT
// Who may compute: the share while requests are served, the latency target, the return to full speed.
#include "server/jobs/yield.h"
#include "tests/unit/test.h"

#define MS UINT64_C(1000000)

struct clock {
    struct yield y;
    uint64_t now_ms;
    double token_ms, tokens;
};

enum { SEQUENCES = 4 };

static bool look(struct clock *c, bool serving) {
    c->now_ms += YIELD_TICK_MS;
    c->tokens += serving ? SEQUENCES * YIELD_TICK_MS / c->token_ms : 0;
    const struct yield_figures f = {.now_ns = c->now_ms * MS, .running = serving ? SEQUENCES : 0, .tokens = (uint64_t)c->tokens};
    return yield_look(&c->y, &f);
}

static int running(struct clock *c, bool serving, int ms) { // how much of it training ran, in ms
    int ran = 0;
    for (int t = 0; t < ms; t += YIELD_TICK_MS) ran += look(c, serving) ? YIELD_TICK_MS : 0;
    return ran;
}

static struct clock begin(unsigned share, double target_ms, double token_ms) {
    struct clock c = {.now_ms = 5, .token_ms = token_ms};
    yield_init(&c.y, &(struct yield_policy){share, target_ms});
    return c;
}

TEST(alone_it_runs) {
    struct clock c = begin(10, 100, 20);
    CHECK_INT(running(&c, false, 10000), 10000);
}

TEST(a_request_stops_it_at_the_next_look) {
    struct clock c = begin(10, 100, 20);
    running(&c, false, 1000);
    CHECK(!look(&c, true));
    CHECK(look(&c, false)); // and its end lets it go at the next one
}

TEST(a_share_while_the_target_holds) {
    struct clock c = begin(10, 100, 20);
    CHECK_INT(running(&c, true, 10000), 1000);
    c = begin(50, 100, 20);
    CHECK_INT(running(&c, true, 10000), 5000);
    c = begin(0, 100, 20);
    CHECK_INT(running(&c, true, 10000), 0);
    c = begin(100, 100, 20);
    CHECK_INT(running(&c, true, 10000), 10000);
}

TEST(past_the_target_nothing) {
    struct clock c = begin(50, 15, 20);
    CHECK(running(&c, true, 10000) <= YIELD_PERIOD_MS);
    c = begin(50, 0, 20); // no target: always
    CHECK_INT(running(&c, true, 10000), 0);
}

TEST(it_comes_back_when_tokens_flow_again) {
    struct clock c = begin(50, 30, 60);
    running(&c, true, 3000);
    CHECK_INT(running(&c, true, 2000), 0);
    c.token_ms = 15;
    CHECK_INT(running(&c, true, 4000) / YIELD_PERIOD_MS, 3); // of four seconds one goes by until the mean has followed
}

TEST(a_prompt_that_takes_long_to_read) {
    struct clock c = begin(50, 100, 1e12);
    CHECK_INT(running(&c, true, 10000), 0);
}

TEST_MAIN("yield")
