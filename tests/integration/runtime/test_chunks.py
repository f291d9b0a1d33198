"""Calls that travel together through real agents: none is lost, and none has another one's value, error or death."""

from __future__ import annotations

import os
import signal
import textwrap
from itertools import islice

import pytest

from swarm_agents.client import KernelError, Swarm, TaskLost

KERNELS = """
    import os

    from swarm_agents.compute.registry import kernel

    @kernel("team.square")
    def square(x: int) -> int:
        if x == 1300:
            raise ValueError("thirteen hundred")
        if x == 2600:
            os.kill(os.getpid(), 9)
        return x * x

    @kernel("team.where")
    def where(x: int) -> list[int]:
        return [x, os.getpid()]
"""


@pytest.fixture
def swarm(node):
    (node.root / "team_kernels.py").write_text(textwrap.dedent(KERNELS))
    node.write(node.with_runtime(kernel_modules=("team_kernels",)))
    path = f"{node.root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    pods = [node.start(number, PYTHONPATH=path) for number in range(2)]
    for pod in pods:
        pod.ready()
    with Swarm.connect(f"shm://{node.board}") as made:
        made.pods = pods
        yield made


def ended(swarm: Swarm, result: str) -> float:
    return sum(pod.metric(f'swarm_tasks_total{{priority="normal",result="{result}"}}') for pod in swarm.pods)


def test_values_errors_and_deaths_of_calls_that_travel_together_are_each_ones_own(swarm) -> None:
    assert list(swarm.map("team.square", range(1300))) == [x * x for x in range(1300)]
    values = swarm.map("team.square", range(1200, 1400), chunksize=16)
    assert list(islice(values, 100)) == [x * x for x in range(1200, 1300)]
    with pytest.raises(KernelError, match="thirteen hundred") as raised:
        next(values)
    assert "in square" in raised.value.remote_traceback
    # The agent dies of one call; those beside it are begun again without it.
    values = swarm.map("team.square", range(2500, 2700), chunksize=16)
    assert list(islice(values, 100)) == [x * x for x in range(2500, 2600)]
    with pytest.raises(TaskLost):
        next(values)
    rest = [*range(2590, 2600), *range(2601, 2700)]
    assert list(swarm.map("team.square", rest, chunksize=16)) == [x * x for x in rest]


def test_every_call_is_counted_and_agents_that_are_killed_meanwhile_lose_none(swarm, eventually) -> None:
    before = ended(swarm, "ok")
    assert [x for x, _ in swarm.map("team.where", range(2000), chunksize=20)] == list(range(2000))
    assert eventually("all are counted", lambda: ended(swarm, "ok") - before == 2000)
    seen, killed = [], set()
    for x, pid in swarm.map("team.where", range(20_000), chunksize=20):
        seen.append(x)
        if x % 4000 == 1000 and pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
    assert seen == list(range(20_000))
    assert killed
