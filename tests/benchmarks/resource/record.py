"""Records this machine's own load, ten times a second, for the forecasts to be measured on: a command.

    python tests/benchmarks/resource/record.py --seconds 1800 --out load.npz --kind "two virtual cores" --ran "builds"

What is written is a compressed .npz of whole numbers in the file's `units`, one row a sample, one column a series, with
`at` (milliseconds since the first sample) and the provenance in `about`. It holds counts of time and of bytes, and no
names of processes, hosts or users. The file is written anew each minute, so that a recording that is cut short counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

#: Series, and what one unit is: all are levels (not counts since boot), so that each can be forecast by itself.
UNITS = {
    "busy": 1e-4,  # share of all cores, since the last sample
    "busy_cpu0": 1e-4,
    "busy_cpu1": 1e-4,
    "iowait": 1e-4,
    "steal": 1e-4,
    "memory_used": 1e-5,  # share of all memory that could not be handed out
    "load1": 1e-2,
    "running": 1.0,  # processes that run or want to
    "switches": 100.0,  # context switches a second
    "disk_busy": 1e-4,  # share of the time in which the busiest disk had something to do
    "network": 1e4,  # bytes a second over all interfaces, both ways
}
INTERVAL = 0.1


class Files:
    """The kernel's files, kept open and read in place."""

    def __init__(self, *names: str) -> None:
        self.open = {name: os.open(f"/proc/{name}", os.O_RDONLY) for name in names}

    def lines(self, name: str) -> list[list[str]]:
        return [line.split() for line in os.pread(self.open[name], 1 << 18, 0).decode().splitlines()]


class Counters:
    """What counts up, and what it was the last time."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def since(self, name: str, value: float) -> float:
        """How much it has grown since the last call; 0 the first time, and where it went backwards."""
        grown = value - self._last.get(name, value)
        self._last[name] = value
        return max(grown, 0.0)


def sample(files: Files, counters: Counters, elapsed: float) -> list[float]:
    """One row, in base units; `elapsed` seconds after the last."""
    row = dict.fromkeys(UNITS, 0.0)
    for words in files.lines("stat"):
        if words[0] in ("cpu", "cpu0", "cpu1"):
            user, nice, system, idle, iowait, irq, soft, steal = (float(word) for word in words[1:9])
            total = counters.since(f"{words[0]} total", user + nice + system + idle + iowait + irq + soft + steal)
            rest = counters.since(f"{words[0]} idle", idle + iowait)
            row["busy" + ("_" + words[0] if words[0] != "cpu" else "")] = 1.0 - rest / total if total else 0.0
            waited, stolen = counters.since(f"{words[0]} wait", iowait), counters.since(f"{words[0]} steal", steal)
            if words[0] == "cpu" and total:
                row["iowait"], row["steal"] = waited / total, stolen / total
        elif words[0] == "ctxt":
            row["switches"] = counters.since("switches", float(words[1])) / elapsed
        elif words[0] == "procs_running":
            row["running"] = float(words[1])
    memory = {words[0]: float(words[1]) for words in files.lines("meminfo")}
    row["memory_used"] = 1.0 - memory["MemAvailable:"] / memory["MemTotal:"]
    row["load1"] = float(files.lines("loadavg")[0][0])
    for words in files.lines("diskstats"):
        busy = counters.since(f"disk {words[2]}", float(words[12])) / (1e3 * elapsed)
        row["disk_busy"] = max(row["disk_busy"], min(busy, 1.0))
    for words in files.lines("net/dev")[2:]:
        row["network"] += counters.since(f"net {words[0]}", float(words[1]) + float(words[9])) / elapsed
    return [row[name] for name in UNITS]


def write(path: Path, at: list[float], rows: list[list[float]], about: dict[str, object]) -> None:
    """Rows as differences of whole units: they are small numbers, and compress well."""
    whole = np.rint(np.array(rows) / np.array(list(UNITS.values()))).astype(np.int64)
    millis = np.rint((np.array(at) - at[0]) * 1e3).astype(np.int64)
    np.savez_compressed(
        path,
        rows=np.diff(whole, axis=0, prepend=0).astype(np.int32),
        at=np.diff(millis, prepend=0).astype(np.int32),
        names=np.array(list(UNITS)),
        units=np.array(list(UNITS.values())),
        about=np.array(json.dumps(about)),
    )


def record(seconds: float, path: Path, kind: str, ran: str) -> None:
    """Samples until the time is over."""
    about = {
        "machine": kind,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "ran": ran,
        "interval_s": INTERVAL,
        "kernel": platform.release().split("-")[0],
        "architecture": platform.machine(),
    }
    files, counters = Files("stat", "meminfo", "loadavg", "diskstats", "net/dev"), Counters()
    sample(files, counters, INTERVAL)
    start = last = time.monotonic()
    due, kept = start + INTERVAL, start + 60.0
    at: list[float] = []
    rows: list[list[float]] = []
    while last - start < seconds:
        time.sleep(max(due - time.monotonic(), 0.0))
        now = time.monotonic()
        rows.append(sample(files, counters, now - last))
        at.append(now)
        last, due = now, max(due + INTERVAL, now)
        if now >= kept:
            kept = now + 60.0
            write(path, at, rows, about)
    write(path, at, rows, about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", required=True, help="what kind of machine this is, without naming it")
    parser.add_argument("--ran", required=True, help="what ran on it meanwhile")
    given = parser.parse_args()
    record(given.seconds, given.out, given.kind, given.ran)
