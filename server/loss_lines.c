// SPDX-License-Identifier: MIT
// See loss_lines.h.
#include "server/loss_lines.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

static bool number_or_null(struct json *j, double *out) {
    return json_peek(j) == JSON_NULL ? json_read_null(j, NULL) : json_read_double(j, out, NULL);
}

static bool line_read(const char *text, size_t len, struct loss_line *out) {
    struct json j;
    struct buf key = {0}, event = {0};
    double step = 0;
    *out = (struct loss_line){.epoch = NAN, .train_loss = NAN, .train_accuracy = NAN, .valid_loss = NAN, .valid_accuracy = NAN};
    json_init(&j, text, len);
    bool ok = json_open(&j, '{', NULL);
    while (ok && json_next_key(&j, &key, NULL)) {
        if (buf_is(&key, "event")) ok = json_read_string(&j, &event, NULL);
        else if (buf_is(&key, "step") && json_peek(&j) == JSON_NUMBER) ok = json_read_double(&j, &step, NULL);
        else if (buf_is(&key, "epoch")) ok = number_or_null(&j, &out->epoch);
        else if (buf_is(&key, "tokens") && json_peek(&j) == JSON_NUMBER) ok = json_read_double(&j, &out->tokens, NULL);
        else if (buf_is(&key, "train_loss")) ok = number_or_null(&j, &out->train_loss);
        else if (buf_is(&key, "train_accuracy")) ok = number_or_null(&j, &out->train_accuracy);
        else if (buf_is(&key, "valid_loss")) ok = number_or_null(&j, &out->valid_loss);
        else if (buf_is(&key, "token_accuracy")) ok = number_or_null(&j, &out->valid_accuracy);
        else ok = json_skip(&j, NULL);
    }
    out->step = (uint64_t)fmax(step, 0);
    out->eval = buf_is(&event, "eval");
    ok = ok && !j.failed && (out->eval || buf_is(&event, "step"));
    buf_finish(&key);
    buf_finish(&event);
    return ok;
}

void loss_lines_each(const char *log, size_t len, void (*see)(void *ctx, const struct loss_line *line), void *ctx) {
    struct loss_line line;
    for (const char *at = log, *stop; (stop = memchr(at, '\n', (size_t)(log + len - at))); at = stop + 1)
        if (line_read(at, (size_t)(stop - at), &line)) see(ctx, &line);
}
