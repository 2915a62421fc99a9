// SPDX-License-Identifier: MIT
// A trainer's lines as events: their keys, OpenAI's names, and that nothing a trainer prints breaks anything.
#include "server/jobs/job_lines.h"
#include "tests/unit/test.h"

static struct job_line say(struct job_lines *l, const char *line) { return job_lines_read(l, line, strlen(line)); }
static const struct stored_event *last(const struct job_lines *l) { return &l->events[l->n_events - 1]; }
static bool has(const char *text, const char *part) { return strstr(text, part) != NULL; }

TEST(a_run_becomes_events) {
    struct job_lines l;
    job_lines_init(&l, "ft:nano:local::abcdefgh");
    say(&l, "{\"event\":\"start\",\"step\":0,\"total_steps\":4,\"rows\":3}");
    CHECK_STR(last(&l)->once, "training_start");
    CHECK_INT(l.total_steps, 4);
    say(&l, "{\"event\":\"step\",\"step\":1,\"epoch\":0.5,\"train_loss\":2.5,\"train_accuracy\":0.25,\"learning_rate\":0.001,\"grad_norm\":1.5,\"tokens\":100,"
            "\"seconds\":2,\"tokens_per_second\":50}");
    CHECK_STR(last(&l)->once, "step-1");
    CHECK_STR(last(&l)->type, "metrics");
    CHECK_STR(last(&l)->message, "Step 1/4: training loss=2.5");
    CHECK(has(last(&l)->data, "\"train_loss\":2.5") && has(last(&l)->data, "\"train_mean_token_accuracy\":0.25") && has(last(&l)->data, "\"total_steps\":4"));
    CHECK_INT(l.tokens, 100);
    CHECK_NEAR(l.seconds_per_step, 2, 0);
    say(&l, "{\"event\":\"step\",\"step\":2,\"epoch\":1,\"train_loss\":2,\"tokens\":200,\"seconds\":3}");
    CHECK_STR(last(&l)->once, "epoch-1");
    CHECK(has(last(&l)->data, "\"kind\":\"epoch_complete\""));
    CHECK_NEAR(l.seconds_per_step, 2.1, 1e-12);
    say(&l, "{\"event\":\"eval\",\"step\":2,\"valid_loss\":1.5,\"token_accuracy\":0.5,\"perplexity\":4.5,\"best\":true}");
    CHECK_STR(last(&l)->once, "eval-2");
    CHECK(has(last(&l)->data, "\"valid_loss\":1.5") && has(last(&l)->data, "\"full_valid_mean_token_accuracy\":0.5"));
    struct job_line c = say(&l, "{\"event\":\"checkpoint\",\"step\":2,\"path\":\"checkpoints/step-2\"}");
    CHECK_INT(c.kind, LINE_CHECKPOINT);
    CHECK_INT(c.step, 2);
    CHECK_INT(say(&l, "{\"event\":\"checkpoint\",\"step\":2,\"path\":\"checkpoints/step-2\",\"stopped\":true}").kind, LINE_OTHER);
    job_lines_checkpoint(&l, 2);
    CHECK_STR(last(&l)->once, "checkpoint-2");
    CHECK(has(last(&l)->data, "\"model\":\"ft:nano:local::abcdefgh:ckpt-step-2\""));
    CHECK_STR(job_lines_metrics(&l, 2, &l.arena), "{\"step\":2,\"train_loss\":2,\"valid_loss\":1.5,\"full_valid_loss\":1.5,\"valid_mean_token_accuracy\":0.5,"
                                                  "\"full_valid_mean_token_accuracy\":0.5}");
    CHECK_INT(say(&l, "{\"event\":\"live\",\"step\":3,\"path\":\"live/step-3\"}").kind, LINE_LIVE);
    const size_t n = l.n_events;
    say(&l, "{\"event\":\"done\",\"step\":3,\"reason\":\"stopped\"}");
    CHECK_INT(l.n_events, n); // it goes on
    say(&l, "{\"event\":\"done\",\"step\":4,\"reason\":\"finished\"}");
    CHECK(l.done);
    CHECK_STR(last(&l)->once, "training_complete");
    job_lines_finish(&l);
}

