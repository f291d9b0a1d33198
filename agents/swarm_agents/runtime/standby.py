"""Whether a standby takes part: pure, and the same answer in every standby that sees the same board.

A *place* is what one compute pod fills, `<swarm>-compute-<ordinal>`, whatever the pod's incarnation. It is empty while
a member of it is on the board as dead and none as alive. A pod that left in order (scale-in, an update) leaves no trace
on the board and so no empty place. The n-th standby takes part when more than n places are empty, so that two standbys
fill two places, and one place wakes only one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from swarm_agents.config import Role

if TYPE_CHECKING:
    from swarm_agents.shm.board import MemberInfo

__all__ = ["place", "wanted"]


def place(pod: str) -> str:
    """The pod's name without its incarnation."""
    return pod.rpartition("-")[0]


def wanted(members: Iterable[MemberInfo], standby: str) -> bool:
    """Whether the standby pod of this name is needed now."""
    alive: set[str] = set()
    dead: set[str] = set()
    standbys: list[str] = []
    for info in members:
        if info.role == Role.COMPUTE:
            (alive if info.alive else dead).add(place(info.name))
        elif info.role == Role.STANDBY and info.alive:
            standbys.append(info.name)
    empty = len(dead - alive)
    return standby in standbys and sorted(standbys).index(standby) < empty
