"""Runs the compiled protocol in slow motion: any party can be held, overtaken or killed between two shared operations.

The protocol's own sources are taken, not a model of them. Each function becomes a generator that yields every call of
`swarm_agents.shm.atomics` instead of making it; the driver here makes it on a memory of its own, and decides before
each one who goes on. Killing a party means never resuming it. So every schedule can be had, again and exactly.

`explore` goes through all schedules with up to so many preemptions and kills: bugs of protocols like this one show up
with one or two of either (the small-scope argument of the CHESS model checker). The memory is sequentially consistent;
the order of real memory is the litmus test's business.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["BASE", "Machine", "Party", "board_memory", "explore", "load_protocol"]

BASE = 1 << 20
PRIVATE = 1 << 40
_ATOMICS = frozenset(
    "add cas clz copy ctz fence futex_wait futex_wake load monotonic_ns or_ pause peek poke popcount store swap xand"
    .split()  # the names that `atomics` exports
)
_PROTOCOL = ("layout", "blocks", "leases", "tasks", "sweep", "hot")
_MASK = (1 << 64) - 1

Op = tuple[Any, ...]
Steps = Generator[Op, int, Any]


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


class _Stepwise(ast.NodeTransformer):
    """Turns calls of atomics into yields, and calls of protocol functions into delegation."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.decorator_list = []
        node.returns = None
        # A function that makes no shared operation has to be a generator, too: callers delegate to it.
        never = ast.parse("if False:\n    yield").body
        node.body = [*never, *node.body]
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name):
            name = node.func.id
            if name in _ATOMICS:
                return ast.Yield(ast.Tuple([ast.Constant(name), *node.args], ast.Load()))
            if name in self._names:
                return ast.YieldFrom(node)
        return node


def load_protocol(edit: tuple[str, str] | None = None, **overrides: int) -> SimpleNamespace:
    """All protocol functions as generators, and the layout's constants, some of them overridden.

    `edit` replaces a text in the sources by another one: a planted fault.
    """
    package = importlib.util.find_spec("swarm_agents.shm")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(next(iter(package.submodule_search_locations)))
    texts = {name: (folder / f"{name}.py").read_text() for name in _PROTOCOL}
    if edit is not None:
        assert sum(text.count(edit[0]) for text in texts.values()) == 1, f"not once in the sources: {edit[0]!r}"
        texts = {name: text.replace(*edit) for name, text in texts.items()}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    functions = frozenset(
        node.name
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id in ("jit", "jit_nogil") for d in node.decorator_list)
    )
    space: dict[str, Any] = {"__name__": "stepwise"}
    for tree in trees.values():
        kept: list[ast.stmt] = []
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in functions:
                kept.append(_Stepwise(functions).visit(node))
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("swarm_agents.shm"):
                continue
            elif not (isinstance(node, ast.Expr | ast.If)):
                kept.append(node)
        module = ast.fix_missing_locations(ast.Module(kept, []))
        exec(compile(module, "stepwise", "exec"), space)
        for name, value in overrides.items():
            if name in space:
                space[name] = value
    return SimpleNamespace(**space)


