"""Turns the sources of a compiled protocol into generators that yield each shared operation; see `stepper`."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["BASE", "BOTH", "PRIVATE", "READS", "load_protocol", "running", "signed"]

BASE = 1 << 20
PRIVATE = 1 << 40
_BOARD = ("sweep", "witness", "hot")
_NOT_PROTOCOL = frozenset({"atomics", "jit"})
_FIXED_WORDS = 64  # of a board's header: they never change
_MASK = (1 << 64) - 1
READS, _WRITES = frozenset({"load", "peek"}), frozenset({"store", "poke"})
BOTH = frozenset({"cas", "add", "or_", "xand", "swap"})
_ALONE = frozenset({"clz", "ctz", "fence", "monotonic_ns", "pause", "popcount"})
_YIELDED = BOTH | {"copy", "futex_wait", "futex_wake"}

Edit = tuple[str, str]


def signed(value: int) -> int:
    """A word as the signed integer that it passes as."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


# --- what a protocol function calls directly: nobody could tell when it is done ------------------------------------

running: list[Any] = []


def _clz(value: int) -> int:
    return 64 - (value & _MASK).bit_length()


def _ctz(value: int) -> int:
    value &= _MASK
    return (value & -value).bit_length() - 1 if value else 64


def _popcount(value: int) -> int:
    return (value & _MASK).bit_count()


def _pause() -> None:
    running[-1].machine.now += 1


def _fence() -> None:
    running[-1].drain()


def _monotonic_ns() -> int:
    machine = running[-1].machine
    machine.now += 1
    return int(machine.now)


def _read(address: int) -> int:
    return int(running[-1].machine.words.get(address, 0))


def _write(address: int, value: int) -> None:
    running[-1].machine.words[address] = signed(value)


_HELPERS = {
    "_clz": _clz, "_ctz": _ctz, "_popcount": _popcount, "_pause": _pause, "_fence": _fence,
    "_monotonic_ns": _monotonic_ns, "_read": _read, "_write": _write,
}  # fmt: skip


class _Stepwise(ast.NodeTransformer):
    """Turns calls of atomics on shared words into yields, and calls of protocol functions into delegation."""

    def __init__(self, names: frozenset[str], first: int) -> None:
        self._names = names
        self._first = first
        self._temporaries = 0

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
        if not isinstance(node.func, ast.Name):
            return node
        name, args = node.func.id, node.args
        if name in self._names:
            return ast.YieldFrom(node)
        if name in _YIELDED:
            return ast.Yield(ast.Tuple([ast.Constant(name), *args], ast.Load()))
        if name in _ALONE:
            return ast.Call(ast.Name(f"_{name}", ast.Load()), args, [])
        if name in READS | _WRITES:
            self._temporaries += 1
            kept = f"_address_{self._temporaries}"
            address = ast.Name(kept, ast.Load())
            within = ast.Compare(
                ast.Constant(self._first),
                [ast.LtE(), ast.Lt()],
                [ast.NamedExpr(ast.Name(kept, ast.Store()), args[0]), ast.Constant(PRIVATE)],
            )
            direct = "_read" if name in READS else "_write"
            return ast.IfExp(
                within,
                ast.Yield(ast.Tuple([ast.Constant(name), address, *args[1:]], ast.Load())),
                ast.Call(ast.Name(direct, ast.Load()), [address, *args[1:]], []),
            )
        return node


def _with_imports(folder: Path, roots: Sequence[str]) -> dict[str, str]:
    """The sources of some modules of the package and of what they import from it, in the order of their imports."""
    found: dict[str, str] = {}

    def add(name: str) -> None:
        if name in found or name in _NOT_PROTOCOL:
            return
        text = (folder / f"{name}.py").read_text()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("swarm_agents.shm."):
                add(str(node.module).rpartition(".")[2])
        found[name] = text

    for root in roots:
        add(root)
    return found


def load_protocol(
    edit: Edit | Sequence[Edit] = (),
    *,
    roots: Sequence[str] = _BOARD,
    fixed: int = _FIXED_WORDS,
    **overrides: int,
) -> SimpleNamespace:
    """All functions of some modules of `swarm_agents.shm` as generators, and their constants, some of them overridden.

    Args:
        edit: texts in the sources, each to be replaced by another one: a planted fault.
        roots: modules that import all others that are needed; names must be unique among them all.
        fixed: how many words from BASE on never change and are read without a step.
    """
    package = importlib.util.find_spec("swarm_agents.shm")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(next(iter(package.submodule_search_locations)))
    texts = _with_imports(folder, roots)
    edits: Sequence[Any] = [edit] if edit and isinstance(edit[0], str) else edit
    for old, new in edits:
        times = sum(text.count(old) for text in texts.values())
        assert times == 1, f"{times} times in the sources, plant the fault anew: {old!r}"
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    functions = frozenset(
        node.name
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id in ("jit", "jit_nogil") for d in node.decorator_list)
    )
    space: dict[str, Any] = {"__name__": "stepwise", **_HELPERS}
    for name, tree in trees.items():
        kept: list[ast.stmt] = []
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in functions:
                kept.append(_Stepwise(functions, BASE + fixed * 8).visit(node))
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("swarm_agents.shm"):
                continue
            elif not (isinstance(node, ast.Expr | ast.If)):
                kept.append(node)
        module = ast.fix_missing_locations(ast.Module(kept, []))
        exec(compile(module, str(folder / f"{name}.py"), "exec"), space)
        for constant, value in overrides.items():
            if constant in space:
                space[constant] = value
    return SimpleNamespace(**space)
