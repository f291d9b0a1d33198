"""The ring's protocol: how a message gets in, and out, whoever is killed or held up at whatever instruction.

Sending is `begin` (find or reserve cells), writing into them, `commit`; receiving is `look`, reading, `release`.
The words are explained in `ring_layout`. Who writes what:

    a cell's word     senders, by CAS, when its position is free; the receiver and whoever takes a sender's place may
                      turn what is not committed into SKIP or QUARANTINE
    a cell's payload and length word   the one sender who has begun there, before his commit
    head              the receiver, by CAS, with his epoch in it
    tail              any of many senders, by CAS, from a position to the next

Why it is safe
- *Committed is one CAS*: of the word to DATA of its lap, after the payload (release order), and the receiver reads the
  payload after the word (acquire order). Before that CAS the message does not exist, after it the message is whole;
  so a sender killed at any instruction loses nothing, and tears nothing.
- *Taken is one CAS*: of the head. Until then the message stays where it is, and another receiver finds it there; after
  it nobody does. A receiver copies first and then moves the head: what he was killed with before that his successor
  gets, and no message is got by two who both moved the head over it.
- *A cell is used again* only when the head has passed its position, which the sender sees before he writes.
- *One sender* needs no reservation: nobody else writes to his next cells, and he commits by a CAS from the word that
  he left there a lap ago. Whoever takes his place quarantines his next cells first if his process may be alive: that
  changes the word, so a late commit fails, and a late write goes where nobody looks until the process is gone.
- *A fenced sender who has not looked for room yet* finds in `begin` that his state has changed: room is looked at
  first and the state after it. The one who fences changes the state first and looks at the room after it. So if the
  ring was full for him, it was so for the sender before, and he goes no further.
- *Many senders* reserve by a CAS of the word that names sender and epoch, so there is no instant at which a cell
  is taken and one can't tell by whom. The receiver makes SKIP of a reservation whose process is gone, QUARANTINE of
  one that was fenced and may still be written to. The tail is set right by the next who comes by.
- *A quarantine* is for good until no fenced sender's process lives. Every lap its word gets that lap's number from the
  sender who steps over it, so the receiver never passes it before the senders did.

Rejected: an index of what is committed instead of words in the cells (a reader would wait for two lines rather than
one, and many senders would have to commit in order), a plain store to commit (one who wakes up after his epoch would
tear his successor's message), skipping a dead sender's cell by a time limit alone (he might only be slow).
"""

from __future__ import annotations

from swarm_agents.shm.atomics import cas, copy, fence, futex_wake, load, peek, poke, prefetch_write, swap
from swarm_agents.shm.jit import jit
from swarm_agents.shm.ring_layout import (
    A_BASE,
    A_CELLS,
    A_COUNTERS,
    A_DATA,
    A_DATA_STRIDE,
    A_HEAD,
    A_LENGTH,
    A_MANY,
    A_MINE,
    A_MOST,
    A_OLD,
    A_OWNER,
    A_POLICY,
    A_POS,
    A_ROOM,
    A_SHADOW,
    A_SHIFT,
    A_STATE,
    A_STOP,
    A_UNIT,
    A_VARIABLE,
    A_WORD,
    A_WORDS,
    ASK,
    C_BYTES,
    C_FULL,
    C_SENT,
    CAS_IS_FENCE,
    CLOSED,
    CORRUPT,
    COUNT_MASK,
    EMPTY,
    FENCED,
    FULL,
    HEAD_AT,
    K_QUARANTINE,
    K_RESERVED,
    K_SKIP,
    LENGTH_AT,
    LENGTH_MASK,
    LIFT,
    POS_MASK,
    QUARANTINES_AT,
    RECEIVED_AT,
    RX_BYTES_AT,
    RX_PARKED_AT,
    SKIPPED_AT,
    STUCK,
    TAIL_AT,
    TOO_LONG,
    TX_WANT_AT,
    WORD_STRIDE,
    data_word,
    is_of_lap,
    reserved_word,
    step_word,
)

__all__ = [
    "acknowledge",
    "begin",
    "commit",
    "look",
    "put",
    "release",
    "rollback",
    "take",
]

_K_DATA = 1
_AHEAD = 8  # cells


