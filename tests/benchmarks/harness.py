"""Side by side: rows of ours and a peer's figure, measured in one run, alternating, each in a process of its own.

A `Row` names two `Measure`s (or one, or one and a fixed bound) and a goal for their ratio. `run` goes over all rows
once a round, ours first in even rounds and the peer first in odd ones, so that a machine that warms up or slows down
does both sides the same; a measurement that serves several rows is taken once a round. What counts is the median of the
rounds; the spread is their least and greatest, which hides no outlier.

Ratios
- `LESS`: what is measured is better when less (seconds): peer/ours, how many times better ours is.
- `MORE`: what is measured is better when more (a rate): ours/peer.
- `SHARE`: ours as a share of the other figure, or ours itself where there is none: the goal is an upper bound.

Invariants: a measurement that fails takes no other with it; a peer that is not there is said, not counted as a failure;
a ratio is made from medians of rounds in which its two sides were both measured. Rejected: means (one interruption of
200 ms would decide a row), and one process for all (libraries of one peer in another's address space).
"""

from __future__ import annotations

import json
import math
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

__all__ = ["Better", "Measure", "Outcome", "Result", "Row", "choose", "launch", "run", "write_json"]

_MEASURE = Path(__file__).with_name("measure.py")
#: Beyond its limit a measurement may take this long to be cleared away (seconds).
_CLEARING = 30.0


class Better(Enum):
    """How a ratio is made; see the module's text."""

    LESS = "less"
    MORE = "more"
    SHARE = "share"

    def ratio(self, ours: float, peer: float | None) -> float:
        if peer is None:
            return ours
        above, below = (peer, ours) if self is Better.LESS else (ours, peer)
        return above / below if below else float("inf") if above else float("nan")

    def met(self, ratio: float, goal: float) -> bool:
        return ratio <= goal if self is Better.SHARE else ratio >= goal


@dataclass(frozen=True)
class Measure:
    """A function in a file that measures once and returns a figure, or a map of them from which `key` takes one."""

    file: Path
    function: str
    key: str = ""
    #: keyword arguments, as JSON
    arguments: str = "{}"
    #: seconds until it is given up
    limit: float = 60.0
    #: it is taken in so many rounds at most (0: in all)
    rounds: int = 0

    @property
    def taking(self) -> tuple[Path, str, str]:
        """What is run: the same for all rows that take a figure from it."""
        return self.file, self.function, self.arguments


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    what: str
    unit: str
    better: Better
    ours: Measure
    #: the other figure, None: there is none
    peer: Measure | None = None
    #: for the ratio; None: only reported
    goal: float | None = None
    #: factor from what is measured to `unit`
    scale: float = 1.0
    #: Further figures of our side's measurement, which are shown beside the row and decide nothing.
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of one measurement: a value, or why there is none."""

    value: Any = None
    error: str = ""
    #: a peer that is not installed here
    missing: str = ""

    @property
    def ok(self) -> bool:
        return not (self.error or self.missing)

    def figure(self, key: str) -> Outcome:
        """The figure of this name out of a map of them."""
        if not self.ok or not key:
            return self
        try:
            return Outcome(float(self.value[key]))
        except (KeyError, TypeError, ValueError):
            return Outcome(error=f"what was measured has no figure {key!r}: {self.value!r}")


@dataclass
class Result:
    """A row and what its sides came to, a pair a round."""

    row: Row
    pairs: list[tuple[Outcome, Outcome | None]] = field(default_factory=list)
    #: All that our side has measured, round by round, where that is a map.
    figures: list[dict[str, float]] = field(default_factory=list)

    @property
    def whole(self) -> list[tuple[float, float | None]]:
        """The rounds in which all sides were measured."""
        return [
            (ours.value * self.row.scale, peer.value * self.row.scale if peer else None)
            for ours, peer in self.pairs
            if ours.ok and (peer is None or peer.ok)
        ]

    def side(self, which: int) -> list[float]:
        """All figures of ours (0) or of the peer (1)."""
        return [pair[which].value * self.row.scale for pair in self.pairs if pair[which] and pair[which].ok]

    @property
    def ours(self) -> float | None:
        return _median(ours for ours, _ in self.whole) if self.whole else _median(self.side(0))

    @property
    def peer(self) -> float | None:
        return _median(peer for _, peer in self.whole if peer is not None) if self.whole else _median(self.side(1))

    @property
    def ratio(self) -> float | None:
        """Of the medians of whole rounds; None when there is no such round."""
        if not self.whole:
            return None
        assert self.ours is not None
        return self.row.better.ratio(self.ours, self.peer)

    @property
    def ratios(self) -> list[float]:
        """By round."""
        return [self.row.better.ratio(*pair) for pair in self.whole]

    @property
    def met(self) -> bool | None:
        """None when there is no goal, or nothing to hold against it."""
        if self.row.goal is None or self.ratio is None:
            return None
        return self.row.better.met(self.ratio, self.row.goal)

    @property
    def also(self) -> dict[str, float]:
        """The medians of the row's further figures."""
        known = {name: [round_[name] for round_ in self.figures if name in round_] for name in self.row.also}
        return {name: statistics.median(values) for name, values in known.items() if values}

    @property
    def missing(self) -> str:
        """Why the peer is not available; empty when it is."""
        return next((peer.missing for _, peer in self.pairs if peer and peer.missing), "")

    @property
    def errors(self) -> list[str]:
        """What failed, and the round; a peer that is not there has not failed, our side not being there has."""
        return [
            f"round {number}, {side}: {outcome.error or outcome.missing}"
            for number, (ours, peer) in enumerate(self.pairs, 1)
            for side, outcome in (("ours", ours), ("peer", peer))
            if outcome is not None and (outcome.error or (outcome.missing and side == "ours"))
        ]

    def as_json(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "ours": self.ours,
            "peer": self.peer,
            "ratio": next(iter(_finite([self.ratio])), None),
            "unit": self.row.unit,
            "rounds": len(self.whole),
            "goal": self.row.goal,
            "met": self.met,
            "better": self.row.better.value,
            "spread": {"ours": _span(self.side(0)), "peer": _span(self.side(1)), "ratio": _span(self.ratios)},
        }
        if self.also:
            entry["also"] = self.also
        if self.missing:
            entry["notAvailable"] = self.missing
        if self.errors:
            entry["errors"] = self.errors
        return entry


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None


