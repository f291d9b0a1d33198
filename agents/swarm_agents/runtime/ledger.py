"""Who died over which task, and which tasks were set aside: one short file a node, written by whoever notices.

An attempt that ends with its agent's death leaves no trace on the board but a number. So whoever declares a death notes
first what the dead had in hand, a line of JSON each, appended with one system call, which the kernel does not mix with
another's. A task that was begun as often as it may be is noted as set aside. A sibling that is first sees only that the
process is gone; how it ended is known to its parent alone, who notes that too. Readers join the three.

Invariants: a note is for people and never decides anything; a failure to write one is of no consequence. Bounded: at
`_FULL` bytes the file becomes the older of two.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from swarm_agents.runtime.inputs import describe
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
    NO_BLOCK,
    OWNER_AT,
    OWNER_MASK,
    S_BLOCK,
    S_ID_HI,
    S_ID_LO,
    S_INLINE,
    S_LENGTH,
    SLOT_STRIDE,
)

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board

__all__ = ["Death", "Ended", "SetAside", "in_hand", "note_death", "note_end", "note_set_aside", "read", "set_aside"]

#: Begins like the board's own file: it goes when the board goes.
_FILE, _OLDER = "board.ledger", "board.ledger.older"
_FULL = 256 << 10
#: What those say of a death who saw that a process had gone, not how.
_GONE = ("process", "lock")


class Death(msgspec.Struct, frozen=True, tag="death", tag_field="what"):
    """An agent died with a task in hand."""

    time: float
    #: 32 hexadecimal digits, as logs have it.
    task: str
    kernel: str
    attempt: int
    agent: str
    epoch: int
    #: How it was noticed: `killed by SIGKILL`, `process`, `heartbeat`…
    how: str = ""


class Ended(msgspec.Struct, frozen=True, tag="end", tag_field="what"):
    """How an agent's process ended, by its parent."""

    agent: str
    epoch: int
    how: str


class SetAside(msgspec.Struct, frozen=True, tag="aside", tag_field="what"):
    """A task was given up."""

    time: float
    task: str
    kernel: str
    attempts: int
    reason: str = ""
    #: What it was given: names, dtypes and shapes, no values.
    inputs: str = ""


Note = Death | Ended | SetAside


class InHand(msgspec.Struct, frozen=True):
    """A task that a member has claimed."""

    task: str
    kernel: str
    attempt: int
    inputs: str = ""


def in_hand(board: Board, index: int, epoch: int) -> list[InHand]:
    """What a member has claimed under an epoch, as the board has it at this moment."""
    view, words = board.mapping.view, board.words
    states = np.frombuffer(view, np.int64, LANES * words[H_LANE_SLOTS], words[H_STATES_AT])
    mine = CLAIMED | (index & OWNER_MASK) << OWNER_AT | (epoch & EPOCH_MASK) << EPOCH_AT
    mask = 7 | OWNER_MASK << OWNER_AT | EPOCH_MASK << EPOCH_AT
    found = []
    for slot in np.flatnonzero((states & mask) == mine).tolist():
        s = words[H_SLOTS_AT] + slot * SLOT_STRIDE
        high, low, block, length = (
            int.from_bytes(view[s + field : s + field + 8], "little") for field in (S_ID_HI, S_ID_LO, S_BLOCK, S_LENGTH)
        )
        attempt = int(states[slot] >> ATTEMPTS_AT) & ATTEMPTS_MASK
        found.append(InHand(f"{high:016x}{low:016x}", *_call(board, s, block, length, attempt)))
    return found


