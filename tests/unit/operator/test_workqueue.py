"""The queue's contract: each key once, serial per key, concurrent across keys, back-off per key."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from swarm_operator.workqueue import BACKOFF_BASE, BACKOFF_MAX, WorkQueue

pytestmark = [pytest.mark.looptime]


def queue() -> WorkQueue[str]:
    return WorkQueue(asyncio.get_running_loop().time)


async def test_a_key_that_is_added_often_is_worked_on_once() -> None:
    q = queue()
    for _ in range(5):
        q.add("a")
    assert len(q) == 1
    assert (await q.get())[0] == "a"
    assert len(q) == 0


async def test_a_key_added_during_its_work_is_worked_on_again_afterwards_and_not_meanwhile() -> None:
    q = queue()
    q.add("a")
    await q.get()
    q.add("a")
    q.add("a")
    assert len(q) == 0, "it is being worked on"
    q.done("a")
    assert len(q) == 1
    await q.get()
    q.done("a")
    assert len(q) == 0


async def test_keys_are_worked_on_at_once_and_one_key_never_twice_at_a_time() -> None:
    q = queue()
    at_once: Counter[str] = Counter()
    most: Counter[str] = Counter()
    together = 0

    async def work(key: str, waited: float) -> None:
        nonlocal together
        at_once[key] += 1
        most[key] = max(most[key], at_once[key])
        together = max(together, sum(at_once.values()))
        q.add(key) if most.total() < 5 else None
        await asyncio.sleep(1)
        at_once[key] -= 1

    workers = [asyncio.create_task(q.run(work)) for _ in range(4)]
    for key in "abc":
        q.add(key)
    await asyncio.sleep(10)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert set(most.values()) == {1}
    assert together == 3


async def test_a_later_wish_does_not_put_off_an_earlier_one() -> None:
    q = queue()
    begun = asyncio.get_running_loop().time()
    q.add_after("a", 2.0)
    q.add_after("a", 50.0)
    await q.get()
    assert asyncio.get_running_loop().time() - begun == pytest.approx(2.0)
    q.done("a")
    assert not q._later or q._due == {}


async def test_an_earlier_wish_comes_before_a_later_one() -> None:
    q = queue()
    begun = asyncio.get_running_loop().time()
    q.add_after("a", 50.0)
    q.add_after("a", 2.0)
    await q.get()
    assert asyncio.get_running_loop().time() - begun == pytest.approx(2.0)


async def test_back_off_doubles_up_to_its_bound_and_is_forgiven() -> None:
    q = queue()
    delays = [q.retry("a") for _ in range(20)]
    assert delays[:3] == pytest.approx([BACKOFF_BASE, BACKOFF_BASE * 2, BACKOFF_BASE * 4])
    assert delays[-1] == BACKOFF_MAX
    q.forgive("a")
    assert q.retry("a") == BACKOFF_BASE


async def test_what_the_server_asks_for_is_waited_for() -> None:
    q = queue()
    begun = asyncio.get_running_loop().time()
    assert q.retry("a", at_least=7.0) == 7.0
    await q.get()
    assert asyncio.get_running_loop().time() - begun == pytest.approx(7.0)


async def test_one_key_that_fails_for_ever_does_not_hold_up_another() -> None:
    q = queue()
    done: Counter[str] = Counter()

    async def work(key: str, waited: float) -> None:
        done[key] += 1
        if key == "broken":
            q.retry(key)
        else:
            q.add_after(key, 1.0)

    worker = asyncio.create_task(q.run(work))
    q.add("broken")
    q.add("good")
    await asyncio.sleep(100.5)
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    assert done["good"] == 101
    assert done["broken"] <= 12


async def test_it_says_how_long_a_key_has_waited() -> None:
    q = queue()
    q.add("a")
    await asyncio.sleep(3)
    assert (await q.get())[1] == pytest.approx(3.0)


async def test_a_key_rests_after_its_work_and_what_was_added_meanwhile_is_not_lost() -> None:
    q = queue()
    clock = asyncio.get_running_loop().time
    for added_during_work in (True, False):
        q.add("a")
        await q.get()
        if added_during_work:
            q.add("a")
        q.done("a", rest=2.0)
        begun = clock()
        if not added_during_work:
            q.add("a")
        q.add("b")
        assert (await q.get())[0] == "b", "others do not rest"
        q.done("b")
        assert (await q.get())[0] == "a"
        assert clock() - begun == pytest.approx(2.0, abs=0.01)
        q.done("a")


async def test_a_rest_without_further_work_ends_quietly() -> None:
    q = queue()
    q.add("a")
    await q.get()
    q.done("a", rest=1.0)
    await asyncio.sleep(5)
    q.add("a")
    begun = asyncio.get_running_loop().time()
    await q.get()
    assert asyncio.get_running_loop().time() == begun
