"""The job's answers put together: the risk figures, and how the tasks fared. Pure functions of the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute.kernels.risk.backtest import backtest
from swarm_agents.compute.kernels.risk.monte_carlo import merge
from swarm_deploy.demo.job import KINDS, LEVEL, WINDOW, Book
from swarm_deploy.demo.runner import Record

__all__ = ["Backtest", "Figures", "Service", "figures", "percentiles", "services"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Backtest:
    """One book's forecasts against what happened, [days]; amounts in dollars."""

    dates: NDArray[np.datetime64]
    profits: Floats
    var: Floats
    es: Floats
    tests: dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """The risk of the books; amounts in dollars."""

    #: `book/model` -> the answer of `risk.filtered_historical`.
    headlines: dict[str, dict[str, Any]]
    #: All chunks' paths together.
    simulation: dict[str, Any]
    backtests: dict[str, Backtest]
    #: VaR and ES of each resample.
    resampled_var: Floats
    resampled_es: Floats
    what_ifs: int


@dataclass(frozen=True)
class Service:
    """How the tasks of one kind fared; times in seconds."""

    kind: str
    priority: str
    tasks: int
    run: tuple[float, float, float]
    latency: tuple[float, float, float]


def figures(books: Mapping[str, Book], headline_records: Sequence[Record], records: Sequence[Record]) -> Figures:
    """Puts the answers together, each study in the order of its parts, whatever order they came in."""
    parts: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda r: r.item.part):
        parts.setdefault((record.item.kind, record.item.study), []).append(record)

    def joined(kind: str, study: str, key: str) -> Floats:
        return np.concatenate([r.value[key] for r in parts[kind, study]])

    backtests = {}
    for name, book in books.items():
        profits, var, es = (joined("backtest", name, key) for key in ("profits", "var", "es"))
        tests = backtest(profits, var, es, level=LEVEL)
        backtests[name] = Backtest(book.panel.dates[WINDOW:], profits, var, es, tests)
    return Figures(
        headlines={r.item.study: r.value for r in headline_records},
        simulation=merge([r.value for r in parts["simulation", "core"]], LEVEL),
        backtests=backtests,
        resampled_var=joined("resample", "core", "var"),
        resampled_es=joined("resample", "core", "es"),
        what_ifs=len(parts.get(("what-if", "core"), ())),
    )


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, the 95th and the 99th percentile; NaN when there is nothing."""
    if not len(values):
        return (float("nan"),) * 3
    p50, p95, p99 = np.percentile(np.asarray(values), (50, 95, 99))
    return float(p50), float(p95), float(p99)


def services(records: Sequence[Record]) -> list[Service]:
    """By kind, most urgent first."""
    out = []
    for kind in KINDS:
        mine = [r for r in records if r.item.kind == kind]
        if mine:
            out.append(
                Service(
                    kind,
                    mine[0].item.priority,
                    len(mine),
                    percentiles([r.run for r in mine]),
                    percentiles([r.latency for r in mine]),
                )
            )
    return out
