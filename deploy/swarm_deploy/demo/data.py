"""Daily closes as their sources give them, made into returns that a risk model can take.

Real series have holes: holidays that differ between markets, full stops for missing values, a price of -37.63 (WTI on
2020-04-20), a slipped decimal point. Each rule below drops what it can't use and says so in a `Defect`; nothing is
invented, neither interpolated nor carried forward, because a made-up price gives a return of 0 that was never there.

Returns are logarithmic, since they add up over days; a day's profit follows from them exactly, by exp(r) − 1. A return
is used only if it spans at most `MAX_GAP` calendar days: after a longer closure it is no return of one day.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_GAP", "Defect", "Panel", "Series", "align", "clean", "panel", "read_closes", "simple_returns"]

Dates = NDArray[np.datetime64]
Floats = NDArray[np.float64]

#: Calendar days between two closes that still count as one day's return: long weekends do, and September 2001 (7).
MAX_GAP = 8
#: A value that differs from both its neighbours by more than this (log), while they agree, is a slip of the pen.
_SPIKE, _AGREE = 0.6, 0.1


@dataclass(frozen=True)
class Defect:
    """Something in a series that was not used, and why."""

    series: str
    date: str
    value: str
    reason: str


@dataclass(frozen=True)
class Series:
    """Closes of one series: dates ascending and unique, values positive and finite."""

    name: str
    dates: Dates
    closes: Floats


@dataclass(frozen=True)
class Panel:
    """Several series on the days that all of them have.

    `dates` [days] are those on which the returns end, `returns` [days, series] are logarithmic.
    """

    names: tuple[str, ...]
    dates: Dates
    closes: Floats
    returns: Floats
    defects: tuple[Defect, ...] = ()


def read_closes(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The raw (date, value) pairs of each column of a CSV file (gzipped or not) whose first column is `date`.

    Raises:
        ValueError: the first column is another one.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    rows = csv.reader(io.StringIO(raw.decode("utf-8-sig")))
    header = next(rows, [])
    if not header or header[0].strip().lower() != "date":
        raise ValueError(f"{path}: the first column must be called date, it is {header[:1]}")
    columns: dict[str, list[tuple[str, str]]] = {name: [] for name in header[1:]}
    for row in rows:
        for name, value in zip(header[1:], row[1:], strict=False):
            columns[name].append((row[0], value))
    return columns


def clean(name: str, raw: Iterable[tuple[str, str]]) -> tuple[Series, list[Defect]]:
    """Drops what is missing, unreadable, not positive, repeated or a slip; sorts by date.

    Empty cells are not counted as defects: the file is an outer join.
    """
    defects: list[Defect] = []
    values: dict[np.datetime64, float] = {}

    def drop(date: str, value: str, reason: str) -> None:
        defects.append(Defect(name, date, value, reason))

    for date, text in raw:
        if not text.strip():
            continue
        try:
            day = np.datetime64(date, "D")
        except ValueError:
            drop(date, text, "the date can't be read")
            continue
        try:
            value = float(text)
        except ValueError:
            drop(date, text, "missing" if text.strip() in (".", "-", "NA", "N/A", "null") else "not a number")
            continue
        if not np.isfinite(value):
            drop(date, text, "not finite")
        elif value <= 0:
            drop(date, text, "not positive: it has no logarithm")
        elif day in values and values[day] != value:
            drop(date, text, f"a second value for the day; the first, {values[day]}, is kept")
        else:
            values[day] = value
    dates = np.array(sorted(values), "datetime64[D]")
    closes = np.array([values[day] for day in dates])
    keep = np.ones(len(dates), bool)
    steps = np.diff(np.log(closes))
    for i in range(1, len(closes) - 1):
        there, back = steps[i - 1], steps[i]
        if abs(there) > _SPIKE and abs(back) > _SPIKE and abs(there + back) < _AGREE:
            keep[i] = False
            drop(str(dates[i]), repr(float(closes[i])), "a spike that is gone the next day: taken for a slip")
    return Series(name, dates[keep], closes[keep]), defects


def align(series: Sequence[Series], defects: Iterable[Defect] = ()) -> Panel:
    """The series on the days that all have, and their log returns between these days.

    Raises:
        ValueError: fewer than two common days.
    """
    common = series[0].dates
    for s in series[1:]:
        common = np.intersect1d(common, s.dates, assume_unique=True)
    if len(common) < 2:
        raise ValueError(f"{', '.join(s.name for s in series)} have {len(common)} days in common: two are needed")
    closes = np.column_stack([s.closes[np.searchsorted(s.dates, common)] for s in series])
    returns = np.diff(np.log(closes), axis=0)
    near = np.diff(common) <= np.timedelta64(MAX_GAP, "D")
    far = [Defect("all", str(day), "", f"no close for more than {MAX_GAP} days") for day in common[1:][~near]]
    return Panel(
        tuple(s.name for s in series),
        common[1:][near],
        closes[1:][near],
        np.ascontiguousarray(returns[near]),
        (*defects, *far),
    )


def panel(raw: Mapping[str, Iterable[tuple[str, str]]], names: Sequence[str]) -> Panel:
    """Cleans and aligns the named columns.

    Raises:
        ValueError: a name is not there, or too few days are common.
    """
    missing = [n for n in names if n not in raw]
    if missing:
        raise ValueError(f"no column is called {', '.join(missing)}; there are {', '.join(raw)}")
    cleaned = [clean(name, raw[name]) for name in names]
    return align([s for s, _ in cleaned], [d for _, defects in cleaned for d in defects])


def simple_returns(log_returns: Any) -> Any:
    """Of log returns r: exp(r) − 1, what a holding of 1 has earned."""
    return np.expm1(log_returns)
