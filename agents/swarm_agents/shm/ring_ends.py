"""The two ends of a ring as Python has them: `Sender` and `Receiver`. See `ring` for what they promise.

Each has a *hand*: private words with all that its compiled calls need, whose address is all that is passed to them. The
quick way of a call is one compiled call and no attribute that is not a slot; whatever is rare (no room, nothing there,
a fenced or dead partner) is told by a number below 0 and handled apart.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from swarm_agents.errors import PayloadTooLarge, RingFull
from swarm_agents.shm import ring_layout as rl
from swarm_agents.shm.cpython import layout_known
from swarm_agents.shm.files import LifeLock
from swarm_agents.shm.frame import address_of
from swarm_agents.shm.ring_hand import (
    FOREVER,
    OPEN_HAND,
    End,
    Hand,
    cas_word,
    count_one,
    deadline,
    load_word,
)
from swarm_agents.shm.ring_methods import compile_methods
from swarm_agents.shm.ring_shape import counters_at

if TYPE_CHECKING:
    from swarm_agents.shm.ring import Ring

__all__ = ["Receiver", "Sender", "prepare"]

_OUT_BYTES = 4096  # the longest message that is received by way of the handle's own memory


class Sender(End):
    """A ring's sending end."""

    __slots__ = ("_loaned", "_put", "_put_rows", "_shadow", "epoch", "number")

    def __init__(self, ring: Ring, life: LifeLock, hand: Hand, number: int, epoch: int) -> None:
        super().__init__(ring, life, hand)
        self.number, self.epoch = number, epoch
        base = ring.base
        hand[rl.A_STATE] = base + rl.STATES_AT + number * 8
        hand[rl.A_MINE] = rl.S_ALIVE | epoch << 3
        hand[rl.A_OWNER] = (number & rl.NUMBER_MASK) | (epoch & rl.EPOCH_BITS_MASK) << 8
        hand[rl.A_COUNTERS] = base + counters_at(ring.shape.senders) + number * rl.COUNTER_STRIDE
        hand[rl.A_HEAD] = load_word(base + rl.HEAD_AT) & rl.POS_MASK
        self._shadow = ring.cell_words() if ring.shape.variable and not ring.shape.many else None
        if self._shadow is not None:
            hand[rl.A_SHADOW] = int(self._shadow.ctypes.data)
        hand[rl.A_SLOW], hand[rl.A_SLOW_TRY] = id(_SEND), id(_TRY_SEND)
        self._put = self._calls.put_object
        self._put_rows = self._calls.put_rows

    def send(self, data: Any, timeout: float | None = None) -> None:
        """Sends a message: bytes, a bytearray, or anything with contiguous memory.

        While the ring is full it waits, for ever or for up to `timeout` seconds.

        Raises:
            RingFull: there was no room in time.
            PayloadTooLarge: it is longer than the ring's messages may be.
            Fenced: another sender has taken this one's place.
        """
        if self._put(self._at, id(data)) != 1 and not self._send(data, timeout):
            raise RingFull(
                f"{self._ring.path} had no room for {timeout} s: its receiver is slower than its senders, or gone. "
                "Wait longer, make the ring with more slots, or look whether a receiver lives"
            )

    def try_send(self, data: Any) -> bool:
        """Sends a message if there is room now: whether it was sent."""
        return self._put(self._at, id(data)) == 1 or self._send(data, 0)

    def send_many(self, rows: np.ndarray[Any, Any], timeout: float | None = 0) -> int:
        """Sends each row of an array (each element, if it has one axis) as a message of its own.

        Returns how many were sent: less than all if the ring was full, after waiting for up to `timeout` seconds
        (None: until all are sent).
        """
        at, stride, length, count = self._rows(rows, write=False)
        sent, end = 0, 0
        while sent < count:
            got = self._put_rows(self._at, at + sent * stride, stride, length, count - sent)
            if got > 0:
                sent += got
                continue
            if timeout == 0 and got == rl.FULL:
                break
            end = end or deadline(timeout)
            if not self._wait(got, length, end):
                break
        return sent

    @contextmanager
    def loan(self, nbytes: int, timeout: float | None = None) -> Iterator[memoryview]:
        """Room for a message in the ring itself, as a writable view: sent at the block's end, dropped by an exception.

        With many senders the receiver waits for it, for as long as the ring's `stall_seconds` allow.

        Raises:
            RingFull, PayloadTooLarge, Fenced: as `send`; Fenced also at the block's end, the message is void then.
        """
        end = deadline(timeout)
        while (target := self._calls.begin(self._at, nbytes)) < 0:
            if not self._wait(target, nbytes, end):
                raise RingFull(
                    f"{self._ring.path} had no room for {timeout} s: is there a receiver, is it fast enough?"
                )
        start = target - self._ring.base
        view = self._view[start : start + nbytes]
        try:
            yield from self._in_place(view)
        except BaseException:
            self._calls.rollback(self._at)
            raise
        self._check(rl.CLOSED if self._hand[rl.A_STOP] else self._calls.commit(self._at, nbytes))

    def close(self) -> None:
        """Gives up the sender's seat. What was sent stays."""
        if self._hand[rl.A_STOP] == OPEN_HAND:
            self._calls.rollback(self._at)
        super().close()
        hand = self._hand
        cas_word(hand[rl.A_STATE], hand[rl.A_MINE], rl.S_FREE | self.epoch << 3)

    def _check(self, code: int) -> None:
        if code < 0:
            self._refuse(code, "sender")

    def _send(self, data: Any, timeout: float | None) -> bool:
        """The long way of `send`."""
        at, length, _keep = self._address(data, write=False)
        end = 0
        while True:
            code = self._calls.put(self._at, at, length)
            if code == 1:
                return True
            if timeout == 0 and code == rl.FULL:
                return False
            end = end or deadline(timeout)
            if not self._wait(code, length, end):
                return False

    def _wait(self, code: int, length: int, end: int) -> bool:
        """After a call that found no room: whether to try again. The time's up when `end` (ns) has passed."""
        if code == rl.ASK:
            self._hand[rl.A_POLICY] = rl.STEP_OVER if self._ring.fenced_lives() else rl.LIFT
            return True
        if code == rl.TOO_LONG:
            raise PayloadTooLarge(
                f"a message of {length} bytes: {self._ring.path} takes up to {self._ring.shape.most_bytes}; make it "
                "with larger slots, or send a descriptor of an array in the arena"
            )
        self._check(code)
        if end > time.monotonic_ns() and self._calls.spin_for_room(self._at):
            return True
        left = end - time.monotonic_ns()
        if left <= 0:
            return False
        count_one(self._hand[rl.A_COUNTERS] + rl.C_PARKS)
        self._calls.wait_for_room(self._at, left)
        return True


