"""Which world a seed is of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulation.board_world import run_board

__all__ = ["world_of"]


def world_of(seed: int, wanted: str | None = None) -> Callable[[Any, Any], dict[str, Any]]:
    """The function that runs a seed."""
    return run_board
