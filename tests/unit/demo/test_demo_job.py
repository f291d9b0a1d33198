"""The demo's job without a cluster: planned, run in this process, put together, checked and reported."""

from __future__ import annotations

import re
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agents.compute import registry
from swarm_agents.errors import SwarmFull
from swarm_deploy.demo import job as jobs
from swarm_deploy.demo.chaos import Failover, Victim
from swarm_deploy.demo.checks import Check, check_backtests, check_figures, same
from swarm_deploy.demo.data import Panel
from swarm_deploy.demo.figures import figures, services
from swarm_deploy.demo.job import WINDOW, Book, Costs, Job, headlines, plan, probes
from swarm_deploy.demo.main import EXAMPLES, load_books, measure
from swarm_deploy.demo.report import Outcome, render
from swarm_deploy.demo.runner import Record, Runner, run_all
from swarm_deploy.demo.watch import Audit
from swarm_operator.api.v1alpha1 import SwarmSpec

COSTS = Costs(chunk=0.013, fit=0.015, fit_hedged=0.018, day=0.0003, resample=0.00006, what_if=0.0005)


class InProcess:
    """A swarm of nobody: `work` runs the oldest tasks, in this thread, and `full` refuses every other submission."""

    def __init__(self, *, room: int = 1000, agents: int = 4) -> None:
        self.waiting: deque[tuple[Future[Any], str, tuple, dict, str]] = deque()
        self.room = room
        self.agents = agents
        self.most = 0
        self.done = 0

    def submit(
        self, kernel: Any, /, *args: Any, priority: str = "normal", timeout: Any = None, **kwargs: Any
    ) -> Future:
        if len(self.waiting) >= self.room:
            raise SwarmFull("no room")
        future: Future[Any] = Future()
        self.waiting.append((future, kernel, args, kwargs, priority))
        self.most = max(self.most, len(self.waiting))
        return future

    def work(self, count: int = 1) -> None:
        for _ in range(min(count, len(self.waiting))):
            future, kernel, args, kwargs, _ = self.waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            agent = f"risk-compute-{self.done % self.agents}-a"
            future.info = SimpleNamespace(agent=agent, attempts=1, queued=0.001, run=0.002, hops=0)  # type: ignore[attr-defined]
            self.done += 1
            try:
                future.set_result(registry.get(kernel).run(args, kwargs))
            except Exception as error:
                future.set_exception(error)


class AtOnce(InProcess):
    def submit(self, kernel: Any, /, *args: Any, **kwargs: Any) -> Future:
        future = super().submit(kernel, *args, **kwargs)
        self.work()
        return future


@pytest.fixture(scope="module")
def books() -> dict[str, Book]:
    """The example's books with a short history: a window and a few days."""
    return {
        name: Book(name, shortened(book.panel, WINDOW + days), book.amounts)
        for (name, book), days in zip(load_books(EXAMPLES / "risk").items(), (12, 5), strict=True)
    }


def shortened(p: Panel, rows: int) -> Panel:
    return replace(p, dates=p.dates[-rows:], closes=p.closes[-rows:], returns=np.ascontiguousarray(p.returns[-rows:]))


@pytest.fixture(scope="module")
def first(books: dict[str, Book]) -> list[Record]:
    return run_all(AtOnce(), headlines(books), timeout=60)


@pytest.fixture(scope="module")
def job(books: dict[str, Book], first: list[Record]) -> Job:
    return plan(books, first[0].value["profits"], first[0].value["moves"], COSTS, seconds=0.5, cores=1.0)


def finish(runner: Runner, swarm: InProcess) -> None:
    for _ in range(100_000):
        runner.pump()
        swarm.work(3)
        if runner.finished:
            return
    raise AssertionError("the job does not end")


@pytest.fixture(scope="module")
def records(job: Job) -> list[Record]:
    swarm = InProcess()
    runner = Runner(swarm, job, seconds=0.0)
    finish(runner, swarm)
    return runner.records


def test_the_job_has_tasks_of_every_kind_size_and_priority(job: Job) -> None:
    assert {item.kind for item in job.items} == {"what-if", "simulation", "backtest", "resample"}
    assert {item.priority for item in job.items} == {"critical", "high", "normal", "bulk"}
    assert max(item.cost for item in job.items) > 5 * min(item.cost for item in job.items)
    assert sorted(item.number for item in job.items) == list(range(len(job.items)))


