"""The agent runs where its cpuset and its cores' state say, and follows both."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarm_agents.cpulist import format_cpus
from swarm_agents.runtime import cores
from swarm_agents.runtime.corebalance import Core, CoreBalance
from swarm_agents.runtime.fitness import Wishes
from swarm_agents.runtime.follow import balance, follow_cores

PATIENCE = 20.0


class FakeSupervisor:
    """What following looks at, with a process of its own for an agent."""

    def __init__(self, there: cores.Cores, pid: int) -> None:
        self.cores = there
        self.agent = SimpleNamespace(pid=pid)
        self.wishes = Wishes()
        self.core_balance = CoreBalance()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.events = SimpleNamespace(record=lambda event, **fields: self.told.append((event, fields)))

    async def moved(self, there: cores.Cores) -> None:
        self.cores = there


def write_cpuset(root: Path, text: str) -> None:
    for path in ("sys/fs/cgroup/cpuset.cpus.effective", "sys/devices/system/cpu/online"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if not path.endswith("online") or not (root / path).exists():
            (root / path).write_text(text + "\n")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Two CPUs; this process may run on them as before when the test has ended."""
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("needs two CPUs")
    monkeypatch.setattr(cores, "_pinned_whole", None)
    monkeypatch.delenv("SWARM_CPUS", raising=False)
    one, other = sorted(before)[:2]
    yield one, other
    for thread in map(int, os.listdir("/proc/self/task")):
        os.sched_setaffinity(thread, before)


@pytest.fixture
def process() -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield child.pid
    child.communicate()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)


def test_the_agent_is_pinned_again_when_its_cpuset_shrinks_and_when_it_grows(
    two: tuple[int, int], process: int, tmp_path: Path
) -> None:
    both = format_cpus(two)
    write_cpuset(tmp_path, both)

    async def follow() -> None:
        for thread in map(int, os.listdir("/proc/self/task")):
            os.sched_setaffinity(thread, two)
        there = cores.observe({}, tmp_path)
        assert cores.pin(there, root=tmp_path)
        supervisor = FakeSupervisor(there, process)
        following = asyncio.get_running_loop().create_task(follow_cores(supervisor, tmp_path))  # type: ignore[arg-type]
        for cpus in ({two[1]}, set(two), {two[0]}):
            write_cpuset(tmp_path, format_cpus(cpus))
            await until(lambda cpus=cpus: os.sched_getaffinity(process) == cpus)  # type: ignore[misc]
            assert os.sched_getaffinity(0) == cpus
            assert set(supervisor.cores.cpus) == cpus
        following.cancel()
        assert [event for event, _ in supervisor.told] == ["CoresChanged"] * 3
        assert all(fields["pinned"] for _, fields in supervisor.told)

    asyncio.run(follow())


def test_an_affinity_that_somebody_else_narrowed_is_believed_though_the_cpuset_is_wider(
    two: tuple[int, int], tmp_path: Path
) -> None:
    write_cpuset(tmp_path, format_cpus(two))
    os.sched_setaffinity(0, {two[0]})
    there = cores.observe({}, tmp_path)
    assert there.cpus == (two[0],)
    cores.pin(there, root=tmp_path)
    assert cores.observe({}, tmp_path).cpus == (two[0],)


def test_an_affinity_that_is_narrowed_later_is_believed_and_so_is_that_it_is_widened_again(
    two: tuple[int, int], tmp_path: Path
) -> None:
    write_cpuset(tmp_path, format_cpus(two))
    os.sched_setaffinity(0, two)
    cores.pin(cores.observe({}, tmp_path), root=tmp_path)
    for there in ((two[1],), two):
        os.sched_setaffinity(0, there)
        found = cores.observe({}, tmp_path)
        assert found.cpus == there
        cores.pin(found, root=tmp_path)


def test_the_agent_leaves_a_bad_core_and_comes_back_never_outside_its_cpuset(
    two: tuple[int, int], process: int
) -> None:
    supervisor = FakeSupervisor(dataclasses.replace(cores.observe(), cpus=two), process)
    states = {two[0]: Core(steal=0.7), two[1]: Core()}
    figures: Any = SimpleNamespace(read=lambda cpus, pid: (states, 1))
    for step in range(10):
        balance(supervisor, figures, step / 2)  # type: ignore[arg-type]
    assert os.sched_getaffinity(process) == {two[1]}
    assert supervisor.told[0][0] == "CoreLeft"
    assert supervisor.told[0][1]["cpu"] == two[0]
    states[two[0]] = Core()
    for step in range(10, 200):
        balance(supervisor, figures, step / 2)  # type: ignore[arg-type]
    assert os.sched_getaffinity(process) == set(two)
    assert [event for event, _ in supervisor.told] == ["CoreLeft", "CoreTakenAgain"]


def test_an_agent_that_has_died_in_between_disturbs_nobody(two: tuple[int, int]) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    supervisor = FakeSupervisor(dataclasses.replace(cores.observe(), cpus=two), gone.pid)
    figures: Any = SimpleNamespace(read=lambda cpus, pid: ({two[0]: Core(steal=0.7), two[1]: Core()}, 1))
    for step in range(10):
        balance(supervisor, figures, step / 2)  # type: ignore[arg-type]
    assert os.sched_getaffinity(0) >= set(two)


def test_a_thread_that_ends_meanwhile_keeps_the_others_from_nothing(
    two: tuple[int, int], process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir = os.listdir
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    its = f"/proc/{process}/task"
    monkeypatch.setattr(os, "listdir", lambda path: [str(gone.pid)] * (path == its) + listdir(path))
    assert cores.pin(dataclasses.replace(cores.observe(), cpus=(two[0],)), process)
    assert os.sched_getaffinity(process) == {two[0]}
