// SPDX-License-Identifier: MIT
// See multipart.h. A boundary's characters exclude CR, so CR begins the delimiter and stands nowhere else in it: when a match breaks off, what was
// matched is data, and the next match can only begin at the byte that broke it. So every byte is looked at once, whatever is sent.
#include "server/multipart.h"

#include "base/mem.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { STATE_PREAMBLE, STATE_DELIMITER, STATE_DASH, STATE_LINE_END, STATE_HEADER, STATE_DATA, STATE_EPILOGUE };

static bool malformed(struct err *err, const char *what) { return err_set_param(err, ERR_INVALID, "file", "The form is malformed: %s.", what); }

// ---- header values ----

// The value of `name` in "type; name=token; other="quoted"", without quotes; NULL: absent or malformed. Browsers and curl escape `"` and `\` alone; other
// backslashes are a path's.
static bool parameter_read(const char *s, const char *name, struct buf *out) {
    size_t name_len = strlen(name);
    for (s += strcspn(s, ";"); *s == ';';) {
        s++;
        s += strspn(s, " \t");
        bool wanted = strncasecmp(s, name, name_len) == 0 && s[name_len] == '=';
        s += strcspn(s, "=;");
        if (*s != '=') continue;
        buf_clear(out);
        if (*++s == '"') {
            for (s++; *s && *s != '"'; s++) {
                if (*s == '\\' && (s[1] == '"' || s[1] == '\\')) s++;
                buf_add_byte(out, (unsigned char)*s);
            }
            if (*s != '"') return false;
            s++;
            s += strspn(s, " \t");
        } else {
            size_t n = strcspn(s, "; \t");
            buf_add(out, s, n);
            s += n;
            s += strspn(s, " \t");
        }
        if (wanted) return true;
    }
    return false;
}

static int hex_digit(char c) { return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? (c | 0x20) - 'a' + 10 : -1; }

// UTF-8''na%C3%AFve.txt (RFC 8187), in place; what is not of this form stays as it is.
static void extended_decode(struct buf *b) {
    static const char prefix[] = "utf-8'";
    const char *from = strncasecmp(buf_str(b), prefix, sizeof prefix - 1) == 0 ? strchr(b->data + sizeof prefix - 1, '\'') : NULL;
    if (!from) return;
    char *to = b->data;
    for (from++; *from; from++) {
        bool coded = from[0] == '%' && hex_digit(from[1]) >= 0 && hex_digit(from[2]) >= 0;
        *to++ = coded ? (char)(hex_digit(from[1]) << 4 | hex_digit(from[2])) : *from;
        if (coded) from += 2;
    }
    b->len = (size_t)(to - b->data);
    *to = 0;
}

bool multipart_init(struct multipart *m, const char *content_type, struct err *err) {
    static const char allowed[] = "'()+_,-./:=? "; // and letters and digits
    struct buf boundary = {0};
    bool ok = parameter_read(content_type, "boundary", &boundary) && boundary.len > 0 && boundary.len <= MULTIPART_BOUNDARY_MAX &&
              boundary.data[boundary.len - 1] != ' ';
    for (size_t i = 0; ok && i < boundary.len; i++) ok = isalnum((unsigned char)boundary.data[i]) || strchr(allowed, boundary.data[i]);
    if (ok) m->delimiter_len = (size_t)snprintf(m->delimiter, sizeof m->delimiter, "\r\n--%s", boundary.data);
    buf_finish(&boundary);
    m->state = STATE_PREAMBLE;
    m->matched = 2; // the first delimiter may stand at the very beginning, as if a line had ended before it
    return ok || malformed(err, "its boundary must be 1 to 70 plain characters");
}

void multipart_finish(struct multipart *m) {
    buf_finish(&m->header);
    buf_finish(&m->part.name);
    buf_finish(&m->part.filename);
}

// ---- a part's header lines ----

