"""What a kernel gets by `ctx`: an end when nobody waits, and its own past when it is begun again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarm_agents.compute import registry
from swarm_agents.compute.context import Context
from swarm_agents.config import Checkpoints
from swarm_agents.errors import BadArguments, DeadlineExceeded, TaskCancelled
from swarm_agents.runtime.store import Store, task_key

KEY = task_key((1, 2), "test.task")


class Killed(BaseException):
    """The agent dies here."""


def make_context(directory: Path, **options: Any) -> Context:
    store = Store(directory, Checkpoints(), owner="a", place=(1, 1))
    return Context(keep=lambda: store.keeper(KEY, lambda: True), **options)


def test_a_kernel_that_is_called_directly_keeps_and_resumes_nothing() -> None:
    ctx = Context()
    assert (ctx.resume(), ctx.checkpoint(1), ctx.due(0.0), ctx.cancelled()) == (None, False, False, False)
    ctx.check()


def test_the_next_attempt_finds_what_the_last_one_kept(tmp_path: Path) -> None:
    first = make_context(tmp_path)
    assert first.resume() is None
    assert first.checkpoint({"done": 3})
    assert make_context(tmp_path, attempt=2).resume() == {"done": 3}
    assert make_context(tmp_path, attempt=2).resume(version=1) is None, "the form of the value has changed since"


def test_a_task_that_nobody_waits_for_ends_at_its_next_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TaskCancelled):
        make_context(tmp_path, cancelled=lambda: True).checkpoint(1)
    with pytest.raises(DeadlineExceeded):
        make_context(tmp_path, deadline=time.monotonic() - 1).checkpoint(1)
    assert make_context(tmp_path).resume() is None


def test_checkpoints_are_due_as_often_as_asked_and_more_rarely_when_writing_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Slow:
        def read(self, usable: Any = None) -> None:
            return None

        def write(self, value: Any, *, version: int = 0) -> bool:
            now[0] += value
            return True

    ctx = Context(keep=Slow, interval=0.25)
    assert not ctx.due()
    now[0] += 0.26
    assert ctx.due()
    ctx.checkpoint(0.001)
    assert not ctx.due()
    now[0] += 0.25
    assert ctx.due()
    ctx.checkpoint(0.5)
    now[0] += 24.9
    assert not ctx.due(), "half a second of writing is not to take more than a fiftieth of the time"
    now[0] += 10
    assert ctx.due()
    assert ctx.spent == pytest.approx(0.501)


def run_with_deaths(name: str, directory: Path, sample: registry.Call, after: list[int], implementation: str) -> Any:
    """Runs a kernel whose agent dies at its so-many-th check, again and again; each time it goes on as a new one."""
    kernel = registry.get(name)
    resumed = 0
    for deaths in [*after, None]:
        checks = 0

        def cancelled(limit: int | None = deaths) -> bool:
            nonlocal checks
            checks += 1
            if limit is not None and checks > limit:
                raise Killed
            return False

        ctx = make_context(directory, cancelled=cancelled, interval=0.0)
        found = ctx.resume()
        resumed += found is not None
        try:
            return kernel.run(sample.args, sample.kwargs, ctx=ctx, implementation=implementation), resumed
        except Killed:
            continue
    raise AssertionError("it never ended")


RETURNS = 0.01 * np.random.default_rng(3).standard_t(5, (160, 3))
WEIGHTS = np.array([1.0, -0.5, 2.0])
LONG = {
    "risk.monte_carlo": registry.call(RETURNS, WEIGHTS, paths=60_000, seed=5, chunk=2),
    "risk.backtest_window": registry.call(RETURNS[:140], WEIGHTS, window=120, model="garch", refit=3, level=0.95),
    "risk.bootstrap": registry.call(RETURNS[:, 0], resamples=40, seed=9),
}


@pytest.mark.parametrize("name", LONG)
def test_a_simulation_that_was_interrupted_answers_to_the_last_bit_as_if_it_had_not_been(
    name: str, tmp_path: Path
) -> None:
    kernel = registry.get(name)
    for implementation in kernel.implementations:
        whole = kernel.run(LONG[name].args, LONG[name].kwargs, implementation=implementation)
        directory = tmp_path / implementation
        directory.mkdir()
        value, resumed = run_with_deaths(name, directory, LONG[name], [3, 1, 2], implementation)
        assert resumed == 3, "each new agent went on where the last one was"
        assert value.keys() == whole.keys()
        for key, want in whole.items():
            np.testing.assert_array_equal(np.asarray(value[key]), np.asarray(want), err_msg=key, strict=True)


@pytest.mark.parametrize("name", LONG)
def test_an_interrupted_simulation_does_not_begin_at_the_beginning(name: str, tmp_path: Path) -> None:
    checks = []

    def count() -> bool:
        checks.append(1)
        return False

    with pytest.raises(Killed):
        run_until(name, tmp_path, 3)
    registry.get(name).run(LONG[name].args, LONG[name].kwargs, ctx=make_context(tmp_path, cancelled=count))
    resumed = len(checks)
    checks.clear()
    registry.get(name).run(LONG[name].args, LONG[name].kwargs, ctx=Context(count))
    whole = len(checks)
    assert resumed < whole


def run_until(name: str, directory: Path, limit: int) -> None:
    left = [limit]

    def cancelled() -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return False

    ctx = make_context(directory, cancelled=cancelled, interval=0.0)
    registry.get(name).run(LONG[name].args, LONG[name].kwargs, ctx=ctx)


def test_a_checkpoint_of_other_arguments_than_the_tasks_own_is_not_gone_on_with(tmp_path: Path) -> None:
    """It can't come about by the store, whose keys are tasks; a kernel looks all the same."""
    make_context(tmp_path).checkpoint({"done": 3, "profits": np.zeros(7)})
    short = registry.call(RETURNS, WEIGHTS, paths=20_000, seed=5)
    kernel = registry.get("risk.monte_carlo")
    value = kernel.run(short.args, short.kwargs, ctx=make_context(tmp_path))
    assert value["var"] == kernel.run(short.args, short.kwargs)["var"]


