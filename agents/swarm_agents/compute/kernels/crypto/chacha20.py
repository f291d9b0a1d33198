"""ChaCha20 as the IETF has it: a 256-bit key, a 96-bit nonce, a 32-bit counter of 64-byte blocks.

Source: Y. Nir and A. Langley, ChaCha20 and Poly1305 for IETF protocols, RFC 8439 (2018), section 2.3 (the block) and
2.4 (the cipher). Blocks depend on nothing but their number, so whoever has bytes 64·i and on begins at counter + i:
a buffer can be cut at multiples of 64 and spread over tasks. Encrypting and decrypting are the same; the cipher of
zeros is the key stream. The NumPy form works on the same word of many blocks at once, and so does the compiled one, 16
blocks in the lanes of vector registers.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between, Dims
from swarm_agents.errors import BadArguments

__all__ = ["chacha20"]

Bytes = NDArray[np.uint8]
#: "expand 32-byte k" (RFC 8439, 2.3), as little-endian words.
_CONSTANTS = np.frombuffer(b"expand 32-byte k", "<u4").astype(np.uint32)
_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
#: So many blocks at a time are on their way through the NumPy form.
_CHUNK = 1 << 12


def _check(size: int, counter: int) -> int:
    """How many blocks that takes."""
    blocks = -(-size // 64)
    if counter + blocks > 1 << 32:
        raise BadArguments(
            f"kernel crypto.chacha20 argument 'counter' must leave {blocks} blocks before 2**32: got {counter}; "
            "a key stream that repeats is none: take another nonce"
        )
    return blocks


def _state(key: Bytes, nonce: Bytes) -> NDArray[np.uint32]:
    state = np.zeros(16, np.uint32)
    state[:4], state[4:12], state[13:] = _CONSTANTS, key.view("<u4"), nonce.view("<u4")
    return state


@kernel("crypto.chacha20")
def chacha20(
    data: Annotated[Bytes, Dims("n", empty=True)],
    key: Annotated[Bytes, Dims(32)],
    nonce: Annotated[Bytes, Dims(12)],
    *,
    counter: Annotated[int, Between(0, 2**32 - 1)] = 0,
) -> Bytes:
    """ChaCha20 of RFC 8439: uint8 [n], `data` xor the key stream from block `counter` on. Never reuse key and nonce.

    Raises:
        BadArguments: the counter would pass 2³² − 1, where the key stream begins anew.
    """
    blocks = _check(data.size, counter)
    state, out = _state(key, nonce), np.empty_like(data)
    for first in range(0, blocks, _CHUNK):
        count = min(_CHUNK, blocks - first)
        start = np.repeat(state[:, None], count, axis=1)
        start[12] = (counter + first + np.arange(count)).astype(np.uint32)
        words = start.copy()
        for _ in range(10):
            for quarter in (*_COLUMNS, *_DIAGONALS):
                _quarter_round(words, *quarter)
        stream = np.ascontiguousarray((words + start).T).astype("<u4").view(np.uint8).reshape(-1)
        part = slice(64 * first, 64 * (first + count))
        np.bitwise_xor(data[part], stream[: data[part].size], out=out[part])
    return out


def _quarter_round(words: NDArray[np.uint32], a: int, b: int, c: int, d: int) -> None:
    """RFC 8439, 2.1, on rows of words; addition is modulo 2³²."""
    for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        words[x] += words[y]
        words[z] ^= words[x]
        words[z] = (words[z] << np.uint32(by)) | (words[z] >> np.uint32(32 - by))


@chacha20.memory
def _(data: Any, **_: Any) -> float:
    return float(3.0 * len(data) + (1 << 16))


@chacha20.samples
def _(rng: np.random.Generator) -> Call:
    def some(n: int) -> Bytes:
        return rng.integers(0, 256, n, dtype=np.uint8)

    return call(some(int(rng.integers(1, 5000))), some(32), some(12), counter=int(rng.integers(0, 2**32 - 100)))


@chacha20.implementation("threads", parallel=True, default=False)
def _(data: Bytes, key: Bytes, nonce: Bytes, counter: int = 0) -> Bytes:
    from swarm_agents.compute.kernels.crypto import jit

    blocks = _check(data.size, counter)
    state, out = _state(key, nonce), np.empty_like(data)

    def part(begin: int, end: int) -> None:
        piece = slice(64 * begin, min(64 * end, data.size))
        jit.chacha20(data[piece], state, counter + begin, out[piece])

    team.run(part, team.pieces(blocks, least=1 << 12))
    return out


@chacha20.implementation("numba")
def _(data: Bytes, key: Bytes, nonce: Bytes, counter: int = 0) -> Bytes:
    from swarm_agents.compute.kernels.crypto import jit

    _check(data.size, counter)
    out = np.empty_like(data)
    jit.chacha20(data, _state(key, nonce), counter, out)
    return out
