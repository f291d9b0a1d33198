"""The inner equi-join of two key columns: which rows of the left and the right side have the same key.

The compiled form is the classic hash join: the right side's keys go into a table, the left side's look themselves up
(C. Balkesen et al., Main-memory hash joins on multi-core CPUs, ICDE 2013: the "no partitioning" one). The table is open
addressed with linear probing and at most half full; equal keys are one entry, whose rows hang in a chain. Keys are
scattered by the finaliser of D. Stafford's variant 13 (as in SplitMix64: G. Steele, D. Lea and C. Flood, OOPSLA 2014),
so that regular keys (multiples of a page size, say) do not pile up. Matches are counted before they are written: a join
that multiplies beyond memory is refused, and nothing of it is allocated.

The reference joins by sorting. All give the same pairs in the same order: by left row, then by right row.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import memory, team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims

__all__ = ["hash_join"]

Ints = NDArray[np.int64]


def _pairs(count: int) -> tuple[Ints, Ints]:
    memory.require(32.0 * count, "kernel data.hash_join")
    return np.empty(count, np.int64), np.empty(count, np.int64)


def _compiled() -> Any:
    from swarm_agents.compute.kernels.data import jit

    return jit


@kernel("data.hash_join")
def hash_join(
    left: Annotated[Ints, Dims("left", empty=True)], right: Annotated[Ints, Dims("right", empty=True)]
) -> dict[str, Ints]:
    """The inner join of two key columns: `left`, `right` int64 [pairs], the rows with equal keys, by left, then right.

    A key that is there a times left and b times right gives a·b pairs.

    Raises:
        NotEnoughMemory: there are more pairs than this agent has room for; found before any is written.
    """
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    first = np.searchsorted(ordered, left, "left")
    counts = np.searchsorted(ordered, left, "right") - first
    total = sum(counts.tolist())
    rows, matches = _pairs(total)
    if total:
        rows[:] = np.repeat(np.arange(left.size), counts)
        starts = np.cumsum(counts) - counts
        matches[:] = order[np.arange(total) - np.repeat(starts - first, counts)]
    return {"left": rows, "right": matches}


@hash_join.memory
def _(left: Any, right: Any, **_: Any) -> float:
    return 64.0 * (len(left) + len(right))  # but for the answer, which is reckoned with when its length is known


@hash_join.samples
def _(rng: np.random.Generator) -> Call:
    n, m, kinds = (int(k) for k in rng.integers(1, 400, 3))
    return call(rng.integers(-kinds, kinds, n), rng.integers(-kinds, kinds, m))


@hash_join.implementation("threads", parallel=True, default=False)
def _(left: Ints, right: Ints) -> dict[str, Ints]:
    jit = _compiled()
    table = jit.build(right)
    ranges = team.pieces(left.size, least=1 << 14)
    counts = team.run(lambda begin, end: int(jit.count(left[begin:end], *table)), ranges)
    rows, matches = _pairs(sum(counts))
    starts = [sum(counts[:i]) for i in range(len(counts))]

    def write(begin: int, end: int, at: int, count: int) -> None:
        jit.match(left[begin:end], begin, *table, rows[at : at + count], matches[at : at + count])

    team.run(write, [(*r, at, n) for r, at, n in zip(ranges, starts, counts, strict=True)])
    return {"left": rows, "right": matches}


@hash_join.implementation("numba")
def _(left: Ints, right: Ints) -> dict[str, Ints]:
    jit = _compiled()
    table = jit.build(right)
    rows, matches = _pairs(int(jit.count(left, *table)))
    jit.match(left, 0, *table, rows, matches)
    return {"left": rows, "right": matches}
