// SPDX-License-Identifier: MIT
// LevelDB's table format, as far as TensorFlow's checkpoints use it: footer -> index block -> data blocks, keys with shared
// prefixes. Uncompressed blocks only, which is what TensorFlow writes.
//
// Invariant: no offset or length is believed before it lies inside the file, the block or the key at hand; each block's
// checksum was compared before its bytes are read. Pure functions; any thread.
#include "engine/model/tf_table.h"

#include "base/buf.h"

#include <string.h>

enum { FOOTER_BYTES = 48, TRAILER_BYTES = 5, KEY_MAX = 4096 }; // trailer of a block: type, checksum

static uint32_t load_u32(const unsigned char *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool varint_read(struct bytes *b, uint64_t *out) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && b->at < b->end; shift += 7) {
        const unsigned char c = *b->at++;
        v |= (uint64_t)(c & 127) << shift;
        if (c < 128) {
            *out = v;
            return true;
        }
    }
    return false;
}

static size_t left(const struct bytes *b) { return (size_t)(b->end - b->at); }

bool proto_next(struct bytes *b, struct proto_field *f) {
    struct bytes at = *b;
    uint64_t tag;
    if (at.at == at.end || !varint_read(&at, &tag) || tag >> 3 > UINT32_MAX) return false;
    *f = (struct proto_field){.number = (unsigned)(tag >> 3)};
    const size_t fixed = (tag & 7) == 1 ? 8 : (tag & 7) == 5 ? 4 : 0;
    if ((tag & 7) == 0) {
        if (!varint_read(&at, &f->value)) return false;
    } else if (fixed) {
        if (left(&at) < fixed) return false;
        for (size_t i = 0; i < fixed; i++) f->value |= (uint64_t)*at.at++ << (8 * i);
    } else if ((tag & 7) == 2) {
        if (!varint_read(&at, &f->value) || f->value > left(&at)) return false;
        f->is_bytes = true;
        f->bytes = (struct bytes){at.at, at.at + f->value};
        at.at += f->value;
    } else {
        return false;
    }
    *b = at;
    return true;
}

// Four bytes a turn: table[k][x] is the checksum of byte x followed by k zero bytes.
uint32_t crc32c_masked(const unsigned char *data, size_t len) {
    uint32_t table[4][256], crc = UINT32_MAX;
    for (uint32_t x = 0; x < 256; x++) {
        uint32_t c = x;
        for (int bit = 0; bit < 8; bit++) c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
        table[0][x] = c;
    }
    for (int k = 1; k < 4; k++)
        for (uint32_t x = 0; x < 256; x++) table[k][x] = table[k - 1][x] >> 8 ^ table[0][table[k - 1][x] & 255];
    for (; len >= 4; data += 4, len -= 4) {
        crc ^= load_u32(data);
        crc = table[3][crc & 255] ^ table[2][crc >> 8 & 255] ^ table[1][crc >> 16 & 255] ^ table[0][crc >> 24];
    }
    while (len--) crc = crc >> 8 ^ table[0][(crc ^ *data++) & 255];
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static bool damaged(struct err *err, const char *what) {
    (void)err_set(err, ERR_CORRUPT, "the checkpoint's index is damaged: %s", what);
    return false;
}

// The block that `handle` (two varints: offset, size) points to, without its list of restart points. *floor: where the block
// before it ended; blocks lie in order, so a small hostile index cannot have one block read again and again.
static bool block_open(const unsigned char *data, size_t len, struct bytes *handle, uint64_t *floor, struct bytes *out,
                       struct err *err) {
    uint64_t offset, size;
    if (!varint_read(handle, &offset) || !varint_read(handle, &size)) return damaged(err, "a block's place cannot be read");
    if (offset > len || size > len - offset || len - offset - size < TRAILER_BYTES)
        return damaged(err, "a block lies outside the file");
    if (offset < *floor) return damaged(err, "its blocks overlap");
    *floor = offset + size;
    const unsigned char *block = data + offset, *trailer = block + size;
    if (trailer[0] != 0)
        return err_set(err, ERR_UNSUPPORTED, "the checkpoint's index is compressed, which TensorFlow does not do by itself");
    if (crc32c_masked(block, size + 1) != load_u32(trailer + 1)) return damaged(err, "a block's checksum is wrong");
    if (size < 4) return damaged(err, "a block is too short");
    const uint64_t restarts = load_u32(trailer - 4);
    if (restarts > (size - 4) / 4) return damaged(err, "a block's restart points do not fit");
    *out = (struct bytes){block, trailer - 4 - 4 * restarts};
    return true;
}

// The next record of a block: `key` keeps what it shares with the one before.
static bool record_next(struct bytes *b, struct buf *key, struct bytes *value, struct err *err) {
    uint64_t shared, fresh, size;
    if (!varint_read(b, &shared) || !varint_read(b, &fresh) || !varint_read(b, &size))
        return damaged(err, "a record's lengths cannot be read");
    if (shared > key->len || fresh > left(b) || size > left(b) - fresh || shared + fresh > KEY_MAX)
        return damaged(err, "a record reaches outside its block");
    key->len = shared;
    buf_add(key, b->at, fresh);
    *value = (struct bytes){b->at + fresh, b->at + fresh + size};
    b->at += fresh + size;
    return true;
}

bool tf_table_walk(const unsigned char *data, size_t len, tf_visit_fn *visit, void *ctx, struct err *err) {
    static const unsigned char magic[8] = {0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb};
    if (len < FOOTER_BYTES || memcmp(data + len - 8, magic, 8) != 0)
        return err_set(err, ERR_CORRUPT, "the index file does not end as a TensorFlow checkpoint's does");
    struct bytes footer = {data + len - FOOTER_BYTES, data + len - 8}, index, handle, block, value;
    uint64_t floor = 0, index_floor = 0, skipped; // skipped: the meta index: TensorFlow leaves it empty
    if (!varint_read(&footer, &skipped) || !varint_read(&footer, &skipped)) return damaged(err, "its footer cannot be read");
    if (!block_open(data, len, &footer, &index_floor, &index, err)) return false;
    struct buf index_key = {0}, key = {0};
    bool ok = true;
    while (ok && index.at < index.end) {
        ok = record_next(&index, &index_key, &handle, err) && block_open(data, len, &handle, &floor, &block, err);
        key.len = 0;
        while (ok && block.at < block.end)
            ok = record_next(&block, &key, &value, err) && visit(ctx, buf_str(&key), key.len, value, err);
    }
    buf_finish(&index_key);
    buf_finish(&key);
    return ok;
}
