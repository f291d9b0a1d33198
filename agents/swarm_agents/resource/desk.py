"""The hub's place on its node's board: it submits for those outside, and claims for nodes that are idler.

What a board and the wire hold of a payload is the same (the value's header, then its buffers), so tasks and answers
pass here as they are. Answers are copied out of the arena once, because they are kept until somebody far away has
acknowledged them, and the arena belongs to the node; arguments of a forwarded task are sent from where they lie, and
stay there until the claim is settled.

A thread parks on the board's futex and wakes the event loop when answers have come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from swarm_agents.wire import schema

__all__ = ["Answered", "Claimed", "Desk"]


class Answered(Struct, frozen=True):
    """A task from outside is done; `payload` is the hub's own copy."""

    answer: schema.Answer
    payload: list[Any]


class Claimed(Struct, frozen=True, eq=False):
    """A task of this board that the hub has claimed; `payload` lies in the arena."""

    submit: schema.Submit
    payload: Sequence[Any]
    #: The board's own claim.
    token: Any


class Desk:
    pass
