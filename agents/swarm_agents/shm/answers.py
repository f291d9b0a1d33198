"""What a port says of its tasks: the tickets of those that wait, and the answers of those that are done.

An answer was computed by a member of this board (`agent` is its place and `epoch` its epoch then), or by an agent of
another node, whose hub has committed it here: then its frame names that agent and its node (`by` and `node`).

None of these is looked at by the collector of cycles: they are parts of none, and it would go through everything that
a program holds once for so many tasks, which cost more than submitting them did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from swarm_agents import codec
from swarm_agents.config import Priority
from swarm_agents.errors import DeadlineExceeded, SwarmError, TaskCancelled, TaskLost, from_wire
from swarm_agents.shm.layout import R_CANCELLED, R_EXPIRED
from swarm_agents.shm.references import Shared

__all__ = [
    "DECODED", "NIL", "PRIORITIES", "Answer", "RawAnswer", "Ticket", "copied", "decode", "encoded", "name_far",
    "reason", "value_of", "who_far",
]  # fmt: skip

PRIORITIES = tuple(Priority)
#: The header that is read most of all: no value.
NIL = codec.encode(None)[0]
#: Stands for the header of a value that was decoded when it was taken, and is the only one of the buffers.
DECODED = b"decoded"
_HERE = ("", "")


class Ticket(msgspec.Struct, eq=False, gc=False):
    """A task of this port that has no answer yet."""

    #: Two words of 64 bits: this port's own and a number, or what the submitter said.
    task_id: tuple[int, int]
    kernel: str
    lane: int
    slot: int
    gen: int

    @property
    def priority(self) -> Priority:
        return PRIORITIES[self.lane]

    def __repr__(self) -> str:
        return f"Ticket({self.kernel}, {self.task_id[0]:016x}{self.task_id[1]:016x})"


class RawAnswer(msgspec.Struct, frozen=True, eq=False, gc=False):
    """An answer that has not been decoded: for a hub, which passes it on."""

    ticket: Ticket
    #: The value's header; of an error the msgpack map that `errors.to_wire` makes. Empty when there was no computation.
    header: bytes
    buffers: Sequence[Any]
    #: False: `header` is an error's.
    ok: bool
    #: Set instead of a header when the board itself answered: cancelled, expired, lost.
    error: SwarmError | None
    #: Index of the member that computed or committed it, -1: nobody; and that member's epoch.
    agent: int
    epoch: int
    #: How often it was begun.
    attempts: int
    queued_s: float
    run_s: float
    #: Nodes that it passed.
    hops: int
    #: The agent that computed it and its node, if that is another one; else two empty strings.
    far: tuple[str, str] = _HERE


class Answer(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A task's end: a value, or an error."""

    ticket: Ticket
    value: Any
    error: SwarmError | None
    #: As of a `RawAnswer`.
    agent: int
    epoch: int
    attempts: int
    #: Seconds between submission and the last beginning; and that the kernel ran.
    queued_s: float
    run_s: float
    hops: int
    far: tuple[str, str] = _HERE


def value_of(raw: RawAnswer) -> tuple[Any, SwarmError | None]:
    """The value of an answer, or what is to be raised instead of it."""
    error, header = raw.error, raw.header
    if error is not None:
        return None, error
    if not raw.ok:
        return None, from_wire(msgspec.msgpack.decode(header, type=dict[str, str]))
    if header is NIL:
        return None, None
    if header is DECODED:
        return raw.buffers[0], None
    try:
        return codec.decode(header, raw.buffers), None
    except SwarmError as failed:
        return None, failed


def decode(raw: RawAnswer) -> Answer:
    """An answer as a program wants it."""
    value, error = value_of(raw)
    return Answer(
        raw.ticket, value, error, raw.agent, raw.epoch, raw.attempts, raw.queued_s, raw.run_s, raw.hops, raw.far
    )


def encoded(raw: RawAnswer) -> RawAnswer:
    """What was decoded when it was taken, for those who want it as it was."""
    if raw.header is not DECODED:
        return raw
    header, buffers = codec.encode(raw.buffers[0])
    return msgspec.structs.replace(raw, header=header, buffers=buffers)


def copied(buffer: Any) -> Any:
    """A buffer of the board as the process's own."""
    if isinstance(buffer, Shared):
        return buffer.copied()
    return np.frombuffer(buffer, np.uint8).copy() if buffer.nbytes else b""


def name_far(agent: str, node: str) -> bytes:
    """What stands in the place of a name in the frame of an answer that an agent of another node has computed."""
    return f"{agent}\0{node}".encode() if agent else b""


def who_far(name: str) -> tuple[str, str]:
    """The agent and the node in such a name."""
    agent, _, node = name.partition("\0")
    return (agent, node) if agent else _HERE


def reason(why: int, kernel: str, attempts: int, most: int) -> SwarmError:
    """What the board itself has to say of a task.

    Args:
        why: what stands in the place of the result's block.
        kernel: the task's.
        attempts: how often it was begun.
        most: how often it may be.
    """
    if why == R_CANCELLED:
        return TaskCancelled(f"{kernel} was cancelled before it was begun")
    if why == R_EXPIRED:
        return DeadlineExceeded(f"the deadline of {kernel} passed before it was begun")
    return TaskLost(
        f"{kernel} was begun {attempts} times and each agent died over it or gave it back (limit {most}): look in the "
        "agents' logs for what kills them; failover.maxAttempts says how often a task is tried"
    )
