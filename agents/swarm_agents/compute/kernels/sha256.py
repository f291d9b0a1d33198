"""SHA-256 Merkle trees: the root of a block's tree, as Certificate Transparency defines it.

The tree is that of RFC 6962, section 2.1 (unchanged in RFC 9162): a leaf's hash is SHA-256(0x00 ‖ leaf), a node's is
SHA-256(0x01 ‖ left ‖ right), and a list of n splits after the largest power of two below n. Built from the leaves up
that is: pair neighbours, carry an odd last one upwards unchanged. The two prefixes keep a leaf from posing as a node.
Here the leaves are a block's consecutive pieces of `leaf` bytes, the last one as long as it comes.

The reference hashes by `hashlib`, one leaf at a time. The compiled one hashes 16 leaves in the lanes of vector
registers, and holds no GIL: it wins by far for small leaves, where Python's overhead per leaf dominates,
and loses for large ones to OpenSSL, which uses the CPU's SHA instructions and holds no GIL either: there what can be
gained is to hash whole subtrees side by side, on all of the agent's cores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between, Dims

__all__ = ["Block", "merkle_root", "sha256_tree"]

Block = Annotated[NDArray[np.uint8], Dims("n", empty=True)]
LeafBytes = Annotated[int, Between(1, 1 << 30)]
#: Leaves up to so many bytes are hashed faster in lanes than one by one by OpenSSL.
_SMALL = 512
#: A thread gets as many bytes at least.
_LEAST = 1 << 18


def merkle_root(leaves: Sequence[bytes | memoryview]) -> bytes:
    """The root over any leaves (RFC 6962, 2.1); that of an empty list is the hash of nothing."""
    if not leaves:
        return hashlib.sha256().digest()
    return _root_of_nodes([hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves])


def _root_of_nodes(level: Sequence[bytes]) -> bytes:
    """The root above the hashes of one level, at least one of them."""
    while len(level) > 1:
        paired = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = [*paired, level[-1]] if len(level) % 2 else paired
    return level[0]


def _in_lanes(data: NDArray[np.uint8], leaf: int) -> bytes:
    """The same root, compiled: 16 leaves at a time."""
    if data.size == 0:
        return hashlib.sha256().digest()
    from swarm_agents.compute.kernels import sha256_jit

    root = np.empty(32, np.uint8)
    sha256_jit.tree(data, leaf, root)
    return root.tobytes()


@kernel("hash.sha256_tree")
def sha256_tree(data: Block, *, leaf: LeafBytes = 4096) -> bytes:
    """The 32-byte root of the SHA-256 Merkle tree over `data`, cut into leaves of `leaf` bytes (RFC 6962)."""
    view = data.data
    return merkle_root([view[at : at + leaf] for at in range(0, len(view), leaf)])


@sha256_tree.memory
def _(data: Any, leaf: int, **_: Any) -> float:
    return float(400.0 * (len(data) // leaf + 1))


@sha256_tree.samples
def _(rng: np.random.Generator) -> Call:
    leaf = int(rng.integers(1, 700))
    return call(rng.integers(0, 256, int(rng.integers(0, 60 * leaf)), dtype=np.uint8), leaf=leaf)


@sha256_tree.implementation("threads", parallel=True, default=False)
def _(data: NDArray[np.uint8], leaf: int = 4096) -> bytes:
    count = -(-data.size // leaf)
    ranges = team.pieces(count, least=1 + _LEAST // leaf)
    if len(ranges) < 2:
        return _subtree(data, leaf)
    # Whole subtrees of one size, a power of two of leaves, several for each thread: their roots are a level.
    size = 1 << max((count // (4 * len(ranges))).bit_length() - 1, 0)
    work = [(data[at : at + size * leaf], leaf) for at in range(0, data.size, size * leaf)]
    return _root_of_nodes(team.run(_subtree, work))


@sha256_tree.implementation("numba", when=lambda data, leaf=4096: leaf <= _SMALL)
def _(data: NDArray[np.uint8], leaf: int = 4096) -> bytes:
    return _in_lanes(data, leaf)


def _subtree(data: NDArray[np.uint8], leaf: int) -> bytes:
    return _in_lanes(data, leaf) if leaf <= _SMALL else bytes(sha256_tree.reference(data, leaf=leaf))
