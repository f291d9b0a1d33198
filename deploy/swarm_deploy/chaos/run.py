"""One run: the workload is going, faults come by the schedule, everything is undone, the swarm heals, it is counted.

Two threads do the faults, one for each strand of the schedule, so that a wide one which takes its time (an API server
that is started again) does not hold the narrow ones up. Whatever happens in between, an error or a signal included,
everything that was done is undone before the end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from swarm_agents.errors import SwarmError
from swarm_deploy.chaos import ledger
from swarm_deploy.chaos.clients import RETRY_WINDOW, Client, connector
from swarm_deploy.chaos.faults import KINDS, Fault, schedule
from swarm_deploy.chaos.ground import ChaosError, Ground
from swarm_deploy.chaos.inject import Injector, Strike
from swarm_deploy.chaos.report import Done, Outcome

if TYPE_CHECKING:
    from swarm_agents.client import Connection

__all__ = ["run"]

#: After the last fault: how long clients wait for what is underway, and the run for the swarm to be whole (seconds).
_DRAIN, _HEAL = RETRY_WINDOW + 15.0, 120.0
#: The workload goes on undisturbed for so long before the first fault and after the swarm is whole again (seconds).
_QUIET = 1.0
#: How long a fault that nobody is there for is tried again, and how often (seconds).
_PATIENCE, _LOOK = 3.0, 0.2
#: To undo a fault takes no time; if it does, that is said (seconds).
_LONG = 1.0
#: How long the clients may take to have had their first answers (seconds).
_FIRST = 60.0

Say = Callable[[str], None]


class _Strand:
    """Does its faults when they are due, and undoes each when its time is over.

    A fault that nobody is there for is tried again for a while. What comes later than planned, for that or because the
    fault before it took its time, puts off all that follows: faults keep their distance, and those that the time does
    not suffice for are not done. While the cluster itself is away (`away`), nothing is.
    """

    def __init__(
        self, injector: Injector, faults: Sequence[Fault], outcome: Outcome, say: Say, away: threading.Event
    ) -> None:
        self._injector = injector
        self._faults = deque(faults)
        self._outcome = outcome
        self._say = say
        self._away = away
        self._late = 0.0
        self._on: list[tuple[float, Strike, Done]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go, name="chaos-strand", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does nothing more, and undoes what is on."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def join(self) -> None:
        """Waits until all is done and undone."""
        self._thread.join()

    def _now(self) -> float:
        return time.monotonic() - self._outcome.began

    def _next(self) -> float:
        """When something is to be done."""
        first = self._faults[0].at + self._late if self._faults else float("inf")
        return min([first, *(until for until, _, _ in self._on)])

    def _go(self) -> None:
        try:
            while (self._faults or self._on) and not self._ended.wait(max(0.0, self._next() - self._now())):
                self._undo_due()
                if not self._faults or self._faults[0].at + self._late > self._now():
                    continue
                if self._away.is_set():
                    self._ended.wait(_LOOK)
                    continue
                fault = self._faults.popleft()
                self._late = max(self._late, self._now() - fault.at)
                if fault.at + self._late + fault.lasts < self._outcome.seconds:
                    began = self._now()
                    self._try(fault)
                    self._late += self._now() - began
        except BaseException as error:
            self._outcome.problems.append(f"the faults ended early: {type(error).__name__}: {error}")
        finally:
            for entry in list(self._on):
                self._undo(entry)

    def _try(self, fault: Fault) -> None:
        until = self._now() + _PATIENCE
        while (why := self._do(fault)) and self._now() < until and not self._ended.wait(_LOOK):
            self._undo_due()
        if why:
            self._say(f"{self._now():7.1f} s  {fault.kind}: not done: {why}")

    def _do(self, fault: Fault) -> str:
        """Does a fault; returns why it could not be done."""
        done = Done(self._now(), fault.kind, "")
        if fault.kind == "kill-api":
            self._away.set()
        try:
            strike = self._injector.inject(fault)
        except (SwarmError, OSError) as error:
            # Most of all: the API server was asked for something while it was stopped. Then nothing was done.
            self._away.clear()
            return str(error).splitlines()[0]
        if strike is None:
            return "nobody was there to be hit"
        done.target = strike.target
        self._outcome.faults.append(done)
        lasts = f" for {fault.lasts:.1f} s" if fault.lasts else ""
        self._say(f"{done.at:7.1f} s  {fault.kind}{lasts}: {strike.target}")
        self._on.append((self._now() + fault.lasts, strike, done))
        self._undo_due()
        return ""

    def _undo_due(self) -> None:
        for entry in [entry for entry in self._on if entry[0] <= self._now()]:
            self._undo(entry)

    def _undo(self, entry: tuple[float, Strike, Done]) -> None:
        self._on.remove(entry)
        _, strike, done = entry
        began = self._now()
        try:
            strike.undo()
        except (SwarmError, OSError) as error:
            done.problem = f"it could not be undone: {error}"
            self._say(f"{self._now():7.1f} s  {done.kind}: {done.problem}")
        finally:
            if done.kind == "kill-api":
                self._away.clear()
        done.until = self._now()
        self._late += done.until - began
        if done.until - began > _LONG:
            self._say(f"{done.until:7.1f} s  {done.kind}: to undo it took {done.until - began:.1f} s")


def run(
    ground: Ground,
    *,
    seed: int,
    seconds: float,
    weights: Mapping[str, float],
    explicit: bool,
    every: float = 2.0,
    clients: int = 2,
    say: Say = print,
) -> Outcome:
    """Does one run on a ground whose swarm is ready.

    Args:
        weights: the kinds of faults, and how often each is drawn beside the others.
        explicit: the user has named them: one that can't be had here is an error, and not just left out.
        every: seconds between two narrow faults, on average.
        clients: how many; the first is on the swarm's first node and uses its board, the second goes through hubs, and
            so on in turn.

    Raises:
        ChaosError: a kind that was named can't be had, or none is left.
    """
    injector = Injector(ground)
    impossible = {name: why for name, why in ground.impossible().items() if name in weights}
    if impossible and explicit:
        raise ChaosError("; ".join(f"{name} can't be done here: {why}" for name, why in impossible.items()))
    weights = {name: weight for name, weight in weights.items() if name not in impossible}
    if not weights:
        raise ChaosError("no kind of fault can be done here: " + "; ".join(set(impossible.values())))
    outcome = Outcome(seed, seconds, sorted(weights), impossible, began=time.monotonic())
    faults = schedule(seed, seconds, weights, every=every)
    workers = _clients(ground, seed, clients)
    away = threading.Event()
    strands = [
        _Strand(injector, [f for f in faults if KINDS[f.kind].wide == wide], outcome, say, away)
        for wide in (False, True)
    ]
    for worker in workers:
        worker.start()
    try:
        _await_first_answers(workers)
        time.sleep(_QUIET)
        outcome.began = time.monotonic()
        for worker in workers:
            worker.forget_gap()
        for strand in strands:
            strand.start()
        _watch(workers, strands, outcome)
    finally:
        for strand in strands:
            strand.stop()
    say(f"{time.monotonic() - outcome.began:7.1f} s  the last fault is over; waiting until the swarm is whole")
    try:
        outcome.healed = ground.wait_ready(_HEAL)
        time.sleep(_QUIET)
    except ChaosError as error:
        outcome.unhealed = str(error)
    until = time.monotonic() + _DRAIN
    for worker in workers:
        worker.finish(max(until - time.monotonic(), 1.0))
        outcome.accounts.append(worker.account)
        if worker.problem is not None:
            outcome.problems.append(f"{worker.account.name}: {type(worker.problem).__name__}: {worker.problem}")
    if ground.ledger is not None:
        outcome.tally = ledger.read(ground.ledger)
    outcome.boards = _boards(ground)
    return outcome


def _clients(ground: Ground, seed: int, count: int) -> list[Client]:
    found = []
    for number in range(count):
        off = number % 2 == 1
        name = f"client {number + 1} {'off the nodes' if off else 'on a node'}"
        found.append(
            Client(name, connector(_where(ground, number, off)), seed=seed * 1000 + number, walks=ground.walks)
        )
    return found


def _where(ground: Ground, number: int, off: bool) -> Callable[[], Connection]:
    """Where the swarm is for one client: off the nodes there is no board, and each begins with another hub."""
    import msgspec

    def where() -> Connection:
        connection = ground.connection()
        first = number % max(len(connection.hubs), 1)
        hubs = connection.hubs[first:] + connection.hubs[:first]
        return msgspec.structs.replace(connection, board=None if off else connection.board, hubs=hubs)

    return where


def _await_first_answers(workers: Sequence[Client]) -> None:
    """Faults begin when everybody is being served: what a client loads when it connects is no gap in service."""
    until = time.monotonic() + _FIRST
    while any(not worker.account.answered and worker.problem is None for worker in workers):
        if time.monotonic() > until:
            names = ", ".join(worker.account.name for worker in workers if not worker.account.answered)
            raise ChaosError(f"no answer within {_FIRST:.0f} s, before any fault, to {names}")
        time.sleep(0.05)


def _watch(workers: Sequence[Client], strands: Sequence[_Strand], outcome: Outcome) -> None:
    """Waits until the time is over."""
    until = outcome.began + outcome.seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.2))
        if any(worker.problem is not None for worker in workers):
            return
    for strand in strands:
        strand.join()


def _boards(ground: Ground) -> dict[str, dict[str, int]]:
    from swarm_agents.shm.board import Board

    found = {}
    try:
        for node, directory in ground.boards().items():
            totals = Board.attach(directory).stats().totals
            found[node] = {name: totals[name] for name in ("submitted", "committed", "failed", "answered", "fenced")}
    except (SwarmError, OSError):
        pass  # a board that nobody has joined any more says nothing
    return found
