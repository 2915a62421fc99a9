#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes blocks.bin beside this file: random blocks of every tensor type and their f32 values by PyPI `gguf`.

    python make_gguf_blocks.py          (needs numpy, gguf)

Records until the end of the file, little-endian: name (8 bytes, NUL-padded), u32 elements, u32 bytes, the bytes, the f32 values. All scales are finite;
zeros, subnormals and the largest half-precision numbers occur.
"""
import os
import struct

import gguf
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
T = gguf.GGMLQuantizationType
HALF_SCALES = {T.Q8_0: (0,), T.Q4_0: (0,), T.Q4_1: (0, 2), T.Q6_K: (208,)}  # where a block's f16 numbers lie


def halves(rng, n):
    """Any finite f16 bit pattern, the special ones first."""
    h = rng.integers(0, 1 << 16, n).astype(np.uint16)
    h = np.where((h & 0x7C00) == 0x7C00, h ^ 0x0400, h).astype(np.uint16)
    special = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00]
    h[: len(special)] = special[:n]
    return h


def blocks_of(rng, qtype, n):
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    raw = rng.integers(0, 256, (n, size)).astype(np.uint8)
    for at in HALF_SCALES.get(qtype, ()):
        raw[:, at:at + 2] = halves(rng, n).view(np.uint8).reshape(n, 2)
    return raw.reshape(-1), n * block


def main():
    rng = np.random.default_rng(7)
    special = np.array([0x7C00, 0xFC00], np.uint16)  # infinities
    with open(os.path.join(HERE, "blocks.bin"), "wb") as out:
        for qtype in (T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q6_K):
            if qtype == T.F32:
                raw, n = rng.standard_normal(64).astype(np.float32).view(np.uint8), 64
            elif qtype in (T.F16, T.BF16):
                h = np.concatenate([halves(rng, 1022), special])
                raw, n = h.view(np.uint8), h.size
            else:
                raw, n = blocks_of(rng, qtype, 10 if qtype == T.Q6_K else 48)
            values = gguf.quants.dequantize(raw, qtype).astype(np.float32).reshape(-1)
            assert values.size == n and not np.isnan(values).any()
            out.write(struct.pack("<8sII", qtype.name.lower().encode(), n, raw.size) + raw.tobytes() + values.tobytes())


if __name__ == "__main__":
    main()
