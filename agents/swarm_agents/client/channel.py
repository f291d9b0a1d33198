"""One connection to one endpoint: what the session asks of it, whatever it is made of.

A channel is opened whole or not at all, and never comes back: when it breaks it says so once, and the session opens
another one, there or elsewhere, and submits again what has not been answered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np

    from swarm_agents.client.task import Request, TaskId, TaskInfo

__all__ = ["Channel", "Sink"]


class Sink(Protocol):
    """Where a channel's news go: the session. Called on the channel's threads."""

    def answered(self, task: TaskId, value: Any, error: BaseException | None, info: TaskInfo | None) -> None:
        """A task is done."""

    def lost(self, channel: Channel, error: BaseException) -> None:
        """The channel is of no use any more. Called at most once, and not after `close`."""


class Channel(ABC):
    """An open connection."""

    #: As a URL.
    endpoint: str
    #: How many tasks to keep in flight so that the swarm is busy and nothing is held up needlessly.
    window: int = 256

    @abstractmethod
    def submit(self, request: Request, timeout: float | None) -> None:
        """Takes the task on; waits for room for `timeout` seconds (None: as long as it takes).

        A task that it has taken on already stays as it is.

        Raises:
            SwarmFull: there was no room.
            Overloaded: tasks of this priority are refused (it is a SwarmFull).
            PayloadError, PayloadTooLarge: the arguments can't travel.
            ConnectionLost: the channel is broken; the session submits the task again when it has another one.
        """

    def submit_again(self, request: Request) -> None:
        """`submit` of a task that the swarm had accepted before its connection broke: as long as it takes."""
        self.submit(request, None)

    @abstractmethod
    def cancel(self, task: TaskId) -> None:
        """Nobody waits for this task any more; no answer is due."""

    @abstractmethod
    def info(self, timeout: float) -> dict[str, Any]:
        """What the swarm says of itself: members, queues, hubs."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of everything; any thread but the channel's own may call it, and twice."""

    def put(self, array: Any) -> np.ndarray[Any, Any]:
        """A read-only copy of an array, where tasks find it most cheaply; here in the client's own memory."""
        import numpy as np

        copy = np.array(array)
        copy.setflags(write=False)
        return copy

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """An array to write to, where tasks find it most cheaply."""
        import numpy as np

        return np.empty(shape, dtype)

    def drive(self, future: Future[Any], timeout: float | None) -> float | None:
        """Lets the caller, who waits for this future, work instead of waiting. Returns what is left of the time."""
        return timeout
