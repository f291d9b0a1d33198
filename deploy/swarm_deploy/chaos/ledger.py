"""What the agents themselves write down of every commit, so that a second one can't hide behind a client's answer.

A client sees one answer for each task whatever happened behind it. Whether the board let two agents commit the same
task can be told only there: each agent of the swarm under test notes, before and after each commit, for which
*submission* it was (the board's file, the slot, the slot's generation and the task's id: a task that is submitted again
is another submission) and whether the board accepted it. Two accepted commits of one submission are a double commit.

A line is appended by one `write`, which the kernel keeps whole. An agent that is killed between the commit and its line
leaves an open line, which is counted as such and might hide a second commit; `open_` says how many there were.

The file's directory is named by `CHAOS_LEDGER`, in hexadecimal: a path would be translated like any that a container is
given.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swarm_agents.shm.worker import Claim, Worker

__all__ = ["VARIABLE", "Tally", "install", "read", "value_of"]

VARIABLE = "CHAOS_LEDGER"
_BEGUN, _ACCEPTED, _REFUSED = "b", "a", "r"
#: Bits of a slot's state word that are its generation (see `swarm_agents.shm.layout`).
_GENERATION_AT, _GENERATION_MASK = 42, (1 << 22) - 1


def value_of(directory: Path) -> str:
    """What `CHAOS_LEDGER` has to be for a ledger in this directory."""
    return os.fsencode(directory).hex()


def install(worker: type[Worker], environment: Any = os.environ) -> bool:
    """Has every commit of this process written down, if it is asked for; the agents that it forks write too."""
    named = environment.get(VARIABLE)
    if not named:
        return False
    directory = os.fsdecode(bytes.fromhex(named))
    node, agent = environment.get("NODE_NAME", ""), environment.get("POD_NAME", "")

    def note(what: str, claim: Claim) -> None:
        generation = (claim._mine >> _GENERATION_AT) & _GENERATION_MASK
        high, low = claim.task_id
        board = claim._board.mapping.inode
        line = f"{what} {node} {board} {claim.slot} {generation} {high:x}-{low:x} {claim.attempt} {agent} {os.getpid()}"
        # Opened anew each time: the process may be another one than a moment ago, and its descriptors replaced.
        try:
            descriptor = os.open(f"{directory}/{node}", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the run is over, and its ledger read
            return
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)

    def noted(commit: Callable[..., bool]) -> Callable[..., bool]:
        def wrapper(self: Worker, claim: Claim, *args: Any, **kwargs: Any) -> bool:
            note(_BEGUN, claim)
            accepted = commit(self, claim, *args, **kwargs)
            note(_ACCEPTED if accepted else _REFUSED, claim)
            return accepted

        return wrapper

    if not getattr(worker, "_noted", False):
        worker.commit = noted(worker.commit)  # type: ignore[method-assign]
        worker.fail = noted(worker.fail)  # type: ignore[method-assign]
        worker._noted = True  # type: ignore[attr-defined]
    return True


@dataclass
class Tally:
    """What a ledger says."""

    #: Commits that a board accepted; refused, because the agent had been declared dead or the task was another's.
    accepted: int = 0
    refused: int = 0
    #: Commits begun of which nothing more is known: the agent died, or the commit raised.
    open_: int = 0
    #: Submissions with more than one accepted commit: the lines that say so.
    doubled: list[str] = field(default_factory=list)
    #: Tasks that were computed to the end more than once, whichever of them counted.
    computed_again: int = 0


def read(directory: Path) -> Tally:
    """Reads all files of a ledger."""
    tally = Tally()
    accepted: dict[tuple[str, ...], list[str]] = defaultdict(list)
    begun: Counter[tuple[str, ...]] = Counter()
    ends: Counter[str] = Counter()
    for file in sorted(directory.iterdir()) if directory.is_dir() else ():
        for line in file.read_text().splitlines():
            what, *words = line.split(" ")
            if len(words) != 8:
                raise ValueError(f"{file}: {line!r} is no line of a ledger")
            submission = tuple(words[:5])
            if what == _BEGUN:
                begun[tuple(words)] += 1
                ends[words[4]] += 1
            else:
                begun[tuple(words)] -= 1
                if what == _ACCEPTED:
                    tally.accepted += 1
                    accepted[submission].append(line)
                else:
                    tally.refused += 1
    tally.open_ = sum(count for count in begun.values() if count > 0)
    tally.doubled = [" | ".join(lines) for lines in accepted.values() if len(lines) > 1]
    tally.computed_again = sum(count > 1 for count in ends.values())
    return tally
