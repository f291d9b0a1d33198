"""The demo's job: which tasks a portfolio's risk comes down to, and running them on anything that takes kernels.

Five kinds of tasks, of different size and urgency, as a risk desk has them on one swarm at the same time:

| kind | priority | what |
|---|---|---|
| `what-if` | critical | a trader's question before a trade: VaR with other positions, under a millisecond |
| `headline` | high | filtered historical simulation of each book |
| `simulation` | high | a chunk of Monte Carlo paths |
| `backtest` | normal | forecasts for some of the past days, models fitted anew as they would have been then |
| `resample` | bulk | how uncertain the figures are |

`plan` is pure: the same inputs give the same tasks, split so that no figure depends on the split. How much of each
there is follows from `Costs`, measured by a short probe, so that the job keeps the machine busy for the time asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm_deploy.demo.data import Panel

__all__ = ["KINDS", "LEVEL", "PROBES", "WINDOW", "Book", "Costs", "Item", "Job", "headlines", "plan", "probes"]

#: VaR and ES at this level.
LEVEL = 0.99
#: Days that a forecast in the backtest knows.
WINDOW = 1000
#: Paths of a simulation chunk: a multiple of the kernel's block, so that chunks add up to one long run.
CHUNK = 32_768
#: Seconds that a task should take at most: an urgent one waits until an agent has finished what it is at.
_LONGEST = 0.03
_SEED = 7
KINDS = ("what-if", "headline", "simulation", "backtest", "resample")

#: Shares of the whole work; the backtest of the core book takes what is left.
_SHARE = {"simulation": 0.08, "hedged": 0.10, "resample": 0.12}
#: What-if questions a second, while the job runs.
_QUESTIONS = 30


@dataclass(frozen=True)
class Book:
    """Holdings in dollars, and the history of what they depend on."""

    name: str
    panel: Panel
    amounts: NDArray[np.float64]

    @property
    def value(self) -> float:
        """Dollars held."""
        return float(self.amounts.sum())


@dataclass(frozen=True)
class Item:
    """One task."""

    number: int
    kind: str
    kernel: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    priority: str
    #: Which study it belongs to, and where in it.
    study: str = ""
    part: int = 0
    #: Seconds that it is expected to run.
    cost: float = 0.0


@dataclass(frozen=True)
class Costs:
    """Seconds on one core, measured: of a chunk of paths, of a day's fit and forecast, of a forecast alone, …"""

    chunk: float
    fit: float
    fit_hedged: float
    day: float
    resample: float
    what_if: float


@dataclass(frozen=True)
class Job:
    """All tasks: `questions` are asked at a steady pace, `work` is taken up as fast as the swarm does it."""

    work: tuple[Item, ...]
    questions: tuple[Item, ...]
    #: Days between two fits in the core book's backtest.
    refit: int
    #: Resamples of each `resample` task.
    resamples: int
    cost: float = field(default=0.0)

    @property
    def items(self) -> tuple[Item, ...]:
        """All tasks by number."""
        return tuple(sorted((*self.work, *self.questions), key=lambda item: item.number))


def headlines(books: Mapping[str, Book]) -> list[Item]:
    """The figures themselves: both books by filtered historical simulation, with GARCH and with EWMA."""
    items: list[Item] = []
    for name, book in books.items():
        for model in ("garch", "ewma"):
            options = {"model": model, "level": LEVEL}
            args = (book.panel.returns, book.amounts)
            study = f"{name}/{model}"
            items.append(Item(len(items), "headline", "risk.filtered_historical", args, options, "high", study))
    return items


#: What `probes` measures: field of `Costs` -> how many units one probe holds.
PROBES = {"chunk": 1, "fit": 2, "fit_hedged": 2, "day": 20, "resample": 200, "what_if": 1}


def probes(books: Mapping[str, Book], profits: NDArray[np.float64], moves: NDArray[np.float64]) -> dict[str, Item]:
    """A small task of each sort, by the field of `Costs` that it measures; units as in `PROBES`."""
    core, hedged = books["core"], books["hedged"]

    def window(book: Book, days: int) -> NDArray[np.float64]:
        return book.panel.returns[-WINDOW - days :]

    fits, days = PROBES["fit"], PROBES["day"]
    calls: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
        "chunk": ("risk.monte_carlo", (core.panel.returns, core.amounts), {"paths": CHUNK, "seed": 1}),
        "fit": ("risk.backtest_window", (window(core, fits), core.amounts), {"window": WINDOW, "refit": 1}),
        "fit_hedged": ("risk.backtest_window", (window(hedged, fits), hedged.amounts), {"window": WINDOW, "refit": 1}),
        "day": ("risk.backtest_window", (window(core, days), core.amounts), {"window": WINDOW, "model": "ewma"}),
        "resample": ("risk.bootstrap", (profits,), {"resamples": PROBES["resample"], "seed": 1}),
        "what_if": ("risk.what_if", (moves, core.amounts), {}),
    }
    return {
        name: Item(i, "probe", kernel, args, kwargs, "normal")
        for i, (name, (kernel, args, kwargs)) in enumerate(calls.items())
    }


