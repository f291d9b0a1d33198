"""Runs a compiled protocol in slow motion: any party can be held, overtaken or killed between two shared operations.

The protocol's own sources are taken, not a model of them. Each function becomes a generator that yields every call of
`swarm_agents.shm.atomics` on shared memory instead of making it; the driver here makes it on a memory of its own, and
decides before each one who goes on. Killing a party means never resuming it. So every schedule can be had, again and
exactly.

    p = load_protocol()                                        # or: roots=("ring_hot",), fixed=0
    machine = Machine({address: word, ...})                    # shared words from BASE on, private ones from PRIVATE on
    parties = [Party("a", p.submit(BASE, ...), machine), Party("b", p.try_claim(BASE, ...), machine)]
    explore(lambda: (parties made anew, names of those who may be killed, check), preemptions=2, kills=1)

`explore` goes through all schedules with up to so many preemptions and kills: bugs of protocols like this one show up
with one or two of either (the small-scope argument of the CHESS model checker). What it leaves out changes nothing:

- A party is preempted only before an operation on a word that another party uses too and one of them writes (found by
  looking, pass after pass, until no word is added): operations on other words commute with everything.
- It is killed only before and right after its writes: what it read dies with it.

With `relaxed`, each party has a store buffer as x86-64 has it: when another one goes on, any number of its latest
stores may not be visible yet. An operation that reads and writes, a fence or a system call empties it. So a fence
that is missing is found. Reads that overtake reads, as on aarch64, are the litmus test's business.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from support.stepwise import BASE, BOTH, PRIVATE, READS, load_protocol, running, signed

__all__ = ["BASE", "PRIVATE", "Machine", "Party", "Steps", "board_memory", "explore", "load_protocol"]

Op = tuple[Any, ...]
Steps = Generator[Op, int, Any]


class Machine:
    """A memory of words, with a clock that ticks once an operation."""

    def __init__(self, words: dict[int, int], *, relaxed: bool = False) -> None:
        self.words = dict(words)
        self.now = 1_000_000
        #: Whether stores may be seen late.
        self.relaxed = relaxed
        self.parties: list[Party] = []

    def run(self, steps: Steps) -> Any:
        """Runs a function to its end without interruption; its value."""
        party = Party("alone", steps, self)
        self.parties.remove(party)
        while party.step():
            assert not party.asleep, "sleeps, and nobody else runs"
        party.drain()
        return party.value


class Party:
    """One process: a function that is carried out step by step, one operation on shared memory each.

    A scenario's own generators may yield such operations too: `yield "load", address`, `yield "poke", address, value`.
    """

    def __init__(self, name: str, steps: Steps, machine: Machine) -> None:
        self.name = name
        self.machine = machine
        self.value: Any = None
        self.done = False
        self.killed = False
        #: The address of the futex that it sleeps on, or 0.
        self.asleep = 0
        #: What it does next, and whether its last operation was a write.
        self.pending: Op = ()
        self.wrote = False
        #: Stores that nobody else sees yet, oldest first.
        self.buffer: list[tuple[int, int]] = []
        self._steps = steps
        machine.parties.append(self)
        self._advance(None)

    @property
    def runs(self) -> bool:
        return not (self.done or self.killed or self.asleep)

    def step(self) -> bool:
        """Makes the next shared operation; False when there is none left."""
        if not self.runs:
            return False
        op = self.pending
        self.machine.now += 1
        self.wrote = op[0] not in READS
        if op[0] == "futex_wait" and self._read(op[1]) & 0xFFFFFFFF == op[2] & 0xFFFFFFFF:
            self.drain()
            self.asleep = op[1]
            return True
        self._advance(getattr(self, f"_do_{op[0]}")(*op[1:]))
        return not self.done

    def wake(self, answer: int = 0) -> None:
        """Ends its sleep: by a wake, or with -1 by the time limit."""
        assert self.asleep
        self.asleep = 0
        self._advance(answer)

    def kill(self) -> None:
        """Ends it where it is. What it has stored is seen, as the kernel's own fences see to it."""
        self.drain()
        self.killed = True
        self._steps.close()

    def drain(self, keep: int = 0) -> None:
        """Shows its stores to everybody, but for the latest `keep`."""
        while len(self.buffer) > keep:
            address, value = self.buffer.pop(0)
            self.machine.words[address] = value

    def _advance(self, answer: int | None) -> None:
        running.append(self)
        try:
            op = self._steps.send(answer)  # type: ignore[arg-type]
            while op[0] not in BOTH and not (op[0] == "copy" or BASE <= op[1] < PRIVATE):
                op = self._steps.send(getattr(self, f"_do_{op[0]}")(*op[1:]))  # on private memory
            self.pending = op
        except StopIteration as end:
            self.value = end.value
            self.done = True
        finally:
            running.pop()

    # -- operations

    def _read(self, address: int) -> int:
        for at, value in reversed(self.buffer):
            if at == address:
                return value
        return self.machine.words.get(address, 0)

    def _write(self, address: int, value: int) -> int:
        if self.machine.relaxed and address < PRIVATE:
            self.buffer.append((address, signed(value)))
        else:
            self.machine.words[address] = signed(value)
        return 0

    _do_load = _do_peek = _read
    _do_store = _do_poke = _write

    def _do_cas(self, address: int, expected: int, desired: int) -> int:
        self.drain()
        if self._read(address) != signed(expected):
            return 0
        self.machine.words[address] = signed(desired)
        return 1

    def _change(self, address: int, value: Callable[[int], int]) -> int:
        self.drain()
        before = self._read(address)
        self.machine.words[address] = signed(value(before))
        return before

    def _do_add(self, address: int, operand: int) -> int:
        return self._change(address, lambda before: before + operand)

    def _do_or_(self, address: int, operand: int) -> int:
        return self._change(address, lambda before: before | operand)

    def _do_xand(self, address: int, operand: int) -> int:
        return self._change(address, lambda before: before & operand)

    def _do_swap(self, address: int, operand: int) -> int:
        return self._change(address, lambda before: operand)

    def _do_copy(self, target: int, source: int, count: int) -> int:
        for at in range(0, count, 8):
            self._write(target + at, self._read(source + at))
        return 0

    def _do_futex_wait(self, address: int, expected: int, timeout_ns: int) -> int:
        return -1  # the word has changed: see `step`

    def _do_futex_wake(self, address: int, count: int) -> int:
        self.drain()
        woken = [party for party in self.machine.parties if party.asleep == address and not party.killed][:count]
        for party in woken:
            party.wake()
        return len(woken)


