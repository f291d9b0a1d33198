"""Calls of one kernel that travel together as one task: short ones, whose way there and back costs more than they do.

`Swarm.map` packs them. The calls lie among the keyword arguments, under a name that no kernel's argument can have, so
that hubs and boards pass a chunk on as they do any task. An agent answers it with the values of the calls that it has
made, in order from the first, and the errors of those that raised. These may be fewer than it was asked for, down to
none: what is left is its sender's to submit again, each call by itself. So an agent need not take a chunk whose kernel
says something of its own on retries, deadlines or limits, nor one over which an agent has died; and it can break off a
chunk whose calls turn out to be long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from swarm_agents.errors import PayloadError

__all__ = ["KEYWORD", "MOST", "Answer", "calls_of", "read"]

KEYWORD = "@calls"
#: Calls of one chunk.
MOST = 256


class Answer(msgspec.Struct, array_like=True):
    """What became of a chunk's calls."""

    #: Of the first calls, in order; None of one that raised.
    values: list[Any]
    #: By a call's number in the chunk what `errors.to_wire` says of what it raised.
    errors: list[tuple[int, dict[str, str]]]


def calls_of(kwargs: dict[str, Any]) -> list[Sequence[Any]]:
    """The positional arguments of each call, from a chunk's keyword arguments.

    Raises:
        PayloadError: that is no chunk.
    """
    calls = kwargs[KEYWORD]
    if len(kwargs) > 1 or not isinstance(calls, list) or not all(isinstance(call, list) for call in calls):
        raise PayloadError(f"{KEYWORD} must hold the positional arguments of each call, and stand alone")
    return calls


def read(value: Any) -> Answer:
    """An answer as it has come back.

    Raises:
        PayloadError: it is none.
    """
    match value:
        case [list() as values, list() as errors]:
            return Answer(values, [(int(number), error) for number, error in errors])
    raise PayloadError("the answer to a chunk of calls is not their values and errors")
