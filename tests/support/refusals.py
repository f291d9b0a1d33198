"""How each kernel takes odd input: the table that `test_kernels_refuse.py` holds every kernel to.

A kernel with array arguments needs an entry in one of the modules `refusals_*.py` beside this one (each has `TABLE`, a
dict from the kernel's name). What is not said there is refused with `BadArguments`, which is what most kernels want.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

import support
from swarm_agents.compute.registry import Call

__all__ = ["Entry", "entry", "everything"]


@dataclass(frozen=True)
class Entry:
    """One kernel."""

    #: Arguments whose NaN and infinities are taken, because the docstring says what becomes of them.
    takes_nonfinite: frozenset[str] = field(default_factory=frozenset)
    #: Arguments that may be empty, in all their named dimensions at once.
    takes_empty: frozenset[str] = field(default_factory=frozenset)
    #: A call that is small on the wire and would take more than 1 MiB to compute: it must be refused where there is
    #: less than that, before anything is allocated. Or why there is none, in words.
    beyond: Callable[[], Call] | str = ""
    #: A call in which these are empty, where emptying them in any call does not do.
    emptied: Callable[[], Call] | None = None


def entry(
    *,
    nonfinite: str = "",
    empty: str = "",
    emptied: Callable[[], Call] | None = None,
    beyond: Callable[[], Call] | str,
) -> Entry:
    """An entry, with arguments' names in one string."""
    return Entry(frozenset(nonfinite.split()), frozenset(empty.split()), beyond, emptied)


def everything() -> dict[str, Entry]:
    """All tables as one."""
    found: dict[str, Entry] = {}
    for module in pkgutil.iter_modules(support.__path__):
        if module.name.startswith("refusals_"):
            table: dict[str, Entry] = importlib.import_module(f"support.{module.name}").TABLE
            twice = found.keys() & table.keys()
            assert not twice, f"{module.name} has entries that another table has: {sorted(twice)}"
            found |= table
    return found
