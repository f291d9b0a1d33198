"""Every kernel there is, called as a task of a real agent: what comes back is what it answers in this process."""

from __future__ import annotations

from support.kernelkit import SAMPLED, assert_same, draw
from swarm_agents.compute import registry


def test_every_kernel_answers_through_an_agent_as_it_does_here(pair) -> None:
    """Arguments and answers lie in shared memory there; which implementation runs is the agent's choice."""
    client = pair.client
    calls = {name: draw(name, 11) for name in SAMPLED}
    asked = {}
    for name, (args, kwargs) in calls.items():
        task = client.port.submit(name, args, kwargs, timeout=10)
        asked[task.task_id] = name
    answers = {asked[answer.ticket.task_id]: answer for answer in client.answers(len(calls), 60)}
    assert {name: str(answer.error) for name, answer in answers.items() if answer.error is not None} == {}
    for name, answer in answers.items():
        kernel = registry.get(name)
        expected = kernel.run(*calls[name], implementation=registry.REFERENCE)
        tolerance = max(i.tolerance for i in kernel.implementations.values())
        assert_same(expected, answer.value, 2 * tolerance, name)
