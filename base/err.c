// SPDX-License-Identifier: MIT
// The error value: formatting, with hostile bytes made harmless. Any thread; no state.
//
// Invariant: message and param are always valid UTF-8 without control characters, whatever the arguments held.
#include "base/err.h"
#include "base/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// Longer than a message may become, so that the text is cut once, at a whole character, by err_copy_text.
#define ERR_FORMAT_BYTES 1024

// Line and paragraph separators break lines in viewers; C1 controls drive terminals.
static bool is_printable(uint32_t c) {
    return c >= 0x20 && c != 0x7f && !(c >= 0x80 && c < 0xa0) && c != 0x2028 && c != 0x2029 && c != UTF8_INVALID;
}

// Copies text into out[0..cap), escaping what is not printable as \xNN, and ending in "..." where it had to be cut.
// cap must hold "..." and a NUL. A cut falls between characters (and between escapes).
static void err_copy_text(char *out, size_t cap, const char *text, size_t len) {
    size_t n = 0, fit = 0; // fit: where a cut leaves room for "..."
    for (size_t i = 0; i < len;) {
        uint32_t c;
        size_t took = utf8_decode(text + i, len - i, &c);
        bool plain = is_printable(c);
        size_t need = plain ? took : 4 * took;
        if (n + need >= cap) {
            memcpy(out + fit, "...", 4);
            return;
        }
        for (size_t k = 0; k < took; k++) {
            unsigned char byte = (unsigned char)text[i + k];
            if (plain) out[n++] = (char)byte;
            else n += (size_t)snprintf(out + n, 5, "\\x%02X", byte);
        }
        if (n + 3 < cap) fit = n;
        i += took;
    }
    out[n] = 0;
}

// Formats into text; returns the number of bytes kept. A character split by the buffer's end is dropped with its rest.
static size_t err_format(char text[ERR_FORMAT_BYTES], const char *format, va_list args) {
    int n = vsnprintf(text, ERR_FORMAT_BYTES, format, args);
    if (n < 0) return (size_t)snprintf(text, ERR_FORMAT_BYTES, "unprintable error");
    return (size_t)n < ERR_FORMAT_BYTES ? (size_t)n : utf8_complete_prefix(text, ERR_FORMAT_BYTES - 1);
}

// The arguments may point into *err itself, so everything is formatted before anything is stored.
static bool err_store(struct err *err, enum err_code code, const char *param, const char *format, va_list args) {
    if (!err) return false;
    char text[ERR_FORMAT_BYTES];
    size_t len = err_format(text, format, args);
    char name[sizeof err->param] = "";
    err_copy_text(name, sizeof name, param, strlen(param));
    err->code = code;
    memcpy(err->param, name, sizeof name);
    err_copy_text(err->message, sizeof err->message, text, len);
    return false;
}

bool err_set(struct err *err, enum err_code code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    err_store(err, code, "", format, args);
    va_end(args);
    return false;
}

bool err_set_param(struct err *err, enum err_code code, const char *param, const char *format, ...) {
    va_list args;
    va_start(args, format);
    err_store(err, code, param ? param : "", format, args);
    va_end(args);
    return false;
}

bool err_prefix(struct err *err, const char *format, ...) {
    if (!err) return false;
    char text[ERR_FORMAT_BYTES], whole[ERR_FORMAT_BYTES + sizeof err->message + 2];
    va_list args;
    va_start(args, format);
    size_t len = err_format(text, format, args);
    va_end(args);
    memcpy(whole, text, len);
    memcpy(whole + len, ": ", 2);
    size_t rest = strlen(err->message);
    memcpy(whole + len + 2, err->message, rest);
    err_copy_text(err->message, sizeof err->message, whole, len + 2 + rest);
    return false;
}

enum err_code err_code_of(int number) {
    switch (number) {
    case ENOENT:
    case ENOTDIR: return ERR_NOT_FOUND;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return ERR_NO_SPACE;
    case ENOMEM: return ERR_NO_MEMORY;
    default: return ERR_IO;
    }
}