def _call(board: Board, s: int, block: int, length: int, attempt: int) -> tuple[str, int, str]:
    """The kernel's name in a task's frame, the attempt, and, if that is the last one, what it was given; empty where
    the slot has changed hands meanwhile."""
    from swarm_agents import codec
    from swarm_agents.shm import frame
    from swarm_agents.shm.blocks import block_address

    mapping, name = board.mapping, ""
    try:
        if block == NO_BLOCK:
            raw = bytes(mapping.view[s + S_INLINE : s + S_INLINE + min(length, INLINE_MAX)])
            read = frame.read(memoryview(raw), 0, length, board.arrays.locate)
        else:
            read = frame.read(mapping.view, block_address(mapping.base, block), length, board.arrays.locate)
        name = read[0]
        if attempt < board.max_attempts:
            return name, attempt, ""
        args, kwargs = codec.decode(read[1], read[2])
        return name, attempt, describe(args, kwargs)
    except Exception:  # whatever a torn frame provokes: the note does without
        return name, attempt, ""


def note_death(board: Board, index: int, epoch: int, how: str = "") -> list[SetAside]:
    """Notes what a member has in hand that is about to be declared dead; those of its tasks that are given up.

    To be called before `declare_dead`, which gives them away. Two who do so at once note the same, which counts once.
    """
    held = in_hand(board, index, epoch)
    if not held:
        return []
    now, name, most = time.time(), board.member_name(index), board.max_attempts
    notes: list[Note] = []
    lost = []
    for each in held:
        notes.append(Death(now, each.task, each.kernel, each.attempt, name, epoch, how))
        if each.attempt >= most:
            reason = f"its agents died over {each.attempt} attempts (failover.maxAttempts: {most})"
            lost.append(SetAside(now, each.task, each.kernel, each.attempt, reason, each.inputs))
    _append(board.directory, [*notes, *lost])
    return lost


def note_end(directory: Path, agent: str, epoch: int, how: str) -> None:
    """Notes how an agent's process ended, for the deaths that others have declared: `killed by SIGALRM`."""
    _append(directory, [Ended(agent, epoch, how)])


def note_set_aside(directory: Path, task: str, kernel: str, attempts: int, reason: str, inputs: str = "") -> None:
    """Notes that an agent has given a task up."""
    _append(directory, [SetAside(time.time(), task, kernel, attempts, reason, inputs)])


def _append(directory: Path, notes: list[Note]) -> None:
    lines = b"".join(msgspec.json.encode(note) + b"\n" for note in notes)
    with contextlib.suppress(OSError):
        descriptor = os.open(directory / _FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, lines)
            if os.fstat(descriptor).st_size > _FULL:
                os.rename(directory / _FILE, directory / _OLDER)
        finally:
            os.close(descriptor)


def read(directory: Path) -> list[Note]:
    """All notes, oldest first; torn lines are left out."""
    decode = msgspec.json.Decoder(Note).decode
    notes = []
    for name in (_OLDER, _FILE):
        with contextlib.suppress(OSError):
            for line in (directory / name).read_bytes().splitlines():
                with contextlib.suppress(msgspec.DecodeError):
                    notes.append(decode(line))
    return notes


def set_aside(directory: Path, most: int = 100) -> list[dict[str, Any]]:
    """The tasks that were set aside last, oldest first: plain JSON types, with who died over them."""
    died: dict[str, dict[tuple[str, int, int], dict[str, Any]]] = {}
    aside: dict[str, SetAside] = {}
    notes = read(directory)
    ended = {(note.agent, note.epoch): note.how for note in notes if isinstance(note, Ended)}
    for note in notes:
        if isinstance(note, SetAside):
            aside.setdefault(note.task, note)
        elif isinstance(note, Death):
            how = ended.get((note.agent, note.epoch), note.how) if note.how in _GONE else note.how
            one = {"agent": note.agent, "epoch": note.epoch, "how": how, "time": note.time}
            died.setdefault(note.task, {}).setdefault((note.agent, note.epoch, note.attempt), one)
    return [
        {
            "task": note.task,
            "kernel": note.kernel,
            "attempts": note.attempts,
            "reason": note.reason,
            "inputs": note.inputs,
            "time": note.time,
            "died": list(died.get(note.task, {}).values()),
        }
        for note in aside.values()
    ][-most:]
