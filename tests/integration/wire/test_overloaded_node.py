"""A node that refuses work for overload, as its clients and the other hubs meet it: over the board, TCP and REST."""

from __future__ import annotations

import asyncio
import time

import pytest

from support.wirekit import connection, eventually
from swarm_agents.client import AsyncSwarm, Swarm
from swarm_agents.errors import Overloaded
from swarm_agents.shm.shedding import refuse


@pytest.fixture
def node(make_node):
    node = make_node()
    node.worker()
    return node


@pytest.fixture(params=["board", "tcp"])
def swarm(request, node, serve):
    if request.param == "board":
        with Swarm.connect(node.url) as swarm:
            yield swarm
    else:
        (hub,) = serve(node)
        with Swarm.connect(connection(hub)) as swarm:
            yield swarm


def test_bulk_work_is_refused_with_a_clear_answer_and_critical_work_is_done(node, swarm):
    refuse(node.board.mapping, 2, 30.0, 60)
    for priority in ("bulk", "normal"):
        with pytest.raises(
            Overloaded, match=r"overloaded: bulk and normal work are refused, retry after 30 s"
        ) as caught:
            swarm.submit("core.echo", 1, priority=priority, timeout=0.0).result(10)
        assert caught.value.retry_after == 30.0
    assert swarm.run("core.echo", 2, priority="critical", timeout=10) == 2
    assert swarm.run("core.echo", 3, priority="high", timeout=10) == 3
    assert swarm.pending == 0


def test_a_deadline_that_ends_before_the_node_takes_work_again_is_answered_at_once(node, swarm):
    refuse(node.board.mapping, 1, 0.2, 60)
    with pytest.raises(Overloaded):
        swarm.submit("core.echo", 1, priority="bulk", deadline=0.05).result(10)


def test_who_waits_is_served_when_the_node_takes_work_again(node, swarm):
    refuse(node.board.mapping, 1, 0.05, 0.3)
    began = time.monotonic()
    assert swarm.submit("core.echo", 5, priority="bulk").result(20) == 5
    assert time.monotonic() - began >= 0.25


@pytest.mark.parametrize("path", ["board", "tcp"])
def test_work_that_was_accepted_before_is_answered(make_node, serve, path):
    node = make_node()
    (hub,) = serve(node)
    with Swarm.connect(node.url if path == "board" else connection(hub)) as swarm:
        futures = [swarm.submit("core.echo", n, priority="bulk") for n in range(20)]
        eventually(lambda: node.board.depths()["bulk"] == 20)
        refuse(node.board.mapping, 2, 30.0, 60)
        node.worker()
        assert [future.result(20) for future in futures] == list(range(20))


def test_refused_tasks_take_no_credit_from_urgent_ones(node, serve):
    (hub,) = serve(node)
    with Swarm.connect(connection(hub)) as swarm:
        refuse(node.board.mapping, 1, 30.0, 60)
        stuck = swarm.submit("core.echo", 0, priority="bulk")
        eventually(lambda: swarm._session._channel._shed.holds(3))  # the refusal has come
        with pytest.raises(Overloaded):  # the second is not even sent
            swarm.submit("core.echo", 1, priority="bulk", timeout=0.2)
        assert hub.hub.counts["refused_full"] == 1
        assert [swarm.run("core.echo", n, priority="critical", timeout=10) for n in range(200)] == list(range(200))
        assert stuck.cancel()


def test_asyncio_waits_without_blocking_and_tries_again(node, serve):
    (hub,) = serve(node)
    refuse(node.board.mapping, 1, 0.1, 0.4)

    async def main() -> tuple[int, list[int]]:
        async with await AsyncSwarm.connect(connection(hub)) as swarm:
            value = await swarm.submit("core.echo", 4, priority="bulk")
            refuse(node.board.mapping, 1, 0.1, 0.3)
            return value, [each async for each in swarm.map("core.echo", range(3), priority="bulk")]

    assert asyncio.run(main()) == (4, [0, 1, 2])


def test_an_overloaded_node_sends_other_nodes_tasks_home_untouched(make_node, serve):
    busy, idle = make_node("a"), make_node("b")
    idle.worker()
    first, _ = serve(busy, idle)
    refuse(idle.board.mapping, 1, 1.0, 60)
    refuse(busy.board.mapping, 0, 0, 0)
    with Swarm.connect(busy.url) as swarm:
        future = swarm.submit("core.echo", 1, priority="bulk")
        urgent = swarm.submit("core.echo", 2, priority="critical")
        assert urgent.result(20) == 2, "what it does not refuse is carried there"
        assert not future.done()
        refuse(idle.board.mapping, 0, 0, 0)
        assert future.result(20) == 1
        assert future.info.attempts == 1
    assert first.hub.counts["forwarded_answered"] == 2
