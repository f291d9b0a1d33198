"""ChaCha20 compiled (RFC 8439): 16 blocks at once, a word of all of them in a vector register; imports Numba.

Word i of lane l is at `w[16·i + l]`. A column round is then one loop over 64 neighbours, and a diagonal round four
loops over 16. All words lie in one array at distances that the compiler knows, because it can't put loops over arrays
that might overlap into vector registers. Words become bytes by their place in memory, which is little-endian on every
CPU that Numba compiles for and the agents run on (x86-64, arm64). Signatures are explicit: importing the module
compiles it, or loads it from the cache.
"""

from __future__ import annotations

import numpy as np
from numba import int64, njit, types, uint8, uint32

__all__ = ["LANES", "chacha20"]

LANES = 16

_bytes_in = types.Array(uint8, 1, "C", readonly=True)
_state_in = types.Array(uint32, 1, "C", readonly=True)
_words = uint32[::1]


@njit(uint32(uint32, uint32), cache=True, nogil=True, forceinline=True)
def _rotated(x, by):  # type: ignore[no-untyped-def]
    return uint32(uint32(x << by) | uint32(x >> uint32(uint32(32) - by)))


@njit(types.void(_words, int64, int64, int64, int64, int64), cache=True, nogil=True, forceinline=True)
def _quarter_rounds(w, a, b, c, d, count):  # type: ignore[no-untyped-def]
    for i in range(count):
        x = uint32(w[a + i] + w[b + i])
        t = _rotated(w[d + i] ^ x, uint32(16))
        z = uint32(w[c + i] + t)
        y = _rotated(w[b + i] ^ z, uint32(12))
        x = uint32(x + y)
        t = _rotated(t ^ x, uint32(8))
        z = uint32(z + t)
        w[a + i] = x
        w[b + i] = _rotated(y ^ z, uint32(7))
        w[c + i] = z
        w[d + i] = t


@njit(types.void(_bytes_in, _state_in, int64, uint8[::1]), cache=True, nogil=True)
def chacha20(data, state, counter, out):  # type: ignore[no-untyped-def]
    """Writes `data` xor the key stream from block `counter` on into `out`, which is as long."""
    size = data.size
    w = np.empty(16 * LANES, np.uint32)
    words = np.empty(16 * LANES, np.uint32)
    stream = words.view(np.uint8)
    for base in range(0, size, 64 * LANES):
        block = counter + base // 64
        for i in range(16):
            for lane in range(LANES):
                w[16 * i + lane] = state[i]
        for lane in range(LANES):
            w[16 * 12 + lane] = uint32(block + lane)
        for _ in range(10):
            _quarter_rounds(w, 0, 64, 128, 192, 64)
            _quarter_rounds(w, 0, 80, 160, 240, 16)
            _quarter_rounds(w, 16, 96, 176, 192, 16)
            _quarter_rounds(w, 32, 112, 128, 208, 16)
            _quarter_rounds(w, 48, 64, 144, 224, 16)
        for lane in range(LANES):
            for i in range(16):
                words[16 * lane + i] = uint32(w[16 * i + lane] + state[i])
            words[16 * lane + 12] = uint32(words[16 * lane + 12] + uint32(block + lane))
        count = min(64 * LANES, size - base)
        one, other = data[base : base + count], out[base : base + count]  # indices that count from 0 can be vectorised
        for i in range(count):
            other[i] = one[i] ^ stream[i]