@jit
def word_at(hand: int, pos: int) -> int:
    """The address of a position's word."""
    return peek(hand + A_WORDS) + (pos & (peek(hand + A_CELLS) - 1)) * WORD_STRIDE


@jit
def data_at(hand: int, pos: int) -> int:
    """The address of a position's first byte of payload."""
    return peek(hand + A_DATA) + (pos & (peek(hand + A_CELLS) - 1)) * peek(hand + A_DATA_STRIDE)


@jit
def cells_of(at: int, word: int) -> int:
    """How many cells the unit takes whose word this is; `at` is the word's address."""
    if word & 7 == _K_DATA:
        return max(peek(at + LENGTH_AT) >> 40, 1)
    return (word >> 3) & COUNT_MASK


@jit
def _tally(at: int, amount: int) -> None:
    """Counts, in a word that one handle at a time writes."""
    poke(at, peek(at) + amount)


# --- sending --------------------------------------------------------------------------------------------------------


@jit
def _quarantined_at(hand: int, pos: int, cells: int) -> int:
    """How many of these cells come before the first one whose word is in quarantine."""
    for step in range(cells):
        if load(word_at(hand, pos + step)) & 7 == K_QUARANTINE:
            return step
    return cells


@jit
def _room(hand: int, pos: int, cells: int) -> bool:
    """Whether these cells have been read by the receiver a lap ago."""
    want = pos + cells - peek(hand + A_CELLS)
    if want > peek(hand + A_HEAD):
        poke(hand + A_HEAD, load(peek(hand + A_BASE) + HEAD_AT) & POS_MASK)
        if want > peek(hand + A_HEAD):
            poke(hand + A_ROOM, want)
            return False
    return True


@jit
def _expected(hand: int, pos: int) -> int:
    """The word that one sender left at a position in an earlier lap: known without looking, which would cost a miss."""
    shadow = peek(hand + A_SHADOW)
    if shadow == 0:
        return data_word((pos >> peek(hand + A_SHIFT)) - 1)
    return peek(shadow + (pos & (peek(hand + A_CELLS) - 1)) * 8)


@jit
def _remember(hand: int, pos: int, word: int) -> None:
    shadow = peek(hand + A_SHADOW)
    if shadow != 0:
        poke(shadow + (pos & (peek(hand + A_CELLS) - 1)) * 8, word)


@jit
def _pass_quarantine(hand: int, pos: int) -> int:
    """Steps over the quarantine at a free position, or lifts it, as the handle's policy says: its cells, 0 when lifted
    or changed by somebody else, or why not."""
    policy = peek(hand + A_POLICY)
    if policy == 0:
        return ASK
    at = word_at(hand, pos)
    word = load(at)
    lap = pos >> peek(hand + A_SHIFT)
    if word & 7 != K_QUARANTINE or is_of_lap(word, lap):
        return 0
    if policy == LIFT:
        poke(hand + A_POLICY, 0)
        if cas(at, word, data_word(lap - 1)):
            _remember(hand, pos, data_word(lap - 1))
        return 0
    cells = (word >> 3) & COUNT_MASK
    if not _room(hand, pos, cells):
        return FULL
    poke(hand + A_POLICY, 0)
    stamped = step_word(K_QUARANTINE, cells, lap)
    if not cas(at, word, stamped):
        return 0
    _remember(hand, pos, stamped)
    return cells


@jit
def _place(hand: int, cells: int) -> int:
    """Finds the next cells of the one sender: 1, or why not."""
    while True:
        pos = peek(hand + A_POS)
        whole = peek(hand + A_CELLS)
        left = whole - (pos & (whole - 1))
        unit = min(cells, left)
        if not _room(hand, pos, unit):
            return FULL
        if load(peek(hand + A_STATE)) != peek(hand + A_MINE):
            return FENCED
        if load(peek(hand + A_BASE) + QUARANTINES_AT) != 0:
            clear = _quarantined_at(hand, pos, unit)
            if clear == 0:
                passed = _pass_quarantine(hand, pos)
                if passed < 0:
                    return passed
                poke(hand + A_POS, pos + passed)
                continue
            unit = clear
        at = word_at(hand, pos)
        old = _expected(hand, pos)
        if unit < cells:
            skip = step_word(K_SKIP, unit, pos >> peek(hand + A_SHIFT))
            if not cas(at, old, skip):
                return FENCED
            _remember(hand, pos, skip)
            poke(hand + A_POS, pos + unit)
            continue
        poke(hand + A_UNIT, cells)
        poke(hand + A_WORD, at)
        poke(hand + A_OLD, old)
        return 1


