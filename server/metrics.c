// SPDX-License-Identifier: MIT
// Metrics as Prometheus text (exposition format 0.0.4). Thread: loop.
#include "server/metrics.h"

#include "base/mem.h"
#include "server/http_internal.h"
#include "server/jobs/runner.h"
#include "server/store/store.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define TOKEN_BUCKETS {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000}
#define SLOW_BUCKETS {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}
#define STEP_BUCKETS {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5}
#define FAST_BUCKETS {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5}

static const struct {
    const char *name, *help;
    double buckets[METRIC_MAX_BUCKETS]; // ended by 0
} histogram_table[METRIC_HISTOGRAMS] = {
    [METRIC_TIME_TO_FIRST_TOKEN] = {"time_to_first_token_seconds", "From a request's arrival to its first token.", SLOW_BUCKETS},
    [METRIC_INTER_TOKEN_LATENCY] = {"inter_token_latency_seconds", "Between two tokens of a sequence.", STEP_BUCKETS},
    [METRIC_E2E_LATENCY] = {"e2e_request_latency_seconds", "From a request's arrival to its end.", SLOW_BUCKETS},
    [METRIC_QUEUE_TIME] = {"request_queue_time_seconds", "Waiting for a place in the batch.", SLOW_BUCKETS},
    [METRIC_PREFILL_TIME] = {"request_prefill_time_seconds", "Reading the prompt.", SLOW_BUCKETS},
    [METRIC_DECODE_TIME] = {"request_decode_time_seconds", "Generating.", SLOW_BUCKETS},
    [METRIC_REQUEST_PROMPT_TOKENS] = {"request_prompt_tokens", "Prompt tokens of a request.", TOKEN_BUCKETS},
    [METRIC_REQUEST_GENERATION_TOKENS] = {"request_generation_tokens", "Generated tokens of a request.", TOKEN_BUCKETS},
    [METRIC_REQUEST_MAX_TOKENS] = {"request_params_max_tokens", "max_tokens asked for.", TOKEN_BUCKETS},
    [METRIC_REQUEST_N] = {"request_params_n", "n asked for.", {1, 2, 5, 10, 20}},
    [METRIC_LOOP_LAG] = {"loop_lag_seconds", "How late a 5 ms timer fired on the event loop while requests were active.", FAST_BUCKETS},
    [METRIC_CANCEL] = {"cancel_seconds", "From a cancellation to the engine's letting go of the sequence.", FAST_BUCKETS},
};

static const struct {
    const char *name, *label, *help;
} counter_table[METRIC_COUNTERS] = {
    [METRIC_PROMPT_TOKENS] = {"prompt_tokens_total", "", "Prompt tokens of answered requests."},
    [METRIC_GENERATION_TOKENS] = {"generation_tokens_total", "", "Generated tokens."},
    [METRIC_SUCCESS_STOP] = {"request_success_total", "{finished_reason=\"stop\"}", "Finished sequences."},
    [METRIC_SUCCESS_LENGTH] = {"request_success_total", "{finished_reason=\"length\"}", NULL},
    [METRIC_SUCCESS_ABORT] = {"request_success_total", "{finished_reason=\"abort\"}", NULL},
    [METRIC_SUCCESS_ERROR] = {"request_success_total", "{finished_reason=\"error\"}", NULL},
    [METRIC_DISCONNECTS] = {"client_disconnects_total", "", "Clients that left before their answer was whole."},
    [METRIC_REJECTED] = {"requests_rejected_total", "", "Requests answered 429: the queue was full."},
};

void metrics_finish(struct metrics *m) {
    free(m->http);
    *m = (struct metrics){0};
}

void metrics_add(struct metrics *m, enum metric_counter c, uint64_t n) { m->counters[c] += n; }

