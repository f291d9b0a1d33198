"""Draws the dashboards' panels from the data of a Prometheus: what Grafana would show, without a Grafana.

    python -m swarm_deploy.dashboards.pictures --prometheus http://127.0.0.1:9090 --minutes 60 --out pictures/

`make pictures` runs it over a swarm of its own, for the README. It needs matplotlib, of the extra `dev`. Pictures are
reduced to a palette: a page with six of them loads in a moment.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from swarm_deploy.dashboards.boards import BOARDS
from swarm_deploy.dashboards.model import Board, Panel, filled, legend

__all__ = ["Range", "draw", "fetcher", "main"]

#: Given PromQL, the series of a range of time: labels, and (time, value).
Range = Callable[[str], Sequence[tuple[Mapping[str, str], Sequence[tuple[float, float]]]]]

_COLUMNS: Final = 3
_COLOURS: Final = 48
_GRID, _INK, _FAINT = "#e3e6ea", "#1f2933", "#7b8794"
_LINES: Final = ("#3274d9", "#e0752d", "#4f9d4f", "#b8383d", "#8f5bb5", "#1f9e9e", "#c7a000", "#7b8794")


def fetcher(url: str, begin: float, end: float, points: int = 120) -> Range:
    """Asks a Prometheus at `url` for the time from `begin` to `end` (seconds since the epoch)."""
    step = max((end - begin) / points, 1.0)

    def fetch(expression: str) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        query = {"query": expression, "start": f"{begin}", "end": f"{end}", "step": f"{step}"}
        with urllib.request.urlopen(f"{url}/api/v1/query_range?{urllib.parse.urlencode(query)}", timeout=30) as answer:
            result = json.load(answer)["data"]["result"]
        return [(each["metric"], [(float(at), float(value)) for at, value in each["values"]]) for each in result]

    return fetch


def draw(board: Board, values: Mapping[str, str], fetch: Range) -> bytes:
    """A PNG of all panels. `values` are those of the board's variables and of `__rate_interval`."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    stats = [panel for panel in board.panels() if panel.kind == "stat"]
    graphs = [panel for panel in board.panels() if panel.kind == "series"]
    rows = math.ceil(len(graphs) / _COLUMNS)
    top = 0.9 if stats else 0.25
    height = top + 0.35 + 2.5 * rows
    with mpl.rc_context({"font.size": 8, "text.color": _INK, "axes.edgecolor": _GRID, "xtick.color": _FAINT}):
        figure = pyplot.figure(figsize=(12, height), dpi=75)
        try:
            figure.text(0.012, 1 - 0.22 / height, board.title, fontsize=12, weight="bold", va="center")
            for at, panel in enumerate(stats):
                x = 0.012 + at * 0.98 / max(len(stats), 1)
                figure.text(x, 1 - 0.5 / height, panel.title, fontsize=8, color=_FAINT, va="center")
                figure.text(x, 1 - 0.8 / height, _last(panel, values, fetch), fontsize=15, va="center", color=_LINES[0])
            grid = figure.add_gridspec(
                rows,
                _COLUMNS,
                left=0.05,
                right=0.99,
                top=1 - (top + 0.35) / height,
                bottom=0.5 / height,
                hspace=0.6,
                wspace=0.2,
            )
            for at, panel in enumerate(graphs):
                _graph(figure.add_subplot(grid[at // _COLUMNS, at % _COLUMNS]), panel, values, fetch)
            return _small(figure)
        finally:
            pyplot.close(figure)


def _small(figure: Any) -> bytes:
    from PIL import Image

    raw, out = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", facecolor="white")
    Image.open(raw).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def _last(panel: Panel, values: Mapping[str, str], fetch: Range) -> str:
    found = [points[-1][1] for _, points in fetch(filled(panel.queries[0].expression, values)) if points]
    return _number(found[0], panel.unit) if found else "no data"


def _graph(axes: Any, panel: Panel, values: Mapping[str, str], fetch: Range) -> None:
    series = [
        (legend(query.legend, labels), points)
        for query in panel.queries
        for labels, points in fetch(filled(query.expression, values))
        if any(math.isfinite(value) for _, value in points)
    ]
    axes.set_title(panel.title, fontsize=9, loc="left", weight="bold")
    axes.grid(True, color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, labelsize=7)
    if not series:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "unknown here: no node's sensor tells", ha="center", color=_FAINT, transform=axes.transAxes)
        return
    # the busiest first, and of many the rest without a name
    series.sort(key=lambda one: -sum(value for _, value in one[1] if math.isfinite(value)))
    if panel.stacked:
        _stack(axes, series)
    else:
        for at, (name, points) in enumerate(series):
            axes.plot(
                [time for time, _ in points],
                [value for _, value in points],
                color=_LINES[at % len(_LINES)],
                linewidth=1.1,
                label=name if at < len(_LINES) else None,
            )
    if panel.unit != "celsius":
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: _number(value, panel.unit))
    axes.xaxis.set_major_formatter(lambda value, _: time.strftime("%H:%M:%S", time.gmtime(value)))
    axes.xaxis.set_major_locator(_locator())
    if any(name for name, _ in series):
        axes.legend(
            fontsize=6.5,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.1),
            ncols=4,
            labelspacing=0.2,
            handlelength=1,
            columnspacing=1,
        )


