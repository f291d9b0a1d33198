"""A second run of a task that another member has claimed: whoever commits first answers it, the other's result is void.

The claim stays its owner's. The second runner copies the arguments, marks the claim as run twice, and commits like the
owner would: one CAS from the owner's claim, the very word that the owner's own commit goes from. So exactly one of the
two succeeds, and if the owner dies or is fenced meanwhile the word changes and the second result is void as well.

The mark is a word of the slot, `S_SECOND`: the claim (its whole state word, generation, attempt, owner and epoch with
it) that is run twice. It is taken by CAS, so nobody runs a claim a third time; it need not be taken back when the claim
is over, because no later claim has the same word.

Invariants: arguments are copied before the mark is taken, and taking it checks that the claim stands, so what was
copied is whole and does not change however the task ends; a member that is fenced commits nothing.

Rejected: moving the claim to the second runner (then the owner's result, which may come first, would be thrown away),
a second slot for the second run (two answers to one submitter, and a leak when one of them is killed).
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from swarm_agents import codec
from swarm_agents.errors import PayloadError
from swarm_agents.shm import frame
from swarm_agents.shm.atomics import cas, load, monotonic_ns, store
from swarm_agents.shm.blocks import block_address
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    ATTEMPTS_AT,
    ATTEMPTS_MASK,
    CLAIMED,
    EPOCH_AT,
    EPOCH_MASK,
    H_LANE_SLOTS,
    H_SLOTS_AT,
    H_STATES_AT,
    INLINE_MAX,
    LANES,
    M_CLAIMED_AT,
    M_RUNNING,
    M_SLOT,
    NO_BLOCK,
    OWNER_AT,
    OWNER_MASK,
    S_BLOCK,
    S_ID_HI,
    S_ID_LO,
    S_INLINE,
    S_KERNEL,
    S_LENGTH,
    S_SUBMITTED,
    SLOT_STRIDE,
)
from swarm_agents.shm.members import record_at
from swarm_agents.shm.places import is_fenced, member_at, slot_at, state_at
from swarm_agents.shm.references import Shared
from swarm_agents.shm.worker import Claim

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board, Member

__all__ = [
    "S_SECOND",
    "InHand",
    "Second",
    "begin_second",
    "claimed",
    "put_down",
    "running_of",
    "take_second",
    "yield_second",
]

#: The claim of a slot that is run twice; see above. Of the slot's words, the first one that `layout` leaves free.
S_SECOND = 104
_FIELDS = 88  # bytes of a slot that a claim looks at
_WORD = 1 << 64


@jit
def take_second(base: int, slot: int, word: int, member: int, epoch: int) -> int:
    """Marks a claim as run twice by this member: 1; 0 when it is so already or does not stand; -3 fenced."""
    if is_fenced(base, member, epoch):
        return -3
    mark = slot_at(base, slot) + S_SECOND
    before = load(mark)
    if before == word or not cas(mark, before, word) or load(state_at(base, slot)) != word:
        return 0
    me = member_at(base, member)
    store(me + M_SLOT, slot + 1)
    store(me + M_CLAIMED_AT, monotonic_ns())
    store(me + M_RUNNING, load(me + M_RUNNING) + 1)
    return 1


@jit
def yield_second(base: int, slot: int, word: int) -> int:
    """The second run was given up: somebody else may run the claim twice. 1; 0 when the slot is another claim's."""
    return 1 if cas(slot_at(base, slot) + S_SECOND, word, 0) else 0


class InHand(NamedTuple):
    """A task that somebody has claimed."""

    slot: int
    #: The slot's state word: which claim it is.
    word: int
    #: What stands for the kernel's name.
    kernel_number: int
    task_id: tuple[int, int]
    #: Whose claim it is: a place.
    owner: int
    epoch: int
    #: From 1.
    attempt: int
    #: When its owner claimed it (CLOCK_MONOTONIC ns), if that is what it claimed last; else 0.
    since_ns: int
    twice: bool


