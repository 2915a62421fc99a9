// SPDX-License-Identifier: MIT
// The server's configuration: one table of keys (config.c) that the file, the environment, the flags, --help,
// --check-config, --print-config and configs/couplet.conf are all held to. file < environment < flag.
//
// Immutable once config_load returned; readable from any thread.
#pragma once

#include "base/err.h"
#include "engine/infer/model.h"

#include <stdio.h>

struct string_list {
    char **items;
    size_t n;
};

struct config {
    struct string_list model;       // "[NAME=]PATH"
    struct string_list adapter;     // none, or one: of the only model
    char *host;                     // address to listen on
    size_t port;                    // 0: any free one
    struct string_list public_host; // further names this server is reached by
    char *data_dir;
    size_t threads; // kernel threads; 0: one per processor
    enum weights_mode weights;
    size_t drain_seconds;
    size_t max_running, max_waiting, step_rows;
    size_t kv_cache_mb; // per model
    size_t max_loaded;  // full models made by jobs that stay in memory
    size_t jobs_max_queued; // of one key, running ones included
    size_t max_inspect_tokens;
    size_t max_connections;
    size_t max_body_bytes;       // of one JSON body
    size_t max_body_total_bytes; // of all bodies in memory
    size_t upload_max_bytes;     // of one file
    size_t files_quota_mb, files_total_mb, disk_low_mb;
    size_t header_seconds;       // a request's headers must be complete by then
    size_t body_bytes_per_second; // the least a body may trickle, after header_seconds of grace
    size_t stall_seconds;        // a reader that takes nothing, a connection that says nothing
    size_t ping_seconds;         // silence on a stream before a comment
    // training: jobs' processes
    size_t train_threads, train_nice, train_memory_mb; // 0: one per processor; 0: three quarters of the machine's
    size_t train_grace_seconds, train_stall_seconds, train_max_attempts, lease_seconds;
    struct string_list train_launcher;
    size_t train_share_percent, serve_latency_ms; // while requests are served
    char *log_level;
    char *log_format; // "text" | "json"
    char *bound_host; // what config_is_loopback and the Host check use: host without brackets
};

void config_finish(struct config *c); // accepts a zeroed one

enum config_action { CONFIG_SERVE, CONFIG_CHECK, CONFIG_PRINT, CONFIG_HELP };

// Reads defaults, file (-c FILE, else COUPLET_CONFIG), environment, then argv[1..]. On failure one sentence naming
// FILE:LINE, the variable or the flag.
bool config_load(struct config *c, int argc, char **argv, enum config_action *action, struct err *err) MUST_CHECK;

void config_print(const struct config *c, FILE *out); // as a file that config_load reads back to the same values
void config_print_help(FILE *out);
bool config_host_is_loopback(const char *host); // 127.0.0.0/8, ::1, localhost

// The table, for tests: row i; false past its end.
bool config_key_at(size_t i, const char **key, const char **initial, const char **help);
