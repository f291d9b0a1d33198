"""Long tasks and agents' states go on where they were, whatever was killed; poison is set aside and named."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from swarm_agents.compute import registry
from swarm_agents.config import Checkpoints
from swarm_agents.retry import Retry
from swarm_agents.runtime.keepfile import read
from swarm_agents.runtime.ledger import set_aside
from swarm_agents.runtime.store import list_files

KERNELS = """
import ctypes, os, time
from typing import Any
import numpy as np
from swarm_agents.compute.registry import kernel
from swarm_agents.compute.context import Context

@kernel("test.walk")
def walk(steps: int, pace: float, *, ctx: Context) -> dict:
    '''Walks step by step; says in which attempt it took how many.'''
    kept = ctx.resume() or {"done": 0, "by": {}}
    done, by = kept["done"], kept["by"]
    while done < steps:
        time.sleep(pace)
        done += 1
        by[str(ctx.attempt)] = by.get(str(ctx.attempt), 0) + 1
        ctx.checkpoint({"done": done, "by": by})
    return by

@kernel("test.flaky", attempts=4, backoff=0.05, retry_on=(ConnectionError,))
def flaky(path: str, failures: int) -> list:
    '''Fails so many times, and says when it was begun.'''
    with open(path, "a") as file:
        file.write(f"{time.monotonic()}\\n")
    with open(path) as file:
        begun = [float(line) for line in file]
    if len(begun) <= failures:
        raise ConnectionResetError("the other side hung up")
    return begun

@kernel("test.poison", attempts=2)
def poison() -> None:
    '''Kills its agent.'''
    os.kill(os.getpid(), 9)

@kernel("test.stuck", attempts=2, limit=0.1)
def stuck(values: Any) -> None:
    '''Holds the GIL for ever.'''
    ctypes.PyDLL(None).sleep(600)

@kernel("test.greedy", most_memory=64 << 20)
def greedy(count: int) -> int:
    '''Takes so many MiB.'''
    return len(np.ones(count << 17))

@kernel("test.late", deadline=0.3)
def late(*, ctx: Context) -> None:
    '''Runs on until it is told to end.'''
    while True:
        time.sleep(0.005)
        ctx.checkpoint(1)
