"""How much of their time a board's agents may work: one word, by which a node is kept below a cap of power or heat.

The node's resource agent writes it again and again (`resource.caps`), and it says until when it holds: an agent is not
kept slow by a resource agent that died. It is a hint, and no truth about any task. On a board of an older release the
word is 0, which asks nothing of anybody.

    bits  0-9   parts of 1024 that an agent may work; 0: all
    bits 10-62  until when it holds, CLOCK_MONOTONIC in milliseconds
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from swarm_agents.shm.layout import H_PACE

if TYPE_CHECKING:
    from swarm_agents.shm.files import Mapping

__all__ = ["read_pace", "set_pace"]

_PARTS = 1024


def set_pace(mapping: Mapping, share: float, seconds: float, now: float | None = None) -> None:
    """Has agents work this share of their time (above 0, up to 1) for some seconds from now (monotonic).

    Raises:
        ValueError: it is no such share.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share={share}: expected above 0, up to 1")
    parts = max(round(share * _PARTS), 1)
    word = 0
    if parts < _PARTS:
        word = parts | int(((time.monotonic() if now is None else now) + seconds) * 1e3) << 10
    struct.pack_into("<q", mapping.view, H_PACE * 8, word)


def read_pace(mapping: Mapping, now: float | None = None) -> float:
    """The share of their time that agents may work now."""
    word = struct.unpack_from("<q", mapping.view, H_PACE * 8)[0]
    if not word or int((time.monotonic() if now is None else now) * 1e3) >= word >> 10:
        return 1.0
    return (word & (_PARTS - 1) or _PARTS) / _PARTS
