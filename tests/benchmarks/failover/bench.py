"""`make bench-failover`: how long it takes until work goes on when what computes it dies, and whether any is lost.

Real agents with the settings' defaults, killed, stopped or overloaded for real; a task says itself when it was begun
and by which process (`marks`). The peer is a Ray actor with `max_restarts` and `max_task_retries`, in the same run.
The other rows have no peer: their goal bounds the figure itself, and the ratio that is shown is the figure.

A figure called p99 is that of one round's samples (nearest rank); what counts is the median of the rounds, and the
spread shows the best and the worst round. Rows that take long are measured in the first round only.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from command import main  # noqa: E402
from harness import Better, Measure, Row  # noqa: E402

__all__ = ["OUTPUT", "rows"]

OUTPUT = HERE.parents[2] / "build" / "bench" / "failover.json"
DISTRIBUTIONS = ("ray", "numpy", "numba", "pyzmq")
_SAMPLES = ("p50", "worst", "samples")


def rows(minutes: float) -> tuple[Row, ...]:
    """All rows; the overload lasts `minutes`."""
    kills, nodes, hubs = HERE / "ours_kills.py", HERE / "ours_nodes.py", HERE / "ours_hubs.py"
    thousand = Measure(HERE / "ours_lossless.py", "kills", "lost", limit=1500, rounds=1)
    crowd = Measure(
        HERE / "ours_overload.py",
        "overload",
        "false_deaths",
        arguments=json.dumps({"minutes": minutes}),
        limit=minutes * 60 + 400,
        rounds=1,
    )

    def bound(name: str, what: str, ours: Measure, goal: float, also: tuple[str, ...], unit: str = "s") -> Row:
        return Row(
            name, f"{what} (no peer: the goal bounds the figure)", unit, Better.SHARE, ours, None, goal, also=also
        )

    return (
        bound(
            "kill_to_resumed_p99_s",
            "from the SIGKILL of one of two agents, its task in hand, until the task is begun on the other",
            Measure(kills, "kill_to_resumed", "p99", limit=400),
            0.05,
            (*_SAMPLES, "detected_p50", "detected_p99"),
        ),
        Row(
            "kill_vs_ray_actor",
            "the same (median) against a Ray actor with max_restarts and max_task_retries: same task, same SIGKILL",
            "s",
            Better.LESS,
            Measure(kills, "kill_to_resumed", "p50", limit=400),
            Measure(HERE / "peers_ray.py", "actor_killed_to_resumed", "p50", limit=300),
            10,
            also=("samples",),
        ),
        bound(
            "hang_to_resumed_p99_s",
            "from the SIGSTOP of one of two agents until its task is begun on the other, default settings",
            Measure(kills, "hang_to_resumed", "p99", limit=400),
            1.0,
            (*_SAMPLES, "detected_p50", "detected_p99"),
        ),
        bound(
            "crossnode_to_resumed_p99_s",
            "from the SIGKILL of all processes of a node until a client's task is begun on the other node",
            Measure(nodes, "killed", "p99", limit=600),
            1.0,
            _SAMPLES,
        ),
        bound(
            "crossnode_silent_p99_s",
            "the same when the node's processes are stopped instead: no connection is closed, as when the power goes",
            Measure(nodes, "silent", "p99", limit=600),
            1.0,
            _SAMPLES,
        ),
        bound(
            "crossnode_forwarded_p99_s",
            "the same for a task that another node had sent to the node that is killed",
            Measure(nodes, "forwarded", "p99", limit=600),
            1.0,
            _SAMPLES,
        ),
        bound(
            "hub_loss_longest_gap_s",
            "the longest time between two answers for a client on the node whose hub is killed",
            Measure(hubs, "on_node", "longest", limit=300),
            0.05,
            ("p50", "longest_without", "kills", "answers"),
        ),
        bound(
            "hub_loss_longest_gap_remote_s",
            "the same for a client off the node, who goes on by another hub",
            Measure(hubs, "off_node", "longest", limit=400),
            1.0,
            ("p50", "longest_without", "kills", "answers"),
        ),
        bound(
            "agent_replaced_p99_s",
            "from the SIGKILL of a node's only agent until the next one, forked, joined and ready, begins its task",
            Measure(kills, "agent_replaced", "p99", limit=400),
            0.1,
            (*_SAMPLES, "detected_p50", "detected_p99"),
        ),
        bound(
            "lost",
            "tasks without a true answer when agents are killed under a stream of tasks",
            thousand,
            0,
            ("kills", "tasks", "begun_again", "late_commits_refused", "tasks_per_s"),
            "tasks",
        ),
        bound(
            "doubled",
            "answers and commits beyond one for each task, in the same kills",
            Measure(thousand.file, thousand.function, "doubled", limit=thousand.limit, rounds=1),
            0,
            ("kills", "tasks"),
            "answers",
        ),
        bound(
            "false_deaths",
            f"agents declared dead who lived, in {minutes:g} minutes of twice as many busy processes as cores",
            crowd,
            0,
            ("minutes", "tasks", "begun_again", "suspicions", "taken_back_from_nodes"),
            "deaths",
        ),
        bound(
            "checkpoint_overhead",
            "share of its time that a task spends on keeping 1 MiB each 100 ms",
            Measure(HERE / "ours_checkpoint.py", "checkpoint_overhead", limit=400),
            0.02,
            (),
            "of the time",
        ),
        Row(
            "checkpoint_slowdown",
            "share of its work that the task loses by it, against the same without, in pairs (noise included)",
            "of the work",
            Better.SHARE,
            Measure(HERE / "ours_checkpoint.py", "checkpoint_slowdown", limit=400),
        ),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--minutes", type=float, default=10.0)
    given, words = parser.parse_known_args()
    sys.exit(main(rows(given.minutes), OUTPUT, distributions=DISTRIBUTIONS, words=words))
