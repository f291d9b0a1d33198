"""The report: one HTML file with everything in it, readable in light and dark, in any browser, without network.

What it says comes from `Outcome` alone, so that a test can make one without a cluster.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from swarm_deploy.demo.chaos import Failover
from swarm_deploy.demo.checks import Check
from swarm_deploy.demo.figures import Figures, percentiles, services
from swarm_deploy.demo.job import LEVEL, WINDOW, Book
from swarm_deploy.demo.plots import Bar, Mark, Plot, ticks
from swarm_deploy.demo.runner import Record
from swarm_deploy.demo.view import duration
from swarm_deploy.demo.watch import Audit

__all__ = ["Outcome", "money", "render"]

#: Seconds around the kill that the timeline shows.
_BEFORE, _AFTER = 0.35, 1.15


@dataclass(frozen=True)
class Outcome:
    """Everything that the demo has found out. Times are monotonic seconds."""

    books: Mapping[str, Book]
    figures: Figures
    records: Sequence[Record]
    began: float
    ended: float
    audit: Audit
    failover: Failover | None
    checks: Sequence[Check]
    #: Lines of facts about the run: machine, versions, agents.
    facts: Mapping[str, str]

    @property
    def held(self) -> bool:
        """Whether every check did."""
        return all(check.held for check in self.checks)

    @property
    def rate(self) -> float:
        """Tasks a second over the whole job."""
        return len(self.records) / max(self.ended - self.began, 1e-9)


def money(amount: float) -> str:
    """Dollars: `$ 123,456`."""
    return f"$ {amount:,.0f}" if amount >= 0 else f"−$ {-amount:,.0f}"


def render(outcome: Outcome) -> str:
    """The report as HTML."""
    parts = {
        "verdict": _verdict(outcome),
        "tiles": _tiles(outcome),
        "figures": _figures_table(outcome),
        "histogram": _histogram(outcome),
        "backtest": _backtest(outcome),
        "backtest_table": _backtest_table(outcome),
        "uncertainty": _uncertainty(outcome),
        "throughput": _throughput(outcome),
        "latency": _latency(outcome),
        "services": _services_table(outcome),
        "failover": _failover(outcome),
        "checks": _checks_table(outcome),
        "data": _data(outcome),
        "facts": _table(("", ""), [(k, v) for k, v in outcome.facts.items()]),
    }
    page = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    for name, part in parts.items():
        page = page.replace(f"<!--{name}-->", part)
    return page


# -- words and tables


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int] = ()) -> str:
    def cells(row: Sequence[Any], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in numbers else ''}>{v if isinstance(v, _Raw) else html.escape(str(v))}</{tag}>"
            for i, v in enumerate(row)
        )

    head = f"<thead><tr>{cells(header, 'th')}</tr></thead>" if any(header) else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<div class=scroll><table>{head}<tbody>{body}</tbody></table></div>"


class _Raw(str):
    """HTML already."""


def _verdict(o: Outcome) -> str:
    failed = [c for c in o.checks if not c.held]
    if failed:
        return (
            f'<p class="verdict bad">✗ {len(failed)} of {len(o.checks)} checks did not hold: '
            + html.escape(", ".join(c.name for c in failed))
            + "</p>"
        )
    return f'<p class="verdict good">✓ All {len(o.checks)} checks held.</p>'


def _tiles(o: Outcome) -> str:
    head = o.figures.headlines["core/garch"]
    asked = percentiles([r.latency for r in o.records if r.item.kind == "what-if"])
    tiles = [
        (money(head["var"]), f"{LEVEL:.0%} one-day Value at Risk", f"of {money(o.books['core'].value)} held"),
        (money(head["es"]), "Expected Shortfall", "mean loss beyond it"),
        (f"{o.rate:,.0f} /s", "tasks", f"{len(o.records):,} in {o.ended - o.began:.1f} s"),
        (duration(asked[0]), "a trader's question, median", f"p99 {duration(asked[2])}, under full load"),
    ]
    if o.failover is not None:
        resumed = o.failover.resumed
        tiles.append(
            (
                duration(resumed) if resumed is not None else "–",
                "from SIGKILL until its task ran elsewhere",
                f"{o.audit.lost} lost, {o.audit.twice} committed twice",
            )
        )
    return "".join(
        f"<div class=tile><b>{html.escape(big)}</b><span>{html.escape(label)}</span>"
        f"<small>{html.escape(small)}</small></div>"
        for big, label, small in tiles
    )


def _figures_table(o: Outcome) -> str:
    rows = []
    for study, value in o.figures.headlines.items():
        name, model = study.split("/")
        book = o.books[name]
        method = f"filtered historical, {'GARCH(1,1)' if model == 'garch' else 'EWMA 0.94'}"
        rows.append((name, method, f"{len(value['profits']):,} scenarios", *_amounts(value, book.value)))
    simulated = o.figures.simulation
    rows.append(
        ("core", "Monte Carlo, Student t", f"{simulated['paths']:,} paths", *_amounts(simulated, o.books["core"].value))
    )
    return _table(("book", "method", "from", f"VaR {LEVEL:.0%}", "ES", "VaR of value"), rows, (2, 3, 4, 5))


def _amounts(value: Mapping[str, Any], held: float) -> tuple[str, str, str]:
    return money(value["var"]), money(value["es"]), f"{value['var'] / held:.2%}"


# -- risk plots


def _thousands(x: float) -> str:
    return "0" if abs(x) < 0.5 else f"{x / 1000:,.0f}k"


def _histogram(o: Outcome) -> str:
    head, simulated = o.figures.headlines["core/garch"], o.figures.simulation
    width = float(np.quantile(np.abs(head["profits"]), 0.998)) * 1.05
    edges = np.linspace(-width, width, 81)
    counts, _ = np.histogram(head["profits"], edges)
    share = counts / len(head["profits"])
    # The simulation's own bins, as a density in units of the bars above.
    middles = (simulated["edges"][1:] + simulated["edges"][:-1]) / 2
    bar, bin_width = edges[1] - edges[0], simulated["edges"][1] - simulated["edges"][0]
    curve = simulated["counts"] / simulated["paths"] * bar / bin_width
    inside = np.abs(middles) < width
    top = float(max(share.max(), curve[inside].max())) * 1.12
    plot = Plot((-width, width), (0, top), "one-day profit or loss, US dollars", "share of scenarios",
                _thousands, lambda v: f"{v:.0%}")  # fmt: skip
    plot.bars(edges, share.tolist(), "c1", money)
    plot.line(middles[inside].tolist(), curve[inside].tolist(), "c2")
    plot.mark(Mark(-head["es"], f"ES {money(head['es'])}", "mark dim"), before=True)
    plot.mark(Mark(-head["var"], f"VaR {money(head['var'])}"))
    legend = _legend(
        ("c1", "filtered historical simulation"), ("c2", f"Monte Carlo, {simulated['paths'] / 1e6:.1f} M paths")
    )
    return legend + plot.svg("Histogram of the core book's one-day profit and loss with VaR and ES")


def _legend(*entries: tuple[str, str]) -> str:
    return (
        "<p class=legend>" + "".join(f'<span class="key {css}"></span>{html.escape(t)}' for css, t in entries) + "</p>"
    )


def _backtest(o: Outcome) -> str:
    b = o.figures.backtests["core"]
    days = b.dates.astype("datetime64[D]").astype(float)
    years = np.arange(int(str(b.dates[0])[:4]) + 1, int(str(b.dates[-1])[:4]) + 1, 2)
    at = [float(np.datetime64(f"{y}-01-01").astype("datetime64[D]").astype(float)) for y in years]
    names = {position: str(year) for position, year in zip(at, years, strict=True)}
    low, high = float(min(b.profits.min(), -b.var.max())) * 1.05, float(b.profits.max()) * 1.05
    plot = Plot((float(days[0]), float(days[-1])), (low, high), "", "US dollars a day",
                lambda v: names.get(v, ""), _thousands, at, height=340)  # fmt: skip
    plot.sticks(days.tolist(), b.profits.tolist(), "c0")
    plot.line(days.tolist(), (-b.var).tolist(), "c1")
    hit = -b.profits > b.var
    titles = [
        f"{d}: {money(p)}, VaR was {money(v)}" for d, p, v in zip(b.dates[hit], b.profits[hit], b.var[hit], strict=True)
    ]
    plot.points(days[hit].tolist(), b.profits[hit].tolist(), titles, "c3")
    legend = _legend(
        ("c0", "profit or loss"), ("c1", "VaR forecast the day before"), ("c3", f"{int(hit.sum())} breaches")
    )
    return legend + plot.svg("Daily profit and loss against the VaR forecast of the day before, with breaches marked")


def _backtest_table(o: Outcome) -> str:
    rows = []
    for name, b in o.figures.backtests.items():
        t = b.tests
        rows.append(
            (
                name,
                f"{t['days']:,}",
                t["breaches"],
                f"{t['expected']:.1f}",
                f"{t['kupiec_p']:.3f}",
                f"{t['independence_p']:.3f}",
                f"{t['conditional_p']:.3f}",
                f"{t['z2']:+.2f}",
            )
        )
    header = ("book", "days", "breaches", "expected", "Kupiec p", "independence p", "both p", "ES: Z₂")
    return _table(header, rows, range(1, 8))


def _uncertainty(o: Outcome) -> str:
    var, es, head = o.figures.resampled_var, o.figures.resampled_es, o.figures.headlines["core/garch"]
    # VaR is one of the scenarios' losses, so it takes few values near each other: bins wide enough to hold some.
    edges = np.linspace(float(np.quantile(var, 0.001)), float(np.quantile(es, 0.999)), 49)
    shares = [np.histogram(values, edges)[0] / len(values) for values in (var, es)]
    span, top = (float(edges[0]), float(edges[-1])), float(max(s.max() for s in shares)) * 1.3
    plot = Plot(span, (0, top), "US dollars", f"share of {len(var):,} resamples",
                _thousands, lambda v: f"{v:.0%}", height=230)  # fmt: skip
    legend = []
    for name, css, values, share in (("VaR", "c1", var, shares[0]), ("ES", "c2", es, shares[1])):
        plot.bars(edges, share.tolist(), css, money)
        low, high = np.quantile(values, (0.05, 0.95))
        legend.append((css, f"{name}: 90 % of resamples between {money(low)} and {money(high)}"))
    plot.mark(Mark(head["var"], "VaR"), before=True)
    plot.mark(Mark(head["es"], "ES"))
    return _legend(*legend) + plot.svg("Histograms of VaR and ES over bootstrap resamples")


# -- plots of the swarm


def _throughput(o: Outcome) -> str:
    step = 0.25
    end = max(o.ended - o.began, step)
    edges = np.arange(0, end + step, step)
    done = np.array([r.done - o.began for r in o.records])
    counts, _ = np.histogram(done, edges)
    rates = counts / step
    plot = Plot((0, end), (0, float(rates.max()) * 1.15 or 1), "seconds since the job began", "tasks a second")
    plot.area((edges[:-1] + step / 2).tolist(), rates.tolist(), "c1")
    _mark_kill(plot, o)
    return plot.svg("Tasks answered a second over the job")


def _latency(o: Outcome) -> str:
    end = max(o.ended - o.began, 0.5)
    edges = np.arange(0, end + 0.5, 0.5)
    asked = [r for r in o.records if r.item.kind == "what-if"]
    slot = np.searchsorted(edges, [r.done - o.began for r in asked], side="right") - 1
    latency = np.array([r.latency * 1e3 for r in asked])
    curves = np.full((3, len(edges)), np.nan)
    for i in range(len(edges)):
        curves[:, i] = percentiles(latency[slot == i].tolist())
    seen = curves[np.isfinite(curves)]
    if not seen.size:
        return ""
    low, high = 10 ** math.floor(math.log10(seen.min())), 10 ** math.ceil(math.log10(seen.max() * 1.01))
    plot = Plot((0, end), (low, high), "seconds since the job began", "milliseconds", log_y=True)
    for curve, css in zip(curves, ("c1", "c2", "c3"), strict=True):
        plot.line((edges + 0.25).tolist(), curve.tolist(), css)
    _mark_kill(plot, o)
    legend = _legend(("c1", "p50"), ("c2", "p95"), ("c3", "p99"))
    return legend + plot.svg("Latency percentiles of what-if questions over the job")


def _mark_kill(plot: Plot, o: Outcome) -> None:
    if o.failover is not None:
        plot.mark(Mark(o.failover.victim.killed - o.began, "SIGKILL", "mark kill"))


def _services_table(o: Outcome) -> str:
    rows = []
    for s in services(o.records):
        rows.append((s.kind, s.priority, f"{s.tasks:,}", *(duration(v) for v in (*s.run, *s.latency))))
    header = ("kind", "priority", "tasks", "run p50", "p95", "p99", "answer p50", "p95", "p99")
    return _table(header, rows, range(2, 9))


def _failover(o: Outcome) -> str:
    f = o.failover
    if f is None:
        return "<p>No agent was killed.</p>"
    killed = f.victim.killed
    lanes: list[str] = [f.victim.agent]
    lanes += sorted({r.agent for r in o.records if r.agent and not r.hops} - {f.victim.agent})
    bars, free = [], [-math.inf]  # when each of the other node's lanes is free again
    for r in sorted(o.records, key=lambda r: r.done - r.run):
        begin, end = r.done - r.run - killed, r.done - killed
        if not r.agent or r.run <= 0 or end < -_BEFORE or begin > _AFTER:
            continue
        lane = lanes.index(r.agent) if not r.hops else len(lanes) + _first_free(free, begin, end)
        css = "again" if r.attempts > 1 else f"k-{r.item.kind}"
        title = f"task {r.item.number}, {r.item.kind}: {duration(r.run)}" + (", begun again" if r.attempts > 1 else "")
        bars.append(Bar(lane, begin, end, css, title))
    if any(bar.lane >= len(lanes) for bar in bars):
        lanes += [f"another node ({i + 1})" for i in range(len(free))]
    plot = Plot((-_BEFORE, _AFTER), (0, 1), "seconds since the kill", "", x_ticks=ticks(-0.2, 1.0, 6), lanes=lanes,
                height=82 + 28 * len(lanes), left=150)  # fmt: skip
    plot.spans(sorted(bars, key=lambda b: b.css == "again"))
    plot.mark(Mark(0.0, "SIGKILL", "mark kill"))
    rows = [("killed", f"{f.victim.agent} on {f.victim.node}, process {f.victim.pid}, {f.tasks} task in hand")]
    rows.append(("noticed", f"after {duration(f.detected)}"))
    rows.append(("its tasks free again", f"after {duration(f.requeued)}"))
    rows.append(
        ("running elsewhere", f"after {duration(f.resumed)}" if f.resumed is not None else "nothing was in hand")
    )
    rows.append(("answered in the end", f"{f.finished}, by {', '.join(f.finished_by) or 'nobody'}"))
    rows.append(("lost", str(o.audit.lost)))
    rows.append(
        ("committed twice", f"{o.audit.twice} ({o.audit.submitted:,} submitted, {o.audit.committed:,} committed)")
    )
    legend = _legend(("k-backtest", "backtest"), ("k-simulation", "simulation"), ("k-resample", "resample"),
                     ("k-what-if", "what-if"), ("again", "begun again after the kill"))  # fmt: skip
    return legend + plot.svg("What each agent ran around the moment of the kill") + _table(("", ""), rows)


def _first_free(free: list[float], begin: float, end: float) -> int:
    """The first lane in which nothing runs at `begin`, a new one if need be; it is taken until `end`."""
    lane = next((i for i, until in enumerate(free) if until <= begin), len(free))
    free[lane : lane + 1] = [end]
    return lane


def _checks_table(o: Outcome) -> str:
    return _table(
        ("", "check", "result"),
        [
            (_Raw(f"<i class={'good' if c.held else 'bad'}>{'✓' if c.held else '✗'}</i>"), c.name, c.detail)
            for c in o.checks
        ],
    )


def _data(o: Outcome) -> str:
    rows = []
    for name, book in o.books.items():
        p = book.panel
        dropped = Counter((d.series, d.reason) for d in p.defects)
        words = (
            "; ".join(f"{series}: {count} × {reason}" for (series, reason), count in sorted(dropped.items())) or "none"
        )
        holdings = ", ".join(f"{n} {money(a)}" for n, a in zip(p.names, book.amounts, strict=True))
        rows.append((name, holdings, f"{len(p.returns):,} days, {p.dates[0]} to {p.dates[-1]}", words))
    note = f"<p class=note>Forecasts in the backtest know the {WINDOW:,} days before.</p>"
    return _table(("book", "holdings", "returns", "values not used"), rows) + note
