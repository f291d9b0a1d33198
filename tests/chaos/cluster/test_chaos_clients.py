"""What clients count: every way that a task can end, and no wrong, second or missing answer is passed over."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from swarm_agents.compute import registry
from swarm_agents.errors import SwarmFull, TaskLost
from swarm_deploy.chaos.clients import Account, Client, Gap
from swarm_deploy.chaos.kernels import after, walk
from swarm_deploy.chaos.ledger import Tally
from swarm_deploy.chaos.report import Done, Outcome
from swarm_deploy.chaos.work import Item, items


class FakeFuture(Future[Any]):
    """What a swarm's client returns, with the parts that are looked at."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.task = (1, number)
        self.info = SimpleNamespace(attempts=1)


class FakeSwarm:
    """A swarm that the test answers for: `answer` gets each future and what was asked."""

    def __init__(self, answer: Callable[[int, FakeFuture, str, tuple[Any, ...], dict[str, Any]], None]) -> None:
        self._answer = answer
        self._numbers = itertools.count(1)

    def submit(self, kernel: str, *args: Any, timeout: float, **kwargs: Any) -> FakeFuture:
        number = next(self._numbers)
        future = FakeFuture(number)
        self._answer(number, future, kernel, args, kwargs)
        return future

    def close(self) -> None:
        pass


