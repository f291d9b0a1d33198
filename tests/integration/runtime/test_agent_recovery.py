"""What becomes of tasks when agents die, hang, are fenced or are asked to go: answered once, always."""

from __future__ import annotations

import os
import signal
from typing import Any

import msgspec
import pytest

from swarm_agents.config import Role


@pytest.fixture
def busy(pair, eventually):
    """A task that runs on one of the two agents: the member that has it, its pod, and the other pod."""
    ticket = pair.client.submit("core.sleep", 0.4)
    (info,) = eventually("somebody works", lambda: [i for i in pair.client.board.members() if i.running])
    pods = (pair.first, pair.second)
    return ticket, info, *sorted(pods, key=lambda pod: pod.name != info.name)


def test_a_task_of_a_killed_agent_is_answered_by_its_sibling_and_once(pair, busy) -> None:
    ticket, info, victim, sibling = busy
    restarts, replaced = victim.status()["restarts"], victim.metric('swarm_agent_replaced_seconds_count{stage="ready"}')
    os.kill(info.pid, signal.SIGKILL)
    (answer,) = pair.client.answers(1)
    assert (answer.ticket, answer.error, answer.attempts) == (ticket, None, 2)
    assert answer.agent == pair.client.info(sibling.name).index
    status = victim.ready().status()
    assert status["restarts"] == restarts + 1
    assert status["epoch"] > info.epoch
    assert pair.client.info(victim.name).pid != info.pid
    assert victim.metric("swarm_agent_restarts_total") == restarts + 1
    assert {"AgentDeclaredDead", "AgentDied", "AgentReady"} <= {
        e["event"] for e in victim.http("GET", "/v1/events")[1]["events"]
    }
    assert victim.metric('swarm_agent_replaced_seconds_count{stage="ready"}') == replaced + 1
    assert not pair.client.port.wait(0.1), "the task was answered twice"


def test_a_lone_agent_that_is_killed_is_forked_again_and_finishes_its_own_task(lone, eventually) -> None:
    ticket = lone.client.submit("core.sleep", 0.3)
    eventually("it works", lambda: lone.client.info(lone.first.name).running)
    os.kill(lone.client.agent_pid(lone.first), signal.SIGKILL)
    (answer,) = lone.client.answers(1)
    assert (answer.ticket, answer.error, answer.attempts) == (ticket, None, 2)


def test_no_answer_is_lost_or_doubled_while_agents_are_killed_again_and_again(pair) -> None:
    tickets = {pair.client.submit("core.spin", 0.01).task_id for _ in range(100)}
    answers = []
    for turn in range(6):
        answers += pair.client.answers(10)
        os.kill(pair.client.agent_pid((pair.first, pair.second)[turn % 2]), signal.SIGKILL)
    answers += pair.client.answers(100 - len(answers))
    assert sorted(answer.ticket.task_id for answer in answers) == sorted(tickets)
    assert [answer.error for answer in answers if answer.error] == []
    assert not pair.client.port.wait(0.1), "a task was answered twice"


def test_an_agent_that_hangs_is_declared_dead_killed_and_replaced(pair, busy, eventually) -> None:
    _, info, victim, sibling = busy
    restarts = victim.status()["restarts"]
    os.kill(info.pid, signal.SIGSTOP)
    (answer,) = pair.client.answers(1)
    assert answer.error is None
    assert answer.agent == pair.client.info(sibling.name).index
    eventually("a new agent", lambda: victim.status().get("restarts") == restarts + 1)