Scenario = Callable[[], tuple[Sequence[Party], Iterable[str], Callable[[], None]]]


def _touched(op: Op) -> tuple[list[int], list[int]]:
    """The shared words that an operation reads and writes."""
    name = op[0]
    if name == "copy":
        target, source, count = op[1:]
        reads, writes = ([at + i for i in range(0, count, 8) if at < PRIVATE] for at in (source, target))
        return reads, writes
    if name in READS or name == "futex_wait":
        return [op[1]], []
    return [], [op[1]]


class _Uses:
    """Which party has used which word: to find the words that are worth being stopped at."""

    def __init__(self) -> None:
        self._read: dict[int, set[str]] = {}
        self._written: dict[int, set[str]] = {}
        self._seen: set[tuple[str, Op]] = set()
        self.contended: set[int] = set()

    def note(self, party: str, op: Op) -> None:
        key = (party, op if op[0] == "copy" else op[:2])
        if key in self._seen:
            return
        self._seen.add(key)
        reads, writes = _touched(op)
        for address in reads:
            if self._written.get(address, {party}) - {party}:
                self.contended.add(address)
            self._read.setdefault(address, set()).add(party)
        for address in writes:
            others = self._read.get(address, set()) | self._written.get(address, set())
            if others - {party}:
                self.contended.add(address)
            self._written.setdefault(address, set()).add(party)


