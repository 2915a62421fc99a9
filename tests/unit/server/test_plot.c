// SPDX-License-Identifier: MIT
// The loss curve: what of a log is drawn, and that no log breaks the picture. With a log's path: its picture on stdout.
#include "base/file.h"
#include "server/plot.h"

#include "tests/unit/test.h"

static char *plot(const char *log) {
    struct buf svg = {0};
    struct err err = {0};
    if (!plot_losses(log, strlen(log), &svg, &err)) buf_printf(&svg, "%s", err.message);
    return buf_detach(&svg);
}

static size_t count(const char *text, const char *what) {
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what)) n++;
    return n;
}

#define STEP(e, t, l) "{\"event\":\"step\",\"epoch\":" e ",\"train_loss\":" l ",\"tokens\":" t "}\n"
#define EVAL(e, t, l, v) "{\"event\":\"eval\",\"epoch\":" e ",\"train_loss\":" l ",\"valid_loss\":" v ",\"tokens\":" t "}\n"

TEST(curves) {
    char *svg = plot("{\"event\":\"start\",\"rows\":3}\n" EVAL("0", "0", "null", "7.5") STEP("1", "100", "7") STEP("2", "200", "6")
                         EVAL("2", "200", "6.5", "6.6") STEP("3", "300", "5") EVAL("3", "300", "5", "6.5") STEP("4", "400", "4")
                             EVAL("4", "400", "4", "6.4") "{\"event\":\"done\"}\n");
    CHECK_INT(count(svg, "<polyline"), 3); // updates, training, validation
    CHECK_INT(count(svg, "<circle"), 3 + 4);
    CHECK(strstr(svg, ">Tokens seen<") && strstr(svg, ">Epochs<") && strstr(svg, ">Loss<") && strstr(svg, ">Validation loss<"));
    CHECK(strstr(svg, "stroke-dasharray") && strstr(svg, ">400<"));
    CHECK(!strstr(svg, "nan") && !strstr(svg, "inf"));
    free(svg);
}

TEST(without_validation) {
    char *svg = plot(STEP("0.5", "10", "3") STEP("1", "20", "2.5"));
    CHECK_INT(count(svg, "<polyline"), 2);
    CHECK(!strstr(svg, "Validation loss<"));
    free(svg);
}

TEST(odd_logs) {
    static const char *const logs[] = {
        STEP("1", "1", "5"),                                    // one point
        STEP("1", "1", "5") STEP("1", "1", "5"),                // no range
        STEP("0", "0", "0") STEP("0", "0", "0"),                // all zero
        STEP("1", "1", "null") STEP("2", "2", "4"),             // a loss that was not finite
        STEP("1", "1", "1e300") STEP("2", "2", "-1e300"),       // large
        "torn {\n" STEP("1", "1", "5") "{\"event\":\"step\",\"epo", // a killed run's end
        EVAL("0", "0", "null", "3"),
    };
    for (size_t i = 0; i < sizeof logs / sizeof *logs; i++) {
        char *svg = plot(logs[i]);
        if (strncmp(svg, "<svg", 4) != 0 || strstr(svg, "nan") || strstr(svg, "inf") || strlen(svg) > 100000) TEST_FAIL("log %zu: %.300s", i, svg);
        free(svg);
    }
    char *none = plot("{\"event\":\"start\"}\n");
    CHECK_STR(none, "the log has no losses to plot");
    free(none);
}

int main(int argc, char **argv) {
    if (argc != 3 || strcmp(argv[1], "draw") != 0) return test_main("server_plot", argc, argv);
    size_t len;
    struct err err = {0};
    char *log = file_read(argv[2], 1 << 30, &len, &err);
    struct buf svg = {0};
    if (!log || !plot_losses(log, len, &svg, &err)) return fprintf(stderr, "%s\n", err.message), 1;
    fwrite(svg.data, 1, svg.len, stdout);
    buf_finish(&svg);
    free(log);
    return 0;
}