void metrics_observe(struct metrics *m, enum metric_histogram h, double value) {
    const double *buckets = histogram_table[h].buckets;
    size_t i = 0;
    while (i < METRIC_MAX_BUCKETS && buckets[i] > 0 && value > buckets[i]) i++;
    m->histograms[h].counts[i]++;
    m->histograms[h].total++;
    m->histograms[h].sum += value;
}

void metrics_count_http(struct metrics *m, const char *handler, const char *method, int status) {
    for (size_t i = 0; i < m->n_http; i++) {
        struct metric_http *h = &m->http[i];
        if (h->handler != handler || h->method != method || h->status != status) continue;
        h->count++;
        return;
    }
    mem_grow(&m->http, &m->cap_http, m->n_http + 1);
    m->http[m->n_http++] = (struct metric_http){handler, method, status, 1};
}

// ---- text ----

static void head_write(struct buf *out, const char *prefix, const char *name, const char *type, const char *help) {
    buf_printf(out, "# HELP %s%s %s\n# TYPE %s%s %s\n", prefix, name, help, prefix, name, type);
}

static void value_write(struct buf *out, const char *name, const char *type, const char *help, double value) {
    const char *prefix = strncmp(name, "process_", 8) == 0 ? "" : "couplet:";
    head_write(out, prefix, name, type, help);
    buf_printf(out, "%s%s %.15g\n", prefix, name, value);
}

static void counters_write(const struct metrics *m, struct buf *out) {
    for (size_t i = 0; i < METRIC_COUNTERS; i++) {
        if (counter_table[i].help) head_write(out, "couplet:", counter_table[i].name, "counter", counter_table[i].help);
        buf_printf(out, "couplet:%s%s %llu\n", counter_table[i].name, counter_table[i].label, (unsigned long long)m->counters[i]);
    }
    head_write(out, "couplet:", "http_requests_total", "counter", "Answered HTTP requests; status 499: the client left.");
    for (size_t i = 0; i < m->n_http; i++)
        buf_printf(out, "couplet:http_requests_total{handler=\"%s\",method=\"%s\",status=\"%d\"} %llu\n", m->http[i].handler,
                   m->http[i].method, m->http[i].status, (unsigned long long)m->http[i].count);
}

