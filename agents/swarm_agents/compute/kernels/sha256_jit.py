"""SHA-256 (FIPS 180-4) of many equally long messages at once, compiled; imports Numba.

Messages are hashed in groups of `LANES`: every step of the round function is a loop over the lanes, which LLVM turns
into vector instructions (16 words fill a register of AVX-512; narrower CPUs take several). Of the eight state words a
round makes only two anew, `a` and `e`, and the others are their former values: so the rounds write two sequences, and
move nothing. Both and the message schedule lie in one array, because the compiler then knows what can't overlap
(separate arrays are checked for it at every step; unrolled rounds take six times as long to compile).

The signatures are explicit: importing the module compiles it, or loads it from the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, njit, types, uint8, uint32

__all__ = ["LANES", "tree"]

LANES = 16
#: Rows of the work array: `a` of all rounds from 0, `e` from _E, the message schedule from _W.
_E, _W = 68, 136

# FIPS 180-4, 4.2.2 and 5.3.3: the first 32 bits of the fractional parts of the cube roots of the first 64 primes, and
# of the square roots of the first 8. Computed with integers, exactly.


def _roots(count: int, power: int) -> np.ndarray[Any, Any]:
    primes = [n for n in range(2, 400) if all(n % d for d in range(2, int(n**0.5) + 1))][:count]
    words = []
    for prime in primes:
        scaled = prime << (32 * power)
        low, high = 0, 1 << 40
        while low < high:  # the largest integer whose power does not exceed it
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**power <= scaled else (low, middle - 1)
        words.append(low & 0xFFFFFFFF)
    return np.array(words, np.uint32)


_K = _roots(64, 3)
_H = _roots(8, 2)

_bytes_in = types.Array(uint8, 1, "C", readonly=True)
_bytes_out = types.Array(uint8, 1, "C")
_words = types.Array(uint32, 2, "C")


@njit(uint32(uint32, uint32), cache=True, nogil=True, forceinline=True)
def _rotated(x, by):  # type: ignore[no-untyped-def]
    return uint32(uint32(x >> by) | uint32(x << uint32(uint32(32) - by)))


@njit(types.void(_words, _words), cache=True, nogil=True)
def _compress(state, v):  # type: ignore[no-untyped-def]
    """Advances every lane's state by the block whose 16 words lie in the rows of `v` from _W."""
    for t in range(16, 64):
        for lane in range(LANES):
            x = v[_W + t - 15, lane]
            y = v[_W + t - 2, lane]
            small0 = _rotated(x, uint32(7)) ^ _rotated(x, uint32(18)) ^ uint32(x >> uint32(3))
            small1 = _rotated(y, uint32(17)) ^ _rotated(y, uint32(19)) ^ uint32(y >> uint32(10))
            v[_W + t, lane] = uint32(v[_W + t - 16, lane] + small0 + v[_W + t - 7, lane] + small1)
    for i in range(4):
        for lane in range(LANES):
            v[3 - i, lane] = state[i, lane]
            v[_E + 3 - i, lane] = state[4 + i, lane]
    for t in range(64):
        k = _K[t]
        for lane in range(LANES):
            x = v[_E + t + 3, lane]
            y = v[t + 3, lane]
            big1 = _rotated(x, uint32(6)) ^ _rotated(x, uint32(11)) ^ _rotated(x, uint32(25))
            choice = v[_E + t + 1, lane] ^ (x & (v[_E + t + 2, lane] ^ v[_E + t + 1, lane]))
            t1 = uint32(v[_E + t, lane] + big1 + choice + k + v[_W + t, lane])
            big0 = _rotated(y, uint32(2)) ^ _rotated(y, uint32(13)) ^ _rotated(y, uint32(22))
            majority = (y & (v[t + 2, lane] | v[t + 1, lane])) | (v[t + 2, lane] & v[t + 1, lane])
            v[_E + t + 4, lane] = uint32(v[t, lane] + t1)
            v[t + 4, lane] = uint32(t1 + big0 + majority)
    for i in range(4):
        for lane in range(LANES):
            state[i, lane] = uint32(state[i, lane] + v[67 - i, lane])
            state[4 + i, lane] = uint32(state[4 + i, lane] + v[_E + 67 - i, lane])


