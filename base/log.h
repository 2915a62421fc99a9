// SPDX-License-Identifier: MIT
// Log lines on stderr, as text or JSON. Thread-safe; one write(2) a line. Never prompt or completion text, never a key.
#pragma once

#include "base/err.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_configure(enum log_level level, bool json);
bool log_level_parse(const char *name, enum log_level *out); // "error" | "warn" | "info" | "debug"

// `event` is a short fixed phrase; the rest are key/value pairs as text: log_line(LOG_INFO, "listening", "port", "8080", NULL).
void log_line(enum log_level level, const char *event, ...) __attribute__((sentinel));
// A value formatted into a small thread-local ring (valid for the next 8 calls on this thread).
const char *log_value(const char *format, ...) PRINTF_LIKE(1, 2);
