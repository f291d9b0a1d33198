"""How an agent makes the calls of a chunk: one after the other, each with a value or an error of its own.

A chunk is made of calls that are expected to be short. Should they not be, nobody waits for all of them: after
`PATIENCE`, when the answer has become large, or when nobody wants it any more, the rest is left to be submitted again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from swarm_agents.chunks import Answer
from swarm_agents.compute.registry import Kernel

__all__ = ["LARGE", "PATIENCE", "Made", "make", "may_be_chunked"]

#: No further call of a chunk is begun after so long (seconds), or when its arrays have so many bytes.
PATIENCE = 0.02
LARGE = 1 << 20
#: It is looked whether the answer is still wanted this often (ns).
_LOOK_NS = 1_000_000


def may_be_chunked(kernel: Kernel) -> bool:
    """Whether a kernel leaves attempts, deadlines and limits to the swarm, and asks nothing of its surroundings: what
    it says of them is said of each call."""
    return (
        kernel.retry is None and kernel.deadline is None and kernel.bounds is None
        and not kernel.signature.takes_context
    )  # fmt: skip


class Made:
    """The calls that were made: their answer, and of each one its error (or None) and how long it took (ns)."""

    __slots__ = ("answer", "ended")

    def __init__(self) -> None:
        self.answer = Answer([], [])
        self.ended: list[tuple[BaseException | None, int]] = []


def make(
    run: Callable[[Sequence[Any]], Any],
    calls: Sequence[Sequence[Any]],
    *,
    begun: int,
    unwanted: Callable[[], bool],
    to_wire: Callable[[BaseException], dict[str, str]],
    clock: Callable[[], int] = time.monotonic_ns,
) -> Made:
    """Makes the calls.

    Args:
        run: makes one, from its positional arguments.
        calls: their arguments.
        begun: when the first one is, by the `clock` (ns).
        unwanted: whether nobody waits for the answer any more.
        to_wire: what is said of what a call raised.
    """
    made = Made()
    values, errors, ended = made.answer.values, made.answer.errors, made.ended
    large = 0
    until, look = begun + int(PATIENCE * 1e9), begun + _LOOK_NS
    for arguments in calls:
        value = error = None
        try:
            value = run(arguments)
        except BaseException as raised:  # as of any task: whatever it is, it is the submitter's to hear
            error = raised
            errors.append((len(values), to_wire(raised)))
        values.append(value)
        now = clock()
        ended.append((error, now - begun))
        begun = now
        large += getattr(value, "nbytes", 0)
        if now >= until or large > LARGE:
            break
        if now >= look:
            if unwanted():
                break
            look = now + _LOOK_NS
    return made
