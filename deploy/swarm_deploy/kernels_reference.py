"""The reference of the kernels that every swarm has: what they take, what they do, after which source.

Made from their signatures and docstrings, module by module, since what the kernels of a module have in common (units,
methods, sources) is said there.
"""

from __future__ import annotations

import inspect
import sys
from itertools import groupby

from swarm_agents.compute import registry
from swarm_agents.compute.registry import Kernel

__all__ = ["kernels_reference"]

_HEAD = """# Kernels

What every swarm computes by name (`swarm kernels` lists them, with those of packages that are installed). Generated
from the kernels themselves. Arrays are taken in any byte order and layout, and from lists; a call that does not fit is
refused as `BadArguments`, with what was expected and what came; one that needs more memory than the agent has is
refused as `NotEnoughMemory` before anything is allocated.
"""


def kernels_reference() -> str:
    """All built-in kernels as Markdown, by name, those of a module after its own text."""
    found = [registry.get(name) for name in registry.names()]
    ours = [kernel for kernel in found if kernel.__module__.startswith("swarm_agents.")]
    parts = [_HEAD]
    for module, kernels in groupby(ours, key=lambda kernel: kernel.__module__):
        members = list(kernels)
        parts.append(f"## {', '.join(f'`{kernel.name}`' for kernel in members)}\n")
        parts.append((inspect.getdoc(sys.modules[module]) or "") + "\n")
        parts += [_entry(kernel) for kernel in members]
    return "\n".join(parts).rstrip() + "\n"


def _entry(kernel: Kernel) -> str:
    lines = [f"### `{kernel.name}`", ""]
    if kernel.signature.parameters:
        lines += ["| argument | type | default |", "|---|---|---|"]
        for p in kernel.signature.parameters:
            default = "required" if p.required else f"`{p.default!r}`" if not hasattr(p.default, "shape") else "empty"
            lines.append(f"| `{p.name}` | {p.expected} | {default} |")
        lines.append("")
    lines += [*_paragraphs(inspect.cleandoc(kernel.__doc__ or "")), ""]
    lines += [f"Implementations: {', '.join(f'`{name}`' for name in kernel.implementations)}.", ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> list[str]:
    """The docstring, its list of errors as one of Markdown."""
    lines: list[str] = []
    for line in text.splitlines():
        heading = line in ("Raises:", "Args:", "Returns:")
        if line.startswith("    ") and not line.startswith("        "):
            line = f"- {line.strip()}"
        lines += [line, ""] if heading else [line]
    return lines
