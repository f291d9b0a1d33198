"""Loads the board's compiled protocol as the simulator needs it: the product's sources, with counted atomics, a clock
that is the simulator's, and planted faults that are off.

To be called before anything else has imported `swarm_agents.shm`; hence simulations run in processes of their own. The
compiled functions are cached as the product's are, under a digest of these sources and the simulator's.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

__all__ = ["cache_directory", "load"]

_PACKAGE = "swarm_agents.shm"


def cache_directory() -> Path:
    """Where the compiled functions are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("SWARM_SIM_CACHE") or Path(home) / "agentswarm" / "simulation")


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module with faults planted in its text."""

    def __init__(self, name: str, path: str, edits: list[tuple[str, str]], mutant: Any) -> None:
        super().__init__(name, path)
        self._edits = edits
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        text = Path(path).read_text()
        for old, new in self._edits:
            if text.count(old) != 1:
                raise LookupError(f"{path} has changed, plant the fault anew: {text.count(old)} times in it is\n{old}")
            text = text.replace(old, new)
        return compile(text, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["mutant"] = self._mutant
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, edits: dict[str, list[tuple[str, str]]], mutant: Any) -> None:
        self._edits = edits
        self._mutant = mutant

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != _PACKAGE or name not in self._edits:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return None
        loader = _Loader(fullname, spec.origin, self._edits[name], self._mutant)
        return importlib.util.spec_from_file_location(fullname, spec.origin, loader=loader)


def load() -> None:
    """See the module's text. A second call does nothing."""
    if getattr(sys.modules.get(f"{_PACKAGE}.jit"), "SIMULATED", False):
        return
    if f"{_PACKAGE}.tasks" in sys.modules:
        raise RuntimeError("the product's board is loaded already: the simulator needs a process of its own")
    from numba.core import config

    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    config.CACHE_DIR = str(directory)
    jit: Any = importlib.import_module(f"{_PACKAGE}.jit")
    here = Path(__file__).parent
    total = hashlib.blake2b(jit.PROTOCOL_DIGEST.encode(), digest_size=6)
    for name in ("control", "instruments", "mutants"):
        total.update((here / f"{name}.py").read_bytes())
    jit.PROTOCOL_DIGEST = f"sim{total.hexdigest()}"
    jit.SIMULATED = True
    jit.direct = functools.cache(jit.direct)  # a port and a worker are made some hundred times a second
    from simulation.instruments import INSTRUMENTS, mutant
    from simulation.mutants import edits

    atomics: Any = importlib.import_module(f"{_PACKAGE}.atomics")
    for name, instrument in INSTRUMENTS.items():
        setattr(atomics, name, instrument)
    sys.meta_path.insert(0, _Finder(edits(), mutant))
