"""How often a task is begun, and when again: said by its kernel, or by whoever submits it.

    @kernel("team.price", retry=Retry(attempts=3, backoff=0.1, on=("ConnectionError",)))
    swarm.submit("team.price", book, retry=Retry(attempts=1))

Two things end an attempt. Its agent dies: then the board gives the task to another one, at most as often as the
swarm's `failover.maxAttempts` says; `attempts` can only lower that. Or the kernel raises: then the task has failed,
unless the error is one of `on`. A task whose attempts are used up is *set aside*: it is answered with `TaskLost` or the
last error, and `swarm` and the REST interface list it with all who died over it.

What a submitter says travels among the keyword arguments, under a name that no kernel's argument can have: so a task
that says nothing pays nothing, and hubs pass it on unread.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["KEYWORD", "Retry", "pause"]

KEYWORD = "@retry"
#: No pause is longer (seconds).
LONGEST_PAUSE = 60.0


class Retry(msgspec.Struct, frozen=True, array_like=True):
    """What is left out is the kernel's to say, and then the swarm's."""

    #: How often the task is begun at most, whatever ends the attempts.
    attempts: int | None = None
    #: Seconds before the second attempt; each later one waits twice as long, up to a minute.
    backoff: float | None = None
    #: Exceptions of the kernel after which it is worth trying again, by name or as classes, their subclasses included.
    on: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        if self.attempts is not None and not 1 <= self.attempts <= 100:
            raise ValueError(f"attempts={self.attempts}: expected 1 to 100")
        if self.backoff is not None and not 0 <= self.backoff <= LONGEST_PAUSE:
            raise ValueError(f"backoff={self.backoff}: expected 0 to {LONGEST_PAUSE:.0f} seconds")
        if self.on is not None:
            names = tuple(each if isinstance(each, str) else each.__name__ for each in self.on)
            msgspec.structs.force_setattr(self, "on", names)

    def over(self, other: Retry | None) -> Retry:
        """This, and what it leaves out from `other`."""
        if other is None:
            return self
        return Retry(
            other.attempts if self.attempts is None else self.attempts,
            other.backoff if self.backoff is None else self.backoff,
            other.on if self.on is None else self.on,
        )

    def again_after(self, error: BaseException) -> bool:
        """Whether the task is worth another attempt after this error."""
        return bool(self.on) and any(cls.__name__ in (self.on or ()) for cls in type(error).__mro__)


def pause(backoff: float | None, attempt: int) -> float:
    """Seconds before an attempt (from 1) is begun."""
    if not backoff or attempt < 2:
        return 0.0
    return float(min(backoff * 2.0 ** min(attempt - 2, 30), LONGEST_PAUSE))
