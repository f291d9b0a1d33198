"""Waiting for what somebody else does: by looking again and again, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["eventually"]


def eventually(check: Callable[[], Any], what: str, seconds: float = 120.0, pause: float = 0.5) -> Any:
    """Waits until `check` gives something true, and returns it."""
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, f"waited {seconds:g} s in vain for {what}"
        time.sleep(pause)
    return found
