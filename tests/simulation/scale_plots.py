"""Shows what `simulation.scale` has found: plots as SVG, and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["draw", "tabulate"]

_COLUMNS = (
    ("nodes", "nodes", ""),
    ("lost", "lost", ""),
    ("wait, mean (ms)", "wait_s", "mean"),
    ("wait, 99 % (ms)", "wait_s", "p99"),
    ("one queue, mean (ms)", "central_queue_wait_s", "mean"),
    ("one queue, 99 % (ms)", "central_queue_wait_s", "p99"),
    ("moved (%)", "moved_share", ""),
    ("messages/s a hub", "messages_per_hub_s", "mean"),
    ("busiest", "messages_per_hub_s", "max"),
    ("KiB/s a hub", "bytes_per_hub_s", "mean"),
    ("noticed, median (s)", "detect_s", "p50"),
    ("noticed, last (s)", "detect_s", "max"),
    ("tasks in hand there", "in_hand_when_lost", ""),
    ("answer under way", "answers_under_way", ""),
    ("begun again", "begun_again", ""),
    ("last of them (s)", "begun_again_s", "max"),
)


def tabulate(found: list[dict[str, Any]], out: Path) -> None:
    """Writes `results.md` into a directory."""
    lines = [
        "# Figures",
        "",
        "Written by `make sim-scale`; what they mean is said in [README.md](README.md).",
        "",
        "| " + " | ".join(title for title, _, _ in _COLUMNS) + " |",
        "|" + " ---: |" * len(_COLUMNS),
    ]
    for case in found:
        cells = [_cell(title, case[key][part] if part and case[key] else case[key]) for title, key, part in _COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    partly = [str(case["nodes"]) for case in found if not case["full_mesh"]]
    if partly:
        lines += ["", f"With {partly[0]} nodes or more only some hubs have links to all others."]
    (out / "results.md").write_text("\n".join(lines) + "\n")


def _cell(title: str, value: Any) -> str:
    if value is None:
        return "-"
    if "(ms)" in title:
        return f"{value * 1e3:.1f}"
    if "KiB" in title:
        return f"{value / 1024:.0f}"
    if "(%)" in title:
        return f"{value * 100:.0f}"
    return f"{value:.2f}" if "(s)" in title else f"{value:.0f}"


def draw(found: list[dict[str, Any]], out: Path) -> None:
    """Writes `placement.svg`, `traffic.svg` and `recovery.svg` into a directory."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "scale"
    from matplotlib import pyplot

    # One case a size where the loss does not matter: that of the fewest lost.
    sizes = {case["nodes"]: case for case in sorted(found, key=lambda case: -case["lost"])}
    nodes = sorted(sizes)
    figures = {
        "placement": (
            "Wait of a task until it is begun",
            "milliseconds",
            [
                (name, nodes, [sizes[n][key][quantile] * 1e3 for n in nodes])
                for name, key, quantile in (
                    ("hubs, mean", "wait_s", "mean"),
                    ("hubs, 99 %", "wait_s", "p99"),
                    ("one queue for all, mean", "central_queue_wait_s", "mean"),
                )
            ],
        ),
        "traffic": (
            "What one hub sends",
            "a second",
            [
                ("messages, mean", nodes, [sizes[n]["messages_per_hub_s"]["mean"] for n in nodes]),
                ("messages, busiest hub", nodes, [sizes[n]["messages_per_hub_s"]["max"] for n in nodes]),
                ("KiB, mean", nodes, [sizes[n]["bytes_per_hub_s"]["mean"] / 1024 for n in nodes]),
            ],
        ),
        "recovery": (
            "After nodes fall silent",
            "seconds",
            [
                (f"{what}, {lost} lost", [c["nodes"] for c in cases], [c[key]["max"] for c in cases])
                for lost in sorted({case["lost"] for case in found})
                for what, key in (("noticed by the last hub", "detect_s"), ("last task begun again", "begun_again_s"))
                if (cases := [c for c in found if c["lost"] == lost and c[key]])
            ],
        ),
    }
    for name, (title, unit, lines) in figures.items():
        figure, axes = pyplot.subplots(figsize=(7, 4))
        for label, x, y in lines:
            axes.plot(x, y, marker="o", label=label)
        axes.set_xscale("log")
        if name == "traffic":
            axes.set_yscale("log")
        axes.set_xticks(nodes, [str(n) for n in nodes])
        axes.minorticks_off()
        axes.set_xlabel("nodes, of 10 agents each")
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=None if name == "traffic" else 0)
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        figure.tight_layout()
        figure.savefig(out / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)
