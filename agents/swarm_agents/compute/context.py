"""What a running kernel may ask of its surroundings.

A kernel that declares the keyword-only parameter `ctx: Context` gets one; the agent that runs it derives its own class
and says there whether the task was cancelled or its deadline has passed. A kernel that is called directly (a test, a
notebook) gets one that never interrupts. Checkpoints will be added here.
"""

from __future__ import annotations

from collections.abc import Callable

from swarm_agents.errors import TaskCancelled

__all__ = ["Context"]


class Context:
    """A task as its kernel sees it."""

    def __init__(self, cancelled: Callable[[], bool] | None = None) -> None:
        self._cancelled = cancelled

    def cancelled(self) -> bool:
        """Whether the answer is no longer wanted. Cheap; a long kernel asks every few milliseconds."""
        return self._cancelled is not None and self._cancelled()

    def check(self) -> None:
        """Raises `TaskCancelled` when the answer is no longer wanted."""
        if self.cancelled():
            raise TaskCancelled("the task was cancelled while it ran")
