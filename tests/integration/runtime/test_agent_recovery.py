"""What becomes of tasks when agents die, hang, are fenced or are asked to go: answered once, always."""

from __future__ import annotations

import os
import signal
import time

from swarm_agents.config import Role

TASK = "core.sleep"


def test_a_task_of_a_killed_agent_is_answered_by_its_sibling_and_once(node, compute, client, eventually) -> None:
    sibling = node.start(1).ready()
    client.submit(TASK, 0.5)
    busy = eventually("somebody works", lambda: [i for i in client.board.members() if i.running])[0]
    victim, other = (compute, sibling) if busy.name == compute.name else (sibling, compute)
    os.kill(busy.pid, signal.SIGKILL)
    (answer,) = client.answers(1)
    assert answer.error is None
    assert answer.attempts == 2
    assert client.info(other.name).index == answer.agent
    victim.ready()
    assert victim.status()["restarts"] == 1
    assert victim.status()["epoch"] > busy.epoch
    assert client.info(victim.name).pid != busy.pid
    assert victim.metric("swarm_agent_restarts_total") == 1
    assert victim.metric('swarm_failover_seconds_count{stage="ready"}') == 1
    assert not client.port.poll(), "the task was answered twice"


def test_a_lone_agent_that_is_killed_is_forked_again_and_finishes_its_own_task(compute, client) -> None:
    ticket = client.submit(TASK, 0.3)
    pid = client.agent_pid(compute)
    while not client.info(compute.name).running:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    (answer,) = client.answers(1)
    assert (answer.ticket, answer.error, answer.attempts) == (ticket, None, 2)


def test_no_answer_is_lost_or_doubled_while_agents_are_killed_again_and_again(node, compute, client) -> None:
    sibling = node.start(1).ready()
    tickets = {id(client.submit("core.spin", 0.01)) for _ in range(100)}
    answers = []
    for round_ in range(6):
        answers += client.answers(10)
        os.kill(client.agent_pid((compute, sibling)[round_ % 2]), signal.SIGKILL)
    answers += client.answers(100 - len(answers))
    assert {id(answer.ticket) for answer in answers} == tickets
    assert [answer.error for answer in answers if answer.error] == []
    assert not client.port.wait(0.2), "a task was answered twice"


def test_a_whole_pod_that_is_killed_is_declared_dead_by_its_sibling(node, compute, client, eventually) -> None:
    sibling = node.start(1).ready()
    client.agent_pid(sibling)
    eventually("the sibling watches", lambda: sibling.metric('swarm_board_members{node="node-0",role="compute"}') == 2)
    compute.process.kill()
    (event,) = eventually("a declaration", lambda: sibling.log("SiblingDeclaredDead"))
    assert event["member"] == compute.name
    assert event["witness"] == "process", "its end was seen, not guessed from silence"
    assert not client.info(compute.name).alive


def test_an_agent_that_hangs_is_declared_dead_killed_and_replaced(node, compute, client, eventually) -> None:
    node.start(1).ready()
    client.submit(TASK, 0.2)
    busy = eventually("somebody works", lambda: [i for i in client.board.members() if i.running])[0]
    os.kill(busy.pid, signal.SIGSTOP)
    (answer,) = client.answers(1)
    assert answer.error is None
    assert client.board.members()[answer.agent].pid != busy.pid
    pod = next(pod for pod in node.pods if pod.name == busy.name)
    eventually("a new agent", lambda: pod.status().get("restarts") == 1 and pod.status()["state"] == "ready")


def test_a_fenced_agent_throws_its_work_away_and_joins_again(node, compute, client, eventually) -> None:
    before = client.info(compute.name)
    client.submit(TASK, 0.5)
    eventually("it works", lambda: client.info(compute.name).running)
    assert client.board.declare_dead(before.index, before.epoch) == 1
    (answer,) = client.answers(1)
    assert (answer.error, answer.attempts) == (None, 2)
    after = client.info(compute.name)
    assert (after.pid, after.epoch > before.epoch) == (before.pid, True), "the same process, under a later epoch"
    eventually("it says so", lambda: compute.status().get("epoch") == after.epoch)
    assert compute.metric('swarm_tasks_total{priority="normal",result="fenced"}') == 1
    assert compute.metric("swarm_agent_rejoins_total") == 1
    assert compute.status()["restarts"] == 0


def test_a_poisoned_task_is_set_aside_and_the_agent_lives_on(compute, client) -> None:
    client.submit("chaos.exit")
    (answer,) = client.answers(1)
    assert answer.error is not None
    client.submit("core.echo", 1)
    assert client.answers(1)[0].value == 1


def test_a_standby_answers_while_a_compute_agent_is_gone_and_steps_back_afterwards(
    node, compute, client, eventually
) -> None:
    standby = node.start(0, Role.STANDBY).ready()
    assert standby.status()["active"] is False
    compute.process.kill()
    client.submit("core.echo", 7)
    (answer,) = client.answers(1)
    assert (answer.value, answer.agent) == (7, client.info(standby.name).index)
    node.start(0, POD_NAME="risk-compute-0-1").ready()
    eventually("the standby steps back", lambda: standby.status().get("active") is False)
    client.submit("core.echo", 8)
    assert client.answers(1)[0].agent == client.info("risk-compute-0-1").index


def test_an_idle_standby_claims_nothing(node, compute, client) -> None:
    standby = node.start(0, Role.STANDBY).ready()
    for n in range(20):
        client.submit("core.echo", n)
    assert {answer.agent for answer in client.answers(20)} == {client.info(compute.name).index}
    assert client.info(standby.name).done == 0