static bool disposition_read(struct multipart *m, const char *value, struct err *err) {
    struct multipart_part *part = &m->part;
    if (strncasecmp(value, "form-data", 9) != 0 || !parameter_read(value, "name", &part->name)) return malformed(err, "a part has no name");
    part->has_filename = parameter_read(value, "filename", &part->filename);
    if (!part->has_filename && parameter_read(value, "filename*", &part->filename)) {
        part->has_filename = true;
        extended_decode(&part->filename);
    }
    return !memchr(buf_str(&part->filename), 0, part->filename.len) || malformed(err, "a file's name holds NUL");
}

static bool header_done(struct multipart *m, struct err *err) {
    static const char disposition[] = "Content-Disposition:";
    if (memchr(m->header.data, 0, m->header.len)) return malformed(err, "a part's header lines hold NUL");
    bool found = false;
    for (char *line = m->header.data, *end; (end = strstr(line, "\r\n")) && end > line; line = end + 2) {
        *end = 0;
        if (strncasecmp(line, disposition, sizeof disposition - 1) != 0) continue;
        if (found) return malformed(err, "a part has two names");
        found = true;
        const char *value = line + sizeof disposition - 1;
        if (!disposition_read(m, value + strspn(value, " \t"), err)) return false;
    }
    if (!found) return malformed(err, "a part has no name");
    if (++m->n_parts > MULTIPART_PARTS_MAX) return malformed(err, "it has too many parts");
    return m->on_part(m->ctx, &m->part, err);
}

static bool header_byte(struct multipart *m, char c, struct err *err) {
    buf_add_byte(&m->header, (unsigned char)c);
    if (m->header.len > MULTIPART_HEADER_MAX) return malformed(err, "a part's header lines are too long");
    const char *end = m->header.data + m->header.len;
    if (m->header.len < 4 || memcmp(end - 4, "\r\n\r\n", 4) != 0) return true;
    m->state = STATE_DATA;
    return header_done(m, err);
}

// ---- bytes ----

static bool data_add(struct multipart *m, const char *p, size_t n, struct err *err) {
    return n == 0 || m->state == STATE_PREAMBLE || m->on_data(m->ctx, p, n, err);
}

// Data up to the delimiter or the end of what there is; *used: bytes taken.
static bool data_feed(struct multipart *m, const char *p, size_t n, size_t *used, struct err *err) {
    size_t i = 0, begin = 0; // data not yet handed on
    while (i < n) {
        if (m->matched == 0) {
            const char *cr = memchr(p + i, '\r', n - i);
            i = cr ? (size_t)(cr - p) : n;
            if (!data_add(m, p + begin, i - begin, err)) return false;
            begin = i;
            if (!cr) break;
        }
        if (p[i] == m->delimiter[m->matched]) {
            begin = ++i;
            if (++m->matched < m->delimiter_len) continue;
            m->matched = 0;
            m->state = STATE_DELIMITER;
            break;
        }
        if (!data_add(m, m->delimiter, m->matched, err)) return false;
        m->matched = 0;
    }
    *used = i;
    return true;
}

static bool delimiter_byte(struct multipart *m, char c, struct err *err) {
    switch (m->state) {
    case STATE_DELIMITER:
        if (c == '-') m->state = STATE_DASH;
        else if (c == '\r') m->state = STATE_LINE_END;
        else if (c != ' ' && c != '\t') return malformed(err, "something follows a boundary on its line");
        return true;
    case STATE_DASH: m->state = STATE_EPILOGUE; return c == '-' || malformed(err, "something follows a boundary on its line");
    default:
        m->state = STATE_HEADER;
        buf_clear(&m->header);
        return c == '\n' || malformed(err, "a line ends in CR without LF");
    }
}

bool multipart_feed(struct multipart *m, const char *p, size_t n, struct err *err) {
    while (n && m->state != STATE_EPILOGUE) {
        size_t used = 1;
        bool ok = m->state == STATE_PREAMBLE || m->state == STATE_DATA ? data_feed(m, p, n, &used, err)
                  : m->state == STATE_HEADER                           ? header_byte(m, *p, err)
                                                                       : delimiter_byte(m, *p, err);
        if (!ok) return false;
        p += used;
        n -= used;
    }
    return true;
}

bool multipart_end(const struct multipart *m, struct err *err) {
    return m->state == STATE_EPILOGUE || malformed(err, "it ends before its closing boundary");
}
