"""Judging members by their signs of life."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.config import Failover
from swarm_agents.runtime.accrual import Limits
from swarm_agents.runtime.watch import Verdict, Watch, judge

failover = Failover(heartbeat_interval=0.02, suspect_after=0.2, dead_after=0.8)


@dataclass
class Info:
    index: int = 0
    epoch: int = 1
    name: str = "risk-compute-0-0"
    pid: int = 2**22 + 1  # no process has it
    heartbeat_age: float = 0.0
    role: str = "compute"
    alive: bool = True


class Deaths(list[tuple[Info, str, float]]):
    def __init__(self) -> None:
        super().__init__()
        self.some = asyncio.Event()

    def __call__(self, info: Info, witness: str, silent: float) -> None:
        self.append((info, witness, silent))
        self.some.set()


def make_watch() -> tuple[Watch, Deaths]:
    deaths = Deaths()
    return Watch(structlog.get_logger(), lambda: Limits.of(failover), deaths), deaths


@given(st.floats(0, 10))
def test_silence_is_first_nothing_then_suspicion_then_death(silent: float) -> None:
    expected = None if silent < 0.2 else Verdict(silent >= 0.8, silent)
    assert judge(silent, Limits.of(failover)) == expected


async def test_a_silent_member_is_declared_dead_once() -> None:
    watch, deaths = make_watch()
    info = Info()
    for _ in range(9):
        info.heartbeat_age += 0.1
        watch.look([info], 0.1)
    assert [witness for _, witness, _ in deaths] == ["heartbeat"]
    watch.close()


async def test_heartbeats_that_look_old_after_a_pause_of_the_machine_kill_nobody() -> None:
    watch, deaths = make_watch()
    info = Info(heartbeat_age=0.01)
    watch.look([info], 0.02)
    info.heartbeat_age = 3600.0  # everything stood still for an hour, the watch too
    watch.look([info], 0.1)
    info.heartbeat_age = 0.01
    watch.look([info], 0.02)
    assert deaths == []
    watch.close()


async def test_a_member_that_beats_in_time_is_never_suspected() -> None:
    watch, deaths = make_watch()
    for _ in range(1000):
        watch.look([Info(heartbeat_age=0.03)], 0.02)
    assert deaths == []
    watch.close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that says it is the agent risk-compute-0-0."""
    environ = {**os.environ, "POD_NAME": "risk-compute-0-0"}
    program = "print(flush=True); input()"  # its environment can be read once it runs
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, env=environ) as made:
        assert made.stdout is not None
        made.stdout.readline()
        yield made
        made.kill()


async def test_the_end_of_a_visible_process_is_seen_without_waiting_for_its_heartbeat(process) -> None:
    watch, deaths = make_watch()
    info = Info(pid=process.pid)
    watch.look([info], 0.0)
    assert watch.proven(info)
    process.kill()
    await asyncio.wait_for(deaths.some.wait(), 20)
    assert deaths[0][:2] == (info, "process")
    watch.close()


@pytest.mark.parametrize("name", ["somebody-else-0-0", "risk-compute-0"])
async def test_a_pid_that_belongs_to_another_process_proves_nothing(process, name: str) -> None:
    watch, _ = make_watch()
    info = Info(pid=process.pid, name=name)
    watch.look([info], 0.0)
    assert not watch.proven(info)
    watch.close()