class Second(Claim):
    """Another member's claim, to be run a second time. Committed, failed or given up by `Worker` like one's own."""

    __slots__ = ("_values",)

    def __init__(self, board: Board, words: tuple[int, ...], raw: bytes, values: Any) -> None:
        super().__init__(board, words, raw)
        self._values = values

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments; their arrays are this claim's own copies.

        Raises:
            PayloadError: they can't be read.
        """
        match self._values:
            case [list() as args, dict() as kwargs]:
                return tuple(args), kwargs
        raise PayloadError("a task's payload is not a pair of positional and keyword arguments")


def claimed(board: Board, without: int = -1) -> list[InHand]:
    """What all members but `without` (a place) have claimed, as the board has it at this moment."""
    view, words = board.mapping.view, board.words
    states = np.frombuffer(view, np.int64, LANES * words[H_LANE_SLOTS], words[H_STATES_AT])
    found = []
    for slot in np.flatnonzero((states & 7) == CLAIMED).tolist():
        word = int(states[slot])
        index = word >> OWNER_AT & OWNER_MASK
        if word & 7 != CLAIMED or index == without:
            continue
        at = words[H_SLOTS_AT] + slot * SLOT_STRIDE
        kernel, high, low = struct.unpack_from("<3q", view, at + S_KERNEL)
        owner = record_at(board.words, index)
        last, since = struct.unpack_from("<2q", view, owner + M_SLOT)
        found.append(
            InHand(
                slot,
                word,
                kernel,
                (high % _WORD, low % _WORD),
                index,
                word >> EPOCH_AT & EPOCH_MASK,
                word >> ATTEMPTS_AT & ATTEMPTS_MASK,
                since if last == slot + 1 else 0,
                struct.unpack_from("<q", view, at + S_SECOND)[0] == word,
            )
        )
    return found


def begin_second(board: Board, member: Member, task: InHand) -> Second | None:
    """Copies a claimed task's arguments and marks it; None: it is over, or somebody else runs it twice."""
    view, words, base = board.mapping.view, board.words, board.mapping.base
    at = words[H_SLOTS_AT] + task.slot * SLOT_STRIDE
    fields = bytes(view[at : at + _FIELDS])
    length, block = (struct.unpack_from("<q", fields, field)[0] for field in (S_LENGTH, S_BLOCK))
    try:
        if block == NO_BLOCK:
            data = bytes(view[at + S_INLINE : at + S_INLINE + min(length, INLINE_MAX)])
        else:
            start = block_address(base, block)
            data = bytes(view[start : start + length])
        name, header, buffers = frame.read(memoryview(data), 0, len(data), board.arrays.locate)
        # Shared arrays are the arena's until the task ends: copied as well, it may end while this one still runs.
        values = codec.decode(header, [one.copied() if isinstance(one, Shared) else one for one in buffers])
    except (ValueError, IndexError, struct.error, PayloadError):
        return None  # torn: the slot is another task's by now
    if take_second(base, task.slot, task.word, member.index, member.epoch) != 1:
        return None
    now = time.monotonic_ns()
    queued = max(0, now - struct.unpack_from("<q", fields, S_SUBMITTED)[0])
    lane = task.slot // words[H_LANE_SLOTS]
    raw = bytes(24) + fields
    second = Second(board, (task.kernel_number, queued, lane, length, 0, task.slot, task.word, now), raw, values)
    second._frame = name, header, buffers
    return second


def running_of(board: Board, member: Member) -> int:
    """What the member's record says that it has in hand."""
    return int(struct.unpack_from("<q", board.mapping.view, record_at(board.words, member.index) + M_RUNNING)[0])


def put_down(board: Board, member: Member, running: int) -> None:
    """The second run has ended, however: the member's record shows what is in hand beside it (`running_of`, before)."""
    struct.pack_into("<2q", board.mapping.view, record_at(board.words, member.index) + M_RUNNING, running, 0)


assert (S_ID_HI, S_ID_LO) == (S_KERNEL + 8, S_KERNEL + 16)
assert (M_SLOT, M_CLAIMED_AT) == (M_RUNNING + 8, M_RUNNING + 16)
assert _FIELDS <= S_SECOND <= S_INLINE - 8
