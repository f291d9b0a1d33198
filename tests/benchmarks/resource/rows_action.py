"""The rows of action."""

from __future__ import annotations

from harness import Row

__all__ = ["ROWS"]

ROWS: tuple[Row, ...] = ()
