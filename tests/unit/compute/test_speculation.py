"""Which of its siblings' tasks an idle agent runs a second time, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from support.shm import make_board, make_port, make_worker
from swarm_agents.compute import registry
from swarm_agents.compute.context import Context
from swarm_agents.compute.registry import kernel
from swarm_agents.compute.speculation import Reading, Speculation
from swarm_agents.config import Checkpoints, Failover
from swarm_agents.exported import exposition
from swarm_agents.retry import KEYWORD, Retry
from swarm_agents.runtime.scoreboard import Scoreboard
from swarm_agents.runtime.store import Store, task_key
from swarm_agents.shm.names import kernel_id


@kernel("speculation.walk")
def walk(steps: int, *, ctx: Context) -> int:
    """Goes on from where it was."""
    begun = ctx.resume() or 0
    for step in range(begun, steps):
        ctx.check()
        assert not ctx.checkpoint(step), "a second run keeps nothing"
    return steps - begun


@kernel("speculation.plain")
def plain(value: int) -> int:
    """Can't be interrupted."""
    return value + 1


@kernel("speculation.once", retry=Retry(attempts=1))
def once(*, ctx: Context) -> None:
    """May be begun once only."""


@kernel("speculation.later", retry=Retry(backoff=30.0))
def later(*, ctx: Context) -> None:
    """Is begun again after half a minute."""


@kernel("speculation.broken")
def broken(*, ctx: Context) -> None:
    """Fails where it runs a second time."""
    raise RuntimeError("no such file here")


@kernel("speculation.endless")
def endless(*, ctx: Context) -> None:
    """Ends when it is told to."""
    while True:
        ctx.check()


