"""The compiled hash tables of the data kernels; imports Numba.

Explicit signatures: importing the module compiles it, or loads it from the cache. Slots are found by masking a hash
with a power of two, so no key, whatever it is, leads outside a table.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, njit, types, uint64

__all__ = ["build", "count", "group", "match"]

_ints = types.Array(int64, 1, "C", readonly=True)
_floats = types.Array(float64, 1, "C", readonly=True)
_own = int64[::1]
_table = types.UniTuple(_own, 4)  # type: ignore[no-untyped-call]
_groups = types.Tuple((int64, _own, float64[:, ::1]))  # type: ignore[no-untyped-call]


@njit(int64(int64, int64), cache=True, nogil=True, forceinline=True)
def _slot(key, mask):  # type: ignore[no-untyped-def]
    z = uint64(key)
    z = (z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB)
    return int64((z ^ (z >> uint64(31))) & uint64(mask))


@njit(_table(_ints), cache=True, nogil=True)
def build(keys):  # type: ignore[no-untyped-def]
    """The table of a column: each slot's first row (−1: free), that row's key, how many rows; each row's next one."""
    size = 16
    while size < 2 * keys.size:
        size *= 2
    mask = size - 1
    first = np.full(size, -1, np.int64)
    slot_keys = np.empty(size, np.int64)
    counts = np.zeros(size, np.int64)
    chain = np.empty(keys.size, np.int64)
    for i in range(keys.size - 1, -1, -1):  # backwards, so that the chains lead forwards
        key = keys[i]
        at = _slot(key, mask)
        while first[at] >= 0 and slot_keys[at] != key:
            at = (at + 1) & mask
        slot_keys[at] = key
        chain[i] = first[at]
        first[at] = i
        counts[at] += 1
    return first, slot_keys, counts, chain


@njit(int64(_ints, _own, _own, _own, _own), cache=True, nogil=True)
def count(keys, first, slot_keys, counts, chain):  # type: ignore[no-untyped-def]
    """How many pairs the keys find in the table."""
    mask = first.size - 1
    total = 0
    for i in range(keys.size):
        key = keys[i]
        at = _slot(key, mask)
        while first[at] >= 0:
            if slot_keys[at] == key:
                total += counts[at]
                break
            at = (at + 1) & mask
    return total


@njit(types.void(_ints, int64, _own, _own, _own, _own, _own, _own), cache=True, nogil=True)
def match(keys, offset, first, slot_keys, counts, chain, rows, matches):  # type: ignore[no-untyped-def]
    """Writes the pairs, as many as `count` has found: the keys' rows from `offset` on, and the table's rows."""
    mask = first.size - 1
    to = 0
    for i in range(keys.size):
        key = keys[i]
        at = _slot(key, mask)
        while first[at] >= 0:
            if slot_keys[at] == key:
                row = first[at]
                while row >= 0:
                    rows[to] = offset + i
                    matches[to] = row
                    to += 1
                    row = chain[row]
                break
            at = (at + 1) & mask


@njit(_groups(_ints, _floats), cache=True, nogil=True)
def group(keys, values):  # type: ignore[no-untyped-def]
    """How many groups there are; their keys as they come; rows of count, sum, minimum and maximum.

    The arrays may be longer than that. A slot holds its key beside the group's number, and a group its four figures in
    one row, so that a row of the input touches two cache lines, however many groups there are. Counts are doubles,
    which count to 2^53.
    """
    size = 1024
    mask = size - 1
    table = np.empty((size, 2), np.int64)
    for at in range(size):
        table[at, 1] = -1
    room = 512  # as many groups as a table that is half full can name
    found, figures = np.empty(room, np.int64), np.empty((room, 4))
    groups = 0
    for i in range(keys.size):
        key, value = keys[i], values[i]
        at = _slot(key, mask)
        while table[at, 1] >= 0 and table[at, 0] != key:
            at = (at + 1) & mask
        g = table[at, 1]
        if g >= 0:
            figures[g, 0] += 1.0
            figures[g, 1] += value
            figures[g, 2] = min(figures[g, 2], value)
            figures[g, 3] = max(figures[g, 3], value)
            continue
        if groups == room:
            room *= 2
            more_found, more = np.empty(room, np.int64), np.empty((room, 4))
            for h in range(groups):
                more_found[h] = found[h]
                for k in range(4):
                    more[h, k] = figures[h, k]
            found, figures = more_found, more
            size *= 2
            mask = size - 1
            table = np.empty((size, 2), np.int64)
            for h in range(size):
                table[h, 1] = -1
            for h in range(groups):
                to = _slot(found[h], mask)
                while table[to, 1] >= 0:
                    to = (to + 1) & mask
                table[to, 0], table[to, 1] = found[h], h
            at = _slot(key, mask)
            while table[at, 1] >= 0:
                at = (at + 1) & mask
        table[at, 0], table[at, 1] = key, groups
        found[groups] = key
        figures[groups, 0] = 1.0
        figures[groups, 1] = value + 0.0  # as 0.0 + value: there is no sum of −0.0
        figures[groups, 2] = value
        figures[groups, 3] = value
        groups += 1
    return groups, found, figures
