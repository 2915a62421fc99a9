// SPDX-License-Identifier: MIT
// SHA-256 (FIPS 180-4), streaming.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct sha256 {
    uint32_t h[8];
    uint64_t n; // bytes so far
    unsigned char block[64];
};

void sha256_init(struct sha256 *s);
void sha256_update(struct sha256 *s, const void *data, size_t len);
void sha256_digest(struct sha256 *s, unsigned char out[32]);
// n bytes as 2 n lower-case digits and a NUL.
void hex_write(const void *bytes, size_t n, char *out);
void sha256_hex(const void *data, size_t len, char out[65]);
