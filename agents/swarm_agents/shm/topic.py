"""Topics: one writer's latest values, and some that came before, for any number of readers: telemetry, settings.

    topic = Topic.create("/dev/shm/agentswarm-1000/load", slots=64, slot_bytes=256)
    writer = topic.writer()
    writer.publish(b"...")                          # never waits, whatever readers do
    with writer.loan(128) as view: view[:] = ...

    reader = Topic.open("/dev/shm/agentswarm-1000/load").reader()
    reader.last()                                   # the latest value as bytes; None when there is none yet
    reader.next(timeout=1.0)                        # the one after the one that `next` gave before; None in time
    reader.missed                                   # how many `next` had to leave out, because the writer was faster

A value is whole or not there. A writer killed in the middle leaves the value before; whoever takes his place goes on
from it. A reader costs the writer nothing, and one that dies leaves nothing behind. The protocol is in `topic_words`.
"""

from __future__ import annotations

import functools
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from swarm_agents.errors import Fenced, PayloadError, PayloadTooLarge, RingInUse, RingMismatch
from swarm_agents.shm import topic_words as tw
from swarm_agents.shm.files import LifeLock
from swarm_agents.shm.frame import address_of
from swarm_agents.shm.jit import direct
from swarm_agents.shm.ring_file import SharedFile
from swarm_agents.shm.ring_hand import CLOSED_HAND, OPEN_HAND, Hand, cas_word, deadline, load_word

__all__ = ["Reader", "Topic", "Writer"]


class _Compiled:
    """The compiled entries, each as it is called most cheaply; made when the first handle is."""

    def __init__(self) -> None:
        self.publish: Any = direct(tw.publish)
        self.open_slot: Any = direct(tw.open_slot)
        self.close_slot: Any = direct(tw.close_slot)
        self.read_last: Any = direct(tw.read_last)
        self.read_next: Any = direct(tw.read_next)
        self.wait: Any = direct(tw.wait_for_value)


@functools.cache
def _compiled() -> _Compiled:
    return _Compiled()


