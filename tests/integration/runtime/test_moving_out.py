"""A pod that has to leave while a long task runs there: the task moves to a sibling, and goes on where it was."""

from __future__ import annotations

from typing import Any


def test_a_long_task_moves_with_its_checkpoint_when_its_pod_is_upgraded_away(
    node: Any, client_of: Any, eventually: Any
) -> None:
    node.write(node.with_runtime(drain_timeout=0.4))
    pods = {pod.name: pod for pod in (node.start(0), node.start(1))}
    for pod in pods.values():
        pod.ready()
    client = client_of(node)
    client.port.submit("core.simulate", (4.0,), {"kept": 1 << 16, "every": 0.05}, timeout=10)
    (busy,) = eventually("somebody works", lambda: [info for info in client.board.members() if info.running])
    leaving = pods.pop(busy.name)
    (staying,) = pods.values()
    kept = 'swarm_checkpoints_total{result="kept"}'
    eventually("it has kept where it is", lambda: leaving.metric(kept) >= 3)

    # What the operator does before it deletes a pod: it asks for a drain, which does not come to an end in its time.
    assert leaving.http("POST", "/v1/drain", b"")[0] == 202
    fresh = [client.submit("core.echo", n) for n in range(10)]
    answers = client.answers(10)
    assert {answer.ticket for answer in answers} == set(fresh)
    assert {answer.agent for answer in answers} == {client.info(staying.name).index}, "the leaving one takes nothing"
    assert leaving.status()["state"] == "draining"
    leaving.terminate()
    assert leaving.ended() == 0

    (answer,) = client.answers(1, 60)
    assert answer.error is None
    assert answer.agent == client.info(staying.name).index
    assert answer.value["attempts"] == 2, "it went on from its checkpoint"
    assert answer.attempts == 1, "having been moved is not the task's fault"
    assert answer.run_s < 4.0, "what was done before was not done again"
    assert staying.metric("swarm_checkpoints_resumed_total") == 1
