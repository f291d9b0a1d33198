"""What a node's resource agent says of the whole board, in two words: how much of their time its agents may work, and
how much of their cores' time they really get.

    pace    keeps the node below a cap of power or heat: agents rest (`compute.pacing`)
    weight  what neighbours, the hypervisor or heat take off; nobody rests for it, but a task that waits here is begun
            that much later, and other nodes' hubs reckon with it

The resource agent writes each again and again (`resource.caps`, `resource.weights`), and each says until when it holds:
no node is kept slow, or shunned, by a resource agent that died. They are hints, and no truth about any task. On a board
of an older release both are 0, which says nothing.

    bits  0-9   parts of 1024; 0: all
    bits 10-62  until when it holds, CLOCK_MONOTONIC in milliseconds
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from swarm_agents.shm.layout import H_PACE, H_WEIGHT

if TYPE_CHECKING:
    from swarm_agents.shm.files import Mapping

__all__ = ["read_pace", "read_weight", "set_pace", "set_weight"]

_PARTS = 1024


def set_pace(mapping: Mapping, share: float, seconds: float, now: float | None = None) -> None:
    """Has agents work this share of their time (above 0, up to 1) for some seconds from now (monotonic).

    Raises:
        ValueError: it is no such share.
    """
    _write(mapping, H_PACE, share, seconds, now)


def read_pace(mapping: Mapping, now: float | None = None) -> float:
    """The share of their time that agents may work now."""
    return _read(mapping, H_PACE, now)


def set_weight(mapping: Mapping, share: float, seconds: float, now: float | None = None) -> None:
    """Says for some seconds from now (monotonic) what share of their cores' time agents get (above 0, up to 1).

    Raises:
        ValueError: it is no such share.
    """
    _write(mapping, H_WEIGHT, share, seconds, now)


def read_weight(mapping: Mapping, now: float | None = None) -> float:
    """The share of their cores' time that agents get now."""
    return _read(mapping, H_WEIGHT, now)


def _write(mapping: Mapping, at: int, share: float, seconds: float, now: float | None) -> None:
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share={share}: expected above 0, up to 1")
    parts = max(round(share * _PARTS), 1)
    word = 0
    if parts < _PARTS:
        word = parts | int(((time.monotonic() if now is None else now) + seconds) * 1e3) << 10
    struct.pack_into("<q", mapping.view, at * 8, word)


def _read(mapping: Mapping, at: int, now: float | None) -> float:
    word = struct.unpack_from("<q", mapping.view, at * 8)[0]
    if not word or int((time.monotonic() if now is None else now) * 1e3) >= word >> 10:
        return 1.0
    return (word & (_PARTS - 1) or _PARTS) / _PARTS
