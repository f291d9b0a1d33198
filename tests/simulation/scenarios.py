"""Which world a seed is of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["HUBS_EVERY", "world_of"]

#: One seed in so many is of several nodes and their hubs; it takes a few times as long as one of a board.
HUBS_EVERY = 8


def world_of(seed: int, wanted: str | None = None) -> Callable[[Any, Any], dict[str, Any]]:
    """The function that runs a seed; `wanted`: of which kind it is to be."""
    if (wanted or ("board" if seed % HUBS_EVERY else "hubs")) == "board":
        from simulation.board_world import run_board

        return run_board
    from simulation.hubs_world import run_hubs

    return run_hubs