class Node:
    """A board with a client, a slow agent, and the agent under test, whose clock is the test's."""

    def __init__(self, directory: Path) -> None:
        self.now = 1000.0
        self.board = make_board(directory)
        self.client, self.port = make_port(self.board)
        self.slow, self.slow_worker = make_worker(self.board, "slow")
        self.member, self.worker = make_worker(self.board, "idle")
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.failover = Failover()
        self.store = Store(self.board.directory, Checkpoints(), owner="idle", place=(self.member.index, 1))
        self.context: Any = SimpleNamespace(
            board=self.board,
            member=self.member,
            settings=SimpleNamespace(failover=self.failover, runtime=SimpleNamespace(kernels=())),
            scoreboard=Scoreboard(),
            may_claim=True,
            log=SimpleNamespace(info=lambda *a, **k: None),
            tell=lambda event, **fields: self.told.append((event, fields)),
        )
        self.speculation = Speculation(self.context, self.make_context, clock=lambda: self.now)

    def make_context(self, second: Any, of: registry.Kernel, stop: Callable[[], bool]) -> Context | None:
        if not of.signature.takes_context:
            return None
        key = task_key(second.task_id, second.kernel)
        return Context(stop, keep=lambda: Reading(self.store.keeper(key, lambda: False)))

    def know(self, name: str, seconds: float = 0.1, count: int = 20) -> None:
        for _ in range(count):
            self.speculation.learn(kernel_id(name), seconds)

    def give(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A task that the slow agent has in hand, with another one after it: so its age is what the idle one sees."""
        self.port.submit(name, args, kwargs)
        claim = self.slow_worker.claim(0.0)
        self.port.submit("core.noop")
        self.slow_worker.hand_back(self.slow_worker.claim(0.0), begun=False)
        own = self.worker.claim(0.0)
        self.worker.commit(own, None)
        self.answers()
        return claim

    def look(self, after: float = 0.0) -> bool:
        self.now += after
        return self.speculation.look(self.worker)

    def answers(self) -> list[Any]:
        self.port.wait(0.0)
        return list(self.port.poll(16))

    def configure(self, **changes: Any) -> None:
        self.context.settings.failover = msgspec.structs.replace(self.failover, **changes)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    for member in (made.member, made.slow, made.client):
        made.board.leave(member)


def test_a_straggler_is_run_a_second_time_and_the_first_answer_counts(node: Node) -> None:
    node.know("speculation.walk")
    claim = node.give("speculation.walk", 5)
    assert not node.look(), "it has just been seen first"
    assert not node.look(after=0.19)
    assert node.look(after=0.02), "twice the 95th percentile has passed"
    assert node.speculation.counts == {"won": 1}
    (answer,) = node.answers()
    assert (answer.value, answer.agent, answer.attempts) == (5, node.member.index, 1)
    assert claim.cancelled()
    assert not node.slow_worker.commit(claim, 5)
    assert [event for event, _ in node.told] == ["TaskRunTwice", "TaskOvertaken"]
    assert node.told[0][1]["slow"] == "slow"
    assert node.context.scoreboard.running == 0


def test_a_second_run_goes_on_from_where_the_first_one_was_and_clears_its_checkpoints_away(node: Node) -> None:
    node.know("speculation.walk")
    claim = node.give("speculation.walk", 5)
    first = Store(node.board.directory, Checkpoints(), owner="slow", place=(node.slow.index, 1))
    keeper = first.keeper(task_key(claim.task_id, claim.kernel), lambda: True)
    assert keeper.write(3)
    node.look()
    assert node.look(after=1.0)
    assert [answer.value for answer in node.answers()] == [2]
    assert node.store.find(task_key(claim.task_id, claim.kernel)) == []
    keeper.release()


@pytest.mark.parametrize(
    ("factor", "least", "early", "late"), [(2.0, 0.02, 0.15, 0.25), (5.0, 0.02, 0.45, 0.55), (2.0, 3.0, 2.9, 3.1)]
)
def test_the_settings_say_when_a_task_is_a_straggler(
    node: Node, factor: float, least: float, early: float, late: float
) -> None:
    node.configure(straggler_factor=factor, straggler_least=least)
    node.know("speculation.walk")
    node.give("speculation.walk", 1)
    node.look()
    assert not node.look(after=early)
    assert node.look(after=late - early)


def test_nothing_is_run_twice_when_the_settings_allow_no_share(node: Node) -> None:
    node.configure(straggler_share=0.0)
    node.know("speculation.walk")
    node.give("speculation.walk", 1)
    node.look()
    assert not node.look(after=100.0)


def test_nothing_is_run_twice_where_tasks_may_be_begun_only_once(node: Node) -> None:
    node.board.max_attempts = 1
    node.know("speculation.walk")
    node.give("speculation.walk", 1)
    node.look()
    assert not node.look(after=100.0)


@pytest.mark.parametrize(
    ("name", "kwargs"), [("speculation.once", {}), ("speculation.walk", {"steps": 1, KEYWORD: Retry(attempts=1)})]
)
def test_a_task_that_may_be_begun_only_once_is_left_alone(node: Node, name: str, kwargs: dict[str, Any]) -> None:
    node.know(name)
    claim = node.give(name, **kwargs)
    node.look()
    node.look(after=100.0)
    assert node.speculation.counts == {"refused": 1}
    assert not claim.cancelled()
    assert node.answers() == []


def test_the_time_that_a_task_waits_for_its_next_attempt_is_no_delay(node: Node) -> None:
    node.know("speculation.later")
    node.port.submit("speculation.later")
    node.slow_worker.hand_back(node.slow_worker.claim(0.0))
    claim = node.slow_worker.claim(0.0)
    assert claim.attempt == 2
    node.now = claim.claimed_ns * 1e-9
    assert not node.look(after=29.0)
    assert node.look(after=2.0)


def test_an_error_of_the_second_run_is_not_the_submitters_to_hear(node: Node) -> None:
    node.know("speculation.broken")
    claim = node.give("speculation.broken")
    node.look()
    assert node.look(after=1.0)
    assert node.speculation.counts == {"failed": 1}
    assert node.answers() == []
    assert node.slow_worker.commit(claim, "first")
    assert [answer.value for answer in node.answers()] == ["first"]


def test_a_second_run_gives_way_to_fresh_work_and_may_be_tried_again(node: Node) -> None:
    node.know("speculation.endless")
    claim = node.give("speculation.endless")
    node.look()
    node.port.submit("core.noop")
    assert node.look(after=1.0)
    assert node.speculation.counts == {"yielded": 1}
    assert node.worker.claim(0.0).kernel == "core.noop"
    assert not claim.cancelled()
    node.context.may_claim = False  # and to a wish to drain
    assert node.look(after=1.0)
    assert node.speculation.counts == {"yielded": 2}


def test_what_cannot_be_interrupted_is_run_twice_only_while_another_agent_is_idle(node: Node) -> None:
    node.know("speculation.plain")
    node.give("speculation.plain", 1)
    node.look()
    node.look(after=1.0)
    assert node.speculation.counts == {"yielded": 1}
    third, _ = make_worker(node.board, "third")
    assert node.look(after=1.0)
    assert node.speculation.counts == {"yielded": 1, "won": 1}
    assert [answer.value for answer in node.answers()] == [2]
    node.board.leave(third)


def test_a_fenced_agent_commits_no_second_run(node: Node) -> None:
    node.know("speculation.walk")
    claim = node.give("speculation.walk", 1)
    node.look()
    tell = node.context.tell

    def fence(event: str, **fields: Any) -> None:
        tell(event, **fields)
        node.board.declare_dead(node.member.index, node.member.epoch)

    node.context.tell = fence
    with pytest.raises(Exception, match="declared dead"):
        node.look(after=1.0)
    assert node.answers() == []
    assert node.slow_worker.commit(claim, "first")


def test_how_second_runs_ended_is_exported(node: Node) -> None:
    node.know("speculation.walk")
    node.give("speculation.walk", 1)
    node.look()
    node.look(after=1.0)
    text = exposition(node.speculation.metrics()).decode()
    assert 'swarm_second_runs_total{result="won"} 1' in text
    assert 'swarm_second_runs_total{result="yielded"} 0' in text