@jit
def _reserve(hand: int, cells: int) -> int:
    """Reserves cells for one of many senders: 1, or why not."""
    tail = peek(hand + A_BASE) + TAIL_AT
    shift = peek(hand + A_SHIFT)
    whole = peek(hand + A_CELLS)
    while True:
        pos = load(tail)
        lap = pos >> shift
        at = word_at(hand, pos)
        unit = min(cells, whole - (pos & (whole - 1)))
        room = _room(hand, pos, unit)
        if room and load(peek(hand + A_STATE)) != peek(hand + A_MINE):
            return FENCED
        quarantines = load(peek(hand + A_BASE) + QUARANTINES_AT) != 0
        if room and not quarantines and unit == cells and peek(hand + A_VARIABLE) == 0:
            # Nearly always the word of the lap before: the CAS alone fetches the line once, a look before it twice.
            old = data_word(lap - 1)
            new = reserved_word(cells, peek(hand + A_OWNER), lap)
            if cas(at, old, new):
                cas(tail, pos, pos + cells)
                poke(hand + A_POS, pos)
                poke(hand + A_UNIT, cells)
                poke(hand + A_WORD, at)
                poke(hand + A_OLD, new)
                return 1
        old = load(at)
        if is_of_lap(old, lap):
            cas(tail, pos, pos + cells_of(at, old))  # somebody has reserved, and not moved the tail yet
            continue
        if load(tail) != pos:
            continue  # what was looked at is an earlier tail's
        if not room:
            return FULL
        if quarantines:
            clear = _quarantined_at(hand, pos, unit)
            if clear == 0:
                passed = _pass_quarantine(hand, pos)
                if passed < 0:
                    return passed
                continue
            unit = clear
        new = reserved_word(cells, peek(hand + A_OWNER), lap)
        if unit < cells:
            new = step_word(K_SKIP, unit, lap)
        if old & 7 == K_RESERVED or not cas(at, old, new):
            continue
        cas(tail, pos, pos + unit)
        if unit == cells:
            poke(hand + A_POS, pos)
            poke(hand + A_UNIT, cells)
            poke(hand + A_WORD, at)
            poke(hand + A_OLD, new)
            return 1


