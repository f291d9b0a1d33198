"""Hubs and clients on real boards: through shared memory, through a hub, and through two hubs from node to node."""

from __future__ import annotations

import threading
import time

import msgspec
import numpy as np
import pytest

from support.wirekit import connection, eventually
from swarm_agents.client import (
    ConnectionLost,
    DeadlineExceeded,
    KernelError,
    PayloadTooLarge,
    Swarm,
    SwarmFull,
    Unreachable,
    as_completed,
)
from swarm_agents.errors import BoardMismatch
from swarm_agents.shm.board import Geometry


class Gate:
    """A kernel that runs until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, value):
        self.entered.release()
        assert self.open.wait(20)
        return value


# -- through shared memory alone


def test_a_client_of_the_board_gets_values_errors_and_who_computed_them(make_node):
    node = make_node()
    node.worker()
    with Swarm.connect(node.url) as swarm:
        array = np.arange(200_000.0)
        future = swarm.submit("core.double", array)
        np.testing.assert_array_equal(future.result(10), array * 2)
        assert future.info.agent == "risk-compute-0-1"
        assert future.info.attempts == 1
        with pytest.raises(KernelError, match="boo") as caught:
            swarm.run("core.fail", "boo", timeout=10)
        assert "RuntimeError: boo" in caught.value.remote_traceback
        assert list(swarm.map("core.echo", range(500))) == list(range(500))
        assert sorted(f.result() for f in as_completed(swarm.submit_many("core.echo", range(50)), timeout=10)) == list(
            range(50)
        )
        assert [info["role"] for info in swarm.info()["members"]] == ["compute", "client"]
    assert [info.role for info in node.board.members()] == ["compute"]


def test_callbacks_come_without_anybody_waiting(make_node):
    node = make_node()
    node.worker()
    with Swarm.connect(node.url) as swarm:
        for _ in range(3):
            seen = threading.Event()
            swarm.submit("core.echo", 1).add_done_callback(lambda future, seen=seen: seen.set())
            assert seen.wait(10)


def test_many_threads_wait_on_one_client(make_node):
    node = make_node()
    node.worker()
    with Swarm.connect(node.url) as swarm:
        results: list[int] = []

        def use(base: int) -> None:
            results.extend(swarm.submit("core.echo", base + n).result(20) for n in range(100))

        threads = [threading.Thread(target=use, args=(base,)) for base in range(0, 600, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(results) == list(range(600))


def test_cancelling_and_deadlines_reach_the_board(make_node):
    node, gate = make_node(), Gate()
    node.worker(kernels={"test.gate": gate})
    with Swarm.connect(node.url) as swarm:
        running = swarm.submit("test.gate", 1)
        assert gate.entered.acquire(timeout=10)
        waiting = swarm.submit("core.echo", 2)
        late = swarm.submit("core.echo", 3, deadline=0.01)
        assert waiting.cancel()
        eventually(lambda: time.time() > late.request.deadline)
        gate.open.set()
        assert running.result(10) == 1
        with pytest.raises(DeadlineExceeded):
            late.result(10)
        assert swarm.run("core.echo", 4, timeout=10) == 4
    assert waiting.task not in node.begun


def test_a_full_board_pushes_back_on_its_clients(make_node):
    node, gate = make_node(geometry=Geometry(task_slots=256, arena_bytes=1 << 20, max_members=8)), Gate()
    node.worker(kernels={"test.gate": gate})
    with Swarm.connect(node.url) as swarm:
        first = swarm.submit("test.gate", 0)
        futures = [first]
        with pytest.raises(SwarmFull):  # noqa: PT012  # which submission it is, is the board's affair
            while True:
                futures.append(swarm.submit("core.echo", len(futures), timeout=0.05))
        assert 8 < len(futures) <= 65
        with pytest.raises(PayloadTooLarge, match="arena"):
            swarm.submit("core.echo", np.zeros(1 << 20), priority="high")
        gate.open.set()
        assert [future.result(10) for future in futures] == list(range(len(futures)))
        assert swarm.submit("core.echo", "on", timeout=5).result(10) == "on"


def test_a_board_that_is_not_there_is_unreachable_and_one_of_another_swarm_is_refused(make_node, tmp_path):
    with pytest.raises(Unreachable, match="no board"):
        Swarm.connect(f"shm://{tmp_path / 'nowhere'}", timeout=0.1)
    node = make_node()
    node.worker()
    from swarm_agents.client import Connection

    with pytest.raises(BoardMismatch, match="not of another"):
        Swarm.connect(Connection(uid="another", board=str(node.directory)), timeout=1)


def test_a_client_that_was_taken_for_dead_joins_again_and_loses_nothing(make_node):
    node, gate = make_node(), Gate()
    node.worker(kernels={"test.gate": gate})
    with Swarm.connect(node.url) as swarm:
        running = swarm.submit("test.gate", 1)
        assert gate.entered.acquire(timeout=10)
        waiting = swarm.submit("core.echo", 2)
        client = next(info for info in node.board.members() if info.role == "client")
        node.board.declare_dead(client.index, client.epoch)
        gate.open.set()
        assert waiting.result(10) == 2
        assert running.result(10) == 1


def test_closing_a_client_of_the_board_fails_what_is_pending(make_node):
    node, gate = make_node(), Gate()
    node.worker(kernels={"test.gate": gate})
    swarm = Swarm.connect(node.url)
    pending = swarm.submit("test.gate", 1)
    assert gate.entered.acquire(timeout=10)
    swarm.close()
    with pytest.raises(ConnectionLost, match="closed before"):
        pending.result(1)
    gate.open.set()


# -- through a hub


def test_a_client_outside_is_served_from_the_hubs_board(make_node, serve):
    node = make_node()
    node.worker()
    (hub,) = serve(node)
    with Swarm.connect(connection(hub)) as swarm:
        array = np.arange(300_000.0)
        np.testing.assert_array_equal(swarm.run("core.double", array, timeout=10), array * 2)
        assert list(swarm.map("core.echo", range(300))) == list(range(300))
        with pytest.raises(KernelError, match="boo"):
            swarm.run("core.fail", "boo", timeout=10)
        future = swarm.submit("core.echo", 1)
        future.result(10)
        assert future.info.agent == "risk-compute-0-1"
        with pytest.raises(PayloadTooLarge, match="arena"):
            swarm.run("core.echo", np.zeros(3 << 20), timeout=10)


def test_more_than_the_board_holds_waits_at_the_client_and_nothing_is_lost(make_node, serve):
    node, gate = make_node(geometry=Geometry(task_slots=256, arena_bytes=1 << 20, max_members=8)), Gate()
    node.worker(kernels={"test.gate": gate})
    (hub,) = serve(node)
    with Swarm.connect(connection(hub)) as swarm:
        futures = [swarm.submit("test.gate", 0)]
        assert gate.entered.acquire(timeout=10)
        more = threading.Thread(target=lambda: futures.extend(swarm.submit_many("core.echo", range(1, 200))))
        more.start()
        eventually(lambda: hub.call(lambda: hub.hub.sessions.unanswered) > 16)
        with pytest.raises(SwarmFull, match="at present"):  # noqa: PT012  # how many it takes is the board's affair
            while True:
                futures.append(swarm.submit("core.echo", "one more", timeout=0.1))
        assert hub.call(lambda: hub.hub.sessions.unanswered) <= 65, "a lane has 64 slots"
        assert hub.hub.counts["refused_full"] == 0, "it was asked for no more than it had granted"
        gate.open.set()
        more.join(20)
        results = [future.result(20) for future in futures]
        assert sorted(n for n in results if n != "one more") == list(range(200))
    assert sorted(node.begun) == sorted(future.task for future in futures)


def test_a_cancel_from_outside_reaches_the_board(make_node, serve):
    node, gate = make_node(), Gate()
    node.worker(kernels={"test.gate": gate})
    (hub,) = serve(node)
    with Swarm.connect(connection(hub)) as swarm:
        running = swarm.submit("test.gate", 1)
        assert gate.entered.acquire(timeout=10)
        waiting = swarm.submit("core.echo", 2)
        eventually(lambda: hub.call(lambda: hub.hub.sessions.unanswered) == 2)
        assert waiting.cancel()
        eventually(lambda: hub.call(lambda: hub.hub.sessions.unanswered) == 1)
        gate.open.set()
        assert running.result(10) == 1
    assert waiting.task not in node.begun


def test_when_the_board_goes_its_clients_go_on_through_a_hub(make_node, serve, monkeypatch):
    monkeypatch.setattr("swarm_agents.client.board._NOBODY", 0.3)
    here, there, gate = make_node("a"), make_node("b"), Gate()
    dying = here.worker(kernels={"test.gate": gate})
    there.worker("risk-compute-1-1", kernels={"test.gate": lambda value: value * 10})
    (hub,) = serve(there)
    where = msgspec.structs.replace(connection(hub), board=str(here.directory))
    with Swarm.connect(where) as swarm:
        assert swarm.endpoint.startswith("shm://")
        future = swarm.submit("test.gate", 4)
        assert gate.entered.acquire(timeout=10)
        here.leave(dying)
        assert future.result(15) == 40
        assert swarm.endpoint == hub.url
        assert future.info.agent == "risk-compute-1-1"
    gate.open.set()


# -- from node to node


def test_a_node_without_compute_agents_serves_by_forwarding(make_node, serve):
    bare, busy = make_node("a"), make_node("b")
    busy.worker("risk-compute-1-1")
    first, _ = serve(bare, busy)
    array = np.arange(400_000.0)
    with Swarm.connect(bare.url) as swarm:
        future = swarm.submit("core.double", array)
        np.testing.assert_array_equal(future.result(10), array * 2)
        assert future.info.hops == 1
        assert future.info.agent == "risk-compute-1-1", "not the hub that committed it"
        small = swarm.submit("core.echo", None)
        assert small.result(10) is None
        assert small.info.agent == "risk-compute-1-1"
        assert list(swarm.map("core.echo", range(100))) == list(range(100))
        with pytest.raises(KernelError, match="boo"):
            swarm.run("core.fail", "boo", timeout=10)
    with Swarm.connect(connection(first)) as swarm:
        assert list(swarm.map("core.echo", range(100))) == list(range(100))
    totals = bare.board.stats().totals
    assert totals["committed"] == totals["submitted"]


def test_when_the_other_node_dies_its_tasks_run_at_home_and_are_committed_once(make_node, serve):
    home, other, gate = make_node("a"), make_node("b"), Gate()
    other.worker("risk-compute-1-1", kernels={"test.gate": gate})
    first, second = serve(home, other)
    with Swarm.connect(home.url) as swarm:
        futures = [swarm.submit("test.gate", n) for n in range(4)]
        eventually(lambda: first.hub.in_hand == 4)
        assert gate.entered.acquire(timeout=10)
        second.sever()
        home.worker("risk-compute-0-1", kernels={"test.gate": lambda value: value + 100})
        assert [future.result(10) for future in futures] == [100, 101, 102, 103]
        assert {future.info.attempts for future in futures} == {2}
        gate.open.set()
    assert home.board.stats().totals["committed"] == 4


def test_when_the_hub_that_forwarded_is_taken_for_dead_others_compute_and_the_late_answer_is_void(make_node, serve):
    home, other, gate = make_node("a"), make_node("b"), Gate()
    other.worker("risk-compute-1-1", kernels={"test.gate": gate})
    first, _ = serve(home, other)
    with Swarm.connect(home.url) as swarm:
        future = swarm.submit("test.gate", 1)
        assert gate.entered.acquire(timeout=10)
        hub = next(info for info in home.board.members() if info.role == "resource")
        home.worker("risk-compute-0-1", kernels={"test.gate": lambda value: value + 100})
        home.board.declare_dead(hub.index, hub.epoch)
        assert future.result(10) == 101
        eventually(lambda: first.desk.fenced)
        eventually(lambda: first.hub.in_hand == 0)
        gate.open.set()
    totals = home.board.stats().totals
    assert totals["committed"] == 1
    assert totals["fenced"] == 1


def test_a_cancelled_task_is_given_up_on_the_node_that_was_sent_it(make_node, serve):
    home, other, gate = make_node("a"), make_node("b"), Gate()
    other.worker("risk-compute-1-1", kernels={"test.gate": gate})
    _, second = serve(home, other)
    with Swarm.connect(home.url) as swarm:
        running = swarm.submit("test.gate", 1)
        assert gate.entered.acquire(timeout=10)
        waiting = swarm.submit("core.echo", 2)
        eventually(lambda: second.call(lambda: second.hub.sessions.unanswered) == 2)
        waiting.cancel()
        eventually(lambda: second.call(lambda: second.hub.sessions.unanswered) == 1)
        gate.open.set()
        assert running.result(10) == 1
    assert waiting.task not in other.begun


def test_a_forwarded_answer_larger_than_the_home_arena_is_an_error_that_says_so(make_node, serve):
    home = make_node("a", Geometry(task_slots=256, arena_bytes=1 << 20, max_members=8))
    other = make_node("b")
    other.worker("risk-compute-1-1", kernels={"test.large": lambda n: np.zeros(n, np.uint8)})
    serve(home, other)
    with Swarm.connect(home.url) as swarm, pytest.raises(PayloadTooLarge, match="the result has"):
        swarm.run("test.large", 4 << 20, timeout=10)
