"""The simulator's scheduler: processes, virtual time, and the faults that befall them; everything from one seed.

A process is a name, a life that can end, and events on one heap. What a process does in an event is real code; it runs
at once, unless the process has a *plan*: then it is cut short after so many shared operations, and either dies there
(its calls end with `Stopped`) or is stopped: the others' events run until it goes on, in the midst of its call. A
stopped or sleeping process's events wait for it, as signals and timers of a stopped process do.

Virtual time passes only between events and while a process is stopped in a call. Nothing here reads a real clock, and
all randomness is `World.rng`, so that a seed gives the same run again, to the last operation.
"""

from __future__ import annotations

import heapq
import random
import traceback
from collections.abc import Callable
from typing import Any

from simulation import control
from simulation.control import BUDGET, MUTANT, NEVER, NOW, Parked, Stopped

__all__ = ["MS", "US", "Process", "S", "Violation", "World"]

US, MS, S = 1_000, 1_000_000, 1_000_000_000
#: How deep processes may be stopped within each other's calls.
_DEEPEST = 3
_START = 1_000_000 * S


class Violation(AssertionError):  # noqa: N818  (it says what has happened)
    """The run has broken a promise."""


class Process:
    """Something that lives, can be stopped, and dies."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        world.pids += 1
        self.pid = world.pids
        world.processes[self.pid] = self
        self.alive = True
        self.stopped = False
        #: By how much its wall clock is wrong (seconds).
        self.skew = 0.0
        self.waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.budget = NEVER
        self.plan: tuple[str, int] | None = None
        #: By what it will do next: how it will be cut short in that.
        self.aims: dict[str, tuple[str, int, int]] = {}
        #: It dies with the call that it makes.
        self.doomed = False
        #: Called when it has died, whatever of.
        self.on_death: list[Callable[[], object]] = []
        #: Called when it goes on after it was stopped.
        self.on_resume: Callable[[], object] = lambda: None
        #: When it was last stopped, and went on (ns); 0: never.
        self.stopped_at = 0
        self.resumed_at = 0
        self.died_at = 0
        self.began = world.now

    def after(self, delay: int, function: Callable[..., object], *args: Any) -> None:
        """Has the process do something in so many ns, if it lives then."""
        self.world.push(self.world.now + max(delay, 0), self, function, args)

    def kill(self) -> None:
        """It ends now, as by SIGKILL. (What it is doing ends at its next shared operation.)"""
        if not self.alive:
            return
        self.alive = False
        self.died_at = self.world.now
        self.waiting.clear()
        self.world.say(self, "killed")
        if self.world.current is self or self in self.world.within:
            self.plan = ("kill", 0)
        for function in self.on_death:
            function()

    def stop(self) -> None:
        """As by SIGSTOP."""
        if self.alive and not self.stopped:
            self.stopped = True
            self.stopped_at = self.world.now
            self.world.say(self, "stopped")

    def resume(self) -> None:
        """As by SIGCONT."""
        if self.alive and self.stopped:
            self.stopped = False
            self.resumed_at = self.world.now
            self.world.say(self, "goes on")
            self.on_resume()
            waiting, self.waiting = self.waiting, []
            for function, args in waiting:
                self.after(0, function, *args)

    def stop_for(self, nanos: int) -> None:
        """Stopped now, resumed later."""
        if self.alive and not self.stopped:
            self.stop()
            self.world.push(self.world.now + nanos, self.world.outside, self.resume, ())

    def begins(self, what: str) -> None:
        """It is about to do this: if somebody has aimed at it, it will be cut short in the midst of it."""
        if self.aims and (aim := self.aims.pop(what, None)) is not None:
            self.cut(*aim)
            control.words[BUDGET] = self.budget

    def cut(self, kind: str, operations: int, nanos: int = 0) -> None:
        """Plans that it is killed (`kill`) or stopped for so long (`pause`) after so many shared operations."""
        if self.alive and self.plan is None:
            self.plan = (kind, nanos)
            self.budget = max(operations, 1)


class World:
    """See the module's text."""

    def __init__(self, seed: int, *, mutant: int = 0, trace: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.mutant = mutant
        self.now = _START
        self.pids = 100
        self.processes: dict[int, Process] = {}
        self.trace: list[str] | None = [] if trace else None
        self.current: Process | None = None
        #: Those in the midst of whose calls others run at present.
        self.within: list[Process] = []
        self.error: BaseException | None = None
        #: Address, expected value and ns of the futex that the last `Parked` was raised for.
        self.parked = (0, 0, 0)
        #: By address: who sleeps there, and what is to be called when it is woken.
        self.sleepers: dict[int, list[tuple[Process, int, Callable[[], object]]]] = {}
        self._heap: list[tuple[int, int, Process, Callable[..., object], tuple[Any, ...]]] = []
        self._number = 0
        self.steps = 0
        self.cuts = 0
        #: Called when somebody is cut short.
        self.on_cut: Callable[..., object] = lambda *, killed: None
        #: Who is not a process: the kernel, the one who makes faults. Never stopped.
        self.outside = Process(self, "world")
        control.words[NOW] = self.now
        control.words[BUDGET] = NEVER
        control.words[MUTANT] = mutant

    # -- time

    def push(self, when: int, process: Process, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, process, function, args))

    def run(self, until: int, done: Callable[[], bool] | None = None) -> None:
        """Has all events happen until then, or until `done`."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            when, _, process, function, args = heapq.heappop(heap)
            if not process.alive:
                continue
            if process.stopped:
                process.waiting.append((function, args))
                continue
            if when > self.now:
                self.now = when
                control.words[NOW] = when
            self.step(process, function, args)
            if self.error is not None:
                if self.within:
                    return
                raise self.error
            if done is not None and done():
                return
        if until > self.now and not (done is not None and done()):
            self.now = until
            control.words[NOW] = until

    def step(self, process: Process, function: Callable[..., object], args: tuple[Any, ...] = ()) -> None:
        """Has a process do something now."""
        self.steps += 1
        before = self.current
        self.current = process
        control.words[BUDGET] = process.budget
        try:
            function(*args)
        except Stopped:
            process.doomed = True
        except BaseException as error:
            if self.error is None:
                self.error = error
                if not isinstance(error, Violation):
                    error.add_note("".join(traceback.format_exception(error)))
        finally:
            if process.plan is not None:
                process.budget = control.words[BUDGET]
            self.current = before
            if process.doomed and process.alive:
                process.kill()

    # -- what compiled code asks

    def hook(self, kind: int, a: int, b: int, c: int) -> int:
        """See `control.install`."""
        try:
            if kind == control.TICK:
                return self._cut()
            if kind == control.WAIT:
                return self._wait(a, b, c)
            self._wake(a, b)
        except BaseException as error:
            self.error = self.error or error
            return 1
        return 0

    def _cut(self) -> int:
        process = self.current
        control.words[BUDGET] = NEVER
        if process is None or process.plan is None:
            return 0
        kind, nanos = process.plan
        if kind == "kill":
            # Every further operation ends so, too: an exception in the midst of a collection is not passed on.
            control.words[BUDGET] = 1
            if process.doomed:
                return 1
            process.doomed = True
            self.cuts += 1
            self.say(process, "is killed in the midst of a call")
            self.on_cut(killed=True)
            return 1
        process.plan, process.budget = None, NEVER
        if len(self.within) >= _DEEPEST:
            return 0
        self.cuts += 1
        self.say(process, "is stopped in the midst of a call")
        self.on_cut(killed=False)
        process.stop()
        self.within.append(process)
        self.run(self.now + nanos)
        self.within.pop()
        self.current = process
        if not process.alive or self.error is not None:
            process.plan, process.doomed = ("kill", 0), True
            control.words[BUDGET] = 1
            self.on_cut(killed=True)
            return 1
        process.resume()
        control.words[BUDGET] = process.budget
        return 0

    def _wait(self, address: int, expected: int, nanos: int) -> int:
        import ctypes

        if ctypes.c_uint32.from_address(address).value != expected & 0xFFFFFFFF:
            return 0
        self.parked = (address, expected, nanos)
        return 2

    def _wake(self, address: int, count: int) -> None:
        sleepers = self.sleepers.get(address)
        while sleepers and count > 0:
            process, _, function = sleepers.pop(0)
            if process.alive:
                count -= 1
                process.after(self.rng.randrange(3 * US, 60 * US), function)

    def sleep_on(self, process: Process, function: Callable[[], object]) -> None:
        """Has `function` called when the futex is woken that the last `Parked` was about, or its time is over."""
        address, _, nanos = self.parked
        self._number += 1
        entry = (process, self._number, function)
        self.sleepers.setdefault(address, []).append(entry)

        def over() -> None:
            sleepers = self.sleepers.get(address, [])
            if entry in sleepers:
                sleepers.remove(entry)
                function()

        process.after(nanos, over)

    # -- telling

    def say(self, process: Process, what: str, **fields: object) -> None:
        """Adds a line to the trace."""
        if self.trace is not None:
            rest = " ".join(f"{key}={value}" for key, value in fields.items())
            self.trace.append(f"{(self.now - _START) / MS:12.3f} ms  {process.name:22} {what} {rest}".rstrip())

    def broken(self, promise: str) -> None:
        """A promise has been broken: the run ends."""
        if self.trace is not None:
            self.trace.append(f"{(self.now - _START) / MS:12.3f} ms  VIOLATION {promise}")
        raise Violation(promise)


__all__ += ["Parked", "Stopped"]
