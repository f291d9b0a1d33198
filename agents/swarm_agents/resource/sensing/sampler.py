"""Reads all sensors, each at its pace, so that none holds up another, nor the hub's event loop.

Two threads read: one what is read each interval (files of /proc and cgroups, microseconds each), one what is slow or
changes slowly (chips on slow buses, GPUs), once a second. Both keep to a grid of deadlines: a late reading makes no
other one late. A source that does not come back is left to its thread, which then reads nothing else any more: the
rest go on in a new one, and of the source is said for how long it has not answered, until it does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from swarm_agents.resource.sensing.reading import Reading, Source, unavailable

__all__ = ["STALLED", "Sensors"]

#: A source that has not answered for so long holds up no others any more (seconds).
STALLED = 1.0
_SLOWLY = 1.0
_PR_SET_TIMERSLACK = 29


class Sensors:
    """The last readings; `read` takes them here and now, `start` has threads take them."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        slow: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.readings: dict[str, Reading] = {}
        self._sources, self._clock = sources, clock
        quick, rare = [n for n in sources if n not in slow], [n for n in sources if n in slow]
        self._paces = [_Pace(self, quick), _Pace(self, rare)]
        self._lock = threading.Lock()
        self._disabled: Callable[[], Collection[str]] = tuple

    def read(self, disabled: Collection[str] = ()) -> dict[str, Reading]:
        """Reads all sources that are not disabled."""
        self.readings = {name: self.one(name) for name in self._sources if name not in disabled}
        return self.readings

    def one(self, name: str) -> Reading:
        try:
            return self._sources[name]()
        except Exception as error:  # a driver's mood must not silence the others
            return unavailable(f"{type(error).__name__}: {error}")

    def start(
        self,
        interval: Callable[[], float],
        disabled: Callable[[], Collection[str]] = tuple,
        stretch: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """Begins to read every `interval()` seconds, the slow ones `stretch()` times less often than else; all are
        asked anew each time."""
        self._disabled = disabled
        self.readings = {name: unavailable("not read yet") for name in self._sources if name not in disabled()}
        for pace, every in zip(self._paces, (interval, lambda: max(interval(), _SLOWLY) * stretch()), strict=True):
            pace.start(every)

    def stop(self) -> None:
        """Ends the threads, without waiting for one that hangs in a source."""
        for pace in self._paces:
            pace.stop()

    def watch(self) -> None:
        """To be called now and then by somebody who does not read: goes on without sources that hang."""
        for pace in self._paces:
            pace.watch()

    def set(self, found: Mapping[str, Reading]) -> None:
        """Takes readings over; those of sensors that are switched off are dropped."""
        with self._lock:
            off = self._disabled()
            merged = {**self.readings, **found}
            self.readings = {name: merged[name] for name in self._sources if name in merged and name not in off}

    @property
    def off(self) -> Collection[str]:
        return self._disabled()

    def now(self) -> float:
        return self._clock()

    def report(self) -> dict[str, Any]:
        """For `/v1/swarm`."""
        return {
            name: {"availability": reading.availability.value, "values": reading.values}
            | ({"reason": reading.reason} if reading.reason else {})
            | ({"series": {of: dict(each) for of, each in reading.series.items()}} if reading.series else {})
            for name, reading in self.readings.items()
        }


def _punctual() -> None:
    """Has the kernel wake the calling thread in time, and where it may be first, before others that want the CPU.

    Both threads are, for one that is put aside while it holds the interpreter's lock stops the other. What they read
    takes less than a hundredth of a core; without the right to it (CAP_SYS_NICE) they are threads like others.
    """
    # A sleeper may be woken 50 µs late to save power; this thread is not to be.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


class _Pace:
    """Sources that are read at one pace, by one thread as long as none of them hangs."""

    def __init__(self, sensors: Sensors, names: list[str]) -> None:
        self._sensors, self._names = sensors, names
        self._every: Callable[[], float] = lambda: _SLOWLY
        self._turn: threading.Event | None = None
        self._reading: tuple[str, float] | None = None
        #: What hangs, and since when.
        self._stuck: dict[str, float] = {}

    def start(self, every: Callable[[], float]) -> None:
        if self._names:
            self._every = every
            # A thread's own end: one that was given up finds it set when it comes back, and reads no more.
            self._turn = threading.Event()
            self._reading = None
            threading.Thread(target=self._run, args=(self._turn,), name="sensors", daemon=True).start()

    def stop(self) -> None:
        if self._turn is not None:
            self._turn.set()
            self._turn = None

    def watch(self) -> None:
        now, reading = self._sensors.now(), self._reading
        if self._turn is not None and reading is not None and now - reading[1] > STALLED:
            self._stuck[reading[0]] = reading[1]
            self.stop()
            self.start(self._every)
        if self._stuck:
            self._sensors.set(
                {
                    name: unavailable(f"has not answered for {now - since:.0f} s")
                    for name, since in list(self._stuck.items())
                }
            )

    def _run(self, over: threading.Event) -> None:
        _punctual()
        sensors, due = self._sensors, self._sensors.now()
        while not over.is_set():
            found: dict[str, Reading] = {}
            for name in self._names:
                if name in sensors.off or name in self._stuck:
                    continue
                self._reading = (name, sensors.now())
                reading = sensors.one(name)
                if over.is_set():  # it hung, and others have gone on since
                    self._stuck.pop(name, None)
                    return
                found[name] = reading
            self._reading = None
            sensors.set(found)
            every, now = self._every(), sensors.now()
            due += every
            if due <= now:  # what was missed is left out, and the grid kept
                due += every * ((now - due) // every + 1)
            over.wait(due - now)
