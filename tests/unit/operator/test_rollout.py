"""Who leaves, who comes and who waits: the cases that people ask about, one by one."""

from __future__ import annotations

import pytest

from support.operatorkit import make_pod, make_report
from swarm_agents.config import Role
from swarm_operator.names import PodName
from swarm_operator.rollout import DRAIN_GRACE, DRAIN_TRIES, Agent, Decision, Target, budget, decide
from swarm_operator.views import AgentReport, PodView

NOW = 2000.0


def agent(ordinal: int, incarnation: int = 0, report: AgentReport | None = None, **fields: object) -> Agent:
    pod: PodView = make_pod(Role.COMPUTE, ordinal, incarnation, **({"revision": "r"} | fields))
    return Agent(pod, PodName("risk", Role.COMPUTE, ordinal, incarnation), report)


def run(count: int, *agents: Agent, **fields: object) -> Decision:
    target = Target(**({"swarm": "risk", "role": Role.COMPUTE, "count": count, "revision": "r"} | fields))  # type: ignore[arg-type]
    return decide(target, agents, NOW)


def names(agents: list[Agent]) -> list[str]:
    return [a.pod.name for a in agents]


def test_the_idle_agent_leaves_and_not_the_one_with_the_highest_number() -> None:
    busy, idle = make_report(running=3), make_report(running=0)
    decision = run(2, agent(0, report=busy), agent(1, report=idle), agent(2, report=busy))
    assert names(decision.drain) == ["risk-compute-1-0"]
    assert not decision.delete


def test_an_agent_that_never_ran_leaves_before_any_that_works() -> None:
    decision = run(1, agent(0, report=make_report()), agent(1, phase="Pending", ready=False, ip=""))
    assert [a.pod.name for a, _ in decision.delete] == ["risk-compute-1-0"]
    assert not decision.drain


def test_nobody_is_chosen_before_all_have_said_how_busy_they_are() -> None:
    decision = run(1, agent(0, report=make_report(running=3)), agent(1))
    assert not decision.drain
    assert not decision.delete
    assert decision.requeue is not None


def test_who_was_asked_to_leave_goes_on_leaving() -> None:
    """Also when another has become idle meanwhile: a swarm must not drain one after the other in turn."""
    leaving = make_report(state="draining", running=2, drain_since=NOW - 1)
    decision = run(1, agent(0, report=leaving), agent(1, report=make_report(running=0)))
    assert names(decision.drain) == ["risk-compute-0-0"]


def test_an_empty_agent_is_deleted_by_name() -> None:
    decision = run(1, agent(0, report=make_report(state="drained", drain_since=NOW)), agent(1, report=make_report()))
    ((victim, why),) = decision.delete
    assert victim.pod.name == "risk-compute-0-0"
    assert "drained" in why


@pytest.mark.parametrize(("seconds", "goes"), [(25.0 + DRAIN_GRACE - 1, False), (25.0 + DRAIN_GRACE, True)])
def test_a_busy_agent_has_its_drain_timeout(seconds: float, goes: bool) -> None:
    report = make_report(state="draining", running=1, drain_since=NOW - seconds)
    assert bool(run(0, agent(0, report=report)).delete) is goes


@pytest.mark.parametrize(("failures", "goes"), [(DRAIN_TRIES - 1, False), (DRAIN_TRIES, True)])
def test_an_agent_that_does_not_answer_is_deleted_after_a_few_tries(failures: int, goes: bool) -> None:
    report = make_report(state="", failures=failures, error="no route", drain_since=NOW)
    decision = run(0, agent(0, report=report))
    assert bool(decision.delete) is goes
    if goes:
        assert "no route" in decision.delete[0][1]


def test_an_agent_that_is_wanted_again_resumes() -> None:
    decision = run(1, agent(0, report=make_report(state="draining", drain_since=NOW)))
    assert names(decision.resume) == ["risk-compute-0-0"]


def test_the_lowest_free_number_and_the_next_incarnation_are_used() -> None:
    decision = run(4, agent(0), agent(2), agent(1, 3, deleting=True))
    assert [str(name) for name in decision.create] == ["risk-compute-1-4", "risk-compute-3-0"]


def test_a_large_scale_up_comes_in_batches() -> None:
    decision = run(1000, batch=200)
    assert len(decision.create) == 200
    assert decision.requeue == 0.0


def test_a_pod_that_failed_young_is_replaced_later_and_later() -> None:
    waits = []
    for incarnation in range(8):
        failed = agent(0, incarnation, phase="Failed", ready=False, created=NOW, ended=NOW)
        decision = run(1, failed)
        waits.append(decision.requeue or 0.0)
        assert bool(decision.create) is (waits[-1] == 0.0)
    assert waits == sorted(waits)
    assert waits[0] == 0.0, "the first time at once"
    assert waits[-1] == 30.0


def test_a_pod_that_ran_long_is_replaced_at_once() -> None:
    failed = agent(0, 9, phase="Failed", ready=False, created=NOW - 3600, ended=NOW)
    decision = run(1, failed)
    assert [str(name) for name in decision.create] == ["risk-compute-0-10"]
    assert names([a for a, _ in decision.delete]) == ["risk-compute-0-9"]


def test_a_paused_rollout_replaces_nobody_and_still_scales() -> None:
    decision = run(3, agent(0, revision="old", report=make_report()), paused=True)
    assert not decision.drain
    assert len(decision.create) == 2


def test_surge_comes_first_when_none_may_be_missing() -> None:
    old = [agent(n, revision="old", report=make_report()) for n in range(2)]
    decision = run(2, *old, surge=1, unavailable=0)
    assert [str(name) for name in decision.create] == ["risk-compute-2-0"]
    assert not decision.drain
    decision = run(2, *old, agent(2, report=make_report()), surge=1, unavailable=0)
    assert len(decision.drain) == 1
    assert not decision.create


@pytest.mark.parametrize(
    ("value", "count", "up", "is_"), [("25%", 4, True, 1), ("25%", 5, True, 2), ("25%", 3, False, 0), (3, 1, True, 3)]
)
def test_percentages_round_as_in_a_deployment(value: int | str, count: int, up: bool, is_: int) -> None:
    assert budget(value, count, up=up) == is_