@settings(max_examples=25, deadline=None)
@given(
    seconds=st.floats(5, 60),
    cores=st.sampled_from([1.0, 2.0, 4.0]),
    slow=st.floats(0.3, 4),
    chunk=st.floats(0.005, 0.05),
    fit=st.floats(0.004, 0.05),
)
def test_a_plan_costs_about_what_was_asked_for_whatever_the_machine(
    books_full: dict[str, Book], seconds: float, cores: float, slow: float, chunk: float, fit: float
) -> None:
    costs = Costs(chunk * slow, fit * slow, 1.2 * fit * slow, 0.0003 * slow, 0.00006 * slow, 0.0005 * slow)
    arrays = np.zeros(5011), np.zeros((5011, 5))
    made = plan(books_full, *arrays, costs, seconds=seconds, cores=cores)
    least = 4011 * costs.day + 17 * costs.fit  # a fit each 250 days is the least that is done
    assert made.cost <= max(1.35 * seconds * cores, 1.5 * least + 4)
    assert made.cost >= 0.65 * seconds * cores
    for name, days in (("core", 4011), ("hedged", 252)):
        parts = sorted((i for i in made.work if i.kind == "backtest" and i.study == name), key=lambda i: i.part)
        covered = 0
        for item in parts:
            assert item.part == covered
            assert covered % item.kwargs["refit"] == 0
            covered += len(item.args[0]) - WINDOW
        assert covered == days


@pytest.fixture(scope="module")
def books_full() -> dict[str, Book]:
    return load_books(EXAMPLES / "risk")


def test_a_plan_is_the_same_every_time(books: dict[str, Book], first: list[Record], job: Job) -> None:
    again = plan(books, first[0].value["profits"], first[0].value["moves"], COSTS, seconds=0.5, cores=1.0)
    assert [(i.number, i.kind, i.part) for i in again.items] == [(i.number, i.kind, i.part) for i in job.items]


def test_the_default_job_has_hundreds_of_tasks(books_full: dict[str, Book]) -> None:
    made = plan(books_full, np.zeros(5011), np.zeros((5011, 5)), COSTS, seconds=20.0, cores=2.0)
    assert 500 < len(made.items) < 10_000
    assert Counter(i.kind for i in made.items)["what-if"] >= 500


def test_every_probe_is_a_task_that_runs(books: dict[str, Book], first: list[Record]) -> None:
    made = probes(books, first[0].value["profits"], first[0].value["moves"])
    assert made.keys() == jobs.PROBES.keys() == set(Costs.__dataclass_fields__)
    costs = measure(AtOnce(), books, first[0].value)
    assert all(getattr(costs, name) > 0 for name in made)


def test_the_manifest_is_valid_and_allows_every_kernel_of_the_job(books: dict[str, Book], job: Job) -> None:
    manifest = yaml.safe_load((EXAMPLES / "risk.yaml").read_text())
    spec = SwarmSpec.model_validate(manifest["spec"])
    assert (spec.compute.replicas, spec.compute.standby) == (4, 1)
    used = {item.kernel for item in (*job.items, *headlines(books))}
    assert used <= set(registry.names(spec.compute.kernels))


# -- running it


def test_every_task_is_answered_once_in_a_bounded_window(job: Job) -> None:
    swarm = InProcess()
    runner = Runner(swarm, job, seconds=1e9, window=7)
    finish(runner, swarm)
    assert sorted(r.item.number for r in runner.records) == list(range(len(job.items)))
    assert swarm.done == len(job.items)
    heavy = 7
    assert swarm.most <= heavy + len(job.questions)
    assert runner.progress == pytest.approx(1.0)
    assert runner.underway == []


def test_a_full_swarm_is_asked_again_and_nothing_is_lost(job: Job) -> None:
    swarm = InProcess(room=2)
    runner = Runner(swarm, job, seconds=0.0)
    finish(runner, swarm)
    assert swarm.most == 2
    assert len(runner.records) == len(job.items)


def test_questions_go_out_at_their_pace_and_before_the_work(job: Job) -> None:
    now = [0.0]
    swarm = InProcess()
    runner = Runner(swarm, job, seconds=10.0, window=4, clock=lambda: now[0])
    pace = 10.0 / len(job.questions)
    runner.pump()
    assert [w[4] for w in swarm.waiting].count("critical") == 1
    now[0] = 3.5 * pace
    runner.pump()
    assert [w[4] for w in swarm.waiting].count("critical") == 4
    assert len(swarm.waiting) == 8


def test_a_task_that_fails_is_recorded_with_its_error(job: Job) -> None:
    broken = replace(job.work[0], kernel="core.fail", args=("bad luck",), kwargs={})
    swarm = InProcess()
    runner = Runner(swarm, Job((broken,), (), 1, 1, 1.0), seconds=0.0)
    finish(runner, swarm)
    assert "bad luck" in str(runner.records[0].error)


def test_giving_up_cancels_what_is_underway(job: Job) -> None:
    swarm = InProcess()
    runner = Runner(swarm, job, seconds=1e9, window=5)
    runner.pump()
    waiting = list(swarm.waiting)
    runner.cancel()
    assert all(future.cancelled() for future, *_ in waiting)
    runner.pump()
    assert {str(r.error) for r in runner.records} == {"it was cancelled"}


def test_a_probe_that_fails_says_so(books: dict[str, Book]) -> None:
    item = replace(headlines(books)[0], kernel="core.fail", args=(), kwargs={})
    with pytest.raises(RuntimeError, match="asked to fail"):
        run_all(AtOnce(), [item], timeout=1)


