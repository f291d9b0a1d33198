"""Credit: how much a peer may have unanswered, in tasks and in bytes, as its receiver can take it.

Every receiver of tasks grants credit, in its `Welcome` and whenever it changes by a `Credit`; the sender counts what it
has sent and not yet been answered, and never exceeds the grant: it makes its own callers wait. Answers have credit
too: a peer says in its `Hello` how many bytes of answers it is willing to have on the way, and until it acknowledges
some the rest waits at the hub, where it counts against the next grant. So whichever side is slow, the other one waits,
and no queue in between grows: not ZeroMQ's, nor the kernel's.

A sender that has nothing out may always send one task, however large (up to the limit of a message): else a task
larger than a shrunken grant could never be sent at all.

All here is plain arithmetic: no clock but what is passed in, no I/O.
"""

from __future__ import annotations

__all__ = ["GRACE", "Account", "Window", "offer"]

#: After a grant has shrunk, what was sent under the former one is still taken for this long (seconds).
GRACE = 5.0
#: Tasks of which nothing is known yet are granted to this number at least, while the board has room.
_FEW = 16


class Window:
    """The sender's side: what may still be sent."""

    __slots__ = ("bytes", "tasks", "used", "used_bytes")

    def __init__(self, tasks: int = 0, size: int = 0) -> None:
        self.tasks = tasks
        self.bytes = size
        self.used = 0
        self.used_bytes = 0

    def fits(self, size: int) -> bool:
        """Whether a task of this many bytes may be sent now."""
        return self.used < self.tasks and (self.used_bytes + size <= self.bytes or self.used == 0)

    def take(self, size: int) -> None:
        """A task is sent."""
        self.used += 1
        self.used_bytes += size

    def give(self, size: int) -> None:
        """It was answered, or refused."""
        self.used -= 1
        self.used_bytes -= size

    def grant(self, tasks: int, size: int) -> None:
        """The receiver grants this from now on."""
        self.tasks = tasks
        self.bytes = size

    def clear(self) -> None:
        """Nothing is out any more."""
        self.used = self.used_bytes = 0


class Account(Window):
    """The receiver's side: what one sender was granted, and has out."""

    __slots__ = ("_former", "_former_bytes", "_until")

    def __init__(self) -> None:
        super().__init__()
        self._former = self._former_bytes = 0
        self._until = float("-inf")

    def worth_telling(self, tasks: int, size: int) -> bool:
        """Whether another grant differs so much from the last one that the sender should know."""
        return abs(tasks - self.tasks) * 8 > self.tasks or abs(size - self.bytes) * 8 > self.bytes

    def renew(self, tasks: int, size: int, now: float) -> None:
        """Grants this from now on; the former grant holds a while longer, for what is on its way."""
        if tasks < self.tasks or size < self.bytes:
            self._former = max(self.tasks, self._former if now < self._until else 0)
            self._former_bytes = max(self.bytes, self._former_bytes if now < self._until else 0)
            self._until = now + GRACE
        self.grant(tasks, size)

    def admits(self, size: int, now: float) -> bool:
        """Whether a task that has come keeps within what its sender was granted."""
        if self.fits(size):
            return True
        if now >= self._until or self.used >= max(self._former, self.tasks):
            return False
        return self.used_bytes + size <= max(self._former_bytes, self.bytes)


def offer(
    account: Window,
    *,
    room: int,
    room_bytes: int,
    sharers: int,
    most: int,
    answer: float,
    owed: int,
    answers: int,
) -> tuple[int, int]:
    """The tasks and bytes that a sender should be granted.

    Args:
        account: what it has out.
        room, room_bytes: what the board can still take, in tasks and in bytes.
        sharers: senders that share the room.
        most: no more tasks than this.
        answer: bytes that an answer has on average.
        owed: bytes of answers that the sender has not acknowledged.
        answers: bytes of answers that may be kept for it.
    """
    tasks = account.used + room // max(sharers, 1)
    if answer > 0:
        # Each task becomes an answer that is kept until it is acknowledged.
        tasks = min(tasks, max(int((answers - owed) / answer), 1 if owed else _FEW))
    if owed >= answers:
        tasks = 1
    size = account.used_bytes + room_bytes // max(sharers, 1)
    return max(min(tasks, most), 1), size