# -- what a kernel says of its retries


def test_a_kernel_says_how_often_it_is_begun_and_a_task_may_say_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from swarm_agents.compute.agent import _asked
    from swarm_agents.retry import Retry

    monkeypatch.setattr(registry, "_kernels", dict(registry._kernels))  # the other tests go through all that there are

    @registry.kernel("test.retried", attempts=5, backoff=0.5, retry_on=(ConnectionError, "KeyError"), deadline=10)
    def retried() -> None:
        """Does nothing."""

    assert retried.retry == Retry(5, 0.5, ("ConnectionError", "KeyError"))
    assert retried.deadline == 10
    assert retried.retry.again_after(ConnectionResetError())
    assert not retried.retry.again_after(ValueError())
    asked, kwargs = _asked({"@retry": [2, None, None], "x": 1}, retried.retry)
    assert (asked, kwargs) == (Retry(2, 0.5, ("ConnectionError", "KeyError")), {"x": 1})
    for wrong in ({"attempts": 3}, [0], [1, -1], "often"):
        with pytest.raises(BadArguments):
            _asked({"@retry": wrong}, None)
    with pytest.raises(ValueError, match="deadline"):
        registry.kernel("test.wrong", deadline=0)


def test_pauses_double_up_to_a_minute() -> None:
    from swarm_agents.retry import pause

    assert [pause(0.1, attempt) for attempt in (1, 2, 3, 4)] == [0.0, 0.1, 0.2, 0.4]
    assert pause(30, 99) == 60.0
    assert pause(None, 5) == 0.0


def test_how_often_checkpoints_are_due_follows_the_settings_from_one_task_to_the_next() -> None:
    from types import SimpleNamespace

    import msgspec

    from swarm_agents.compute.agent import ComputeAgent
    from swarm_agents.config import Settings

    settings = Settings(swarm="risk", namespace="default", uid="u")
    agent = ComputeAgent.__new__(ComputeAgent)
    agent.context = SimpleNamespace(settings=settings)  # type: ignore[assignment]
    agent._worker = None
    claim: Any = SimpleNamespace(deadline=None, cancelled=lambda: False, attempt=1)
    kernel = registry.get("core.simulate")
    assert agent._context_for(claim, kernel)._interval == settings.checkpoints.interval
    agent.context.settings = msgspec.structs.replace(settings, checkpoints=Checkpoints(interval=7.0))
    assert agent._context_for(claim, kernel)._interval == 7.0