def _one(
    scenario: Scenario,
    path: list[int],
    uses: _Uses,
    stops: frozenset[int],
    budget: tuple[int, int, bool, int],
) -> list[int]:
    """Carries one schedule out; how many ways there were to go on at each of its decisions."""
    preemptions, kills, relaxed, most = budget
    parties, mortal, check = scenario()
    mortals = set(mortal)
    for party in parties:
        party.machine.relaxed = relaxed
    current, steps = -1, 0
    widths: list[int] = []

    def choose(options: int) -> int:
        if options == 1:
            return 0
        widths.append(options)
        return path[len(widths) - 1] if len(widths) <= len(path) else 0

    while True:
        assert steps < most, "a schedule does not end"
        now = parties[current] if current >= 0 else None
        if now is not None and now.runs and not (kills and now.name in mortals):
            op = now.pending
            if not preemptions or (op[0] != "copy" and op[1] not in stops):
                uses.note(now.name, op)
                now.step()
                steps += 1
                continue
        running = [party for party in parties if party.runs]
        if not running:
            break
        if now is None or not now.runs:
            options: list[tuple[str, Party]] = [("go", party) for party in running]
        else:
            options = [("go", now)]
            reads, writes = _touched(now.pending)
            if preemptions and not stops.isdisjoint(reads + writes):
                options += [("go", party) for party in running if party is not now]
            if kills and now.name in mortals and (now.wrote or writes):
                options.append(("kill", now))
        what, party = options[choose(len(options))]
        if what == "kill":
            kills -= 1
            party.kill()
            continue
        if now is not None and party is not now:
            if now.runs:
                preemptions -= 1
            now.drain(choose(len(now.buffer) + 1))
        current = parties.index(party)
        uses.note(party.name, party.pending)
        party.step()
        steps += 1
    for party in parties:
        party.drain()
        party.machine.relaxed = False
    check()
    return widths


def explore(
    scenario: Scenario,
    *,
    preemptions: int,
    kills: int = 0,
    relaxed: bool = False,
    most: int = 2000,
) -> int:
    """Goes through all schedules of a scenario; returns how many there were.

    Args:
        scenario: makes the parties anew, names those that may be killed, and gives a function that checks the end.
        preemptions: how often a party that could go on is made to wait for another one. Who begins, and who goes on
            when one has ended, sleeps or was killed, is tried in every way besides.
        kills: how many parties are killed at most.
        relaxed: whether stores may be seen late.
        most: operations that a schedule may have: more is taken for a loop without end.
    """
    uses = _Uses()
    stops: frozenset[int] = frozenset()
    budget = (0, 0, False, most)
    while True:
        schedules = 0
        path: list[int] = []
        while True:
            try:
                widths = _one(scenario, path, uses, stops, budget)
            except BaseException as error:
                error.add_note(f"schedule {schedules}, decisions {path}")
                raise
            schedules += 1
            path = (path + [0] * len(widths))[: len(widths)]
            while path and path[-1] + 1 >= widths[len(path) - 1]:
                path.pop()
            if not path:
                break
            path[-1] += 1
        if stops == uses.contended and budget == (preemptions, kills, relaxed, most):
            return schedules
        stops, budget = frozenset(uses.contended), (preemptions, kills, relaxed, most)


def board_memory(protocol: SimpleNamespace, *, slots: int = 2, cells: int = 4, pages: int = 4) -> dict[int, int]:
    """The words of a very small board, with one lane, so that a sweep is short enough to be interleaved with."""
    p = protocol
    words = {
        p.H_LANE_SLOTS: slots, p.H_LANE_WORDS: 1, p.H_PORT_WORDS: 1, p.H_MEMBER_WORDS: 1, p.H_PORTS: 2,
        p.H_READY_CAP: 4, p.H_DONE_CAP: 4, p.H_CELLS: cells, p.H_PAGES: pages, p.H_PAGE_BYTES: 4096,
        p.H_MAX_MEMBERS: 4, p.H_MAX_ATTEMPTS: 4,
        p.H_PORT_STRIDE: 4096, p.H_LANE_STRIDE: 4096,
    }  # fmt: skip
    at = 4096
    for name, size in (
        ("H_MEMBERS_AT", 4 * p.MEMBER_STRIDE), ("H_PORTS_AT", 2 * 4096), ("H_LANES_AT", 4096), ("H_STATES_AT", 64),
        ("H_IDS_AT", 64), ("H_SLOTS_AT", slots * p.SLOT_STRIDE),
        ("H_HIST_AT", 4 * p.LANES * p.HISTOGRAMS * p.HIST_WORDS * 8),
        ("H_TALLIES_AT", len(p.EVENT_NAMES) * p.LANES * len(p.PATHS) * 8),
        ("H_CELL_TAGS_AT", 64), ("H_PAGE_TAGS_AT", 64), ("H_CELLS_AT", cells * 512), ("H_PAGES_AT", pages * 4096),
    ):  # fmt: skip
        words[getattr(p, name)] = at
        at += -(-size // 4096) * 4096
    memory = {BASE + index * 8: value for index, value in words.items()}
    free = BASE + words[p.H_LANES_AT] + p.L_MAPS + 2 * 8
    memory[free] = (1 << slots) - 1
    return memory
