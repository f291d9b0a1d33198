"""The rows of sampling: what it costs, alone and beside psutil, and how even its intervals are."""

from __future__ import annotations

from pathlib import Path

from harness import Better, Measure, Row

__all__ = ["ROWS"]

_FILE = Path(__file__).with_name("sampling.py")
_NONE = "(no peer: the goal bounds the figure)"

ROWS: tuple[Row, ...] = (
    Row(
        "sampling_cpu_share",
        f"share of one core that the sensors of /proc and cgroups take at 100 ms {_NONE}",
        "of a core",
        Better.SHARE,
        Measure(_FILE, "cost", "proc_and_cgroup"),
        goal=0.003,
        also=("seconds_a_reading",),
    ),
    Row(
        "sampling_cpu_share_everything",
        f"the same with all sensors that there are, each at its pace {_NONE}",
        "of a core",
        Better.SHARE,
        Measure(_FILE, "cost", "everything"),
        goal=0.01,
    ),
    Row(
        "sample_vs_psutil",
        "CPU time of one reading of CPU times a core, memory, load, disks and network, against psutil's",
        "s",
        Better.LESS,
        Measure(_FILE, "cost", "same_as_psutil"),
        Measure(_FILE, "psutil_cost"),
        goal=5,
    ),
    Row(
        "interval_jitter_p99_s",
        f"how far from 100 ms apart two readings began, with a busy process on every core {_NONE}",
        "s",
        Better.SHARE,
        Measure(_FILE, "jitter", "p99", limit=90),
        goal=0.005,
        also=("p50", "worst", "samples"),
    ),
)
