"""How good the node's foresight is: on recorded load, on replayed faults, and beside a crowd that has no fault."""

from __future__ import annotations

import itertools
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "failover")]

__all__ = ["RECORDING", "crowded", "faults", "forecasts", "recorded"]

#: What `record.py` has written; the file says on what machine, when, and what ran.
RECORDING = HERE / "load.npz"
_PROBABILITY = re.compile(r"^swarm_agent_failure_probability_ratio (\S+)$", re.MULTILINE)
_LIKELY = 0.5
_IN_FLIGHT = 12


def recorded(path: Path = RECORDING) -> tuple[list[str], NDArray[np.float64]]:
    """Names of the series, and their means by the second: shape (seconds, series), in base units."""
    with np.load(path) as file:
        rows = np.cumsum(file["rows"], axis=0) * file["units"]
        at = np.cumsum(file["at"]) // 1000
        names = [str(name) for name in file["names"]]
    means = [rows[at == second].mean(axis=0) if (at == second).any() else None for second in range(int(at[-1]))]
    return names, np.array([mean for mean in means if mean is not None])


def forecasts() -> dict[str, float]:
    """The mean absolute errors of the second half; of ours as a share of the last value's, and that for each series.

    A forecaster sees the recording second by second, as a resource agent would; nothing of it is tuned on that half.
    """
    from swarm_agents.resource.foresight.forecast import HORIZONS, Forecaster

    names, seconds = recorded()
    count = len(seconds)
    forecaster = Forecaster(len(names))
    said = np.full((count, len(HORIZONS), len(names), 3), np.nan)
    spent = 0.0
    for at, row in enumerate(seconds):
        began = time.thread_time()
        forecaster.step(row)
        spent += time.thread_time() - began
        for place in range(len(names)):
            for way, each in enumerate(forecaster.forecast(place).values()):
                said[at, way, place] = each.value, each.low, each.high
    found: dict[str, float] = {"last": 1.0, "seconds": float(count), "core_share": spent / count}
    for way, horizon in enumerate(HORIZONS):
        at = np.arange(count // 2, count - horizon)
        true = seconds[at + horizon]
        ours = np.abs(said[at, way, :, 0] - true).mean(axis=0)
        last = np.abs(seconds[at] - true).mean(axis=0)
        moves = last > 0
        shares = np.where(moves, ours / np.where(moves, last, 1.0), 1.0)
        found |= {f"{name}_{horizon}s": float(1.0 / share) for name, share in zip(names, shares, strict=True)}
        found[f"all_{horizon}s"] = float(math.exp(-np.mean(np.log(shares))))
        within = (said[at, way, :, 1] - 1e-12 <= true) & (true <= said[at, way, :, 2] + 1e-12)
        found[f"within_interval_{horizon}s"] = float(within.mean())
    found["ours"] = 1.0 / found["all_10s"]
    return found


def faults(each: int = 12) -> dict[str, float]:
    """Our F1 on held-out seeds, `each` of every kind, and that of plain thresholds.

    What the alarms' levels are is chosen on the training seeds, for ours as for the thresholds.
    """
    from support.faultscores import EVERY, PLAIN, Score, by_thresholds, choose, probabilities, score
    from support.faulttraces import Trace, held_out, training

    def levels(traces: list[Trace]) -> dict[int, list[float]]:
        return {id(trace): probabilities(trace) for trace in traces}

    def ours(traces: list[Trace], known: dict[int, list[float]], level: float) -> Score:
        def alarm(trace: Trace) -> float | None:
            return next((look.at for look, p in zip(trace.looks, known[id(trace)], strict=True) if p >= level), None)

        return score(traces, alarm)

    train, held = training(each), held_out(each)
    learnt, known = levels(train), levels(held)
    # The best on the training seeds; among equals the one in the middle.
    grid = [0.5 + 0.05 * step for step in range(10)]
    scores = [ours(train, learnt, level).f1 for level in grid]
    best = [level for level, f1 in zip(grid, scores, strict=True) if f1 >= max(scores) - 1e-9]
    level = best[len(best) // 2]
    mine = ours(held, known, level)
    plain = score(held, by_thresholds(choose(train, tuple(PLAIN))))
    every = score(held, by_thresholds(choose(train, tuple(EVERY))))
    # whether what is called 70 % comes in 70 % of cases: of each second, that the failure is within the next minute
    squares = [
        (p - float(trace.fails is not None and look.at < trace.fails <= look.at + 60.0)) ** 2
        for trace in held
        for look, p in zip(trace.looks, known[id(trace)], strict=True)
    ]
    return {
        "f1": mine.f1,
        "threshold": level,
        "precision": mine.precision,
        "recall": mine.recall,
        "lead_s": mine.lead,
        "false_per_hour": mine.false_per_hour,
        "f1_thresholds": plain.f1,
        "precision_thresholds": plain.precision,
        "recall_thresholds": plain.recall,
        "lead_s_thresholds": plain.lead,
        "f1_thresholds_on_all": every.f1,
        "lead_s_thresholds_on_all": every.lead,
        "f1_at_90": ours(held, known, 0.9).f1,
        "brier": sum(squares) / len(squares),
        "traces": float(len(held)),
    }


def crowded(minutes: float = 10.0) -> dict[str, float]:
    """False alarms of real agents at work, beside twice as many busy processes as cores; nobody fails."""
    from marks import Marks
    from scene import KERNEL, connection, swarm_of

    from swarm_agents.client import Swarm

    numbers = itertools.count(1)
    answered, alarms, greatest = 0, 0, 0.0
    with swarm_of(2, 1) as nodes, tempfile.TemporaryDirectory() as folder:
        marks = Marks(Path(folder) / "marks")
        pods = [pod for node in nodes for pod in node.pods]
        above = [False] * len(pods)
        with Swarm.connect(connection(nodes)) as swarm:
            crowd = [
                subprocess.Popen([sys.executable, "-c", "while True: pass"])
                for _ in range(2 * len(os.sched_getaffinity(0)))
            ]
            try:
                until = time.monotonic() + minutes * 60
                due = time.monotonic()
                underway: list[Any] = []
                while time.monotonic() < until:
                    while len(underway) < _IN_FLIGHT:
                        underway.append(swarm.submit(KERNEL, str(marks.path), next(numbers), 0.02, 0.02))
                    underway.pop(0).result(120)
                    answered += 1
                    if time.monotonic() >= due:
                        due = time.monotonic() + 2.0  # a supervisor looks every two seconds
                        for at, pod in enumerate(pods):
                            found = _PROBABILITY.search(pod.metrics())
                            probability = float(found.group(1)) if found else 0.0
                            alarms += probability >= _LIKELY and not above[at]
                            above[at] = probability >= _LIKELY
                            greatest = max(greatest, probability)
                for each in underway:
                    each.result(120)
            finally:
                for process in crowd:
                    process.kill()
                    process.wait()
        told = sum(pod.log().count("FailurePredicted") for pod in pods)
    return {
        "false_alarms_per_hour": max(alarms, told) / (minutes / 60.0),
        "alarms": float(max(alarms, told)),
        "greatest_probability": greatest,
        "minutes": minutes,
        "tasks": float(answered),
    }


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*map(float, sys.argv[2:])))
