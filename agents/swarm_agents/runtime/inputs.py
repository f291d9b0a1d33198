"""What a task was given, in words that hold no value: names, types, shapes. For the notes of tasks that are set aside.

Values stay out: they may be somebody's portfolio, or a gigabyte, and a note is read by whoever looks after the node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swarm_agents.retry import KEYWORD

__all__ = ["MOST", "describe"]

#: Characters of one description; the rest is cut off.
MOST = 400


def describe(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """`float64[1500, 3], int, decay=float, names=list[12]`: positional arguments in their order, then named ones."""
    words = [_one(value) for value in args]
    words += [f"{name}={_one(value)}" for name, value in kwargs.items() if name != KEYWORD]
    text = ", ".join(words)
    return text if len(text) <= MOST else text[: MOST - 1] + "…"


def _one(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, np.generic):
        return str(value.dtype)
    if isinstance(value, str | bytes | list | tuple | dict):
        return f"{type(value).__name__}[{len(value)}]"
    return "None" if value is None else type(value).__name__
