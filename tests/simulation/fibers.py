"""Threads of simulated processes: the product's blocking code runs as it is, one thread at a time, in virtual time.

A thread is a greenlet. It runs until it blocks (on a lock, an event, a descriptor, a sleep); then the scheduler goes on
with its next event, and one of those wakes it again. So which thread goes first is the seed's choice, and costs a
microsecond. `Threading`, `Poll` and `Descriptors` stand where the product's modules have `threading`, `select` and
`os`. A thread of a process that is killed ends where it is, by `Stopped`; one of a stopped process waits, because its
wake-ups are events of that process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from greenlet import getcurrent, greenlet

from simulation import control
from simulation.world import Process, S, Stopped, World

__all__ = ["THREADING", "Descriptor", "Descriptors", "Executor", "Fiber", "Poll", "current", "use"]

#: So often may a thread go round without sleeping.
_ROUNDS = 5_000
#: By greenlet: whose thread it is.
_fibers: dict[greenlet, Fiber] = {}


def current() -> Fiber | None:
    """The thread that runs now; None: an event of the scheduler."""
    return _fibers.get(getcurrent())


class Fiber:
    """A thread of a process."""

    def __init__(self, process: Process, function: Callable[..., object], *args: Any, name: str = "") -> None:
        self.process = process
        self.name = name
        self.done = False
        self._function = function
        self._args = args
        self._turn = 0
        self._rounds = 0
        self._blocked = False
        self._ended: list[Fiber] = []
        #: Whom `threading.current_thread` gives.
        self.thread: Any = None
        self._greenlet = greenlet(self._run)
        process.on_death.append(self._died)

    def start(self, delay: int = 0) -> None:
        """Begins after so many ns."""
        self._blocked = True
        self.process.after(delay, self._resume, self._turn)

    def _run(self, woken: bool = True) -> None:
        _fibers[self._greenlet] = self
        try:
            self._function(*self._args)
        finally:
            self.done = True
            del _fibers[self._greenlet]
            for other in self._ended:
                other.wake()

    def block(self, seconds: float | None = None) -> bool:
        """Sleeps until it is woken; False: so many seconds were over first."""
        if not self.process.alive:
            raise Stopped
        self._turn += 1
        self._blocked = True
        if seconds is not None:
            self.process.after(max(round(seconds * S), 1), self._resume, self._turn, False)
        woken = bool(self._greenlet.parent.switch())
        self._rounds = 0
        if not self.process.alive:
            raise Stopped
        return woken

    def spins(self) -> None:
        """It goes round without having slept: that takes time, too, and must not go on for ever."""
        rounds = self._rounds + 1
        if rounds > _ROUNDS:
            self.process.world.broken(f"{self.process.name}: the thread {self.name} spins")
        self.block(2e-6)
        self._rounds = rounds

    def wake(self, delay: int = 0) -> None:
        """Ends its sleep, if it sleeps."""
        if self._blocked and not self.done:
            self.process.after(delay, self._resume, self._turn)

    def wake_now(self) -> None:
        """The same, at once: for an event of its own process."""
        self._resume(self._turn)

    def _resume(self, turn: int, woken: bool = True) -> None:
        if turn == self._turn and self._blocked and not self.done:
            self._blocked = False
            self._greenlet.parent = getcurrent()
            self._greenlet.switch(woken)

    def join(self, timeout: float | None = None) -> None:
        me = current()
        if me is not None and not self.done:
            self._ended.append(me)
            me.block(timeout)

    def _died(self) -> None:
        """The process has been killed: what waits is unwound, and touches nothing any more."""
        if self.done or not self._blocked:
            return
        if not self._greenlet:  # it has never run
            self.done = True
            return
        self._blocked = False
        world, before = self.process.world, self.process.world.current
        budget = control.words[control.BUDGET]
        world.current = self.process
        self.process.plan, self.process.doomed = ("kill", 0), True
        control.words[control.BUDGET] = 1
        self._greenlet.parent = getcurrent()
        try:
            self._greenlet.throw(Stopped)
        except Stopped:
            pass
        finally:
            world.current = before
            control.words[control.BUDGET] = budget


class Lock:
    """`threading.Lock`."""

    def __init__(self) -> None:
        self._owner: object = None
        self._waiting: deque[Fiber] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me: object = current() or "event"
        while self._owner is not None:
            assert isinstance(me, Fiber), "an event would have to wait for a lock"
            self._waiting.append(me)
            me.block()
        self._owner = me
        return True

    def release(self) -> None:
        self._owner = None
        if self._waiting:
            self._waiting.popleft().wake()

    __enter__ = acquire

    def __exit__(self, *exc: object) -> None:
        self.release()


class RLock:
    """`threading.RLock`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: object = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me: object = current() or "event"
        if self._owner is not me:
            self._lock.acquire()
            self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._lock.release()

    __enter__ = acquire

    def __exit__(self, *exc: object) -> None:
        self.release()


