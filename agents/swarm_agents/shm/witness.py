"""What the watchers of a node tell each other of a silent member: two words in its record, and no message.

An *accusation* is a bit of a watcher that suspects the member, kept with the member's epoch so that it can't be held
against its successor. It is withdrawn by the watcher that made it, when the member is heard again. A *voucher* is a
moment until which the member's own supervisor, which sees its process, says that it lives and only waits for a core.

Invariants: neither word decides anything here; `declare_dead` alone does, whoever calls it. A watcher that dies leaves
its accusation behind, and that can hasten a declaration that another watcher comes to by itself, and no more.

Watchers are told apart by their agent's place on the board, modulo 44: two that share a bit count as one, which makes
a declaration later and never wrong.
"""

from __future__ import annotations

from swarm_agents.shm.atomics import cas, load, monotonic_ns, popcount, store
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import EPOCH_MASK, H_MAX_MEMBERS, M_ACCUSERS, M_ALIVE, M_BEAT, M_VOUCHED
from swarm_agents.shm.places import member_at

__all__ = ["absolve", "accuse", "accusers", "is_vouched", "longest_pause", "vouch"]

_BITS = 44
_MASK = (1 << _BITS) - 1
_EPOCHS = (1 << 19) - 1  # so that the word stays positive


@jit
def accuse(base: int, member: int, epoch: int, watcher: int) -> int:
    """Says that a watcher suspects a member's epoch; how many suspect it now."""
    at, bit, tag = member_at(base, member) + M_ACCUSERS, 1 << (watcher % _BITS), epoch & _EPOCHS
    while True:
        word = load(at)
        bits = (word & _MASK) if word >> _BITS == tag else 0
        if word == (tag << _BITS) | bits | bit or cas(at, word, (tag << _BITS) | bits | bit):
            return popcount(bits | bit)


@jit
def absolve(base: int, member: int, epoch: int, watcher: int) -> None:
    """Withdraws a watcher's accusation."""
    at, bit = member_at(base, member) + M_ACCUSERS, 1 << (watcher % _BITS)
    while True:
        word = load(at)
        if word >> _BITS != epoch & _EPOCHS or word & bit == 0 or cas(at, word, word & ~bit):
            return


@jit
def accusers(base: int, member: int, epoch: int) -> int:
    """How many watchers suspect a member's epoch."""
    word = load(member_at(base, member) + M_ACCUSERS)
    return popcount(word & _MASK) if word >> _BITS == epoch & _EPOCHS else 0


@jit
def vouch(base: int, member: int, span: int) -> None:
    """Says that the member lives, for `span` ns from now."""
    store(member_at(base, member) + M_VOUCHED, monotonic_ns() + span)


@jit
def is_vouched(base: int, member: int) -> bool:
    """Whether its supervisor says that it lives."""
    return load(member_at(base, member) + M_VOUCHED) > monotonic_ns()


@jit
def longest_pause(base: int, limit: int) -> int:
    """The longest silence (ns) among the living agents that are heard: those who have been silent for less than
    `limit`. -1 when there is none."""
    now, longest = monotonic_ns(), -1
    for member in range(load(base + H_MAX_MEMBERS * 8)):
        at = member_at(base, member)
        word = load(at)
        if word & 7 == M_ALIVE and (word >> 3) & 7 != 0:
            silent = now - load(at + M_BEAT)
            if silent < limit:
                longest = max(longest, silent)
    return longest


assert EPOCH_MASK >= _EPOCHS
