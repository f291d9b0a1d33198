"""What a run of benchmarks says: on which machine, and a table of the rows with their spread and goals."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness import Better, Result

__all__ = ["amount", "machine", "table", "versions"]

_CPUINFO = Path("/proc/cpuinfo")
_SYSTEM = Path("/sys/devices/system/cpu")
_STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def machine() -> dict[str, str]:
    """What the figures depend on, as far as the machine shows it."""
    info = _text(_CPUINFO)
    found = re.search(r"^(?:model name|Model|cpu model|Processor)\s*: (.+)$", info, re.MULTILINE)
    part = re.search(r"^CPU part\s*: (.+)$", info, re.MULTILINE)
    allowed = sorted(os.sched_getaffinity(0))
    facts = {
        "cpu": found.group(1).strip() if found else f"part {part.group(1)}" if part else "not said",
        "cpus": f"{os.cpu_count()}, of which this run may use {len(allowed)}",
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "governor": _text(_SYSTEM / "cpu0/cpufreq/scaling_governor") or "not shown",
        "virtual": "yes" if re.search(r"^flags\s*:.*\bhypervisor\b", info, re.MULTILINE) else "not shown",
        "python": platform.python_version(),
        "busy before": f"{os.getloadavg()[0]:.1f} processes on average in the last minute",
    }
    if len(allowed) > 1:
        facts["cores"] = f"{allowed[0]} and {allowed[1]}"
        siblings = _text(_SYSTEM / f"cpu{allowed[0]}/topology/thread_siblings_list")
        if re.search(rf"(^|[,-]){allowed[1]}\b", siblings):
            facts["cores"] += ", which are two threads of one core"
    else:
        facts["cores"] = f"{allowed[0]} alone: both sides of a pair share it"
    return facts


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return ""


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """The installed version of each."""
    known = {}
    for name in distributions:
        with suppress(PackageNotFoundError):
            known[name] = version(name)
    return known


def amount(value: float | None, unit: str) -> str:
    """A figure with three digits and a prefix: `412 ns`, `1.23 M/s`; a plain number for another unit."""
    if value is None:
        return "-"
    if unit not in ("s", "/s") or not math.isfinite(value):
        return f"{value:.3g}" if not float(value).is_integer() else f"{value:.0f}"
    for step, prefix in _STEPS:
        if abs(value) >= step * 0.9995:
            return f"{value / step:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def table(results: Sequence[Result], facts: dict[str, str]) -> str:
    """The machine, the rows, and what there is to say of single ones."""
    lines = [f"{name}: {fact}" for name, fact in facts.items()]
    head = ("", "ours", "least..most", "peer", "least..most", "ratio", "least..most", "goal", "met")
    cells = [head, *(_cells(result) for result in results)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines.append("")
    for row in cells:
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    lines.append("")
    for result in results:
        lines.append(f"{result.row.name}: {result.row.what}")
        if result.also:
            lines.append("    " + ", ".join(f"{name} {value:.4g}" for name, value in result.also.items()))
        lines += [f"    failed in {error}" for error in result.errors]
    return "\n".join(lines)


def _cells(result: Result) -> tuple[str, ...]:
    row, unit = result.row, result.row.unit
    goal = "" if row.goal is None else f"{'≤' if row.better is Better.SHARE else '≥'} {row.goal:g}"
    verdict = {True: "yes", False: "NO", None: ""}[result.met]
    if row.peer is None:
        peer = ""
    elif result.missing:
        peer = f"not available: {result.missing}"
    else:
        peer = amount(result.peer, unit)
    if row.goal is not None and result.met is None:
        verdict = "not measured"
    ratio = "" if result.ratio is None or (row.peer is None and row.goal is None) else f"{result.ratio:.3g}"
    return (
        row.name,
        amount(result.ours, unit),
        _span(result.side(0), unit),
        peer,
        _span(result.side(1), unit),
        ratio,
        _span(result.ratios, "") if ratio and row.peer else "",
        goal,
        verdict,
    )


def _span(values: Sequence[float], unit: str) -> str:
    return f"{amount(min(values), unit)}..{amount(max(values), unit)}" if len(values) > 1 else ""
