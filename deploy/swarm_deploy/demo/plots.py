"""Plots as inline SVG: the few that the report needs, without a library and without scripts.

Rejected: matplotlib (50 MB more to install for five plots, and its SVG knows nothing of the page's dark mode). Colours
are classes, which the page defines for light and dark; values on hover are SVG titles. All functions are pure.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bar", "Mark", "Plot", "ticks"]

Format = Callable[[float], str]


@dataclass(frozen=True)
class Mark:
    """A line across the plot at `x`, with a word on it."""

    x: float
    label: str
    css: str = "mark"


@dataclass(frozen=True)
class Bar:
    """A span of a lane in a timeline."""

    lane: int
    begin: float
    end: float
    css: str
    title: str = ""


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers from low to high, about `count` of them."""
    if not math.isfinite(high - low) or high <= low:
        return [low]
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass
class Plot:
    """A plot that is built up: axes first, then what lies in it."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str = ""
    y_label: str = ""
    x_format: Format = "{:g}".format
    y_format: Format = "{:g}".format
    x_ticks: Sequence[float] | None = None
    log_y: bool = False
    lanes: Sequence[str] = ()
    width: int = 880
    height: int = 300
    left: int = 64
    _body: list[str] = field(default_factory=list)

    def _px(self, x: float) -> float:
        low, high = self.x
        return self.left + (min(max(x, low), high) - low) / ((high - low) or 1) * (self.width - self.left - 16)

    def _py(self, y: float) -> float:
        low, high = self.y
        if self.log_y:
            low, high, y = math.log10(low), math.log10(high), math.log10(max(y, 1e-300))
        inside = (min(max(y, low), high) - low) / ((high - low) or 1)
        return self.height - 40 - inside * (self.height - 40 - 22)

    def line(self, xs: Sequence[float], ys: Sequence[float], css: str) -> None:
        """A line; NaN breaks it."""
        path, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if not math.isfinite(y):
                pen = "M"
                continue
            path.append(f"{pen}{self._px(x):.1f} {self._py(y):.1f}")
            pen = "L"
        self._body.append(f'<path class="line {css}" d="{"".join(path)}"/>')

    def area(self, xs: Sequence[float], ys: Sequence[float], css: str) -> None:
        """A line with what is below it filled."""
        if not len(xs):
            return
        top = "".join(f"L{self._px(x):.1f} {self._py(y):.1f}" for x, y in zip(xs, ys, strict=True))
        base = self._py(self.y[0])
        self._body.append(
            f'<path class="area {css}" d="M{self._px(xs[0]):.1f} {base:.1f}{top}L{self._px(xs[-1]):.1f} {base:.1f}Z"/>'
        )
        self.line(xs, ys, css)

    def sticks(self, xs: Sequence[float], ys: Sequence[float], css: str) -> None:
        """A thin bar from 0 to each value, all in one path."""
        zero = self._py(0.0)
        path = "".join(f"M{self._px(x):.1f} {zero:.1f}V{self._py(y):.1f}" for x, y in zip(xs, ys, strict=True))
        self._body.append(f'<path class="stick {css}" d="{path}"/>')

    def bars(self, edges: NDArray[np.float64], heights: Sequence[float], css: str, title: Format | None = None) -> None:
        """A histogram's bars; `title` says what a bar's middle means."""
        base = self._py(self.y[0])
        for i, height in enumerate(heights):
            if height <= self.y[0]:
                continue
            x0, x1, top = self._px(edges[i]), self._px(edges[i + 1]), self._py(height)
            if x1 - x0 < 0.01:
                continue
            gap = min(1.0, (x1 - x0) / 4)
            words = f"{title((edges[i] + edges[i + 1]) / 2)}: {height:,.4g}" if title else f"{height:,.4g}"
            self._body.append(
                f'<rect class="bar {css}" x="{x0 + gap / 2:.1f}" y="{top:.1f}" width="{x1 - x0 - gap:.1f}" '
                f'height="{max(base - top, 0.5):.1f}"><title>{html.escape(words)}</title></rect>'
            )

    def points(self, xs: Sequence[float], ys: Sequence[float], titles: Sequence[str], css: str) -> None:
        """A dot for each, with a title."""
        for x, y, title in zip(xs, ys, titles, strict=True):
            self._body.append(
                f'<circle class="dot {css}" cx="{self._px(x):.1f}" cy="{self._py(y):.1f}" r="3.2">'
                f"<title>{html.escape(title)}</title></circle>"
            )

    def mark(self, mark: Mark, row: int = 0, before: bool = False) -> None:
        """A dashed line with a label at the top, behind the line or before it; rows keep labels apart."""
        x = self._px(mark.x)
        right = x > self.left + (self.width - self.left) * 0.72
        anchor, dx = ("end", -5) if right or before else ("start", 5)
        y = 34 + 15 * row
        self._body.append(
            f'<path class="{mark.css}" d="M{x:.1f} 22V{self.height - 40}"/>'
            f'<text class="note" x="{x + dx:.1f}" y="{y}" text-anchor="{anchor}">{html.escape(mark.label)}</text>'
        )

    def spans(self, bars: Sequence[Bar]) -> None:
        """A timeline's bars, each in its lane (0 at the top)."""
        top, step = self._lanes()
        thick = min(step * 0.66, 20.0)
        for bar in bars:
            if bar.end < self.x[0] or bar.begin > self.x[1]:
                continue
            x0, x1 = self._px(bar.begin), self._px(bar.end)
            y = top + bar.lane * step + (step - thick) / 2
            self._body.append(
                f'<rect class="span {bar.css}" x="{x0:.1f}" y="{y:.1f}" width="{max(x1 - x0, 1.2):.1f}" '
                f'height="{thick:.1f}" rx="2"><title>{html.escape(bar.title)}</title></rect>'
            )

    def _lanes(self) -> tuple[float, float]:
        """Where the first lane begins, below the row of labels, and each lane's height."""
        return 42.0, (self.height - 40 - 42.0) / max(len(self.lanes), 1)

    def _axes(self) -> str:
        bottom, right = self.height - 40, self.width - 16
        out: list[str] = []

        def text(css: str, x: float, y: float, words: str, anchor: str = "start") -> None:
            out.append(
                f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'
            )

        top, step = self._lanes()
        rows = [(top + (i + 0.5) * step, name) for i, name in enumerate(self.lanes)]
        for y, name in rows or [(self._py(value), self.y_format(value)) for value in self._y_ticks()]:
            out.append(f'<path class="grid" d="M{self.left} {y:.1f}H{right}"/>')
            text("tick", self.left - 8, y + 4, name, "end")
        for value in self.x_ticks if self.x_ticks is not None else ticks(*self.x):
            x = self._px(value)
            out.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
            text("tick", x, bottom + 17, self.x_format(value), "middle")
        out.append(f'<path class="axis" d="M{self.left} {bottom}H{right}"/>')
        text("label", (self.left + right) / 2, self.height - 6, self.x_label, "middle")
        text("label", 4, 13, self.y_label)
        return "".join(out)

    def _y_ticks(self) -> list[float]:
        if not self.log_y:
            return ticks(*self.y, 5)
        low, high = (math.log10(v) for v in self.y)
        return [10.0**k for k in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)]

    def svg(self, description: str) -> str:
        """The finished plot; `description` is for those who can't see it."""
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{html.escape(description)}">'
            f"{self._axes()}{''.join(self._body)}</svg>"
        )