class Topic:
    """A topic that this process has mapped. `writer` and `reader` take part in it."""

    def __init__(self, file: SharedFile) -> None:
        self._file = file
        self.base = file.base
        self.view = file.mapping.view
        self.path = file.path
        self._words = struct.unpack("<7q", self.view[: 7 * 8])
        self.slots, self.slot_bytes = self._words[tw.T_SLOTS], self._words[tw.T_MOST]

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, slots: int = 16, slot_bytes: int = 256) -> Topic:
        """Makes a topic's file, whole, with all its memory: the last value and up to `slots - 2` before it.

        Raises:
            FileExistsError: the path is taken.
            SharedMemoryFull: the file system has not that much room.
        """
        if slots < 4 or slots & (slots - 1) or slots > 1 << 20:
            raise ValueError(f"a topic has a power of two of slots, 4 to {1 << 20}; not {slots}")
        if not 1 <= slot_bytes <= 1 << 30:
            raise ValueError(f"a value has 1 to {1 << 30} bytes, not {slot_bytes}")
        stride = -(-(tw.PAYLOAD_AT + slot_bytes) // 64) * 64
        words = {
            tw.T_MAGIC: tw.TOPIC_MAGIC,
            tw.T_VERSION: tw.TOPIC_VERSION,
            tw.T_SIZE: -(-(tw.SLOTS_AT + stride * slots) // 4096) * 4096,
            tw.T_SLOTS: slots,
            tw.T_MOST: slot_bytes,
            tw.T_STRIDE: stride,
            tw.T_SLOTS_AT: tw.SLOTS_AT,
        }
        made = SharedFile.create(
            Path(path), words, lambda mapping: struct.pack_into("<q", mapping.view, tw.LAST_AT, slots - 1)
        )
        return cls(made)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Topic:
        """Opens a topic that somebody has made.

        Raises:
            Unreachable: there is none.
            RingMismatch: what is there is no topic of this version, or was truncated.
        """
        return cls(SharedFile.open(Path(path), tw.TOPIC_MAGIC, tw.TOPIC_VERSION, "topic"))

    def __repr__(self) -> str:
        return f"<Topic {self.path} {self.slots} x {self.slot_bytes} bytes, {self.published} published>"

    @property
    def published(self) -> int:
        """How many values were published so far."""
        return load_word(self.base + tw.PUBLISHED_AT)

    def writer(self, *, take_over: bool = False) -> Writer:
        """Takes the writer's place.

        Raises:
            RingInUse: a living writer has it.
        """
        with self._file.exclusive():
            last = load_word(self.base + tw.LAST_AT)
            epoch = last >> 52
            if self._file.taken(epoch) and not take_over:
                raise RingInUse(f"{self.path} has a living writer: end it first, or take its place (take_over=True)")
            fenced = self.fenced_live(-1)
            while self._file.taken(epoch := (epoch + 1) % tw.EPOCHS):
                pass
            life = self._file.sit(epoch)
            while not cas_word(self.base + tw.LAST_AT, last, epoch << 52 | (last & tw.LAST_MASK)):
                last = load_word(self.base + tw.LAST_AT)
            hand = self._hand()
            hand[tw.B_MINE] = epoch << 52
            if fenced:
                tw.settle_writer(hand.at, epoch)
        return Writer(self, life, hand, epoch, fenced)

    def reader(self, start: Literal["new", "oldest"] = "new") -> Reader:
        """A reader, whose `next` begins with the next value that is published, or with the oldest there is."""
        hand = self._hand()
        last = load_word(self.base + tw.LAST_AT) & tw.LAST_MASK
        hand[tw.B_POS] = last if start == "new" else max(last - self.slots + 1, self.slots - 1)
        return Reader(self, hand)

    def fenced_live(self, but: int) -> bool:
        """Whether any writer's process lives, of another epoch than this one."""
        if but < 0:
            return self._file.taken(0, tw.EPOCHS)
        before = but > 0 and self._file.taken(0, but)
        return before or (but + 1 < tw.EPOCHS and self._file.taken(but + 1, tw.EPOCHS - but - 1))

    def remove(self) -> None:
        """Removes the topic's name. Who has it open goes on with it; nobody finds it any more."""
        self._file.unlink()

    def _hand(self) -> Hand:
        hand = Hand()
        words = self._words
        hand[tw.B_BASE], hand[tw.B_SLOTS], hand[tw.B_MOST] = self.base, words[tw.T_SLOTS], words[tw.T_MOST]
        hand[tw.B_STRIDE], hand[tw.B_SLOTS_AT] = words[tw.T_STRIDE], self.base + words[tw.T_SLOTS_AT]
        return hand


class Writer:
    """A topic's writer, until `close` or death."""

    def __init__(self, topic: Topic, life: LifeLock, hand: Hand, epoch: int, fenced: bool) -> None:
        self.epoch = epoch
        self._topic, self._life, self._hand, self._at = topic, life, hand, hand.at
        self._fenced = fenced
        hand[tw.B_LIFT] = int(not fenced)
        self._calls = _compiled()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up the writer's place; what was published stays."""
        self._hand[tw.B_STOP] = CLOSED_HAND
        self._life.release()

    def publish(self, data: Any) -> None:
        """Publishes a value: bytes, a bytearray, or anything with contiguous memory. Never waits.

        Raises:
            PayloadTooLarge: it is longer than the topic's values may be.
            Fenced: another writer has taken this one's place.
        """
        if self._fenced:
            self._look_for_the_fenced()
        if type(data) is bytes:
            self._check(self._calls.publish(self._at, address_of(data), len(data)), len(data))
            return
        array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8) if len(data) else np.empty(0)
        if array.dtype.hasobject:
            raise PayloadError("an array of Python objects can't travel: they mean nothing in another process")
        array = np.ascontiguousarray(array)
        self._check(self._calls.publish(self._at, int(array.ctypes.data), array.nbytes), array.nbytes)

    @contextmanager
    def loan(self, nbytes: int) -> Iterator[memoryview]:
        """Room for a value in the topic itself, writable: published at the block's end, dropped by an exception."""
        if self._fenced:
            self._look_for_the_fenced()
        self._check(tw.TOO_LARGE if nbytes > self._topic.slot_bytes else 1, nbytes)
        target = self._calls.open_slot(self._at)
        self._check(target, nbytes)
        start = target - self._topic.base
        view = self._topic.view[start : start + nbytes]
        self._hand[tw.B_STOP] = OPEN_HAND
        try:
            yield view
        finally:
            view.release()
            if self._hand[tw.B_STOP] == OPEN_HAND:
                self._hand[tw.B_STOP] = 0
        self._check(tw.SHUT if self._hand[tw.B_STOP] else self._calls.close_slot(self._at, nbytes), nbytes)

    def _look_for_the_fenced(self) -> None:
        self._fenced = self._topic.fenced_live(self.epoch)
        self._hand[tw.B_LIFT] = int(not self._fenced)

    def _check(self, code: int, length: int) -> None:
        path = self._topic.path
        if code == tw.STALE:
            raise Fenced(f"another writer has taken this one's place in {path}: what it did since then is void")
        if code == tw.TOO_LARGE:
            raise PayloadTooLarge(
                f"a value of {length} bytes: {path} takes up to {self._topic.slot_bytes}; make it with larger slots"
            )
        if code == tw.SHUT and self._hand[tw.B_STOP] == OPEN_HAND:
            raise ValueError("a loan of this writer is open: end its block first")
        if code == tw.SHUT:
            raise ValueError(f"this writer of {path} was closed, or belongs to the parent of this process")
        if code == tw.NOTHING:
            raise RingMismatch(f"every slot of {path} is held by a fenced writer: end those processes, or make it anew")


class Reader:
    """A topic's reader."""

    def __init__(self, topic: Topic, hand: Hand) -> None:
        self._topic, self._hand, self._at = topic, hand, hand.at
        # A bytes object of our own, which no one else sees before it is sliced; longer than any value, because a slice
        # of all of it would be itself.
        self._out = bytes(topic.slot_bytes + 1)
        self._out_at = address_of(self._out)
        self._latest = topic._hand()
        self._calls = _compiled()

    @property
    def missed(self) -> int:
        """How many values `next` had to leave out so far, because they were overwritten before it came."""
        return self._hand[tw.B_MISSED]

    def last(self) -> bytes | None:
        """The latest value, or None when there is none yet. Does not change what `next` gives."""
        got = self._calls.read_last(self._latest.at, self._out_at)
        self._open(got)
        return self._out[:got] if got >= 0 else None

    def next(self, timeout: float | None = None) -> bytes | None:
        """The next value in order; None when none was published for `timeout` seconds (None: waits for ever)."""
        end = 0
        while (got := self._calls.read_next(self._at, self._out_at)) < 0:
            self._open(got)
            end = end or deadline(timeout)
            left = end - time.monotonic_ns()
            if left <= 0:
                return None
            self._calls.wait(self._at, left)
        return self._out[:got]

    def __iter__(self) -> Iterator[bytes]:
        """Values for ever."""
        while True:
            value = self.next()
            if value is not None:
                yield value

    def _open(self, code: int) -> None:
        if code == tw.SHUT:
            raise ValueError("this reader belongs to the parent of this process: take another one")
