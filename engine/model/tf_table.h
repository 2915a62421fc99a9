// SPDX-License-Identifier: MIT
// The index of a TensorFlow checkpoint: a table of sorted keys in LevelDB's file format (leveldb doc/table_format.md; magic
// 0xdb4775248b80fb57), read from memory, and what its records consist of: protobuf fields, CRC-32C. Internal to engine/model/.
#pragma once

#include "base/err.h"

#include <stdint.h>

struct bytes {
    const unsigned char *at, *end;
};

// Every record in the file's order; key and value are valid during the call only. False from `visit` ends the walk.
typedef bool tf_visit_fn(void *ctx, const char *key, size_t key_len, struct bytes value, struct err *err);
bool tf_table_walk(const unsigned char *data, size_t len, tf_visit_fn *visit, void *ctx, struct err *err) MUST_CHECK;

// One field of a protobuf message: its number and either an integer (varint, fixed32, fixed64) or bytes.
struct proto_field {
    unsigned number;
    bool is_bytes;
    uint64_t value;
    struct bytes bytes;
};
// False at the end of the message and at damage; then b->at is not b->end.
bool proto_next(struct bytes *b, struct proto_field *f);

// CRC-32C (Castagnoli) of `len` bytes, masked as TensorFlow and LevelDB store it.
uint32_t crc32c_masked(const unsigned char *data, size_t len);