// The same lines again, from the log and then from another process: the same keys.
TEST(keys_are_of_the_lines) {
    static const char *const lines[] = {
        "{\"event\":\"start\",\"step\":0,\"total_steps\":2}",
        "{\"event\":\"sample\",\"step\":0,\"prompt\":\"a\",\"text\":\"b\"}",
        "{\"event\":\"sample\",\"step\":0,\"prompt\":\"a\",\"text\":\"b\"}",
        "{\"event\":\"step\",\"step\":1,\"epoch\":0.5,\"train_loss\":1}",
        "{\"event\":\"sample\",\"step\":1,\"prompt\":\"a\",\"text\":\"b\"}",
        "{\"event\":\"warning\",\"message\":\"a row is long\"}",
        "{\"event\":\"warning\",\"message\":\"another row is long\"}",
    };
    enum { N = sizeof lines / sizeof *lines };
    struct job_lines l;
    job_lines_init(&l, "m");
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) say(&l, lines[i]);
        job_lines_restart(&l);
    }
    REQUIRE(l.n_events == 2 * N);
    for (size_t i = 0; i < N; i++) {
        CHECK_STR(l.events[i].once, l.events[i + N].once);
        for (size_t k = 0; k < i; k++) CHECK(strcmp(l.events[i].once, l.events[k].once) != 0);
    }
    job_lines_finish(&l);
}

TEST(numbers_that_are_none) {
    struct job_lines l;
    job_lines_init(&l, "m");
    say(&l, "{\"event\":\"step\",\"step\":1,\"epoch\":null,\"train_loss\":null,\"tokens\":-5,\"seconds\":null}");
    CHECK_STR(last(&l)->once, "step-1");
    CHECK(!has(last(&l)->data, "train_loss") && !has(last(&l)->data, "nan"));
    CHECK_INT(l.tokens, 0);
    say(&l, "{\"event\":\"step\",\"step\":1e300,\"train_loss\":\"x\"}");
    CHECK_INT(l.step, 0);
    say(&l, "{\"event\":\"error\",\"code\":\"non_finite_loss\",\"message\":\"the loss\"}");
    CHECK_STR(l.error_code, "non_finite_loss");
    CHECK_STR(l.error_message, "the loss");
    job_lines_finish(&l);
}

TEST(garbage_is_counted) {
    static const char *const garbage[] = {"", "{", "null", "[1]", "{\"event\":5}", "{\"event\":\"nothing\"}", "{\"event\":\"step\"} more", "\xff\xfe", "{}"};
    struct job_lines l;
    job_lines_init(&l, "m");
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) CHECK_INT(say(&l, garbage[i]).kind, LINE_OTHER);
    CHECK_INT(l.n_events, 0);
    CHECK_INT(l.ignored, sizeof garbage / sizeof *garbage);
    job_lines_finish(&l);
}

static void line_count(void *ctx, const char *line, size_t n) {
    size_t *seen = ctx;
    seen[0]++;
    seen[1] += n;
}

TEST(lines_from_pieces) {
    const char text[] = "one\ntwo\n\nfour";
    for (size_t piece = 1; piece < sizeof text; piece++) {
        struct line_splitter s = {0};
        size_t seen[2] = {0};
        for (size_t at = 0; at < sizeof text - 1; at += piece) line_splitter_feed(&s, text + at, piece < sizeof text - 1 - at ? piece : sizeof text - 1 - at, line_count, seen);
        CHECK_INT(seen[0], 3);
        CHECK_INT(seen[1], 6);
        line_splitter_feed(&s, "\n", 1, line_count, seen);
        CHECK_INT(seen[0], 4);
        buf_finish(&s.line);
    }
}

TEST(a_line_too_long) {
    struct line_splitter s = {0};
    size_t seen[2] = {0};
    char piece[1000];
    memset(piece, 'x', sizeof piece);
    for (int i = 0; i < 10000; i++) line_splitter_feed(&s, piece, sizeof piece, line_count, seen);
    CHECK(s.line.cap <= 2 * JOB_LINE_BYTES);
    line_splitter_feed(&s, "\nok\n", 4, line_count, seen);
    CHECK_INT(seen[0], 1);
    CHECK_INT(seen[1], 2);
    buf_finish(&s.line);
}

TEST_MAIN("job_lines")