class Machine:
    """A memory of words, with a clock that ticks once an operation."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = dict(words)
        self.now = 1_000_000

    def run(self, steps: Steps) -> Any:
        """Runs a function to its end without interruption; its value."""
        party = Party("alone", steps, self)
        while party.step():
            pass
        return party.value

    def do(self, op: Op) -> int:
        """Makes one operation."""
        name, *args = op
        words = self.words
        self.now += 1
        match name:
            case "load" | "peek":
                return words.get(args[0], 0)
            case "store" | "poke":
                words[args[0]] = _signed(args[1])
                return 0
            case "cas":
                if words.get(args[0], 0) != _signed(args[1]):
                    return 0
                words[args[0]] = _signed(args[2])
                return 1
            case "add" | "or_" | "xand" | "swap":
                before = words.get(args[0], 0)
                after = {
                    "add": before + args[1],
                    "or_": before | args[1],
                    "xand": before & args[1],
                    "swap": args[1],
                }[name]
                words[args[0]] = _signed(after)
                return before
            case "copy":
                target, source, count = args
                for at in range(0, count, 8):
                    words[target + at] = words.get(source + at, 0)
                return 0
            case "ctz":
                value = args[0] & _MASK
                return (value & -value).bit_length() - 1 if value else 64
            case "clz":
                return 64 - (args[0] & _MASK).bit_length()
            case "popcount":
                return (args[0] & _MASK).bit_count()
            case "monotonic_ns":
                return self.now
            case "fence" | "pause" | "futex_wake" | "futex_wait":
                return 0
        raise AssertionError(name)


def _shared(op: Op) -> bool:
    """Whether another party could tell when the operation is made."""
    if op[0] in ("load", "store", "cas", "add", "or_", "xand", "swap"):
        return bool(op[1] >= BASE + 64 * 8)  # the header's first words never change
    return op[0] in ("poke", "copy") and op[1] < PRIVATE


class Party:
    """One process: a function that is carried out step by step."""

    def __init__(self, name: str, steps: Steps, machine: Machine) -> None:
        self.name = name
        self.machine = machine
        self.value: Any = None
        self.done = False
        self.killed = False
        self._steps = steps
        self._pending: Op = ()
        self._advance(None)

    def _advance(self, answer: int | None) -> None:
        try:
            op = self._steps.send(answer)  # type: ignore[arg-type]
            while not _shared(op):
                op = self._steps.send(self.machine.do(op))
            self._pending = op
        except StopIteration as end:
            self.value = end.value
            self.done = True

    def step(self) -> bool:
        """Makes the next shared operation; False when there is none left."""
        if self.done or self.killed:
            return False
        self._advance(self.machine.do(self._pending))
        return not self.done

    def kill(self) -> None:
        self.killed = True
        self._steps.close()

    @property
    def runs(self) -> bool:
        return not (self.done or self.killed)


Scenario = Callable[[], tuple[list[Party], Iterable[str], Callable[[], None]]]


def explore(scenario: Scenario, *, preemptions: int, kills: int = 0, most: int = 400) -> int:
    """Goes through all schedules of a scenario; returns how many there were.

    A scenario makes the parties anew, names those that may be killed, and gives a function that checks the end. The
    first party begins; another one goes on when it ends, is killed, or is preempted.
    """
    schedules = 0
    path: list[int] = []
    while True:
        parties, mortal, check = scenario()
        mortals = set(mortal)
        current, left, deaths, depth = 0, preemptions, kills, 0
        widths: list[int] = []
        while any(party.runs for party in parties):
            assert depth < most, "a schedule does not end"
            if not parties[current].runs:
                options: list[tuple[str, int]] = [("go", i) for i, party in enumerate(parties) if party.runs]
            else:
                options = [("go", current)]
                if left:
                    options += [("go", i) for i, party in enumerate(parties) if party.runs and i != current]
                if deaths and parties[current].name in mortals:
                    options.append(("kill", current))
            choice = path[depth] if depth < len(path) else 0
            widths.append(len(options))
            what, who = options[choice]
            if what == "kill":
                deaths -= 1
                parties[who].kill()
            else:
                if who != current and parties[current].runs:
                    left -= 1
                current = who
                parties[who].step()
            depth += 1
        try:
            check()
        except BaseException as error:
            taken = [path[i] if i < len(path) else 0 for i in range(depth)]
            error.add_note(f"schedule {schedules}: {[(i, c) for i, c in enumerate(taken) if c]}")
            raise
        schedules += 1
        path = (path + [0] * depth)[:depth]
        while path and path[-1] + 1 >= widths[len(path) - 1]:
            path.pop()
        if not path:
            return schedules
        path[-1] += 1


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
        ("H_IDS_AT", 64), ("H_SLOTS_AT", slots * p.SLOT_STRIDE), ("H_HIST_AT", 4 * p.LANES * 3 * 64 * 8),
        ("H_CELL_TAGS_AT", 64), ("H_PAGE_TAGS_AT", 64), ("H_CELLS_AT", cells * 512), ("H_PAGES_AT", pages * 4096),
    ):  # fmt: skip
        words[getattr(p, name)] = at
        at += -(-size // 4096) * 4096
    memory = {BASE + index * 8: value for index, value in words.items()}
    free = BASE + words[p.H_LANES_AT] + p.L_MAPS + 2 * 8
    memory[free] = (1 << slots) - 1
    return memory
