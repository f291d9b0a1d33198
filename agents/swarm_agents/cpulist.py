"""Lists of CPUs or NUMA nodes as the kernel writes them: `0-2,5`."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["format_cpus", "parse_cpus"]


def parse_cpus(text: str) -> frozenset[int]:
    """The numbers of a list: {0, 1, 2, 5} of `0-2,5`.

    Raises:
        ValueError: it is not such a list.
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last) if dash else int(first)
        if not 0 <= low <= high < 1 << 16:
            raise ValueError(f"{part!r} is not a range")
        cpus.update(range(low, high + 1))
    return frozenset(cpus)


def format_cpus(cpus: Iterable[int]) -> str:
    """`0-2,5` for {0, 1, 2, 5}."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1][1:] = [cpu]
        else:
            parts.append([cpu])
    return ",".join("-".join(map(str, part)) for part in parts)
