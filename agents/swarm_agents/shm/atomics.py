"""Atomic operations on words of shared memory, the futex and the clock, for compiled code.

Why: two processes that share memory agree on nothing but single words and their order. A plain array element can be
hoisted out of a loop, torn or reordered by the compiler, so every shared word is touched only through the functions
here, which lower to LLVM's atomic instructions (see `lowering`). They take plain integer addresses: a call with an
array argument costs 0.25-0.45 µs, with integers about 0.16 µs.

Invariants
- A word is 8 bytes, 8-byte aligned, and passes as a signed 64-bit integer.
- `load` acquires, `store` releases, read-modify-write operations and `fence` are sequentially consistent.
- `peek`, `poke` and `copy` are plain accesses, for memory that only one party writes at the time.
- The futex is the shared one, not the PRIVATE one: the word lies in a file that several processes map. It looks at the
  low 32 bits of the word, which come first in memory on the little-endian machines that we run on.

Protocol modules (`blocks`, `tasks`, `sweep`, `parking`, `rings`) reach memory through these names and no others, so a
test can put a step-by-step memory in this module's place and kill a party between any two operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "add",
    "cas",
    "clz",
    "copy",
    "ctz",
    "fence",
    "futex_wait",
    "futex_wake",
    "load",
    "monotonic_ns",
    "or_",
    "pause",
    "peek",
    "poke",
    "popcount",
    "prefetch_write",
    "store",
    "swap",
    "xand",
]

if TYPE_CHECKING:

    def load(address: int) -> int:
        """The word at an address, with acquire order."""

    def store(address: int, value: int) -> None:
        """Stores a word, with release order."""

    def peek(address: int) -> int:
        """The word at an address, plainly: for memory that nobody else writes now."""

    def poke(address: int, value: int) -> None:
        """Stores a word plainly: for memory that nobody else reads or writes now."""

    def cas(address: int, expected: int, desired: int) -> bool:
        """Compare and swap: whether the word was `expected` and now is `desired`."""

    def add(address: int, operand: int) -> int:
        """Fetch and add: the word before."""

    def or_(address: int, operand: int) -> int:
        """Fetch and or: the word before."""

    def xand(address: int, operand: int) -> int:
        """Fetch and and: the word before."""

    def swap(address: int, operand: int) -> int:
        """Exchange: the word before."""

    def fence() -> None:
        """A full fence: what came before is seen by everybody before what comes after."""

    def pause() -> None:
        """Tells the core that it spins, so that it saves power and yields to its sibling thread."""

    def ctz(value: int) -> int:
        """How many zeros a word ends with: 64 for zero."""

    def clz(value: int) -> int:
        """How many zeros a word begins with: 64 for zero."""

    def popcount(value: int) -> int:
        """How many bits of a word are set."""

    def prefetch_write(address: int) -> None:
        """Asks for the line at an address, which is to be written soon; changes nothing."""

    def copy(target: int, source: int, count: int) -> None:
        """Copies `count` bytes from one address to another; they must not overlap."""

    def monotonic_ns() -> int:
        """CLOCK_MONOTONIC in nanoseconds: one clock for all processes of a machine, that nobody sets."""

    def futex_wait(address: int, expected: int, timeout_ns: int) -> int:
        """Sleeps until somebody wakes the word, at most `timeout_ns`; not at all if it is not `expected` any more.

        Returns 0 when woken, -1 otherwise (changed, timed out, or a signal came): look again in any case.
        """

    def futex_wake(address: int, count: int) -> int:
        """Wakes up to `count` sleepers; returns how many."""

else:
    from swarm_agents.shm.lowering import (
        add,
        cas,
        clz,
        copy,
        ctz,
        fence,
        futex_wait,
        futex_wake,
        load,
        monotonic_ns,
        or_,
        pause,
        peek,
        poke,
        popcount,
        prefetch_write,
        store,
        swap,
        xand,
    )
