"""Kernels of installed packages: entry points of the group `agentswarm.kernels`, each of which names a module.

Importing the module registers its kernels (`@kernel`), as importing the built-in ones does. Being installed in the
agents' image is what lets a package's kernels in; which names a swarm's tasks may call, `spec.compute.kernels` says.

A package that can't be imported, or a kernel of one that fails on its own sample when it is compiled, must not take the
swarm down with it: the fault is kept and told (in the log, and to whoever asks for a kernel that is not there), what
the package had registered before it failed is taken back, and everything else goes on. Where the owner names its module
in `spec.runtime.kernelModules`, it is wanted for certain, and `registry.load` raises as for any module that is named
there.

Each entry point is imported once in a process, also a broken one: what failed goes on failing until the process is
another.
"""

from __future__ import annotations

import importlib
from collections.abc import MutableMapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

__all__ = ["GROUP", "Broken", "Plugins"]

#: The group of entry points.
GROUP = "agentswarm.kernels"


@dataclass(frozen=True)
class Broken:
    """An installed package whose kernels are not there, and why."""

    #: Name and version as pip lists them.
    package: str
    #: The module that its entry point names.
    module: str
    reason: str

    def __str__(self) -> str:
        return f"kernels of the package {self.package} are not there: its module {self.module!r} {self.reason}"


class Plugins:
    """The packages that were looked at in this process."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()
        self._broken: dict[tuple[str, str], Broken] = {}
        #: Whose each kernel is.
        self._owners: dict[str, metadata.EntryPoint] = {}
        #: Modules whose faults are nobody's but the settings': `drop` leaves them alone.
        self.wanted: frozenset[str] = frozenset()

    @property
    def broken(self) -> tuple[Broken, ...]:
        """Those whose kernels are not there, in order."""
        return tuple(self._broken[key] for key in sorted(self._broken))

    def load(self, kernels: MutableMapping[str, Any]) -> tuple[Broken, ...]:
        """Imports what is installed and was not looked at before; returns those of them that failed.

        Args:
            kernels: where importing registers; what a failing module has put there is taken out again.
        """
        failed: list[Broken] = []
        for entry in sorted(metadata.entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
            key = (entry.name, entry.value)
            if key in self._seen:
                continue
            self._seen.add(key)
            before = dict(kernels)
            try:
                importlib.import_module(entry.module)
            except (Exception, SystemExit) as error:  # a module that ends the interpreter is broken, too
                kernels.clear()
                kernels.update(before)
                failed.append(self._breaks(entry, f"can't be imported ({type(error).__name__}: {error})"))
            else:
                self._owners.update((name, entry) for name in kernels.keys() - before.keys())
        return tuple(failed)

    def drop(self, name: str, kernels: MutableMapping[str, Any], error: Exception) -> Broken | None:
        """Takes out a kernel that fails on its own sample; None if it is no package's, or the settings want it."""
        entry = self._owners.get(name)
        if entry is None or entry.module in self.wanted:
            return None
        del self._owners[name]
        del kernels[name]
        return self._breaks(entry, f"has a kernel {name!r} that fails on its sample ({type(error).__name__}: {error})")

    def _breaks(self, entry: metadata.EntryPoint, reason: str) -> Broken:
        fault = self._broken[entry.name, entry.value] = Broken(_package(entry), entry.module, reason)
        return fault

    def package_of(self, module: str) -> str:
        """The broken package whose module that is; empty when it is none's."""
        return next((fault.package for fault in self.broken if fault.module == module), "")


def _package(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else f"of the entry point {entry.name!r}"
