// SPDX-License-Identifier: MIT
// The error value. Every function that can fail at run time returns bool or a pointer and takes a `struct err *` last.
//
// Rules: on failure the outputs are untouched and `err` holds one sentence, written where the fault was found and fit to be
// shown to a client (no path of the server's, no address, no errno text unless the caller is a command line). On success
// `err` is untouched. `err` may be NULL where the caller does not care. Nothing below server/ logs an error or exits.
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum err_code {
    ERR_NONE = 0,
    ERR_INVALID,     // the caller's value is wrong: bad option, bad field, bad text
    ERR_CORRUPT,     // a file's bytes contradict its format
    ERR_UNSUPPORTED, // well formed, but not something this program does
    ERR_NOT_FOUND,
    ERR_IO,        // the operating system refused a read or a write
    ERR_NO_MEMORY, // an allocation sized by a file or a request failed
    ERR_TOO_LARGE, // over a stated limit
    ERR_BUSY,      // a bounded queue is full, or the thing is shutting down
    ERR_NO_SPACE,  // the disk, a quota or a file-size limit is full
};

struct err {
    enum err_code code;
    char param[64];    // the field or option at fault, dotted path ("messages[0].role"), or ""
    char message[400]; // one sentence, no newline, valid UTF-8, control characters escaped
};

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

// Fills *err (if not NULL) and returns false, so that `return err_set(err, ...)` reads well. Bytes of the formatted text that
// are not printable (control characters, invalid UTF-8) are replaced: messages may quote hostile names.
bool err_set(struct err *err, enum err_code code, const char *format, ...) PRINTF_LIKE(3, 4);

// As err_set, and names the field or option at fault.
bool err_set_param(struct err *err, enum err_code code, const char *param, const char *format, ...) PRINTF_LIKE(4, 5);

// What an errno means: ERR_NOT_FOUND, ERR_NO_SPACE, ERR_NO_MEMORY, else ERR_IO.
enum err_code err_code_of(int number);

// Puts "prefix: " before the message already in *err (err may be NULL). Returns false.
bool err_prefix(struct err *err, const char *format, ...) PRINTF_LIKE(2, 3);
