"""Probes count answers in a row."""

from __future__ import annotations

import asyncio
from itertools import chain, groupby, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_deploy.local.kubelet.probes import Answer, Prober, Verdict, port_number
from swarm_deploy.local.kubelet.services import Backoff, Timing


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_the_result_is_the_last_run_of_answers_that_was_long_enough(
    answers: list[bool], success: int, failure: int
) -> None:
    verdict = Verdict({"successThreshold": success, "failureThreshold": failure})
    turns = [verdict.take(good) for good in answers]
    enough = [good for good, run in groupby(answers) if len(list(run)) >= (success if good else failure)]
    assert verdict.result == (enough[-1] if enough else None)
    assert sum(turns) == len(list(groupby(enough)))


@pytest.mark.looptime
async def test_a_prober_asks_every_period_and_tells_of_turns_only() -> None:
    loop = asyncio.get_running_loop()
    begun, asked, told = loop.time(), [], []
    answers = chain([True, True, False, False, True], repeat(True))

    async def ask(seconds: float) -> Answer:
        asked.append(loop.time() - begun)
        return Answer(next(answers), "why")

    probe = {"periodSeconds": 10, "initialDelaySeconds": 3, "failureThreshold": 2, "timeoutSeconds": 1}
    prober = Prober(probe, ask, turned=lambda good, text: told.append(good), failed=lambda text: None)
    task = asyncio.create_task(prober.run())
    await asyncio.sleep(44)
    task.cancel()
    assert asked == pytest.approx([3, 13, 23, 33, 43])
    assert told == [True, False, True]


@pytest.mark.looptime
async def test_an_eager_prober_asks_between_but_counts_failures_by_the_period() -> None:
    loop = asyncio.get_running_loop()
    begun, failures, told = loop.time(), [], []

    async def ask(seconds: float) -> Answer:
        return Answer(loop.time() - begun > 4.25)

    probe = {"periodSeconds": 2, "failureThreshold": 100}
    prober = Prober(
        probe,
        ask,
        turned=lambda good, text: told.append((good, loop.time() - begun)),
        failed=failures.append,
        until_good=True,
        eager=True,
    )
    await prober.run()
    assert told[0][0]
    assert told[0][1] == pytest.approx(4.3, abs=0.11)
    assert len(failures) == 2


def test_a_port_is_a_number_or_one_of_the_container_s_names() -> None:
    container = {"ports": [{"name": "http", "containerPort": 8080}]}
    assert port_number(container, 80) == 80
    assert port_number(container, "http") == 8080
    assert port_number(container, "81") == 81
    with pytest.raises(ValueError, match="couldn't find port: nope"):
        port_number(container, "nope")


def test_the_pause_before_a_restart_doubles_to_its_limit_and_is_forgiven() -> None:
    backoff = Backoff(Timing())
    assert [backoff.take(0.1) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert backoff.take(700) == 0
    assert backoff.take(0.1) == 10
