"""`make bench-operator`: the operator's own figures, as its real process, against their goals.

The API server is the embedded one, or the one that SWARM_TEST_KUBECONFIG names; pods become ready by a fake kubelet, so
that thousands need no processes (`fakes`). No row has a peer in the same run: each goal bounds the figure itself, and
stands beside what KubeRay's own scale tests say where there is such a figure. Rows that take minutes are measured in
the first round only; what counts is the median of the rounds.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from command import main  # noqa: E402
from harness import Better, Measure, Row  # noqa: E402

__all__ = ["OUTPUT", "rows"]

OUTPUT = HERE.parents[2] / "build" / "bench" / "operator.json"
DISTRIBUTIONS = ("agentswarm", "kopf", "aiohttp", "kubernetes")


def rows() -> tuple[Row, ...]:
    """All rows."""
    start, steady = HERE / "ours_start.py", HERE / "ours_steady.py"
    swarms = Measure(start, "swarms", "ready_per_s", limit=420, rounds=1)

    def of(measure: Measure, key: str) -> Measure:
        return Measure(measure.file, measure.function, key, measure.arguments, measure.limit, measure.rounds)

    def bound(name: str, what: str, unit: str, ours: Measure, goal: float, *also: str) -> Row:
        return Row(name, f"{what} (the goal bounds the figure)", unit, Better.SHARE, ours, None, goal, also=also)

    return (
        Row(
            "pods_created_per_s",
            "pods of one Swarm of 1 000 agents, from its creation to its last pod (KubeRay on KWOK: 50)",
            "/s",
            Better.MORE,
            Measure(start, "pods_created", "per_s", limit=300, rounds=3),
            None,
            100,
            also=("ready_s", "operator_cpu_s", "server_cpu_s"),
        ),
        Row(
            "swarms_ready_per_s",
            "500 Swarms of 4 agents and a resource agent, from the first's creation until all are Ready"
            " (KubeRay: about 4)",
            "/s",
            Better.MORE,
            swarms,
            None,
            10,
            also=("created_s", "operator_cpu_s", "server_cpu_s", "memory_mib"),
        ),
        bound(
            "reconcile_p99_s",
            "from the edit of one pod's labels among 5 000 of one Swarm until it is repaired",
            "s",
            Measure(steady, "repairs", "p99", limit=420, rounds=1),
            0.5,
            "p50",
            "worst",
            "cpu_each_s",
            "memory_mib",
        ),
        bound(
            "memory_mib",
            "the operator's resident memory watching 10 000 agents of 20 Swarms",
            "MiB",
            Measure(steady, "memory", "resident", limit=420, rounds=1),
            250,
            "most",
            "filled_s",
            "idle_cpu_share",
        ),
        bound(
            "idle_cpu_share",
            "the operator's share of one core while nothing happens to 500 Swarms",
            "of a core",
            of(swarms, "cpu_share"),
            0.02,
            "questions_per_s",
        ),
        bound("idle_writes", "writes beyond the Lease in 60 s of that", "writes", of(swarms, "writes"), 0),
        bound(
            "scale_in_lost",
            "tasks without an answer in 100 scale-ins of a swarm that works without a pause",
            "tasks",
            Measure(HERE / "scale_in.py", "measure", "lost", limit=420, rounds=1),
            0,
        ),
        bound(
            "leader_takeover_s",
            "from the SIGKILL of the leading replica until the other one writes; the worst of six",
            "s",
            Measure(HERE / "ours_leader.py", "takeover", "worst", limit=300, rounds=1),
            5,
            "median",
            "clean",
        ),
        bound(
            "settings_live_p99_s",
            "from a change of a live field until every agent has acknowledged it",
            "s",
            Measure(HERE / "settings_live.py", "measure", "p99", limit=300, rounds=2),
            1,
        ),
    )


if __name__ == "__main__":
    sys.exit(main(rows(), OUTPUT, distributions=DISTRIBUTIONS))