def compute(kernel: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if kernel == "core.simulate":
        return {"seconds": args[0], "rounds": 1}
    registry.load()
    return registry.get(kernel).reference(*args, **kwargs)


def run(answer: Callable[..., None], *, seconds: float = 0.6, finish: float = 5.0) -> Account:
    client = Client("c", lambda: FakeSwarm(answer), seed=3, walks=False)  # type: ignore[arg-type,return-value]
    client.start()
    time.sleep(seconds)
    client.finish(finish)
    assert not client.is_alive()
    assert client.problem is None
    return client.account


def right(number: int, future: FakeFuture, kernel: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    future.set_result(compute(kernel, args, kwargs))


def test_right_answers_are_all_that_is_counted_when_all_goes_well() -> None:
    account = run(right)
    assert account.sent == account.answered > 5
    assert (account.lost, account.doubled, account.wrong, account.failed) == (0, 0, [], {})


def test_a_wrong_answer_is_found_whatever_kernel_gave_it() -> None:
    def answer(number: int, future: FakeFuture, kernel: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = compute(kernel, args, kwargs)
        if number == 4:
            value = b"x" * 32 if kernel == "hash.sha256_tree" else None
        future.set_result(value)

    account = run(answer)
    assert len(account.wrong) == 1
    assert account.wrong[0].startswith("task 4 ")


def test_an_answer_that_never_comes_is_a_lost_task_by_name() -> None:
    def answer(number: int, future: FakeFuture, kernel: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if number != 3:
            right(number, future, kernel, args, kwargs)

    account = run(answer, finish=0.5)
    assert account.lost == 1
    assert account.missing[0].startswith("1-3 ")


def test_a_second_answer_is_a_doubled_task() -> None:
    def answer(number: int, future: FakeFuture, kernel: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = compute(kernel, args, kwargs)
        if number == 2:
            later = future.add_done_callback
            future.add_done_callback = lambda call: (later(call), later(call))  # type: ignore[method-assign,return-value]
        future.set_result(value)

    assert run(answer).doubled == 1


def test_a_reported_failure_is_no_loss_and_has_its_reason() -> None:
    def answer(number: int, future: FakeFuture, kernel: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if number == 2:
            future.set_exception(TaskLost("begun 4 times, and died each time"))
        else:
            right(number, future, kernel, args, kwargs)

    account = run(answer)
    assert account.failed == {"TaskLost": 1}
    assert account.reasons == {"TaskLost": "begun 4 times, and died each time"}
    assert account.lost == 0


def test_a_full_swarm_is_asked_again_and_the_task_counts_once() -> None:
    def answer(number: int, future: FakeFuture, kernel: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if number % 2:
            raise SwarmFull("full")
        right(number, future, kernel, args, kwargs)

    account = run(answer)
    assert account.refused > 2
    assert account.sent == account.answered


def test_the_longest_gap_is_the_longest_time_without_any_answer() -> None:
    kept: list[tuple[FakeFuture, Any]] = []

    def answer(number: int, future: FakeFuture, kernel: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = compute(kernel, args, kwargs)
        if number < 5:
            future.set_result(value)
        else:
            kept.append((future, value))

    client = Client("c", lambda: FakeSwarm(answer), seed=3, walks=False)  # type: ignore[arg-type,return-value]
    client.start()
    time.sleep(1.2)
    for future, value in kept:
        future.set_result(value)
    client.finish(0.2)
    assert 0.5 < client.account.gap.seconds < 3.0


def test_a_seed_gives_the_same_tasks_again() -> None:
    def first(seed: int) -> list[tuple[str, str]]:
        return [(item.kernel, repr(item.args)) for item in itertools.islice(items(seed, walks=True), 200)]

    assert first(5) == first(5) != first(6)
    assert {kernel for kernel, _ in first(5)} == {"hash.sha256_tree", "core.echo", "chaos.walk"}


def test_a_walk_ends_where_the_formula_says_also_from_a_checkpoint() -> None:
    found = walk.reference(12345, 2_345, ctx=Walking(None))
    assert found == {"at": after(12345, 2_345), "resumed": 0}
    resumed = walk.reference(12345, 2_345, ctx=Walking({"at": after(12345, 2_000), "done": 2_000}))
    assert resumed == {"at": after(12345, 2_345), "resumed": 2_000}
    assert after(7, 0) == 7


class Walking:
    """A context with one checkpoint."""

    def __init__(self, kept: Any) -> None:
        self._kept = kept

    def resume(self) -> Any:
        return self._kept

    def due(self, every: float) -> bool:
        return False

    def check(self) -> None: ...


def walks() -> Iterator[Item]:
    return (item for item in items(1, walks=True) if item.kernel == "chaos.walk")


def test_a_walk_that_went_wrong_is_found() -> None:
    item = next(walks())
    assert item.right({"at": after(*item.args), "resumed": 0})
    assert not item.right({"at": after(*item.args) + 1, "resumed": 0})
    assert not item.right(None)


def test_an_echo_of_another_task_is_wrong() -> None:
    one, other = itertools.islice((i for i in items(1, walks=True) if i.kernel == "core.echo"), 2)
    assert one.right(one.args[0].copy())
    assert not one.right(other.args[0])
    assert not one.right(np.zeros(0))


def outcome(**changes: Any) -> Outcome:
    account = Account("a", sent=10, answered=9, gap=Gap(0.5, 103.0))
    account.failed["TaskLost"] = 1
    made = Outcome(7, 60.0, ["kill-agent"], accounts=[account], began=100.0, healed=1.0, tally=Tally(accepted=9))
    made.faults.append(Done(3.2, "kill-agent", "agent a", 3.2))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_a_run_without_complaint_has_passed_and_says_its_figures() -> None:
    made = outcome()
    assert made.complaints == []
    document = json.loads(json.dumps(made.document()))
    assert (document["sent"], document["answered"], document["lost"], document["doubled"]) == (10, 9, 0, 0)
    assert document["clients"][0]["longestGap"] == {"seconds": 0.5, "at": 3.0, "during": ["kill-agent at 3.2 s"]}
    assert any("lost 0, doubled 0" in line for line in made.lines())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"accounts": [Account("a", sent=3, answered=2)]}, "1 tasks lost"),
        ({"accounts": [Account("a", sent=3, answered=3, doubled=1)]}, "1 tasks doubled"),
        ({"tally": Tally(accepted=9, doubled=["a | a"])}, "1 tasks doubled"),
        ({"boards": {"node-1": {"committed": 12, "submitted": 10}}}, "1 tasks doubled"),
        ({"accounts": [Account("a", sent=3, answered=3, wrong=["task 1"])]}, "1 wrong answers"),
        ({"accounts": []}, "no task was answered"),
        ({"unhealed": "2 of 4"}, "the swarm was not whole again: 2 of 4"),
        ({"left": ["process 7"]}, "left behind: process 7"),
        ({"problems": ["client 1: OSError"]}, "client 1: OSError"),
        ({"faults": [Done(1.0, "node", "node-1", 2.0, "it could not be undone")]}, "could not be undone"),
    ],
)
def test_each_thing_that_is_not_as_it_should_be_is_complained_of(changes: dict[str, Any], said: str) -> None:
    made = outcome(**changes)
    assert any(said in complaint for complaint in made.complaints), made.complaints
    assert not made.document()["passed"]
