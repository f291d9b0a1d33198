"""The work that goes on through a whole end-to-end run."""

from __future__ import annotations

from support.doorway import Doorway
from support.load import Load
from support.waiting import eventually

__all__ = ["Work"]


class Work:
    """Checked work that goes on for as long as it is let, from outside the cluster."""

    def __init__(self) -> None:
        self.load: Load | None = None
        self.doorway: Doorway | None = None

    def answers(self, count: int, what: str, seconds: float = 120.0) -> None:
        """That many more right answers come."""
        assert self.load is not None, "the work was never begun: see the failure before"
        load, before = self.load, len(self.load.answers)
        eventually(lambda: len(load.answers) >= before + count, f"{count} more answers {what}", seconds)
        assert not load.errors, load.errors[:3]
