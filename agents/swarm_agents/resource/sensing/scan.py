# mypy: disable-error-code="untyped-decorator,no-untyped-call,attr-defined,call-overload"
"""The numbers of a file of the kernel, in order, and a word that says whether all else is as it was. Compiled.

Most of what a reading costs in Python is taking apart text that is the same ten times a second but for its numbers. So
that is done once: as long as the words between the numbers stay the same (their digest is the file's *shape*), number
k is the same figure as before. `columns` uses it so. Here are also what is made of the numbers: shares and rates.

What counts as a number is said by `NUMBER`, for compiled code and Python alike: digits with or without a fraction,
between separators. "cpu0", "-1", "1.2.3" and what has more than 20 digits are words: where one comes or goes the shape
is another, and the file is taken apart anew by `parse`, which refuses what makes no sense.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import carray, float64, int64, njit, types, uint64
from numba.extending import intrinsic

__all__ = ["NEW", "NUMBER", "ROW", "SAME", "TOO_LONG", "TOO_MANY", "UNREADABLE", "rates", "read", "shares"]

#: A number, as `read` sees it.
NUMBER = re.compile(rb"(?<![^ \t\n:=/])[0-9]{1,20}(?:\.[0-9]{1,20})?(?=[ \t\n:=/]|\Z)")
_DIGITS = 20
#: What `read` answers: the figures are there, the words are others, or why there are none.
SAME, NEW, UNREADABLE, TOO_LONG, TOO_MANY = 0, 1, -1, -2, -3
#: The words of a file's row: its descriptor; the address and size of the text's room, and how long the text is; of the
#: numbers' room, and how many they are; of the figures' places, how many they are, and of the figures; the shape.
ROW = ("handle", "text", "room", "size", "numbers", "most", "count", "places", "figures", "values", "shape")
_HANDLE, _TEXT, _ROOM, _SIZE, _NUMBERS, _MOST, _COUNT, _PLACES, _FIGURES, _VALUES, _SHAPE = range(len(ROW))
#: A read that is shorter was the last: no record is as long as the rest of a page.
_WHOLE = 3072
# FNV-1a, 64 bits
_SEED, _PRIME = uint64(14695981039346656037), uint64(1099511628211)

_pread = types.ExternalFunction("pread", int64(types.int32, int64, int64, int64))


def _to_pointer(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(int64), codegen


_pointer: Any = intrinsic(_to_pointer)


def _direct(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compiles, and gives the compiled function itself: the dispatcher looks at the type of every argument first, which
    costs more than all that is done here. Nothing but what the signature says may be passed."""

    def make(function: Callable[..., Any]) -> Callable[..., Any]:
        dispatcher = njit(signature, cache=True, nogil=True)(function)
        return cast(Callable[..., Any], next(iter(dispatcher.overloads.values())).entry_point)

    return make


@njit(types.boolean(int64), cache=True, nogil=True, inline="always")
def _separates(byte: int) -> bool:
    return byte == 32 or byte == 10 or byte == 58 or byte == 61 or byte == 47 or byte == 9


@njit(int64(int64, int64, int64), cache=True, nogil=True)
def _fill(handle, text, room):  # type: ignore[no-untyped-def]
    """Reads a whole file; returns its length, or why not."""
    size = 0
    while True:
        if size >= room:
            return TOO_LONG
        more = _pread(handle, text + size, room - size, size)
        if more < 0:
            return UNREADABLE
        size += more
        if more == 0 or size < _WHOLE:
            return size


