"""Whether the figures are right: the same computation again, in this one process, by the kernels' NumPy references.

What the swarm computed with compiled code, cut into pieces, on several nodes and with an agent killed meanwhile must
agree with it to the last bit where the operations come in the same order, which is everywhere but in one sum; there the
tolerance is stated. The headline figures, all simulated paths and all what-ifs are computed again in full. Of the
backtest and the resamples, which take minutes in plain NumPy, a sample is, spread evenly, and every task that was begun
more than once because its agent died.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swarm_agents.compute import registry
from swarm_deploy.demo.figures import Figures
from swarm_deploy.demo.job import CHUNK, Item
from swarm_deploy.demo.runner import Record

__all__ = ["Check", "again", "check_backtests", "check_figures", "same"]

#: Means of a few million terms, summed in another order, may differ by this much of their standard deviation.
SUM_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Check:
    """Something that must hold, and whether it did."""

    name: str
    held: bool
    detail: str


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit: types, shapes, and every float's representation."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()
    if isinstance(a, float) and isinstance(b, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    return bool(a == b)


def again(item: Item) -> Any:
    """The task's answer by the plain NumPy reference, in this process."""
    return registry.get(item.kernel).run(item.args, item.kwargs, implementation=registry.REFERENCE)


def check_figures(
    headline_records: Sequence[Record],
    records: Sequence[Record],
    found: Figures,
    *,
    seconds: float = 6.0,
    say: Callable[[str], None] = lambda _: None,
) -> list[Check]:
    """Computes the figures again; the sampled part takes at most about `seconds`."""
    checks: list[Check] = []

    def compared(name: str, mine: Sequence[Record], limit: float = math.inf) -> None:
        """Those that were begun more than once, and then as many as `limit` seconds allow."""
        say(name)
        ordered = sorted(_spread(mine), key=lambda r: r.attempts < 2)
        until = time.perf_counter() + limit
        wrong, tried = [], 0
        for record in ordered:
            if record.attempts < 2 and tried >= 3 and time.perf_counter() > until:
                break
            tried += 1
            if not same(record.value, again(record.item)):
                wrong.append(record.item.number)
        of = f"all {tried}" if tried == len(mine) else f"{tried} of {len(mine)}"
        detail = (
            f"{of} equal to the last bit" if not wrong else f"{len(wrong)} of {tried} differ, first task {wrong[0]}"
        )
        checks.append(Check(name, tried > 0 and not wrong, detail))

    compared("Filtered historical simulation", headline_records)

    say("Monte Carlo")
    chunks = [r for r in records if r.item.kind == "simulation"]
    if chunks:
        first = chunks[0].item
        options = {**first.kwargs, "paths": CHUNK * len(chunks), "chunk": 0}
        whole = again(Item(0, first.kind, first.kernel, first.args, options, first.priority))
        keys = ("var", "es", "edges", "counts", "paths")
        equal = all(same(whole[key], found.simulation[key]) for key in keys)
        shared = min(len(whole["worst"]), len(found.simulation["worst"]))
        equal &= same(whole["worst"][:shared], found.simulation["worst"][:shared])
        text = f"{len(chunks)} chunks against one run of {whole['paths']:,} paths: "
        text += "equal to the last bit" if equal else "differ"
        checks.append(Check("Monte Carlo: VaR, ES, histogram and tail", equal, text))
        mean = sum(r.value["mean"] for r in chunks) / len(chunks)
        deviation = float(whole["edges"][-1]) / 8
        error = abs(mean - whole["mean"]) / deviation
        detail = (
            f"differs by {error:.1e} of a standard deviation, at most {SUM_TOLERANCE:.0e} (another order of the sum)"
        )
        checks.append(Check("Monte Carlo: mean of all paths", error <= SUM_TOLERANCE, detail))

    compared("What-if questions", [r for r in records if r.item.kind == "what-if"])
    compared("Backtest", [r for r in records if r.item.kind == "backtest"], seconds * 0.7)
    compared("Resamples", [r for r in records if r.item.kind == "resample"], seconds * 0.3)
    return checks


def check_backtests(found: Figures) -> list[Check]:
    """The backtest's tests, once more from their definitions and scipy's chi-square distribution."""
    from scipy.special import chdtrc, xlog1py, xlogy

    out = []
    for name, b in found.backtests.items():
        t = b.tests
        n, x, p = t["days"], int(np.sum(-b.profits > b.var)), t["expected"] / t["days"]
        ratio = 2 * (xlogy(x, x / n) + xlog1py(n - x, -x / n) - xlogy(x, p) - xlog1py(n - x, -p))
        near = bool(np.isclose(ratio, t["kupiec"], rtol=1e-9, atol=1e-9))
        near &= bool(np.isclose(chdtrc(1, max(ratio, 0.0)), t["kupiec_p"], rtol=1e-9, atol=1e-12))
        near &= bool(np.isclose(chdtrc(2, max(t["conditional"], 0.0)), t["conditional_p"], rtol=1e-9, atol=1e-12))
        detail = f"{x} breaches in {n} days, p {t['kupiec_p']:.3f}; recomputed to a relative 1e-9"
        out.append(Check(f"Kupiec and Christoffersen, {name} book", near and x == t["breaches"], detail))
    return out


def _spread(records: Sequence[Record]) -> list[Record]:
    """All records, such that any beginning of the list is spread evenly over them."""
    order = sorted(range(len(records)), key=lambda i: int(f"{i:032b}"[::-1], 2))
    return [records[i] for i in order]
