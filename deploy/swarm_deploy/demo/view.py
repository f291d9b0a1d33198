"""What the demo shows while it runs: a live view in a terminal, plain lines elsewhere.

Both are fed the same `Status`; the plain one prints a line a second, so that a log of a machine reads well.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from swarm_deploy.demo.figures import percentiles
from swarm_deploy.demo.runner import Record, Runner
from swarm_deploy.demo.watch import Sample

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Live", "Plain", "Status", "View", "duration", "make_view", "sparkline"]

_RECENT = 2.0


def duration(seconds: float) -> str:
    """A span for people: `840 µs`, `3.1 ms`, `2.4 s`."""
    if math.isnan(seconds):
        return "–"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1.0:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.1f} s"


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as bars of text."""
    tail = list(values)[-width:]
    top = max(tail, default=0.0) or 1.0
    return "".join(" ▁▂▃▄▅▆▇█"[round(8 * max(v, 0.0) / top)] for v in tail)


@dataclass
class Status:
    """All that is shown, kept up to date by `update`."""

    runner: Runner
    cores: int
    sample: Sample | None = None
    #: Answers a second, a value each quarter of a second.
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=400))
    _recent: deque[Record] = field(default_factory=deque)
    _counted: int = 0
    _slot: float = 0.0

    def update(self, new: Sequence[Record], sample: Sample | None, now: float) -> None:
        """Takes in what has happened."""
        self._recent.extend(new)
        while self._recent and self._recent[0].done < now - _RECENT:
            self._recent.popleft()
        if sample is not None:
            self.sample = sample
        if self._slot == 0.0:
            self._slot = now
        if now - self._slot >= 0.25:
            done = len(self.runner.records)
            self.rates.append((done - self._counted) / (now - self._slot))
            self._counted, self._slot = done, now

    @property
    def rate(self) -> float:
        """Answers a second, over the last two."""
        recent = list(self.rates)[-8:]
        return sum(recent) / len(recent) if recent else 0.0

    @property
    def retried(self) -> int:
        """Tasks that were begun again because their agent died."""
        return sum(r.attempts > 1 for r in self.runner.records)

    def latency(self, kind: str) -> tuple[float, float, float]:
        """p50, p95 and p99 of the last two seconds."""
        return percentiles([r.latency for r in self._recent if r.item.kind == kind])

    @property
    def waiting(self) -> int:
        """Tasks that no agent has begun: on the boards and not yet submitted."""
        on_boards = sum(self.sample.ready.values()) if self.sample else 0
        return on_boards + self.runner.backlog


class View:
    """What both views can do."""

    def say(self, text: str) -> None:
        """An event, kept on the screen."""
        raise NotImplementedError

    def step(self, text: str) -> None:
        """What is being done now, soon to be replaced."""
        raise NotImplementedError

    def show(self, status: Status) -> None:
        """The job's progress."""
        raise NotImplementedError

    def rest(self) -> None:
        """The job is over: no live picture from now on."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


class Plain(View):
    """Lines of text."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stdout
        self._begun = time.monotonic()
        self._next = 0.0

    def _line(self, text: str) -> None:
        print(f"{time.monotonic() - self._begun:6.1f} s  {text}", file=self._out, flush=True)

    def say(self, text: str) -> None:
        self._line(text)

    def step(self, text: str) -> None:
        self._line(text)

    def show(self, status: Status) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1.0
        p50, p95, p99 = (duration(v) for v in status.latency("what-if"))
        agents = len(status.sample.computing) if status.sample else 0
        self._line(
            f"{status.runner.progress:4.0%}  {len(status.runner.records):>5} done  {status.rate:5.0f} tasks/s  "
            f"{status.waiting:>5} waiting  {agents} agents  what-if p50 {p50} p95 {p95} p99 {p99}"
        )


class Live(View):
    """A picture that is redrawn eight times a second, with the events above it."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live as RichLive

        self._console = console
        self._begun = time.monotonic()
        self._text = ""
        self._status: Status | None = None
        self._live = RichLive(get_renderable=self._render, console=console, refresh_per_second=8, transient=True)
        self._live.start()

    def say(self, text: str) -> None:
        from rich.text import Text

        moment = (f"{time.monotonic() - self._begun:6.1f} s", "dim")
        self._console.print(Text.assemble(moment, f"  {text}"))

    def step(self, text: str) -> None:
        self._text = text

    def show(self, status: Status) -> None:
        self._status = status

    def rest(self) -> None:
        self._status = None

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.spinner import Spinner

        if self._status is None:
            return Spinner("dots", self._text)
        return Group(*_picture(self._status, self._console.width))


def _picture(status: Status, width: int) -> list[Any]:
    from rich.columns import Columns
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    runner, sample = status.runner, status.sample
    head = Table.grid(padding=(0, 1), expand=True)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(no_wrap=True)
    head.add_row(
        f"[bold]{runner.progress:4.0%}[/bold]",
        ProgressBar(100, runner.progress * 100, complete_style="cyan", finished_style="green"),
        f"{len(runner.records)} of {runner.total} tasks, {time.monotonic() - runner.began:.0f} s",
    )

    agents = Table(box=None, padding=(0, 1), header_style="dim")
    for name, justify in (
        ("agent", "left"),
        ("node", "left"),
        ("core", "right"),
        ("in hand", "right"),
        ("done", "right"),
    ):
        agents.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for seat in sorted(sample.seats if sample else (), key=lambda s: (s.node, s.member.role, s.member.name)):
        m = seat.member
        if m.role == "client":
            continue
        style = "" if m.alive else "red"
        busy = f"{'█' * round(5 * min(m.cpu, 1.0)):<5} {m.cpu:4.0%}" if m.alive else f"{m.state}"
        agents.add_row(m.name, seat.node, busy, str(m.running or ""), str(m.done), style=style)

    numbers = Table(box=None, padding=(0, 1), show_header=False)
    numbers.add_column(style="dim", no_wrap=True)
    numbers.add_column(no_wrap=True)
    numbers.add_row("tasks/s", f"[bold]{status.rate:5.0f}[/bold]  [cyan]{sparkline(status.rates, 28)}[/cyan]")
    numbers.add_row("cores", f"{sample.busy_cores if sample else 0.0:.1f} busy of {status.cores}")
    lanes = "  ".join(f"{lane} {count}" for lane, count in (sample.ready if sample else {}).items() if count)
    numbers.add_row("waiting", f"{status.waiting}" + (f"  [dim]{lanes}[/dim]" if lanes else ""))
    numbers.add_row("latency", "[dim]p50       p95       p99[/dim]")
    for kind in ("what-if", "simulation", "backtest"):
        numbers.add_row(f"  {kind}", "".join(f"{duration(v):<10}" for v in status.latency(kind)))
    numbers.add_row("failovers", f"{sample.failovers if sample else 0}, {status.retried} tasks begun again")
    panels = [Panel(agents, title="agents", border_style="dim"), Panel(numbers, title="swarm", border_style="dim")]
    return [head, Columns(panels, expand=width >= 140)]


def make_view(console: Console | None = None) -> View:
    """The live view in a terminal, plain lines elsewhere."""
    from rich.console import Console as RichConsole

    console = console or RichConsole()
    return Live(console) if console.is_terminal and not console.is_dumb_terminal else Plain()