@_direct(int64(int64))
def read(address):  # type: ignore[no-untyped-def]
    """Reads a file, finds its numbers and their shape, and where that is the row's picks the figures out of them.

    `address` is that of a row of int64 (see `ROW`). The figure i is the number that `places[i]` is the ordinal of, from
    1 on; NaN at 0. Numbers and figures are float64: what is beyond 2**53 is rounded.
    """
    row = carray(_pointer(address), (11,), np.int64)
    size = _fill(row[_HANDLE], row[_TEXT], row[_ROOM])
    row[_SIZE] = size
    if size < 0:
        return size
    text = carray(_pointer(row[_TEXT]), (size,), np.uint8)
    most = row[_MOST]
    found = carray(_pointer(row[_NUMBERS]), (most,), np.float64)
    shape, count, at = _SEED, 0, 0
    while at < size:
        first, value = at, 0.0
        while at < size and 48 <= text[at] <= 57:
            value = value * 10.0 + (text[at] - 48)
            at += 1
        whole = 0 < at - first <= _DIGITS
        if whole and at < size and text[at] == 46:
            at += 1
            point, part, scale = at, 0.0, 1.0
            while at < size and 48 <= text[at] <= 57:
                part, scale = part * 10.0 + (text[at] - 48), scale * 10.0
                at += 1
            whole = 0 < at - point <= _DIGITS
            value += part / scale
        if whole and (at == size or _separates(text[at])):
            if count == most:
                return TOO_MANY
            found[count] = value
            count += 1
            shape = (shape ^ uint64(256)) * _PRIME
        else:
            at = first
            while at < size and not _separates(text[at]):
                shape = (shape ^ uint64(text[at])) * _PRIME
                at += 1
        while at < size and _separates(text[at]):
            # how many spaces there are changes with the width of the numbers
            if text[at] != 32 or at == 0 or text[at - 1] != 32:
                shape = (shape ^ uint64(text[at])) * _PRIME
            at += 1
    row[_COUNT] = count
    now = int64(shape >> uint64(1))
    if now != row[_SHAPE]:
        row[_SHAPE] = now
        return NEW
    places = carray(_pointer(row[_PLACES]), (row[_FIGURES],), np.int64)
    values = carray(_pointer(row[_VALUES]), (row[_FIGURES],), np.float64)
    for i in range(places.size):
        values[i] = found[places[i] - 1] if places[i] > 0 else np.nan
    return SAME


@_direct(types.void(int64, int64, int64, int64))
def shares(at_now, at_last, at_share, rows):  # type: ignore[no-untyped-def]
    """Of rows of eight times (user, nice, system, idle, iowait, irq, softirq, steal) the shares: busy, user, system,
    iowait, steal. All are addresses of arrays of float64.

    A row that has not moved keeps its shares and its `last`; a time that went backwards has not grown. NaN in `now`: a
    time that this kernel does not count; in `last`: there was no reading yet.
    """
    now = carray(_pointer(at_now), (8 * rows,), np.float64)
    last = carray(_pointer(at_last), (8 * rows,), np.float64)
    share = carray(_pointer(at_share), (5 * rows,), np.float64)
    grown = np.zeros(8)
    for row in range(rows):
        total, moved, first = 0.0, False, False
        for k in range(8):
            if now[8 * row + k] != now[8 * row + k]:
                now[8 * row + k] = 0.0
            new, old = now[8 * row + k], last[8 * row + k]
            first = first or old != old
            moved = moved or new != old
            grown[k] = new - old if new > old else 0.0
            total += grown[k]
        if not moved:
            continue
        for k in range(8):
            last[8 * row + k] = now[8 * row + k]
        if total <= 0.0 or first:
            continue
        share[5 * row] = 1.0 - (grown[3] + grown[4]) / total
        share[5 * row + 1] = (grown[0] + grown[1]) / total
        share[5 * row + 2] = (grown[2] + grown[5] + grown[6]) / total
        share[5 * row + 3] = grown[4] / total
        share[5 * row + 4] = grown[7] / total


@_direct(types.void(int64, int64, int64, int64, float64))
def rates(at_now, at_last, at_rate, count, seconds):  # type: ignore[no-untyped-def]
    """How much counters have grown a second since `last`, which becomes `now`; NaN: unknown, or it went backwards.

    Addresses of arrays of float64, of `count` elements.
    """
    now = carray(_pointer(at_now), (count,), np.float64)
    last = carray(_pointer(at_last), (count,), np.float64)
    rate = carray(_pointer(at_rate), (count,), np.float64)
    for i in range(count):
        grown = now[i] - last[i]
        rate[i] = grown / seconds if grown >= 0.0 and seconds > 0.0 else np.nan
        last[i] = now[i]
