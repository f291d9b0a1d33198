"""What a node's resource agent foresees of its siblings, handed to their supervisors: one short file beside the board.

The resource agent sees what an agent's supervisor does not: the node's heat, its disks, how its siblings fare. The
supervisor is the one whom the operator asks. So the resource agent writes its verdicts each second there is one, and
each supervisor reads its own agent's and answers with the graver of the two.

Invariants: a verdict is of one epoch, so that no successor is judged by what its predecessor did; it holds for `FRESH`
seconds of the monotonic clock, which is one for all processes of a machine, so that a resource agent that died leaves
none behind; a reader takes whatever lies there, and a file that can't be read or is no sense says nothing.

Rejected: a message over the hub (supervisors have no connection to it), a word in the members' records (reasons are
text), and the operator asking the resource agent too (a second figure for one thing, and more requests).
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

__all__ = ["FRESH", "Foreseen", "read_foreseen", "write_foreseen"]

#: Begins like the board's own file: it goes when the board goes.
_FILE = "board.foreseen"
#: Seconds for which a verdict holds.
FRESH = 10.0
_MOST = 1 << 18


class Foreseen(msgspec.Struct, frozen=True):
    """The probability (0 to 1) of a failure within a minute, and why."""

    probability: float
    reasons: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True):
    at: float
    #: by `index:epoch`
    agents: dict[str, Foreseen]


def write_foreseen(directory: Path, now: float, agents: Mapping[tuple[int, int], Foreseen]) -> None:
    """Puts verdicts by (index, epoch) in place of the last ones. `now`: monotonic seconds.

    Failing is of no consequence.
    """
    text = msgspec.json.encode(_File(now, {f"{index}:{epoch}": said for (index, epoch), said in agents.items()}))
    path = directory / _FILE
    with contextlib.suppress(OSError):
        new = path.with_name(f"{_FILE}.{os.getpid()}")
        try:
            new.write_bytes(text)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def read_foreseen(directory: Path, now: float, index: int, epoch: int) -> Foreseen | None:
    """What is foreseen of a member; None: nothing, or nothing fresh."""
    try:
        with open(directory / _FILE, "rb") as file:
            said = msgspec.json.decode(file.read(_MOST), type=_File)
    except (OSError, msgspec.DecodeError):
        return None
    found = said.agents.get(f"{index}:{epoch}")
    if found is None or not abs(now - said.at) <= FRESH or not 0.0 <= found.probability <= 1.0:
        return None
    return found if math.isfinite(found.probability) else None
