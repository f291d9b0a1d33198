"""The SHA-256 tree hash of a large buffer: the Merkle tree of RFC 6962, its subtrees on all of the agent's cores.

It is the tree of `hash.sha256_tree` (see `kernels.sha256` for the definition and the sources), for buffers of many
megabytes in large leaves. There OpenSSL's SHA-256, which uses the CPU's own instructions and holds no GIL, is the
fastest code for a leaf; what can be gained is to hash leaves side by side. Small leaves go 16 at a time through vector
registers.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.kernels.sha256 import Block, merkle_root, root_of_nodes, tree_of_small_leaves
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between

__all__ = ["sha256_tree"]

LeafBytes = Annotated[int, Between(1, 1 << 30)]
#: Leaves up to so many bytes are hashed faster in lanes than one by one by OpenSSL.
_SMALL = 512
#: A thread gets as many bytes at least.
_LEAST = 1 << 18


@kernel("crypto.sha256_tree")
def sha256_tree(data: Block, *, leaf: LeafBytes = 65536) -> bytes:
    """The 32-byte Merkle tree hash (RFC 6962, 2.1; SHA-256) of `data` [n], cut into leaves of `leaf` bytes.

    The last leaf is as long as it comes; the tree hash of no bytes is the SHA-256 of nothing. Roots of pieces that are
    cut at a power of two of leaves are the nodes of the whole: SHA-256(0x01 ‖ left ‖ right).
    """
    view = data.data
    return merkle_root([view[at : at + leaf] for at in range(0, len(view), leaf)])


@sha256_tree.memory
def _(data: Any, leaf: int, **_: Any) -> float:
    return float(400.0 * (len(data) // leaf + 1))


@sha256_tree.samples
def _(rng: np.random.Generator) -> Call:
    leaf = int(rng.integers(1, 700))
    return call(rng.integers(0, 256, int(rng.integers(1, 60 * leaf)), dtype=np.uint8), leaf=leaf)


@sha256_tree.implementation("threads", parallel=True, default=False)
def _(data: NDArray[np.uint8], leaf: int = 65536) -> bytes:
    count = -(-data.size // leaf)
    ranges = team.pieces(count, least=1 + _LEAST // leaf)
    if len(ranges) < 2:
        return _subtree(data, leaf)
    # Whole subtrees of one size, a power of two of leaves, several for each thread: their roots are a level.
    size = 1 << max((count // (4 * len(ranges))).bit_length() - 1, 0)
    work = [(data[at : at + size * leaf], leaf) for at in range(0, data.size, size * leaf)]
    return root_of_nodes(team.run(_subtree, work))


@sha256_tree.implementation("numba", when=lambda data, leaf=65536: leaf <= _SMALL)
def _(data: NDArray[np.uint8], leaf: int = 65536) -> bytes:
    return tree_of_small_leaves(data, leaf)


def _subtree(data: NDArray[np.uint8], leaf: int) -> bytes:
    return tree_of_small_leaves(data, leaf) if leaf <= _SMALL else bytes(sha256_tree.reference(data, leaf=leaf))