"""


@pytest.fixture
def pair_with_kernels(node: Any, client_of: Any, tmp_path: Path) -> Any:
    (node.root / "kernels_that_walk.py").write_text(KERNELS)
    settings = node.with_runtime(kernel_modules=("kernels_that_walk",))
    node.write(msgspec.structs.replace(settings, checkpoints=Checkpoints(interval=0.02, volume_interval=0.02)))
    state = tmp_path / "volume"
    state.mkdir()
    path = os.pathsep.join([str(node.root), *filter(None, [os.environ.get("PYTHONPATH")])])
    extra = {"PYTHONPATH": path, "SWARM_STATE_DIR": str(state)}
    pods = [node.start(0, **extra), node.start(1, **extra)]
    for pod in pods:
        pod.ready()
    return node, pods, client_of(node), extra


def files(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name.startswith("board.keep-t"))


def test_tasks_go_on_from_their_last_checkpoint_after_sigkill_to_the_last_bit(
    pair_with_kernels: Any, eventually: Any, tmp_path: Path
) -> None:
    node, pods, client, extra = pair_with_kernels

    def kill_who_works(attempt: int) -> None:
        info = eventually("somebody works", lambda: [i for i in client.board.members() if i.running])[0]
        eventually("a checkpoint", lambda: kept_by(node.board, attempt))
        os.kill(info.pid, signal.SIGKILL)

    # A walk, killed twice: each attempt goes on where the last one was.
    ticket = client.submit("test.walk", 30, 0.01)
    kill_who_works(1)
    eventually("the second attempt's checkpoint", lambda: kept_by(node.board, 2))
    kill_who_works(2)
    (answer,) = client.answers(1)
    assert (answer.ticket, answer.error, answer.attempts) == (ticket, None, 3)
    assert sum(answer.value.values()) >= 30
    assert set(answer.value) == {"1", "2", "3"}
    assert sum(answer.value.values()) == 30, "no step that was kept was taken twice"
    eventually("nothing left", lambda: not files(node.board))

    # A real simulation: the answer is that of an undisturbed one.
    rng = np.random.default_rng(1)
    returns, weights = 0.01 * rng.standard_t(5, (400, 8)), rng.normal(0, 1, 8)
    kernel = registry.get("risk.monte_carlo")
    client.port.submit("risk.monte_carlo", (returns, weights), {"paths": 1 << 20, "seed": 3})
    kill_who_works(1)
    (answer,) = client.answers(1, 60)
    assert (answer.error, answer.attempts) == (None, 2)
    want = kernel(returns, weights, paths=1 << 20, seed=3)
    for name, value in want.items():
        np.testing.assert_array_equal(np.asarray(answer.value[name]), np.asarray(value), err_msg=name)
    assert sum(metric(pod, "swarm_checkpoints_resumed_total") for pod in pods) >= 1

    # Everything is switched off; the same task, given again under its id, is gone on with from the volume.
    ticket = client.submit("test.walk", 40, 0.01)
    eventually("a copy on the volume", lambda: copies(tmp_path / "volume"))
    for pod in pods:
        pod.process.kill()
        pod.process.wait()
    client.close()
    shutil.rmtree(node.board, ignore_errors=True)  # unless the last one to leave has seen that the others are gone
    again = [node.start(0, **extra).ready()]
    from_scratch = type(client)(node.board)
    try:
        from_scratch.submit("test.walk", 40, 0.01, task_id=ticket.task_id)
        (answer,) = from_scratch.answers(1)
        assert answer.error is None
        assert answer.attempts == 1
        assert sum(answer.value.values()) == 40
        resumed = metric(again[0], "swarm_checkpoints_resumed_total")
        assert resumed >= 1, "its attempts are counted anew, but not its steps"
        # The place remembers its lives: the first, those after two or more kills, and this one.
        assert metric(again[0], "swarm_agent_lives") >= 2
        eventually("no copy left", lambda: not copies(tmp_path / "volume"))
    finally:
        from_scratch.close()


def kept_by(board: Path, term: int) -> bool:
    for found in list_files(board, ("board.keep-t",)):
        if found.term >= term:
            try:
                return read(found.path)[1] is not None
            except (OSError, ValueError):
                return False
    return False


def copies(directory: Path) -> list[Path]:
    return [one.path for one in list_files(directory / "swarm-11111111-2222-3333-4444-555555555555", ("keep-t",))]


def metric(pod: Any, name: str) -> float:
    return float(pod.metric(name))


def test_retries_pause_end_and_are_listed_with_who_died(
    pair_with_kernels: Any, eventually: Any, tmp_path: Path
) -> None:
    node, pods, client, _ = pair_with_kernels
    path = str(tmp_path / "begun")

    client.submit("test.flaky", path, 2)
    (answer,) = client.answers(1)
    first, second, third = answer.value
    assert answer.attempts == 3
    assert (second - first >= 0.05, third - second >= 0.1) == (True, True), "the pauses double"

    # While one task waits its agents work on others; one's own say is over the kernel's.
    client.port.submit("test.flaky", (path + "2", 9), {"@retry": msgspec.to_builtins(Retry(attempts=2, backoff=0.5))})
    eventually("it was begun", lambda: os.path.exists(path + "2"))
    for number in range(20):
        client.submit("core.echo", number)
    assert sorted(a.value for a in client.answers(20)) == list(range(20))
    (answer,) = client.answers(1)
    assert answer.error.code == "KernelError"
    assert "hung up" in str(answer.error)
    assert answer.attempts == 2

    # Cancelled in its pause, and cancelled and expired while it runs.
    waiting = client.port.submit("test.flaky", (path + "3", 9), {"@retry": msgspec.to_builtins(Retry(backoff=30.0))})
    eventually("it was begun", lambda: os.path.exists(path + "3"))
    eventually("it waits", lambda: not client.port.cancel(waiting))
    running = client.submit("test.walk", 10_000, 0.005)
    eventually("it walks", lambda: kept_by(node.board, 1))
    client.port.cancel(running)
    client.submit("test.late")
    answers = {answer.ticket.kernel: answer.error.code for answer in client.answers(3)}
    assert answers == {"test.flaky": "TaskCancelled", "test.walk": "TaskCancelled", "test.late": "DeadlineExceeded"}
    eventually("nothing left", lambda: not files(node.board))

    # Poison: set aside after the kernel's own two attempts, and named.
    ticket = client.submit("test.poison")
    (answer,) = client.answers(1)
    assert answer.error.code == "TaskLost"
    task = "{:016x}{:016x}".format(*ticket.task_id)

    def both_deaths(signal: str) -> Any:
        found = {each["task"]: each for each in set_aside(node.board)}
        return found if [death["how"] for death in found.get(task, {}).get("died", ())] == [signal] * 2 else None

    listed = eventually("both deaths are on record", lambda: both_deaths("killed by SIGKILL"))
    assert listed[task]["kernel"] == "test.poison"
    assert {death["agent"] for death in listed[task]["died"]} <= {pod.name for pod in pods}
    assert [each["kernel"] for each in listed.values()] == ["test.flaky", "test.poison"]
    for pod in pods:
        pod.ready()
    assert metric(pods[0], 'swarm_tasks_set_aside{node="node-0"}') == 2

    # Beyond its limits: of memory an error of the task alone, of time the end of its agent after each attempt.
    client.submit("test.greedy", 1000)
    (answer,) = client.answers(1)
    assert "MemoryError" in str(answer.error)
    client.submit("test.greedy", 8)
    ticket = client.submit("test.stuck", np.zeros((2, 3)))
    client.submit("core.echo", 5)
    answers = {answer.ticket.kernel: answer for answer in client.answers(3)}
    assert (answers["test.greedy"].value, answers["core.echo"].value) == (8 << 17, 5)
    assert answers["test.stuck"].error.code == "TaskLost"
    task = "{:016x}{:016x}".format(*ticket.task_id)
    listed = eventually("both deaths are on record", lambda: both_deaths("killed by SIGALRM"))
    assert listed[task]["inputs"] == "float64[2, 3]"