def _finite(values: Iterable[float | None]) -> list[float]:
    """JSON has no words for the others."""
    return [value for value in values if value is not None and math.isfinite(value)]


def _span(values: Iterable[float]) -> list[float] | None:
    known = _finite(values)
    return [min(known), max(known)] if known else None


def launch(measure: Measure, wrap: str = "") -> Outcome:
    """Takes a measurement in a process of its own, which is started through the command `wrap` if there is one."""
    words = [sys.executable, str(_MEASURE), str(measure.limit), str(measure.file), measure.function, measure.arguments]
    try:
        done = subprocess.run(
            [*shlex.split(wrap), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=None if wrap else measure.limit + _CLEARING,
            check=False,
        )
        result = json.loads(done.stdout.splitlines()[-1])  # what it is started through may have said something, too
    except subprocess.TimeoutExpired:
        return Outcome(error=f"took longer than {measure.limit:g} s, and could not be cleared away")
    except (OSError, ValueError, IndexError) as error:
        return Outcome(error=f"could not be run: {error}")
    return Outcome(**result)


def run(
    rows: Sequence[Row],
    rounds: int,
    take: Callable[[Measure], Outcome] = launch,
    told: Callable[[int, Measure, Outcome], None] = lambda number, measure, outcome: None,
) -> list[Result]:
    """Measures all rows `rounds` times; `told` hears of every measurement as it is taken."""
    results = [Result(row) for row in rows]
    gone: dict[tuple[Path, str, str], Outcome] = {}
    for number in range(1, rounds + 1):
        taken = dict(gone)
        for result in results:
            sides = [side for side in (result.row.ours, result.row.peer) if side is not None]
            if any(0 < side.rounds < number for side in sides):
                continue
            for side in sides if number % 2 else reversed(sides):
                if side.taking not in taken:
                    outcome = taken[side.taking] = take(side)
                    told(number, side, outcome)
                    if outcome.missing:
                        gone[side.taking] = outcome  # asking again would change nothing
            whole = taken[result.row.ours.taking]
            if whole.ok and isinstance(whole.value, dict):
                result.figures.append(whole.value)
            ours, *peer = (taken[side.taking].figure(side.key) for side in sides)
            result.pairs.append((ours, peer[0] if peer else None))
    return results


def choose(rows: Sequence[Row], names: str) -> list[Row]:
    """The rows of these names, separated by commas or blanks; all when there are none.

    Raises:
        ValueError: a name is not a row's.
    """
    wanted = names.replace(",", " ").split()
    known = {row.name: row for row in rows}
    strange = [name for name in wanted if name not in known]
    if strange:
        raise ValueError(f"{', '.join(strange)}: no such row; there are {', '.join(known)}")
    return [known[name] for name in wanted] if wanted else list(rows)


def write_json(path: Path, results: Iterable[Result], extra: Mapping[str, Any] | None = None) -> None:
    """Writes a map of rows by name, each with `extra` in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {result.row.name: result.as_json() | dict(extra or {}) for result in results}
    path.write_text(json.dumps(entries, indent=1, allow_nan=False, default=str) + "\n")
