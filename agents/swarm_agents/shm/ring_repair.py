"""What is done to a ring when somebody has died in it, or has lost his place: see `ring_words` for why it is safe."""

from __future__ import annotations

from swarm_agents.shm.atomics import cas, load, peek, poke, store
from swarm_agents.shm.jit import jit
from swarm_agents.shm.ring_layout import (
    A_BASE,
    A_CELLS,
    A_OLD,
    A_POS,
    A_SHIFT,
    A_WORD,
    COUNT_MASK,
    HEAD_AT,
    K_QUARANTINE,
    K_SKIP,
    POS_MASK,
    QUARANTINES_AT,
    is_of_lap,
    step_word,
)
from swarm_agents.shm.ring_words import cells_of, word_at

__all__ = ["find_tail", "resolve", "settle"]


@jit
def find_tail(hand: int) -> int:
    """Goes from the head to the first free position, and makes it the handle's."""
    pos = load(peek(hand + A_BASE) + HEAD_AT) & POS_MASK
    end = pos + peek(hand + A_CELLS)
    while pos < end:
        at = word_at(hand, pos)
        word = load(at)
        if not is_of_lap(word, pos >> peek(hand + A_SHIFT)):
            break
        pos += cells_of(at, word)
    poke(hand + A_POS, pos)
    return pos


@jit
def settle(hand: int, most: int) -> int:
    """Quarantines the cells (up to `most`) that one fenced sender may be writing to; returns how many.

    His state was changed before, with a full fence.
    """
    base = peek(hand + A_BASE)
    store(base + QUARANTINES_AT, 1)
    while True:
        pos = find_tail(hand)
        whole = peek(hand + A_CELLS)
        room = (load(base + HEAD_AT) & POS_MASK) + whole - pos
        if room <= 0:
            return 0
        at = word_at(hand, pos)
        word = load(at)
        lap = pos >> peek(hand + A_SHIFT)
        cells = min(most, min(room, whole - (pos & (whole - 1))))
        if not is_of_lap(word, lap) and cas(at, word, step_word(K_QUARANTINE, cells, lap)):
            poke(hand + A_POS, pos + cells)
            return cells


@jit
def resolve(hand: int, gone: int) -> bool:
    """Steps in for the sender whose reservation `look` was stuck at: he is `gone`, or was fenced and may live."""
    word = peek(hand + A_OLD)
    lap = peek(hand + A_POS) >> peek(hand + A_SHIFT)
    cells = (word >> 3) & COUNT_MASK
    if gone == 0:
        store(peek(hand + A_BASE) + QUARANTINES_AT, 1)
    return cas(peek(hand + A_WORD), word, step_word(K_SKIP if gone != 0 else K_QUARANTINE, cells, lap))