# -- figures, checks, report


def test_the_figures_are_right_and_every_check_holds(
    books: dict[str, Book], first: list[Record], records: list[Record]
) -> None:
    found = figures(books, first, records)
    checks = check_figures(first, records, found, seconds=0.5) + check_backtests(found)
    assert {c.name: c.detail for c in checks if not c.held} == {}
    assert len(checks) >= 8
    for name, book in books.items():
        days = len(book.panel.returns) - WINDOW
        assert len(found.backtests[name].var) == days
        assert found.backtests[name].dates[0] == book.panel.dates[WINDOW]
        profits = np.expm1(book.panel.returns[WINDOW:]) @ book.amounts
        np.testing.assert_allclose(found.backtests[name].profits, profits, rtol=1e-9)


def test_the_order_of_the_answers_does_not_matter(
    books: dict[str, Book], first: list[Record], records: list[Record]
) -> None:
    forth, back = figures(books, first, records), figures(books, first, records[::-1])
    assert forth.simulation["var"] == back.simulation["var"]
    assert forth.backtests["core"].var.tobytes() == back.backtests["core"].var.tobytes()
    assert forth.resampled_es.tobytes() == back.resampled_es.tobytes()


@pytest.mark.parametrize("kind", ["simulation", "what-if", "backtest", "resample"])
def test_an_answer_that_is_off_by_one_bit_is_found(
    kind: str, books: dict[str, Book], first: list[Record], records: list[Record]
) -> None:
    """Retried tasks are always among those that are computed again, so one of these is spoiled."""
    at = next(i for i, r in enumerate(records) if r.item.kind == kind)
    value = dict(records[at].value)
    key = "worst" if kind == "simulation" else "var" if kind != "what-if" else "contributions"
    value[key] = np.array(value[key])
    value[key].flat[0] = np.nextafter(value[key].flat[0], np.inf)
    spoiled = [*records[:at], replace(records[at], value=value, attempts=2), *records[at + 1 :]]
    checks = check_figures(first, spoiled, figures(books, first, spoiled), seconds=0.0)
    assert [c for c in checks if not c.held]


def test_equality_is_of_bits_types_and_shapes() -> None:
    assert same({"a": np.arange(3.0), "b": float("nan")}, {"a": np.arange(3.0), "b": float("nan")})
    assert not same(np.arange(3.0), np.arange(3))
    assert not same(np.zeros(2), np.zeros((2, 1)))
    assert not same(0.0, -0.0)
    assert not same({"a": 1}, {"b": 1})
    assert not same({"a": 1}, 1)


@pytest.fixture(scope="module")
def outcome(books: dict[str, Book], first: list[Record], records: list[Record]) -> Outcome:
    step = iter(range(1, 10_000))
    timed = [replace(r, submitted=0.01 * i, done=0.01 * i + 0.004) for r, i in zip(records, step, strict=False)]
    timed[20] = replace(timed[20], attempts=2)
    killed = timed[len(timed) // 2].done
    failover = Failover(Victim("node-0", "risk-compute-1-a", 2, 1, 4242, killed), 1, 0.001, 0.0012, 0.002, 1, ("b",))
    audit = Audit(len(timed), len(timed), 0, 1, 0)
    checks = [Check("A <check>", True, "fine & well")]
    found = figures(books, first, timed)
    return Outcome(books, found, timed, 0.0, timed[-1].done, audit, failover, checks, {"Machine": "a & b"})


def test_the_report_needs_no_network_and_holds_what_matters(outcome: Outcome) -> None:
    page = render(outcome)
    assert not re.search(r"(src|href|url)\s*[=(]", page)
    assert "http" not in page
    assert "<script" not in page
    assert not re.search(r"<!--\w+-->", page)
    assert "All 1 checks held" in page
    assert "A &lt;check&gt;" in page
    assert "0 lost, 0 committed twice" in page
    assert f"$ {outcome.figures.headlines['core/garch']['var']:,.0f}" in page
    assert page.count("<svg") == 6
    assert "prefers-color-scheme: dark" in page


def test_every_plot_is_well_formed_and_finite(outcome: Outcome) -> None:
    for svg in re.findall(r"<svg.*?</svg>", render(outcome), re.DOTALL):
        ElementTree.fromstring(svg)
        assert "nan" not in re.sub(r'aria-label="[^"]*"', "", svg).lower()


def test_a_check_that_failed_is_the_first_thing_in_the_report(outcome: Outcome) -> None:
    failed = replace(outcome, checks=[*outcome.checks, Check("The other", False, "broken")], failover=None)
    assert not failed.held
    page = render(failed)
    assert "1 of 2 checks did not hold: The other" in page
    assert "No agent was killed" in page


def test_services_list_kinds_by_urgency(records: list[Record]) -> None:
    listed = services(records)
    assert [s.kind for s in listed] == ["what-if", "simulation", "backtest", "resample"]
    assert sum(s.tasks for s in listed) == len(records)