def plan(
    books: Mapping[str, Book],
    profits: NDArray[np.float64],
    moves: NDArray[np.float64],
    costs: Costs,
    *,
    seconds: float,
    cores: float,
) -> Job:
    """The job that takes about `seconds` on `cores` busy cores.

    Args:
        books: `core` and `hedged`.
        profits: the core book's scenario profits, [scenario].
        moves: its scenario moves, [scenario, factor].
        costs: what the probe measured.
    """
    core, hedged = books["core"], books["hedged"]
    budget = seconds * cores
    work: list[Item] = []

    def add(kind: str, kernel: str, args: Any, kwargs: Any, priority: str, study: str, part: int, cost: float) -> None:
        work.append(Item(0, kind, kernel, args, kwargs, priority, study, part, cost))

    chunks = max(8, round(_SHARE["simulation"] * budget / costs.chunk))
    for chunk in range(chunks):
        options = {"paths": CHUNK, "seed": _SEED, "chunk": chunk, "level": LEVEL, "tail": 0.03}
        add(
            "simulation",
            "risk.monte_carlo",
            (core.panel.returns, core.amounts),
            options,
            "high",
            "core",
            chunk,
            costs.chunk,
        )

    questions = max(20, round(_QUESTIONS * seconds))
    days = len(core.panel.returns) - WINDOW
    hedged_days = len(hedged.panel.returns) - WINDOW
    hedged_refit = max(1, math.ceil(hedged_days * costs.fit_hedged / max(_SHARE["hedged"] * budget, 1e-9)))
    left = (1 - sum(_SHARE.values())) * budget - days * costs.day - questions * costs.what_if
    refit = max(1, math.ceil(days * costs.fit / max(left, 1e-9)))
    refit = min(refit, 250)
    for book, every, cost in ((core, refit, costs.fit), (hedged, hedged_refit, costs.fit_hedged)):
        for begin, end in _pieces(len(book.panel.returns) - WINDOW, every, _LONGEST / (cost + every * costs.day)):
            rows = book.panel.returns[begin : end + WINDOW]
            options = {"window": WINDOW, "refit": every, "level": LEVEL}
            expected = math.ceil((end - begin) / every) * cost + (end - begin) * costs.day
            add("backtest", "risk.backtest_window", (rows, book.amounts), options, "normal", book.name, begin, expected)

    spent = sum(item.cost for item in work) + questions * costs.what_if
    resamples = max(20, round(_LONGEST / 3 / costs.resample))
    for chunk in range(max(8, round((budget - spent) / (resamples * costs.resample)))):
        options = {"resamples": resamples, "seed": _SEED, "chunk": chunk, "level": LEVEL}
        add("resample", "risk.bootstrap", (profits,), options, "bulk", "core", chunk, resamples * costs.resample)

    # All kinds are in flight at any time, so that priorities matter; a fixed shuffle, since a plan has no randomness.
    order = np.random.default_rng(_SEED).permutation(len(work))
    work = [work[i] for i in order]
    asked: list[Item] = []
    for question in range(questions):
        args = (moves, _traded(core.amounts, question))
        options = {"level": LEVEL}
        asked.append(Item(0, "what-if", "risk.what_if", args, options, "critical", "core", question, costs.what_if))
    numbers = iter(range(len(work) + len(asked)))
    work = [_numbered(item, next(numbers)) for item in work]
    asked = [_numbered(item, next(numbers)) for item in asked]
    return Job(tuple(work), tuple(asked), refit, resamples, sum(item.cost for item in (*work, *asked)))


def _pieces(days: int, refit: int, most: float) -> Iterator[tuple[int, int]]:
    """Spans of days of different length, each 1 to `most` times `refit`: so a model is fitted on the same days however
    the backtest is cut."""
    longest = max(1, round(most))
    begin, length = 0, 1
    while begin < days:
        end = min(begin + refit * length, days)
        yield begin, end
        begin, length = end, length % longest + 1


def _traded(amounts: NDArray[np.float64], question: int) -> NDArray[np.float64]:
    """The holdings after a trade: one position up or down by 1 to 20 %."""
    changed = amounts.copy()
    percent = 1 + question // (2 * len(amounts)) % 20
    changed[question % len(amounts)] *= 1 + (percent if question // len(amounts) % 2 else -percent) / 100
    return changed


def _numbered(item: Item, number: int) -> Item:
    return Item(number, item.kind, item.kernel, item.args, item.kwargs, item.priority, item.study, item.part, item.cost)
