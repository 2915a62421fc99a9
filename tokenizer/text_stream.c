// SPDX-License-Identifier: MIT
// Streaming UTF-8 repair, one byte at a time by table 3-7 of the Unicode standard (the tables of "well-formed byte
// sequences"). Invariant: held[0..n_held) is a proper prefix of a well-formed sequence; n_held <= 3.
#include "tokenizer/text_stream.h"

// Bytes of the sequence that `lead` opens; 0 when no well-formed sequence starts so.
static size_t sequence_len(unsigned char lead) {
    if (lead < 0x80) return 1;
    if (lead < 0xc2 || lead > 0xf4) return 0;
    return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

// May byte b stand at position `at` (1-3) behind this lead? Only the second byte's range depends on the lead: it shuts
// out overlong forms, surrogates and what lies past U+10FFFF.
static bool continues(unsigned char lead, size_t at, unsigned char b) {
    unsigned char low = 0x80, high = 0xbf;
    if (at == 1) {
        if (lead == 0xe0) low = 0xa0;
        if (lead == 0xed) high = 0x9f;
        if (lead == 0xf0) low = 0x90;
        if (lead == 0xf4) high = 0x8f;
    }
    return b >= low && b <= high;
}

static void replace(struct buf *out) { buf_add(out, "\xef\xbf\xbd", 3); }

void text_stream_add(struct text_stream *s, const char *bytes, size_t len, struct buf *out) {
    for (size_t i = 0; i < len;) {
        if (!s->n_held) {
            size_t plain = i;
            while (i < len && (unsigned char)bytes[i] < 0x80) i++;
            if (i > plain) buf_add(out, bytes + plain, i - plain);
            if (i == len) return;
            if (sequence_len((unsigned char)bytes[i])) s->held[s->n_held++] = bytes[i];
            else replace(out);
            i++;
            continue;
        }
        unsigned char lead = (unsigned char)s->held[0];
        if (!continues(lead, s->n_held, (unsigned char)bytes[i])) { // the byte itself gets its own chance, above
            replace(out);
            s->n_held = 0;
            continue;
        }
        s->held[s->n_held++] = bytes[i++];
        if (s->n_held < sequence_len(lead)) continue;
        buf_add(out, s->held, s->n_held);
        s->n_held = 0;
    }
}

void text_stream_end(struct text_stream *s, struct buf *out) {
    if (s->n_held) replace(out);
    s->n_held = 0;
}