static void histogram_write(const struct metrics *m, size_t h, struct buf *out) {
    const struct metric_histogram_state *s = &m->histograms[h];
    const char *name = histogram_table[h].name;
    head_write(out, "couplet:", name, "histogram", histogram_table[h].help);
    uint64_t below = 0;
    for (size_t i = 0; i < METRIC_MAX_BUCKETS && histogram_table[h].buckets[i] > 0; i++) {
        below += s->counts[i];
        buf_printf(out, "couplet:%s_bucket{le=\"%g\"} %llu\n", name, histogram_table[h].buckets[i], (unsigned long long)below);
    }
    buf_printf(out, "couplet:%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)s->total);
    buf_printf(out, "couplet:%s_sum %.9g\ncouplet:%s_count %llu\n", name, s->sum, name, (unsigned long long)s->total);
}

static void engine_write(struct server *s, struct buf *out) {
    struct engine_stats stats = {0};
    if (s->engine) engine_stats(s->engine, &stats);
    double used = stats.kv_blocks_total ? (double)stats.kv_blocks_used / (double)stats.kv_blocks_total : 0;
    value_write(out, "num_requests_running", "gauge", "Sequences in the batch.", (double)stats.running);
    value_write(out, "num_requests_waiting", "gauge", "Sequences in the queue.", (double)stats.waiting);
    value_write(out, "kv_cache_usage_perc", "gauge", "Share of the KV cache in use, 0 to 1.", used);
    value_write(out, "kv_cache_bytes", "gauge", "Memory committed to the KV cache.", (double)stats.kv_bytes_committed);
    value_write(out, "prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache.", (double)stats.prefix_queries);
    value_write(out, "prefix_cache_hits_total", "counter", "Prompt tokens found there.", (double)stats.prefix_hits);
    value_write(out, "num_preemptions_total", "counter", "Sequences put back for want of cache.", (double)stats.preemptions);
    value_write(out, "engine_steps_total", "counter", "Forward steps.", (double)stats.steps);
    value_write(out, "engine_rows_total", "counter", "Rows of all forward steps.", (double)stats.rows);
    value_write(out, "engine_busy_seconds_total", "counter", "Time inside forward steps.", (double)stats.busy_ns / 1e9);
}

static void models_write(struct server *s, struct buf *out) {
    struct registry_figures f = {0};
    if (s->registry) registry_figures(s->registry, &f);
    head_write(out, "couplet:", "models_loaded", "gauge", "Models in memory, hidden bases of adapters too.");
    buf_printf(out, "couplet:models_loaded{kind=\"full\"} %zu\ncouplet:models_loaded{kind=\"adapter\"} %zu\n", f.full, f.adapters);
    value_write(out, "models_cold", "gauge", "Models that would be loaded when asked for.", (double)f.cold);
}

static void jobs_write(struct server *s, struct buf *out) {
    struct runner_figures f = {.train_loss = NAN};
    if (s->runner) runner_figures(s->runner, &f);
    head_write(out, "couplet:", "ft_jobs", "gauge", "Fine-tuning jobs.");
    for (int i = 0; i < JOB_STATUSES; i++)
        buf_printf(out, "couplet:ft_jobs{status=\"%s\"} %zu\n", job_status_name((enum job_status)i), f.jobs[i]);
    value_write(out, "ft_train_loss", "gauge", "Loss of the running job's newest step; NaN: none runs.", f.train_loss);
    value_write(out, "ft_tokens_total", "counter", "Tokens trained on.", (double)f.trained_tokens);
    value_write(out, "ft_yield_seconds_total", "counter", "Time training stood still because requests were served.", f.yield_seconds);
}

static double open_descriptors(void) {
    DIR *dir = opendir("/proc/self/fd");
    double n = -3; // ".", "..", and the descriptor that lists them
    while (dir && readdir(dir)) n++;
    if (dir) closedir(dir);
    return n < 0 ? 0 : n;
}

static void process_write(const struct server *s, struct buf *out) {
    struct rusage usage;
    struct rlimit files = {0};
    getrusage(RUSAGE_SELF, &usage);
    getrlimit(RLIMIT_NOFILE, &files);
    unsigned long virtual_pages = 0, resident_pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm && fscanf(statm, "%lu %lu", &virtual_pages, &resident_pages) != 2) resident_pages = 0;
    if (statm) fclose(statm);
    double page = (double)sysconf(_SC_PAGESIZE);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    value_write(out, "process_cpu_seconds_total", "counter", "User and system time.", cpu);
    value_write(out, "process_resident_memory_bytes", "gauge", "Resident memory.", (double)resident_pages * page);
    value_write(out, "process_virtual_memory_bytes", "gauge", "Virtual memory.", (double)virtual_pages * page);
    value_write(out, "process_open_fds", "gauge", "Open file descriptors.", open_descriptors());
    value_write(out, "process_max_fds", "gauge", "Limit of open file descriptors.", (double)files.rlim_cur);
    value_write(out, "process_start_time_seconds", "gauge", "Start, Unix time.", (double)s->started_s);
}

void metrics_write(struct server *s, struct buf *out) {
    engine_write(s, out);
    models_write(s, out);
    counters_write(&s->metrics, out);
    for (size_t h = 0; h < METRIC_HISTOGRAMS; h++) histogram_write(&s->metrics, h, out);
    value_write(out, "http_connections", "gauge", "Open connections.", s->http ? (double)s->http->n_connections : 0);
    value_write(out, "http_requests_in_flight", "gauge", "Requests whose answer is not whole, this one included.", s->http ? (double)s->http->n_requests : 0);
    value_write(out, "http_body_bytes", "gauge", "Memory of request bodies.", s->http ? (double)s->http->body_bytes : 0);
    jobs_write(s, out);
    process_write(s, out);
}
