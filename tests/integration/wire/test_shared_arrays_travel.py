"""Shared arrays of a program, through its node's board and from there to other nodes."""

from __future__ import annotations

import gc

import msgspec
import numpy as np
import pytest

from support.wirekit import connection, eventually
from swarm_agents.client import Swarm
from swarm_agents.errors import PayloadError, PayloadTooLarge


def test_a_program_puts_an_array_once_and_many_tasks_look_at_it(make_node):
    node = make_node("a")
    seen: list[int] = []
    node.worker(kernels={"test.sum": lambda array, row: (seen.append(array.ctypes.data), float(array[row].sum()))[1]})
    with Swarm.connect(node.url) as swarm:
        table = swarm.put(np.arange(60_000.0).reshape(60, 1000))
        futures = [swarm.submit("test.sum", table, row) for row in range(60)]
        assert [future.result(10) for future in futures] == table.sum(axis=1).tolist()
        assert len(set(seen)) == 1
        assert node.board.stats().arrays == 1
        with pytest.raises(PayloadTooLarge, match="larger arena"):
            swarm.empty((1 << 40,), np.uint8)
        with pytest.raises(PayloadError, match="Python objects"):
            swarm.put([object()])
        del table, futures
        gc.collect()
        eventually(lambda: node.board.stats().arrays == 0)


def test_results_are_shown_where_they_lie_when_the_program_asks_for_it(make_node):
    node = make_node("a")
    node.worker()
    with Swarm.connect(node.url, copy=False) as swarm:
        array = swarm.empty((500, 100))
        array[:] = 3
        same = swarm.run("core.echo", array, timeout=10)
        assert np.shares_memory(same, array)
        assert not same.flags.writeable
        turned = swarm.run("core.echo", [array.T[1:]], timeout=10)[0]
        assert np.shares_memory(turned, array)
        doubled = swarm.run("core.double", array, timeout=10)
        np.testing.assert_array_equal(doubled, array * 2)
    np.testing.assert_array_equal(same, array)  # also when the program has left


def test_a_shared_array_is_sent_to_the_node_that_computes(make_node, serve):
    bare, busy = make_node("a"), make_node("b")
    busy.worker("risk-compute-1-1")
    serve(bare, busy)
    with Swarm.connect(bare.url) as swarm:
        array = swarm.put(np.arange(200_000.0).reshape(400, 500))
        future = swarm.submit("core.double", array)
        np.testing.assert_array_equal(future.result(10), array * 2)
        assert future.info.hops == 1
        views = [array[::3, ::-1], array.T, array[7]]
        for view, back in zip(views, swarm.run("core.echo", views, timeout=10), strict=True):
            np.testing.assert_array_equal(back, view)
        del array, views, view, future  # a future keeps what was submitted
        gc.collect()
        eventually(lambda: bare.board.stats().arrays == 0)


def test_through_a_hub_an_array_that_was_put_is_sent_with_each_task(make_node, serve):
    node = make_node("a")
    node.worker()
    (hub,) = serve(node)
    with Swarm.connect(connection(hub)) as swarm:
        own = np.arange(1000)
        array = swarm.put(own)
        own[:] = 0
        assert not array.flags.writeable
        assert swarm.empty((3, 4), np.int8).shape == (3, 4)
        for _ in range(2):
            np.testing.assert_array_equal(swarm.run("core.echo", array, timeout=10), np.arange(1000))


def test_when_the_board_goes_an_array_of_it_goes_on_through_a_hub(make_node, serve, monkeypatch):
    monkeypatch.setattr("swarm_agents.client.board._NOBODY", 0.3)
    here, there = make_node("a"), make_node("b")
    dying = here.worker()
    there.worker("risk-compute-1-1")
    (hub,) = serve(there)
    where = msgspec.structs.replace(connection(hub), board=str(here.directory))
    with Swarm.connect(where) as swarm:
        array = swarm.put(np.arange(5000))
        np.testing.assert_array_equal(swarm.run("core.echo", array, timeout=10), array)
        here.leave(dying)
        eventually(lambda: swarm.endpoint == hub.url)
        np.testing.assert_array_equal(swarm.run("core.echo", array[::2], timeout=10), np.arange(0, 5000, 2))
