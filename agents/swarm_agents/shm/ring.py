"""Rings: messages from one process to another through shared memory, in well under a microsecond.

    ring = Ring.create("/dev/shm/agentswarm-1000/quotes", slots=1024, slot_bytes=64)
    tx = ring.sender()                              # in one process
    tx.send(b"...")                                 # bytes, bytearray, memoryview, NumPy array
    tx.send_many(rows)                              # a 2-D array: each row a message
    with tx.loan(48) as view: view[:] = ...         # written in place; sent at the block's end, dropped by an exception

    rx = Ring.open("/dev/shm/agentswarm-1000/quotes").receiver()    # in another
    rx.receive()                                    # bytes; None when the time is up
    rx.receive_into(buffer); rx.receive_many(rows)
    with rx.view() as view: ...                     # read in place; taken at the block's end, kept by an exception

What is promised
- A message that `send` has returned for is in the ring: neither its sender's nor its receiver's death loses it.
- A message is received whole, in the order of its sender, and once: it is the receiver's when the head has moved. With
  `receive` and its like the copy is made first and the head moved then, so that whoever takes a dead receiver's place
  sees everything that the dead one had not taken. One who was killed after that, before he did anything with the
  message, took it with him: who must not lose it works inside `view()`, where the head moves after the work; and there
  a successor may see a message that has been worked on (at least once), which only the work itself can tell.
- A full ring pushes back: `try_send` says no, `send` waits. A receiver or sender that waits spins for `spin_ns`, then
  sleeps; every sleep is short enough for Python to see signals.
- A seat is a process's: `sender()` and `receiver()` take the place of one that died at once, and of one that lives
  only when told to (`take_over=True`). Whoever lost his place gets `Fenced` for whatever he does, and harms nothing.
- With many senders, one that is killed in the middle of a message holds nobody up, and one that is stopped there does
  so for `stall_seconds` at most: then it is fenced.

A handle (`Sender`, `Receiver`) belongs to the process that made it: a forked child's copy of it refuses. Several
threads may share one, they take turns; but a loan or view is one at a time. The protocol is in `ring_words`, the layout
in `ring_layout`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from swarm_agents.errors import RingInUse
from swarm_agents.shm import ring_layout as rl
from swarm_agents.shm import ring_repair
from swarm_agents.shm.files import Mapping
from swarm_agents.shm.ring_ends import Receiver, Sender, prepare
from swarm_agents.shm.ring_file import SharedFile
from swarm_agents.shm.ring_hand import cas_word, load_word, make_hand
from swarm_agents.shm.ring_layout import data_word
from swarm_agents.shm.ring_shape import RingShape, counters_at, plan_ring

__all__ = ["Receiver", "Ring", "RingStats", "Sender"]

RECEIVER_SEATS = 4096


@dataclass(frozen=True, slots=True)
class RingStats:
    """What a ring has done since it was made.

    `depth` is how many cells hold messages not taken yet; `full` how often a sender found no room; `skipped` how many
    units were stepped over (ends of the ring, messages of senders that died in the middle of them).
    """

    sent: int
    received: int
    depth: int
    full: int
    sender_parks: int
    receiver_parks: int
    skipped: int


class Ring:
    """A ring that this process has mapped. `sender` and `receiver` take part in it."""

    def __init__(self, file: SharedFile, offset: int = 0, seats: int = 0) -> None:
        prepare()
        self._file = file
        self._seats = seats
        self.base = file.base + offset
        self.view = file.mapping.view[offset:]
        self._words = struct.unpack("<16q", self.view[: 16 * 8])
        words = self._words
        self.path = file.path
        self.shape = RingShape(
            words[rl.G_CELLS], words[rl.G_SLOT_BYTES], bool(words[rl.G_MANY]), bool(words[rl.G_VARIABLE]),
            words[rl.G_SENDERS], words[rl.G_SPIN_NS], words[rl.G_STALL_NS],
        )  # fmt: skip

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        slots: int = 1024,
        slot_bytes: int = 64,
        producers: Literal["one", "many"] = "one",
        frames: Literal["fixed", "variable"] = "fixed",
        max_senders: int = 0,
        spin_seconds: float = 20e-6,
        stall_seconds: float = 1.0,
    ) -> Ring:
        """Makes a ring's file, whole, with all its memory; its directories too, if they are missing.

        A message has up to `slot_bytes`; with variable frames it has as many as it likes, up to a quarter of
        `slots * slot_bytes`. `max_senders` counts those that may be there at once, the fenced whose process lives
        included.

        Raises:
            FileExistsError: the path is taken.
            SharedMemoryFull: the file system has not that much room.
        """
        shape = RingShape(
            slots,
            slot_bytes,
            producers == "many",
            frames == "variable",
            max_senders or (64 if producers == "many" else 8),
            round(spin_seconds * 1e9),
            round(stall_seconds * 1e9),
        )
        return cls(SharedFile.create(Path(path), plan_ring(shape), lambda mapping: _initialise(mapping, 0, shape)))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Ring:
        """Opens a ring that somebody has made.

        Raises:
            Unreachable: there is none.
            RingMismatch: what is there is no ring of this version, or was truncated.
        """
        return cls(SharedFile.open(Path(path), rl.RING_MAGIC, rl.RING_VERSION, "ring"))

    def __repr__(self) -> str:
        shape = self.shape
        kind = f"{'many senders' if shape.many else 'one sender'}, {'variable' if shape.variable else 'fixed'}"
        return f"<Ring {self.path} {shape.cells} x {shape.slot_bytes} bytes, {kind}>"

    def sender(self, *, take_over: bool = False) -> Sender:
        """Takes a sender's seat: the place of the last one where there is one sender, a free one where there are many.

        Raises:
            RingInUse: a living sender has the place, or all places are taken.
        """
        with self._file.exclusive():
            return self._seat_sender(take_over)

    def receiver(self, *, take_over: bool = False) -> Receiver:
        """Takes the receiver's seat.

        Raises:
            RingInUse: a living receiver has it.
        """
        with self._file.exclusive():
            head = load_word(self.base + rl.HEAD_AT)
            epoch = head >> 52
            if self._file.taken(self._receiver_seat(epoch)) and not take_over:
                raise RingInUse(f"{self.path} has a living receiver: end it first, or take its place (take_over=True)")
            epoch = (epoch + 1) & rl.HEAD_EPOCH_MASK
            life = self._file.sit(self._receiver_seat(epoch))
            while not cas_word(self.base + rl.HEAD_AT, head, epoch << 52 | (head & rl.POS_MASK)):
                head = load_word(self.base + rl.HEAD_AT)
        return Receiver(self, life, make_hand(self.base, self._words), epoch)

    def _receiver_seat(self, epoch: int) -> int:
        return self._seats + RECEIVER_SEATS + epoch

    def _seat_sender(self, take_over: bool) -> Sender:
        states = [self.sender_state(number) for number in range(self.shape.senders)]
        living = [self._file.taken(self._seats + number) for number in range(self.shape.senders)]
        if not self.shape.many:
            for number, state in enumerate(states):
                if state & 7 == rl.S_ALIVE and living[number]:
                    if not take_over:
                        raise RingInUse(
                            f"{self.path} has a living sender: end it first, or take its place (take_over=True)"
                        )
                    self._set_state(number, rl.S_FENCED, state >> 3)
        number = next((number for number, lives in enumerate(living) if not lives), -1)
        if number < 0:
            raise RingInUse(
                f"all {self.shape.senders} senders' places of {self.path} are taken: end one, or make the ring with a "
                "larger max_senders"
            )
        hand = make_hand(self.base, self._words)
        if not self.shape.many:
            unsettled = [
                other for other, lives in enumerate(living) if lives and self.sender_state(other) & 7 == rl.S_FENCED
            ]
            if unsettled:
                ring_repair.settle(hand.at, self.shape.most_bytes // self.shape.slot_bytes)
                for other in unsettled:
                    self._set_state(other, rl.S_SETTLED, states[other] >> 3)
            for other, lives in enumerate(living):
                if not lives:
                    self._set_state(other, 0, states[other] >> 3)
            ring_repair.find_tail(hand.at)
        epoch = ((states[number] >> 3) + 1) & rl.EPOCH_BITS_MASK
        life = self._file.sit(self._seats + number)
        self._set_state(number, rl.S_ALIVE, epoch)
        return Sender(self, life, hand, number, epoch)

    def fence(self, number: int, epoch: int) -> bool:
        """Fences one of many senders: whether it was there."""
        at = self.base + rl.STATES_AT + number * 8
        return bool(cas_word(at, rl.S_ALIVE | epoch << 3, rl.S_FENCED | epoch << 3))

    def sender_state(self, number: int) -> int:
        """The state word of a sender's place."""
        return load_word(self.base + rl.STATES_AT + number * 8)

    def _set_state(self, number: int, state: int, epoch: int) -> None:
        at = self.base + rl.STATES_AT + number * 8
        while not cas_word(at, load_word(at), state | epoch << 3):
            pass

    def sender_lives(self, number: int) -> bool:
        """Whether the process lives that took this sender's place, fenced or not."""
        return self._file.taken(self._seats + number)

    def fenced_lives(self) -> bool:
        """Whether any sender was fenced whose process lives."""
        return any(
            self.sender_state(number) & 7 in (rl.S_FENCED, rl.S_SETTLED) and self.sender_lives(number)
            for number in range(self.shape.senders)
        )

    def stats(self) -> RingStats:
        """What the ring has done so far; each figure is of its own instant."""
        first = self.base + counters_at(self.shape.senders)
        entries = [first + number * rl.COUNTER_STRIDE for number in range(self.shape.senders)]
        head = load_word(self.base + rl.HEAD_AT) & rl.POS_MASK
        return RingStats(
            sent=sum(load_word(at + rl.C_SENT) for at in entries),
            received=load_word(self.base + rl.RECEIVED_AT),
            depth=max(self._tail() - head, 0),
            full=sum(load_word(at + rl.C_FULL) for at in entries),
            sender_parks=sum(load_word(at + rl.C_PARKS) for at in entries),
            receiver_parks=load_word(self.base + rl.RX_PARKS_AT),
            skipped=load_word(self.base + rl.SKIPPED_AT),
        )

    def cell_words(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """A copy of all cells' words as they are now."""
        return _cell_words(self.view, self._words).copy()

    def _tail(self) -> int:
        return ring_repair.find_tail(make_hand(self.base, self._words).at)

    def in_use(self) -> bool:
        """Whether any process that lives has a seat in this ring."""
        return self._file.taken(self._seats, RECEIVER_SEATS + rl.HEAD_EPOCH_MASK + 1)

    def remove(self) -> None:
        """Removes the ring's name. Who has it open goes on with it; nobody finds it any more."""
        self._file.unlink()

    def remove_if_unused(self) -> bool:
        """Removes the ring if nobody who lives has a seat in it: what its last user does. Whether it did."""
        with self._file.exclusive():
            if self.in_use():
                return False
            self._file.unlink()
            return True


def _initialise(mapping: Mapping, offset: int, shape: RingShape) -> None:
    """Writes what a fresh ring holds beside its geometry; nobody else has it yet."""
    plan = plan_ring(shape)
    view = mapping.view[offset:]
    for index, value in plan.items():
        struct.pack_into("<q", view, index * 8, value)
    struct.pack_into("<q", view, rl.HEAD_AT, shape.cells)
    struct.pack_into("<q", view, rl.TAIL_AT, shape.cells)
    _cell_words(view, tuple(plan.values()))[:] = data_word(0)


def _cell_words(view: memoryview, words: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.frombuffer(view, np.int64)[words[rl.G_WORDS_AT] // 8 :: rl.WORD_STRIDE // 8][: words[rl.G_CELLS]]