class Receiver(End):
    """A ring's receiving end."""

    __slots__ = ("_into", "_now", "_out", "_receive", "_room", "_stuck", "_take_rows", "epoch")

    def __init__(self, ring: Ring, life: LifeLock, hand: Hand, epoch: int) -> None:
        super().__init__(ring, life, hand)
        self.epoch = epoch
        hand[rl.A_MINE] = epoch << 52
        hand[rl.A_POS] = load_word(ring.base + rl.HEAD_AT) & rl.POS_MASK
        self._room = min(ring.shape.most_bytes, _OUT_BYTES)
        # A bytes object of our own, which no one else sees before it is sliced: slicing it is the quickest way to new
        # bytes. It is one longer than any message, because a slice of all of it would be itself.
        self._out = bytes(self._room + 1)
        hand[rl.A_OUT] = address_of(self._out)
        self._stuck = (0, 0)
        hand[rl.A_OUT_BYTES] = self._room
        hand[rl.A_SLOW], hand[rl.A_SLOW_TRY], hand[rl.A_SLOW_INTO] = id(_RECEIVE), id(_TRY_RECEIVE), id(_RECEIVE_INTO)
        self._receive = self._calls.receive
        self._now = self._calls.receive_now
        self._into = self._calls.receive_into
        self._take_rows = self._calls.take_rows

    def receive(self, timeout: float | None = None) -> bytes | None:
        """The next message; None when there was none for `timeout` seconds (None: waits for ever).

        Raises:
            Fenced: another receiver has taken this one's place.
        """
        got = self._receive(self._at, self._room) if timeout is None else self._now(self._at, self._room)
        if got >= 0:
            return self._out[:got]
        return self._receive_slowly(got, timeout)

    def try_receive(self) -> bytes | None:
        """The next message, or None when there is none now."""
        got = self._now(self._at, self._room)
        return self._out[:got] if got >= 0 else self._receive_slowly(got, 0)

    def receive_into(self, buffer: Any, timeout: float | None = None) -> int | None:
        """Receives a message into a bytearray, a writable memoryview or an array: its bytes, or None.

        Raises:
            PayloadTooLarge: the message is longer than the buffer; it stays in the ring.
        """
        at, room, _keep = self._address(buffer, write=True)
        end = 0
        while True:
            got: int = self._into(self._at, at, room)
            if got >= 0:
                return got
            if timeout == 0 and got == rl.EMPTY:
                return None
            end = end or deadline(timeout)
            if not self._wait(got, end):
                return None

    def receive_many(
        self, rows: np.ndarray[Any, Any], timeout: float | None = 0, *, lengths: np.ndarray[Any, Any] | None = None
    ) -> int:
        """Receives messages into the rows of an array (the elements, if it has one axis), as many as there are.

        Waits for the first for up to `timeout` seconds. A message shorter than a row leaves the row's rest as it was:
        `lengths`, an array of int64, says each one's bytes.

        Raises:
            PayloadTooLarge: the first message is longer than a row; it stays in the ring.
        """
        at, stride, length, count = self._rows(rows, write=True)
        sizes = 0
        if lengths is not None:
            if lengths.dtype != np.int64 or len(lengths) < count or not lengths.flags.c_contiguous:
                raise ValueError(f"lengths must be a contiguous array of {count} int64")
            sizes = int(lengths.ctypes.data)
        end = 0
        while count:
            got: int = self._take_rows(self._at, at, stride, length, count, sizes, int(timeout != 0))
            if got >= 0:
                return got
            if timeout == 0 and got == rl.EMPTY:
                break
            end = end or deadline(timeout)
            if not self._wait(got, end):
                break
        return 0

    @contextmanager
    def view(self, timeout: float | None = None) -> Iterator[memoryview | None]:
        """The next message in place, as a read-only view (None when the time is up): taken at the block's end.

        An exception keeps it in the ring, to be received again.

        Raises:
            Fenced: also at the block's end: another receiver has it, or will.
        """
        end = deadline(timeout)
        while (source := self._calls.look(self._at)) < 0:
            if not self._wait(source, end):
                yield None
                return
        start = source - self._ring.base
        view = self._view[start : start + self._hand[rl.A_LENGTH]].toreadonly()
        yield from self._in_place(view)
        code = rl.CLOSED if self._hand[rl.A_STOP] else self._calls.release(self._at)
        if code < 0:
            self._refuse(code, "receiver")

    def __iter__(self) -> Iterator[bytes]:
        """Messages for ever."""
        while True:
            message = self.receive()
            if message is not None:
                yield message

    def _receive_slowly(self, code: int, timeout: float | None) -> bytes | None:
        end = 0
        while True:
            if code >= 0:
                return self._out[:code]
            if code == rl.TOO_LONG:  # for the handle's own memory
                with self.view() as view:
                    assert view is not None
                    return bytes(view)
            if timeout == 0 and code == rl.EMPTY:
                return None
            end = end or deadline(timeout)
            if not self._wait(code, end):
                return None
            code = self._now(self._at, self._room)

    def _wait(self, code: int, end: int) -> bool:
        """After a call that found nothing: whether to try again. The time's up when `end` (ns) has passed."""
        if code == rl.TOO_LONG:
            raise PayloadTooLarge(
                f"the next message of {self._ring.path} has {self._hand[rl.A_LENGTH]} bytes, more than the buffer: it "
                "stays in the ring; give a larger buffer"
            )
        if code < 0:
            self._refuse(code, "receiver")
        now = time.monotonic_ns()
        if code == rl.STUCK and self._step_in(now):
            return True
        if now >= end:
            return False
        longest = 1_000_000 if code == rl.STUCK else FOREVER
        count_one(self._ring.base + rl.RX_PARKS_AT)
        self._calls.wait_for_change(self._at, min(end - now, longest))
        return True

    def _step_in(self, now: int) -> bool:
        """Deals with the reservation that the head is stuck at: whether it is out of the way."""
        word = self._hand[rl.A_OLD]
        number, epoch = (word >> 19) & rl.NUMBER_MASK, (word >> 27) & rl.EPOCH_BITS_MASK
        ring = self._ring
        state = ring.sender_state(number)
        same = state >> 3 == epoch
        gone = not same or not ring.sender_lives(number)
        if not gone and state & 7 == rl.S_ALIVE:
            if self._stuck[0] != word:
                self._stuck = (word, now)
            stall = ring.shape.stall_ns
            if stall == 0 or now - self._stuck[1] < stall:
                return False
            ring.fence(number, epoch)
        self._calls.resolve(self._at, int(gone))
        return True


# The methods as they are written here: what the compiled ones go on with.
_SEND, _TRY_SEND = Sender.send, Sender.try_send
_RECEIVE, _TRY_RECEIVE, _RECEIVE_INTO = Receiver.receive, Receiver.try_receive, Receiver.receive_into


@functools.cache
def prepare() -> None:
    """Compiles the methods, where this interpreter allows it: before the first end is made."""
    if layout_known():
        compile_methods(Sender, Receiver)