@njit(uint32(_bytes_in, int64, int64, uint32, int64), cache=True, nogil=True, forceinline=True)
def _byte(data, start, length, prefix, at):  # type: ignore[no-untyped-def]
    """Byte `at` of a message's padded form: prefix ‖ data ‖ 0x80 ‖ zeros (the length is written elsewhere)."""
    if at == 0:
        return prefix
    if at <= length:
        return uint32(data[start + at - 1])
    return uint32(0x80) if at == length + 1 else uint32(0)


@njit(types.void(_bytes_in, int64, int64, int64, uint32, _bytes_out, int64), cache=True, nogil=True)
def _digest(data, start, length, count, prefix, out, to):  # type: ignore[no-untyped-def]
    """SHA-256(prefix ‖ piece) of `count` ≤ LANES pieces of `length` bytes each, one after the other from `start`."""
    state = np.empty((8, LANES), np.uint32)
    v = np.empty((_W + 64, LANES), np.uint32)
    for i in range(8):
        for lane in range(LANES):
            state[i, lane] = _H[i]
    blocks = (length + 1 + 9 + 63) // 64
    bits = (length + 1) * 8
    for block in range(blocks):
        base = block * 64
        for lane in range(LANES):
            first = start + min(lane, count - 1) * length  # lanes without a message repeat the last one
            if block > 0 and base + 64 <= length + 1:
                for t in range(16):
                    p = first + base + 4 * t - 1
                    v[_W + t, lane] = (
                        uint32(data[p]) << uint32(24)
                        | uint32(data[p + 1]) << uint32(16)
                        | uint32(data[p + 2]) << uint32(8)
                        | uint32(data[p + 3])
                    )
            else:
                for t in range(16):
                    at = base + 4 * t
                    v[_W + t, lane] = (
                        _byte(data, first, length, prefix, at) << uint32(24)
                        | _byte(data, first, length, prefix, at + 1) << uint32(16)
                        | _byte(data, first, length, prefix, at + 2) << uint32(8)
                        | _byte(data, first, length, prefix, at + 3)
                    )
                if block == blocks - 1:
                    v[_W + 14, lane] = uint32(bits >> 32)
                    v[_W + 15, lane] = uint32(bits & 0xFFFFFFFF)
        _compress(state, v)
    for lane in range(count):
        for i in range(8):
            word = state[i, lane]
            at = to + lane * 32 + i * 4
            out[at] = uint8(word >> uint32(24))
            out[at + 1] = uint8((word >> uint32(16)) & uint32(255))
            out[at + 2] = uint8((word >> uint32(8)) & uint32(255))
            out[at + 3] = uint8(word & uint32(255))


@njit(types.void(_bytes_in, int64, int64, uint32, _bytes_out), cache=True, nogil=True)
def _digests(data, length, count, prefix, out):  # type: ignore[no-untyped-def]
    for at in range(0, count, LANES):
        _digest(data, at * length, length, min(LANES, count - at), prefix, out, at * 32)


@njit(types.void(_bytes_in, int64, _bytes_out), cache=True, nogil=True)
def tree(data, leaf, root):  # type: ignore[no-untyped-def]
    """Writes the root of the tree over `data` (not empty), cut into leaves of `leaf` bytes, into `root` (32 bytes)."""
    whole = data.size // leaf
    rest = data.size - whole * leaf
    count = whole + (1 if rest else 0)
    level = np.empty(count * 32, np.uint8)
    _digests(data, leaf, whole, uint32(0), level)
    if rest:
        _digest(data, whole * leaf, rest, 1, uint32(0), level, whole * 32)
    above = np.empty(((count + 1) // 2) * 32, np.uint8)
    while count > 1:
        pairs = count // 2
        _digests(level, 64, pairs, uint32(1), above)
        if count % 2:
            for i in range(32):
                above[pairs * 32 + i] = level[(count - 1) * 32 + i]
        count = (count + 1) // 2
        level, above = above, level
    for i in range(32):
        root[i] = level[i]
