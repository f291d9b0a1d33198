"""Topics: the layout of one, and its protocol. One writer, any number of readers, who never hold the writer up.

    header (geometry) | last | waiting | slots

The last values lie in slots, the value of position `p` in slot `p % slots`; a slot is a word, a length, a payload.

Last word        bits 0-51 position of the last whole value (`slots - 1`: there is none yet), bits 52-62 the writer's
                 epoch. The one truth: a value is there when `last` says so, and `last` moves by CAS.
Word of a slot   bits 0-2 kind, bits 3-62 position: WRITING (somebody changes it), WHOLE (position p's value), CLOSED
                 (quarantine: a writer that was fenced may still write here; instead of the position, who closed it).

Writing: the slot's word to WRITING by CAS, a fence, the payload, the word to WHOLE by CAS, `last` by CAS.
Reading: `last`, the slot's word, the payload, a fence, the word again: the same WHOLE word before and after means that
nothing was changed between.

Why it is safe
- A writer killed anywhere leaves `last` where it was: the value before, in another slot, is whole. His successor begins
  at the same position again. One who was killed between WHOLE and `last` has not published.
- A reader who was overtaken sees another word, and looks again at what is last; how many values he has missed is the
  difference of positions. He writes nothing but the flag that he sleeps, so he can hold nobody up.
- A writer that was fenced and lives: his epoch is not in `last` any more, so he publishes nothing. The slot that he may
  be writing to, the first after `last` that was not closed, is CLOSED by his successor: his CAS of its word fails; what
  he still writes to its payload nobody reads. If he had not yet taken it, he finds `last` changed, or the word. It is
  used again when no fenced writer's process lives. A closed slot's position is stepped over by writer and readers.

Rejected: one slot with a sequence (a writer killed in the middle would leave nothing to read), readers that register
(they would have to be cleaned up after, and the writer would have to wait for them).
"""

from __future__ import annotations

from swarm_agents.shm.atomics import cas, copy, fence, futex_wait, futex_wake, load, peek, poke, store, swap
from swarm_agents.shm.jit import jit, jit_nogil

__all__ = ["close_slot", "open_slot", "publish", "read_last", "read_next", "settle_writer", "wait_for_value"]

TOPIC_MAGIC = 0x4943_504F_5354_4741  # "AGTSTOPIC", nearly
TOPIC_VERSION = 1
(T_MAGIC, T_VERSION, T_SIZE, T_SLOTS, T_MOST, T_STRIDE, T_SLOTS_AT) = range(7)
LAST_AT, PUBLISHED_AT = 256, 264
WAITING_AT = 384  # 1 while somebody sleeps on `last`
SLOTS_AT = 512
EPOCHS = 1 << 11
PAYLOAD_AT, SIZE_AT = 16, 8  # in a slot

V_WRITING, V_WHOLE, V_CLOSED = 1, 2, 3
LAST_MASK = (1 << 52) - 1

# --- a handle's private words
# B_STOP is where every hand has it
(B_BASE, B_STOP, B_SLOTS, B_STRIDE, B_SLOTS_AT, B_MOST, B_MINE, B_LIFT, B_POS, B_MISSED) = (8 * i for i in range(10))

NOTHING, OVERTAKEN, STALE, TOO_LARGE, SHUT = -1, -2, -3, -4, -5

PARK_SLICE = 50_000_000


@jit
def slot_of(hand: int, pos: int) -> int:
    return peek(hand + B_SLOTS_AT) + (pos & (peek(hand + B_SLOTS) - 1)) * peek(hand + B_STRIDE)


@jit
def open_slot(hand: int) -> int:
    """Takes the next slot in hand to write to: the address of its payload, or STALE, SHUT."""
    if peek(hand + B_STOP) != 0:
        return SHUT
    base = peek(hand + B_BASE)
    last = load(base + LAST_AT)
    if last & ~LAST_MASK != peek(hand + B_MINE):
        return STALE
    pos = (last & LAST_MASK) + 1
    end = pos + peek(hand + B_SLOTS) - 1  # never the slot of the last value
    while pos < end:
        at = slot_of(hand, pos)
        word = load(at)
        if word & 7 != V_CLOSED or peek(hand + B_LIFT) != 0:
            # Looked at after the word: who takes this place changes `last` first, and the word then.
            if load(base + LAST_AT) != last or not cas(at, word, V_WRITING | pos << 3):
                return STALE
            fence()
            poke(hand + B_POS, pos)
            return at + PAYLOAD_AT
        pos += 1
    return NOTHING


