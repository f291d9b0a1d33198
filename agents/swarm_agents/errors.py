"""Every error that the product raises on purpose, with a message that says what to do next.

One tree, so that a program can catch `SwarmError` and be sure. Where a standard exception says the same thing
(`TypeError`, `TimeoutError`, `ConnectionError`) the class derives from it too, so that code which has never heard of
this package handles it rightly. Errors travel between processes by their `code`: see `to_wire` and `from_wire`.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "BadArguments",
    "BoardMismatch",
    "ConnectionLost",
    "DeadlineExceeded",
    "Fenced",
    "KernelError",
    "NotEnoughMemory",
    "PayloadError",
    "PayloadTooLarge",
    "PortInUse",
    "RingFull",
    "RingInUse",
    "RingMismatch",
    "SharedMemoryFull",
    "StaleReference",
    "SwarmError",
    "SwarmFull",
    "TaskCancelled",
    "TaskLost",
    "UnknownKernel",
    "Unreachable",
    "VersionMismatch",
    "WrongKey",
    "from_wire",
    "to_wire",
]

_BY_CODE: dict[str, type[SwarmError]] = {}


class SwarmError(Exception):
    """The root of all errors raised on purpose."""

    code: ClassVar[str] = "SwarmError"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.code = cls.__name__
        _BY_CODE[cls.code] = cls


class UnknownKernel(SwarmError, LookupError):
    """No kernel of that name is registered, or the swarm does not allow it."""


class BadArguments(SwarmError, TypeError):
    """The arguments do not fit the kernel's signature."""


class NotEnoughMemory(SwarmError, MemoryError):
    """The call would need more memory than the agent can get: split it, or give the agents more."""


class PayloadError(SwarmError, TypeError):
    """A value can't travel: its type has no encoding, or an array's dtype holds Python objects."""


class PayloadTooLarge(SwarmError, ValueError):
    """A payload is larger than the arena, or than the largest message that a peer accepts."""


class StaleReference(PayloadError, LookupError):
    """A descriptor names a shared array that has been freed, or one of another board: who passes one on keeps it."""


class SwarmFull(SwarmError, BlockingIOError):
    """The swarm pushes back: its lanes or its arena are full. Wait for results, or submit with a timeout."""

    #: Seconds after which it is worth trying again; 0: as soon as there is room.
    retry_after: float = 0.0


class Overloaded(SwarmFull):
    """The node has more work than it can carry and refuses what is less urgent: try again after `retry_after`
    seconds, or submit with a higher priority. What it has accepted is answered."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RingFull(SwarmFull):
    """A ring has no room: its receiver is slower than its senders, or gone."""


class RingInUse(SwarmError):
    """A ring or topic has a living sender or receiver in this place already: wait for it, or take its place."""


class RingMismatch(SwarmError):
    """A ring's file has another magic, version, geometry or owner than this program expects, or was truncated."""


class SharedMemoryFull(SwarmError, MemoryError):
    """The shared-memory file system has no room for the board."""


class BoardMismatch(SwarmError):
    """A board's file has another magic, version, geometry or owner than this program expects, or was truncated."""


class Fenced(SwarmError):
    """This agent was declared dead and a later epoch has its place: its uncommitted work is void."""


class KernelError(SwarmError):
    """A kernel raised. `remote_type` names the exception's type, `remote_traceback` holds its traceback."""

    def __init__(self, message: str, remote_type: str = "", remote_traceback: str = "") -> None:
        super().__init__(message)
        self.remote_type = remote_type
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n\nIn the agent:\n{self.remote_traceback.rstrip()}" if self.remote_traceback else text


class TaskCancelled(SwarmError):
    """The task was cancelled before it was answered."""


class DeadlineExceeded(SwarmError, TimeoutError):
    """The task's deadline passed before it was answered."""


class TaskLost(SwarmError):
    """The task was given up: its attempts are used up, or every agent that held it is gone."""


class ConnectionLost(SwarmError, ConnectionError):
    """The connection to the swarm broke, and did not come back in the time allowed."""


class Unreachable(SwarmError, ConnectionError):
    """Nothing answers at the endpoint."""


class WrongKey(SwarmError, PermissionError):
    """The peer refused the CURVE key or the token."""


class PortInUse(SwarmError, OSError):
    """Another process listens on the port that an agent should serve."""


class VersionMismatch(SwarmError):
    """The peer speaks another version of the wire schema."""


def to_wire(error: BaseException, traceback: str = "") -> dict[str, str]:
    """The error as a small map of strings, for the board and the wire."""
    if isinstance(error, KernelError):
        return {
            "code": error.code,
            "message": str(error.args[0]) if error.args else "",
            "type": error.remote_type,
            "traceback": error.remote_traceback,
        }
    if isinstance(error, Overloaded):
        return {"code": error.code, "message": str(error), "retryAfter": f"{error.retry_after:g}"}
    if isinstance(error, SwarmError):
        return {"code": error.code, "message": str(error)}
    message = f"{type(error).__name__}: {error}"
    return {"code": KernelError.code, "message": message, "type": type(error).__qualname__, "traceback": traceback}


def from_wire(fields: dict[str, str]) -> SwarmError:
    """The error that `to_wire` described; one of an unknown code becomes a plain `SwarmError`."""
    cls = _BY_CODE.get(fields.get("code", ""), SwarmError)
    message = fields.get("message", "")
    if cls is KernelError:
        return KernelError(message, fields.get("type", ""), fields.get("traceback", ""))
    if cls is Overloaded:
        try:
            return Overloaded(message, max(float(fields.get("retryAfter", 1.0)), 0.0))
        except ValueError:
            return Overloaded(message)
    return cls(message)
