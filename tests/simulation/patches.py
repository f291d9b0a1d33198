"""Faults planted in Python code, by putting a wrong function in the place of a right one for the length of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["PATCHES", "planted"]


def _hang_not_seen() -> list[tuple[Any, str, Any]]:
    from swarm_agents.runtime import watch

    return [(watch, "judge", lambda *args, **kwargs: None)]


def _death_too_soon() -> list[tuple[Any, str, Any]]:
    from swarm_agents.runtime import watch

    # A sign of life that is one beat late is taken for a death.
    return [(watch, "judge", lambda silent, *args: watch.Verdict(True, silent) if silent > 0.015 else None)]


def _death_not_seen() -> list[tuple[Any, str, Any]]:
    from swarm_agents.runtime.watch import Watch

    return [(Watch, "released", lambda watch, index: None), (Watch, "look", lambda watch, *args, **kwargs: None)]


def _reaper_asleep() -> list[tuple[Any, str, Any]]:
    from swarm_agents.shm.board import Board

    return [*_death_not_seen(), (Board, "reap", lambda board: [])]


PATCHES: dict[str, Callable[[], list[tuple[Any, str, Any]]]] = {
    "hang-not-seen": _hang_not_seen,
    "death-too-soon": _death_too_soon,
    "death-not-seen": _reaper_asleep,
}


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Has the fault of this name in Python code, if it is one."""
    before: list[tuple[Any, str, Any]] = []
    for owner, attribute, wrong in PATCHES[name]() if name in PATCHES else ():
        before.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, wrong)
    try:
        yield
    finally:
        for owner, attribute, right in reversed(before):
            setattr(owner, attribute, right)
