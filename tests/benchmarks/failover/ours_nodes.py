"""What a client sees when a whole node is gone: all its processes at once, and its shared memory with them.

Two simulated nodes with a hub and an agent each, and a client on neither, who is connected to one of them. A task of
his runs there; the node is lost; what counts is the time until the task notes that it is begun on the other node. Then
the lost node begins anew, empty, and when both are there again the other one is lost, and so on.

- `killed`: SIGKILL of all processes. The kernel closes their connections, as it does when pods are evicted.
- `silent`: SIGSTOP of all. Nothing is closed and nothing is said, as when the power goes, or a switch.
- `forwarded`: a third node, which has no agent of its own, has its tasks computed by the others, and its client is on
  its board; one of the others is killed with the task in hand.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import summary
from marks import Marks
from scene import KERNEL, connection, eventually, fill, forget, lose, on_board, swarm_of, warm

__all__ = ["forwarded", "killed", "silent"]

_LIMIT = 30.0
#: What the task would take if nobody killed its agent (seconds).
_LONG = 20.0


def _losses(count: int, seed: int, *, silently: bool) -> dict[str, float]:
    rng, numbers = random.Random(seed), itertools.count(1)
    samples = []
    with swarm_of(1, 1) as nodes, tempfile.TemporaryDirectory() as folder:
        from swarm_agents.client import Swarm

        marks = Marks(Path(folder) / "marks")
        with Swarm.connect(connection(nodes)) as swarm:
            for _ in range(count):
                warm(swarm, marks.path, _agents_of(nodes), lambda: next(numbers))
                here = _home(swarm, nodes)
                task = next(numbers)
                future = swarm.submit(KERNEL, str(marks.path), task, _LONG)
                victim = marks.wait(task, _LIMIT).pid
                if victim not in _agents_of([here]):
                    raise RuntimeError("the task did not stay on the node that its client is connected to")
                time.sleep(rng.uniform(0.002, 0.02))
                began = lose(here, silently=silently)
                again = marks.wait(task, _LIMIT, but=victim)
                samples.append(again.at - began)
                if int(future.result(_LIMIT)[1]) != again.pid:
                    raise RuntimeError("the answer is not of the agent that resumed the task")
                _restore(here, nodes, swarm)
    return summary(samples)


def _home(swarm: Any, nodes: list[Any]) -> Any:
    """The node that a client is connected to."""
    hubs = {hub.address: hub.node for hub in nodes[0].settings.hubs}
    return next(node for node in nodes if node.name == hubs[swarm.endpoint])


def _agents_of(nodes: list[Any]) -> set[int]:
    """Pids of the compute agents on these nodes."""
    from swarm_agents.shm.board import Board

    return {pid for node in nodes for pid in on_board(Board.attach(node.board))}


def _restore(here: Any, nodes: list[Any], swarm: Any, agents: int = 1) -> None:
    """Has a lost node begin anew, and waits until the hubs have found each other."""
    forget(here)
    fill(here, agents)
    for pod in here.pods:
        pod.ready()

    def connected() -> bool:
        hubs = swarm.info()["hubs"]
        return len(hubs) == len(nodes) - 1 and all(hub["open"] for hub in hubs)

    eventually("the hubs are connected", connected, pause=0.05)


def killed(losses: int = 20, seed: int = 5) -> dict[str, float]:
    """The node's processes are killed."""
    return _losses(losses, seed, silently=False)


def silent(losses: int = 10, seed: int = 6) -> dict[str, float]:
    """The node falls silent."""
    return _losses(losses, seed, silently=True)


def forwarded(losses: int = 10, seed: int = 7) -> dict[str, float]:
    """The node is killed that computes another node's task."""
    rng, numbers = random.Random(seed), itertools.count(1)
    samples = []
    with swarm_of(0, 1, 1) as nodes, tempfile.TemporaryDirectory() as folder:
        from swarm_agents.client import Swarm

        marks = Marks(Path(folder) / "marks")
        with (
            Swarm.connect(connection(nodes, board=True)) as swarm,
            Swarm.connect(connection(nodes[:1])) as outside,
        ):
            for _ in range(losses):
                warm(swarm, marks.path, _agents_of(nodes), lambda: next(numbers))
                task = next(numbers)
                future = swarm.submit(KERNEL, str(marks.path), task, _LONG)
                victim = marks.wait(task, _LIMIT).pid
                here = next(node for node in nodes if victim in _agents_of([node]))
                time.sleep(rng.uniform(0.002, 0.02))
                began = lose(here)
                samples.append(marks.wait(task, _LIMIT, but=victim).at - began)
                future.result(_LIMIT)
                _restore(here, nodes, outside)
    return summary(samples)


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*map(int, sys.argv[2:])))
