// SPDX-License-Identifier: MIT
// Counters and histograms, written as Prometheus text. Names are vLLM's behind "couplet:".
//
// Thread: loop thread only. Gauges and engine counters are read from their owners when the text is written.
#pragma once

#include "base/buf.h"

#include <stdint.h>

enum metric_counter {
    METRIC_PROMPT_TOKENS,     // couplet:prompt_tokens_total
    METRIC_GENERATION_TOKENS, // couplet:generation_tokens_total
    METRIC_SUCCESS_STOP,      // couplet:request_success_total{finished_reason="stop"}
    METRIC_SUCCESS_LENGTH,
    METRIC_SUCCESS_ABORT,
    METRIC_SUCCESS_ERROR,
    METRIC_DISCONNECTS, // couplet:client_disconnects_total: clients that left before their answer was whole
    METRIC_REJECTED,    // couplet:requests_rejected_total: 429s, the queue was full
    METRIC_COUNTERS,
};

enum metric_histogram {
    METRIC_TIME_TO_FIRST_TOKEN, // couplet:time_to_first_token_seconds
    METRIC_INTER_TOKEN_LATENCY,
    METRIC_E2E_LATENCY,
    METRIC_QUEUE_TIME,
    METRIC_PREFILL_TIME,
    METRIC_DECODE_TIME,
    METRIC_REQUEST_PROMPT_TOKENS,
    METRIC_REQUEST_GENERATION_TOKENS,
    METRIC_REQUEST_MAX_TOKENS, // couplet:request_params_max_tokens
    METRIC_REQUEST_N,          // couplet:request_params_n
    METRIC_LOOP_LAG,           // couplet:loop_lag_seconds
    METRIC_CANCEL,             // couplet:cancel_seconds
    METRIC_HISTOGRAMS,
};

enum { METRIC_MAX_BUCKETS = 20 };

struct metrics {
    uint64_t counters[METRIC_COUNTERS];
    struct metric_histogram_state {
        uint64_t counts[METRIC_MAX_BUCKETS + 1], total;
        double sum;
    } histograms[METRIC_HISTOGRAMS];
    struct metric_http {
        const char *handler; // the route's path; static memory
        const char *method;
        int status;
        uint64_t count;
    } *http;
    size_t n_http, cap_http;
};

struct server;

void metrics_finish(struct metrics *m); // accepts a zeroed one
void metrics_add(struct metrics *m, enum metric_counter c, uint64_t n);
void metrics_observe(struct metrics *m, enum metric_histogram h, double value);
void metrics_count_http(struct metrics *m, const char *handler, const char *method, int status); // pointers must be static
void metrics_write(struct server *s, struct buf *out);