def _stack(axes: Any, series: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> None:
    times = sorted({at for _, points in series for at, _ in points})
    heights = []
    for _, points in series:
        known = {at: value for at, value in points if math.isfinite(value)}
        heights.append([known.get(at, 0.0) for at in times])
    names = [name for name, _ in series]
    axes.stackplot(times, heights, labels=names, colors=[f"{colour}" for colour in _LINES], alpha=0.75)


def _locator() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def _number(value: float, unit: str) -> str:
    """As Grafana writes it, roughly: 1.5 ms, 20 MiB, 35 %, 1.2 k."""
    if not math.isfinite(value):
        return "unknown"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        for size, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return "0 s" if value == 0 else f"{value * 1e9:.3g} ns"
    steps, names = (
        (1024.0, ("B", "KiB", "MiB", "GiB", "TiB")) if unit == "bytes" else (1000.0, ("", "k", "M", "G", "T"))
    )
    power = 0
    while abs(value) >= steps and power < len(names) - 1:
        value /= steps
        power += 1
    after = {"hertz": "Hz", "celsius": "°C", "ops": "/s", "reqps": "/s"}.get(unit, "")
    return f"{value:.3g} {names[power]}{after}".strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws every dashboard that there is data for into files named after them."""
    parser = argparse.ArgumentParser(description="Draws the dashboards' panels from the data of a Prometheus.")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its address")
    parser.add_argument("--minutes", type=float, default=60.0, help="how far back")
    parser.add_argument("--out", type=Path, default=Path("."), help="where the pictures go")
    parser.add_argument("--namespace", default=".*", help="of the Swarms; a regular expression")
    parser.add_argument("--swarm", default=".*", help="their names; a regular expression")
    parser.add_argument("--pod", default="", help="of the dashboard of one agent; the busiest when not given")
    options = parser.parse_args(arguments)
    end = time.time()
    fetch = fetcher(options.prometheus.rstrip("/"), end - options.minutes * 60, end)
    rate = f"{max(round(options.minutes / 30 * 60), 15)}s"
    values = {"namespace": options.namespace, "swarm": options.swarm, "pod": options.pod, "__rate_interval": rate}
    if not options.pod:
        values["pod"] = _busiest(values, fetch)
    options.out.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        # the operator is in a namespace of its own
        chosen = values | ({"namespace": ".*"} if board.uid == "agentswarm-operator" else {})
        file = options.out / f"{board.uid}.png"
        file.write_bytes(draw(board, chosen, fetch))
        print(f"{file}  {file.stat().st_size / 1024:.0f} KiB")
    return 0


def _busiest(values: Mapping[str, str], fetch: Range) -> str:
    query = 'topk(1, sum by (pod) (swarm_tasks_total{namespace=~"$namespace",swarm=~"$swarm",result="ok"}))'
    found = [(points[-1][0], points[-1][1], labels.get("pod", "")) for labels, points in fetch(filled(query, values))]
    return max(found)[2] if found else ""


if __name__ == "__main__":
    sys.exit(main())