class Condition:
    """`threading.Condition`."""

    def __init__(self, lock: Lock | None = None) -> None:
        self._lock = lock or Lock()
        self._waiting: deque[Fiber] = deque()
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        me = current()
        assert me is not None, "an event would have to wait"
        self._waiting.append(me)
        self._lock.release()
        try:
            woken = me.block(timeout)
        finally:
            if me in self._waiting:
                self._waiting.remove(me)
        self._lock.acquire()
        return woken

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        me = current()
        assert me is not None
        until = None if timeout is None else me.process.world.now + int(timeout * S)
        while not (result := predicate()):
            left = None if until is None else (until - me.process.world.now) / S
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        while self._waiting and n > 0:
            n -= 1
            self._waiting.popleft().wake()

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class Event:
    """`threading.Event`."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[Fiber] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        waiting, self._waiting = self._waiting, []
        for fiber in waiting:
            fiber.wake()

    def wait(self, timeout: float | None = None) -> bool:
        me = current()
        if not self._set and me is not None:
            self._waiting.append(me)
            me.block(timeout)
            if me in self._waiting:
                self._waiting.remove(me)
        return self._set


class Executor:
    """`ThreadPoolExecutor(1)`."""

    def __init__(self, most: int = 1, name: str = "") -> None:
        self._process = _process_now()
        self._jobs: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._fiber: Fiber | None = None

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.append((future, function, args))
        if self._fiber is None or self._fiber.done:
            self._fiber = Fiber(self._process, self._work, name="executor")
            self._fiber.start(self._process.world.rng.randrange(5_000, 50_000))
        return future

    def _work(self) -> None:
        while self._jobs:
            future, function, args = self._jobs.popleft()
            try:
                result = function(*args)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

    def shutdown(self, wait: bool = True) -> None:
        if wait and self._fiber is not None:
            self._fiber.join()


class _Thread:
    """`threading.Thread`."""

    def __init__(
        self, target: Callable[..., object], name: str = "", daemon: bool = False, args: Iterable[Any] = ()
    ) -> None:
        self._fiber = Fiber(_process_now(), target, *args, name=name)
        self._fiber.thread = self
        self._started = False

    def start(self) -> None:
        self._started = True
        self._fiber.start(self._fiber.process.world.rng.randrange(5_000, 50_000))

    def join(self, timeout: float | None = None) -> None:
        self._fiber.join(timeout)

    def is_alive(self) -> bool:
        return self._started and not self._fiber.done


_world: list[World] = []


def use(world: World) -> None:
    """From now on threads are made in this world."""
    _world[:] = [world]


def _process_now() -> Process:
    me = current()
    process = me.process if me is not None else _world[0].current
    assert process is not None
    return process


#: What the product's modules have as `threading`.
THREADING = SimpleNamespace(
    Lock=Lock,
    RLock=RLock,
    Condition=Condition,
    Event=Event,
    Thread=_Thread,
    current_thread=lambda: getattr(current(), "thread", None),
)


class Descriptor:
    """A number that can be waited for."""

    __slots__ = ("ready", "watchers")

    def __init__(self) -> None:
        self.ready = False
        #: Called when it becomes ready.
        self.watchers: list[Callable[[], object]] = []

    def signal(self) -> None:
        self.ready = True
        for watcher in list(self.watchers):
            watcher()


class Descriptors:
    """The table of them: what a module has as `os`, as far as it is about descriptors."""

    def __init__(self) -> None:
        self.table: dict[int, Descriptor] = {}
        self._next = 1000

    EFD_CLOEXEC = EFD_NONBLOCK = 0

    def clear(self) -> None:
        self.table.clear()
        self._next = 1000

    def make(self) -> int:
        self._next += 1
        self.table[self._next] = Descriptor()
        return self._next

    def eventfd(self, value: int, flags: int = 0) -> int:
        return self.make()

    def eventfd_write(self, fd: int, value: int) -> None:
        self.table[fd].signal()

    def eventfd_read(self, fd: int) -> int:
        if not self.table[fd].ready:
            raise BlockingIOError
        self.table[fd].ready = False
        return 1

    def close(self, fd: int) -> None:
        del self.table[fd]

    def getpid(self) -> int:
        return _process_now().pid


class Poll:
    """`select.poll()`."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors
        self._fds: list[int] = []

    def register(self, fd: int, events: int = 0) -> None:
        if fd not in self._fds:
            self._fds.append(fd)

    def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
        me = current()
        assert me is not None, "an event would have to wait"
        table = self._descriptors.table
        found = [(fd, 1) for fd in self._fds if fd in table and table[fd].ready]
        if found or (milliseconds is not None and milliseconds <= 0):
            return found
        watched = [table[fd] for fd in self._fds if fd in table]
        for descriptor in watched:
            descriptor.watchers.append(me.wake)
        try:
            me.block(None if milliseconds is None else milliseconds / 1000)
        finally:
            for descriptor in watched:
                descriptor.watchers.remove(me.wake)
        return [(fd, 1) for fd in self._fds if fd in table and table[fd].ready]
