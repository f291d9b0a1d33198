"""Small rings with both ends in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swarm_agents.shm.ring import Receiver, Ring, Sender

KINDS = [(producers, frames) for producers in ("one", "many") for frames in ("fixed", "variable")]


def make(path: Path, **options: Any) -> tuple[Ring, Sender, Receiver]:
    """A small ring with both ends in this process."""
    ring = Ring.create(path / "ring", **({"slots": 8, "slot_bytes": 64} | options))
    return ring, ring.sender(), Ring.open(path / "ring").receiver()