@jit
def begin(hand: int, length: int) -> int:
    """Finds cells for a message of so many bytes: the address to write it to, or why there are none."""
    if peek(hand + A_STOP) != 0:
        return CLOSED
    if length > peek(hand + A_MOST):
        return TOO_LONG
    cells = 1
    if peek(hand + A_VARIABLE) != 0:
        stride = peek(hand + A_DATA_STRIDE)
        cells = max((length + stride - 1) // stride, 1)
    found = _place(hand, cells) if peek(hand + A_MANY) == 0 else _reserve(hand, cells)
    if found < 0:
        if found == FULL:
            _tally(peek(hand + A_COUNTERS) + C_FULL, 1)
        return found
    return data_at(hand, peek(hand + A_POS))


@jit
def wake_receiver(hand: int) -> None:
    """Wakes the receiver if it sleeps: after a commit."""
    if not CAS_IS_FENCE:
        fence()
    parked = peek(hand + A_BASE) + RX_PARKED_AT
    if load(parked) != 0 and swap(parked, 0) != 0:
        futex_wake(parked, 1 << 20)


@jit
def seal(hand: int, length: int) -> int:
    """Makes a message of what was written since `begin`: 1, or FENCED. The receiver has to be woken after it."""
    at = peek(hand + A_WORD)
    pos = peek(hand + A_POS)
    unit = peek(hand + A_UNIT)
    poke(at + LENGTH_AT, length | unit << 40)
    word = data_word(pos >> peek(hand + A_SHIFT))
    if not cas(at, peek(hand + A_OLD), word):
        return FENCED
    _remember(hand, pos, word)
    poke(hand + A_POS, pos + unit)
    # By the time these are written their lines are here: a CAS that has to wait for its line holds up all after it.
    prefetch_write(word_at(hand, pos + _AHEAD))
    prefetch_write(data_at(hand, pos + _AHEAD))
    counters = peek(hand + A_COUNTERS)
    _tally(counters + C_SENT, 1)
    _tally(counters + C_BYTES, length)
    return 1


@jit
def commit(hand: int, length: int) -> int:
    """Makes a message of what was written since `begin`, of up to as many bytes: 1, or FENCED."""
    done = seal(hand, length)
    if done == 1:
        wake_receiver(hand)
    return done


@jit
def rollback(hand: int) -> None:
    """Gives back what `begin` found."""
    if peek(hand + A_MANY) != 0:
        lap = peek(hand + A_POS) >> peek(hand + A_SHIFT)
        cas(peek(hand + A_WORD), peek(hand + A_OLD), step_word(K_SKIP, peek(hand + A_UNIT), lap))


@jit
def put(hand: int, source: int, length: int) -> int:
    """Sends a message: 1, or why not."""
    target = begin(hand, length)
    if target < 0:
        return target
    copy(target, source, length)
    return commit(hand, length)


# --- receiving ------------------------------------------------------------------------------------------------------


@jit
def _move_head(hand: int, pos: int, cells: int) -> bool:
    """Moves the head over what was read, and wakes who waits for room."""
    base, mine = peek(hand + A_BASE), peek(hand + A_MINE)
    if not cas(base + HEAD_AT, mine | pos, mine | (pos + cells)):
        return False
    poke(hand + A_POS, pos + cells)
    if not CAS_IS_FENCE:
        fence()
    want = load(base + TX_WANT_AT)
    if want != 0 and pos + cells >= want and swap(base + TX_WANT_AT, 0) != 0:
        futex_wake(base + TX_WANT_AT, 1 << 20)
    return True


@jit
def look(hand: int) -> int:
    """The address of the next message's first byte, its bytes and cells in the hand; or why there is none."""
    if peek(hand + A_STOP) != 0:
        return CLOSED
    while True:
        pos = peek(hand + A_POS)
        lap = pos >> peek(hand + A_SHIFT)
        at = word_at(hand, pos)
        word = load(at)
        if word == data_word(lap):
            break
        head = peek(hand + A_MINE) | pos
        if not is_of_lap(word, lap):
            return EMPTY if load(peek(hand + A_BASE) + HEAD_AT) == head else FENCED
        if word & 7 == K_RESERVED:
            poke(hand + A_WORD, at)
            poke(hand + A_OLD, word)
            return STUCK
        if not _move_head(hand, pos, (word >> 3) & COUNT_MASK):
            return FENCED
        _tally(peek(hand + A_BASE) + SKIPPED_AT, 1)
    size = peek(at + LENGTH_AT)
    length, cells = size & LENGTH_MASK, size >> 40
    # One who was fenced may read what is written anew: he must not follow it out of the ring.
    if length > peek(hand + A_MOST) or cells < 1 or (pos & (peek(hand + A_CELLS) - 1)) + cells > peek(hand + A_CELLS):
        return CORRUPT if load(peek(hand + A_BASE) + HEAD_AT) == peek(hand + A_MINE) | pos else FENCED
    poke(hand + A_LENGTH, length)
    poke(hand + A_UNIT, cells)
    return data_at(hand, pos)


@jit
def acknowledge(hand: int, pos: int, cells: int, messages: int, size: int) -> bool:
    """Takes messages that were read, from a position on, for good: whether this receiver could."""
    if not _move_head(hand, pos, cells):
        return False
    base = peek(hand + A_BASE)
    _tally(base + RECEIVED_AT, messages)
    _tally(base + RX_BYTES_AT, size)
    return True


@jit
def release(hand: int) -> int:
    """Takes the message that `look` has found, for good: 1, or FENCED: what was read is void."""
    if acknowledge(hand, peek(hand + A_POS), peek(hand + A_UNIT), 1, peek(hand + A_LENGTH)):
        return 1
    return FENCED


@jit
def take(hand: int, out: int, room: int) -> int:
    """Receives a message into private memory of `room` bytes: its bytes, or why not."""
    source = look(hand)
    if source < 0:
        return source
    length = peek(hand + A_LENGTH)
    if length > room:
        return TOO_LONG
    copy(out, source, length)
    return length if release(hand) == 1 else FENCED