@jit
def close_slot(hand: int, length: int) -> int:
    """Publishes what was written since `open_slot`: 1, or STALE."""
    base, pos = peek(hand + B_BASE), peek(hand + B_POS)
    at = slot_of(hand, pos)
    poke(at + SIZE_AT, length)
    if not cas(at, V_WRITING | pos << 3, V_WHOLE | pos << 3):
        return STALE
    last = load(base + LAST_AT)
    if last & ~LAST_MASK != peek(hand + B_MINE) or not cas(base + LAST_AT, last, peek(hand + B_MINE) | pos):
        return STALE
    poke(base + PUBLISHED_AT, peek(base + PUBLISHED_AT) + 1)
    fence()
    if load(base + WAITING_AT) != 0 and swap(base + WAITING_AT, 0) != 0:
        futex_wake(base + LAST_AT, 1 << 20)
    return 1


@jit
def publish(hand: int, source: int, length: int) -> int:
    """Publishes a value: 1, or why not."""
    if length > peek(hand + B_MOST):
        return TOO_LARGE
    target = open_slot(hand)
    if target < 0:
        return target
    copy(target, source, length)
    return close_slot(hand, length)


@jit
def read_at(hand: int, pos: int, out: int) -> int:
    """Copies the value of a position out: its bytes; OVERTAKEN when a later one has its slot, NOTHING when closed."""
    at = slot_of(hand, pos)
    word = load(at)
    if word & 7 == V_CLOSED:
        return NOTHING
    if word != V_WHOLE | pos << 3:
        return OVERTAKEN
    length = peek(at + SIZE_AT)
    if length < 0 or length > peek(hand + B_MOST):
        return OVERTAKEN
    copy(out, at + PAYLOAD_AT, length)
    fence()
    return length if load(at) == word else OVERTAKEN


@jit
def read_last(hand: int, out: int) -> int:
    """Copies the last value out: its bytes, its position in the hand; NOTHING when there is none yet."""
    if peek(hand + B_STOP) != 0:
        return SHUT
    while True:
        pos = load(peek(hand + B_BASE) + LAST_AT) & LAST_MASK
        if pos < peek(hand + B_SLOTS):
            return NOTHING
        got = read_at(hand, pos, out)
        if got >= 0:
            poke(hand + B_POS, pos)
            return got


@jit
def read_next(hand: int, out: int) -> int:
    """Copies the value after the one at the hand's position out: its bytes; NOTHING when there is none yet.

    The hand's position moves to it, and B_MISSED counts values that were missed on the way.
    """
    if peek(hand + B_STOP) != 0:
        return SHUT
    while True:
        pos = peek(hand + B_POS) + 1
        last = load(peek(hand + B_BASE) + LAST_AT) & LAST_MASK
        if pos > last:
            return NOTHING
        oldest = last - peek(hand + B_SLOTS) + 2  # the slot after `last` may be written to now
        if pos < oldest:
            poke(hand + B_MISSED, peek(hand + B_MISSED) + oldest - pos)
            pos = oldest
            poke(hand + B_POS, pos - 1)
        got = read_at(hand, pos, out)
        if got == OVERTAKEN:
            now = load(peek(hand + B_BASE) + LAST_AT) & LAST_MASK
            if now == last:  # the writer stepped over closed slots, and is writing to this one
                poke(hand + B_POS, pos)
                poke(hand + B_MISSED, peek(hand + B_MISSED) + 1)
            continue
        poke(hand + B_POS, pos)
        if got >= 0:
            return got


@jit
def settle_writer(hand: int, epoch: int) -> int:
    """Closes the slot that a fenced writer may be writing to, after `last` got the new epoch: whether there was one.

    The fenced one passed over closed slots, or used one again: so those get another word, too.
    """
    pos = (load(peek(hand + B_BASE) + LAST_AT) & LAST_MASK) + 1
    end = pos + peek(hand + B_SLOTS) - 1
    while pos < end:
        at = slot_of(hand, pos)
        word = load(at)
        if cas(at, word, V_CLOSED | epoch << 3):
            if word & 7 != V_CLOSED:
                return 1
            pos += 1
    return 0


@jit_nogil
def wait_for_value(hand: int, timeout_ns: int) -> int:
    """Sleeps until a value after the hand's position is published, or for a while; look again in any case."""
    base = peek(hand + B_BASE)
    store(base + WAITING_AT, 1)
    fence()
    last = load(base + LAST_AT)
    if last & LAST_MASK <= peek(hand + B_POS):
        futex_wait(base + LAST_AT, last & 0xFFFFFFFF, min(timeout_ns, PARK_SLICE))
    return 1
