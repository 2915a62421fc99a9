// SPDX-License-Identifier: MIT
// Log lines. Any thread: the settings are atomics, a line is built on its own and written by one write(2).
//
// Invariant: a line holds no control character but its final newline, whatever the values held.
#include "base/log.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_VALUES 8
#define LOG_VALUE_BYTES 256

static atomic_int log_level = LOG_INFO;
static atomic_bool log_json;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_configure(enum log_level level, bool json) {
    atomic_store(&log_level, level);
    atomic_store(&log_json, json);
}

bool log_level_parse(const char *name, enum log_level *out) {
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (strcmp(name, level_names[i]) != 0) continue;
        *out = (enum log_level)i;
        return true;
    }
    return false;
}

// UTC, milliseconds: 2025-01-31T12:00:00.000Z.
static void buf_add_time(struct buf *b) {
    struct timespec now;
    struct tm tm;
    char text[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    buf_add(b, text, strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm));
    buf_printf(b, ".%03ldZ", now.tv_nsec / 1000000);
}

// A plain word stays as it is; everything else is quoted, so that a line splits at its spaces.
static void buf_add_log_value(struct buf *b, const char *s) {
    size_t len = strlen(s), plain = 0;
    while (plain < len && s[plain] > ' ' && s[plain] < 0x7f && s[plain] != '"' && s[plain] != '\\') plain++;
    if (len && plain == len) buf_add(b, s, len);
    else buf_add_json_string(b, s, len);
}

static void log_add_text(struct buf *b, enum log_level level, const char *event, va_list args) {
    buf_add_time(b);
    buf_printf(b, " %-5s %s", level_names[level], event);
    for (const char *key; (key = va_arg(args, const char *));) {
        const char *value = va_arg(args, const char *);
        buf_printf(b, " %s=", key);
        buf_add_log_value(b, value ? value : "");
    }
}

static void log_add_json(struct buf *b, enum log_level level, const char *event, va_list args) {
    buf_add_str(b, "{\"time\":\"");
    buf_add_time(b);
    buf_printf(b, "\",\"level\":\"%s\",\"event\":", level_names[level]);
    buf_add_json_string(b, event, strlen(event));
    for (const char *key; (key = va_arg(args, const char *));) {
        const char *value = va_arg(args, const char *);
        buf_add_byte(b, ',');
        buf_add_json_string(b, key, strlen(key));
        buf_add_byte(b, ':');
        if (value) buf_add_json_string(b, value, strlen(value));
        else buf_add_str(b, "null");
    }
    buf_add_byte(b, '}');
}

void log_line(enum log_level level, const char *event, ...) {
    if ((int)level > atomic_load_explicit(&log_level, memory_order_relaxed)) return;
    struct buf b = {0};
    va_list args;
    va_start(args, event);
    if (atomic_load_explicit(&log_json, memory_order_relaxed)) log_add_json(&b, level, event, args);
    else log_add_text(&b, level, event, args);
    va_end(args);
    buf_add_byte(&b, '\n');
    ssize_t n = write(STDERR_FILENO, b.data, b.len);
    (void)n; // a log that cannot be written has nobody to be told
    buf_finish(&b);
}

const char *log_value(const char *format, ...) {
    static _Thread_local char ring[LOG_VALUES][LOG_VALUE_BYTES];
    static _Thread_local unsigned next;
    char *text = ring[next++ % LOG_VALUES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, LOG_VALUE_BYTES, format, args);
    va_end(args);
    if (n < 0) text[0] = 0;
    if (n >= LOG_VALUE_BYTES) text[utf8_complete_prefix(text, LOG_VALUE_BYTES - 1)] = 0;
    return text;
}