def test_a_fenced_agent_throws_its_work_away_and_joins_again(lone, eventually) -> None:
    client, pod = lone.client, lone.first
    before, status = client.info(pod.name), pod.status()
    fenced, rejoins = (
        pod.metric(name)
        for name in ('swarm_tasks_total{priority="normal",result="fenced"}', "swarm_agent_rejoins_total")
    )
    client.submit("core.sleep", 0.3)
    eventually("it works", lambda: client.info(pod.name).running)
    assert client.board.declare_dead(before.index, before.epoch) == 1
    (answer,) = client.answers(1)
    assert (answer.error, answer.attempts) == (None, 2)
    after = client.info(pod.name)
    assert after.pid == before.pid, "the same process goes on"
    assert after.epoch > before.epoch
    eventually("it says so", lambda: pod.status().get("epoch") == after.epoch)
    assert pod.metric('swarm_tasks_total{priority="normal",result="fenced"}') == fenced + 1
    assert pod.metric("swarm_agent_rejoins_total") == rejoins + 1
    assert pod.status()["restarts"] == status["restarts"]


OWNERS_KERNELS = """
import os
from swarm_agents.compute.registry import kernel

@kernel("test.poison")
def poison() -> None:
    '''Kills its agent.'''
    os.kill(os.getpid(), 9)

@kernel("test.hog")
def hog(count: int) -> int:
    '''Holds the GIL from its first to its last moment.'''
    return sum(range(count))
"""


def test_the_swarm_bears_kernels_that_hold_the_gil_or_kill_their_agents(node, client_of) -> None:
    (node.root / "owners_kernels.py").write_text(OWNERS_KERNELS)
    settings = node.with_runtime(kernel_modules=("owners_kernels",))
    failover = msgspec.structs.replace(settings.failover, suspect_after=0.2, dead_after=0.7)
    node.write(msgspec.structs.replace(settings, failover=failover))
    pod = node.start(PYTHONPATH=str(node.root)).ready()
    client = client_of(node)

    client.submit("test.hog", 60_000_000)
    (answer,) = client.answers(1)
    assert answer.run_s > failover.dead_after, "else nothing is shown"
    assert (answer.error, answer.attempts) == (None, 1), "a busy agent was taken for a dead one"
    assert pod.status()["restarts"] == 0

    client.submit("test.poison")
    (answer,) = client.answers(1)
    assert answer.error.code == "TaskLost"
    assert answer.attempts == node.settings.failover.max_attempts
    client.submit("core.echo", 1)
    assert client.answers(1)[0].value == 1
    assert pod.ready().status()["restarts"] == answer.attempts


def test_a_standby_fills_the_place_of_a_killed_pod_and_steps_back_when_it_is_filled(pair, eventually) -> None:
    # The last test of the crowd: the second pod is gone afterwards, and another incarnation has its place.
    node, client = pair.node, pair.client
    standby = node.start(0, Role.STANDBY).ready()
    for n in range(20):
        client.submit("core.echo", n)
    agents = {client.info(pod.name).index for pod in (pair.first, pair.second)}
    assert {answer.agent for answer in client.answers(20)} <= agents, "an idle standby claims nothing"
    assert standby.status()["active"] is False
    assert pair.first.http("POST", "/v1/drain", b"")[0] == 202

    epoch = client.info(pair.second.name).epoch
    pair.second.process.kill()

    def declarations() -> list[dict[str, Any]]:
        events = standby.log("SiblingDeclaredDead") + pair.first.log("SiblingDeclaredDead")
        return [each for each in events if (each["member"], each["member_epoch"]) == (pair.second.name, epoch)]

    (event,) = eventually("a declaration", declarations)
    assert event["witness"] == "process", "its end was seen, not guessed from silence"
    assert not client.info(pair.second.name).alive
    client.submit("core.echo", 7)
    (answer,) = client.answers(1)
    assert (answer.value, answer.agent) == (7, client.info(standby.name).index)
    assert standby.status()["active"] is True

    successor = node.start(1, POD_NAME="risk-compute-1-1").ready()
    eventually("the standby steps back", lambda: standby.status().get("active") is False)

    def answered_by() -> str:
        client.submit("core.echo", 8)
        return client.board.member_name(client.answers(1)[0].agent)

    eventually("the successor's answer", lambda: answered_by() == successor.name)
    assert {answered_by() for _ in range(10)} == {successor.name}
    standby.terminate()
    pair.second.process.wait()
    pair.second.__dict__.update(successor.__dict__)
