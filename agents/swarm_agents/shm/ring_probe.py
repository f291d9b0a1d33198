"""Measures and checks rings from within compiled code: a ping-pong, and litmus tests of the machine's memory order.

The litmus tests are here, and not among the tests, because they have to be compiled as the ring is: a reordering that
this compiler or this processor makes would show in them. `ring_sends` and `ring_receives` move messages whose every
word is derived from their number, so a message that came torn, out of order, twice, or not at all is seen. `passing`
and `buffering` are the classic shapes: what one writes in order is read in order; of two who each write one word and
then read the other's, at least one sees the other (that is what parking stands on).
"""

from __future__ import annotations

from swarm_agents.shm.atomics import fence, load, pause, peek, poke, store
from swarm_agents.shm.jit import jit_nogil
from swarm_agents.shm.ring_hot import receive_into
from swarm_agents.shm.ring_layout import EMPTY, FULL, STUCK
from swarm_agents.shm.ring_words import put

__all__ = ["buffering", "echo", "passing_reads", "passing_writes", "pings", "ring_receives", "ring_sends"]

_ODD = 0x9E3779B97F4A7C15 - (1 << 64)


@jit_nogil
def pings(tx: int, rx: int, message: int, length: int, rounds: int) -> int:
    """Sends a message and waits for its echo, `rounds` times; how many came back as they went."""
    good = 0
    for number in range(rounds):
        poke(message, number)
        if put(tx, message, length) != 1:
            return -1
        got = receive_into(rx, message + 4096, 4096)
        while got in (EMPTY, STUCK):
            got = receive_into(rx, message + 4096, 4096)
        if got == length and peek(message + 4096) == number:
            good += 1
    return good


@jit_nogil
def echo(tx: int, rx: int, message: int, rounds: int) -> int:
    """The other side of `pings`."""
    for _ in range(rounds):
        got = receive_into(rx, message, 4096)
        while got in (EMPTY, STUCK):
            got = receive_into(rx, message, 4096)
        if got < 0 or put(tx, message, got) != 1:
            return -1
    return 1


@jit_nogil
def ring_sends(tx: int, message: int, length: int, first: int, count: int) -> int:
    """Sends `count` messages, numbered from `first`, each word of which is derived from the number: how many went."""
    for number in range(first, first + count):
        for at in range(0, length, 8):
            poke(message + at, (number + at) * _ODD)
        done = put(tx, message, length)
        while done == FULL:
            pause()
            done = put(tx, message, length)
        if done != 1:
            return done
    return count


@jit_nogil
def ring_receives(rx: int, message: int, length: int, first: int, count: int) -> int:
    """Receives what `ring_sends` sends: how many were not what they should be."""
    wrong = 0
    for number in range(first, first + count):
        got = receive_into(rx, message, 4096)
        while got in (EMPTY, STUCK):
            got = receive_into(rx, message, 4096)
        bad = got != length
        for at in range(0, length, 8):
            bad = bad or peek(message + at) != (number + at) * _ODD
        if bad:
            wrong += 1
    return wrong


@jit_nogil
def passing_writes(area: int, count: int) -> int:
    """Message passing, the writer: data, then flag (a line further), over and over, as fast as can be."""
    for number in range(1, count + 1):
        poke(area, number)
        store(area + 128, number)
    return count


@jit_nogil
def passing_reads(area: int, count: int) -> int:
    """Message passing, the reader: how often data was older than the flag that was seen before it."""
    wrong, flag = 0, 0
    while flag < count:
        flag = load(area + 128)
        if load(area) < flag:
            wrong += 1
    return wrong


@jit_nogil
def buffering(mine: int, other: int, seen: int, turn: int, other_turn: int, first: int, count: int) -> int:
    """Store buffering: each writes its word, fences, reads the other's, and notes what it saw; in step with the other.

    Both ran into each other's past, which must not be, where both noted a number less than the round's.
    """
    for number in range(first, first + count):
        store(mine, number)
        fence()
        poke(seen + (number - first) * 8, load(other))
        store(turn, number)
        while load(other_turn) < number:
            pass
    return count
