"""What a board says of its load: as it is, by the board's own clocks and counters, without anybody being disturbed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from support.boardkit import Node
from swarm_agents.runtime.load import read_load
from swarm_agents.shm.stats import Histogram
from swarm_operator.loads import NodeLoad, sample_of


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "board")
    yield made
    made.close()


def read(node: Node) -> NodeLoad:
    """As the operator reads it."""
    return msgspec.json.decode(msgspec.json.encode(read_load(node.board, "node-a")), type=NodeLoad)


def until(check: object, deadline: float = 10.0) -> None:
    end = time.monotonic() + deadline
    while not check():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def test_an_empty_board_has_no_load(node: Node) -> None:
    member = node.join("client", "client")
    load = read(node)
    assert (load.node, load.waiting, load.agents, load.busy, load.runs, load.ages, load.queued) == (
        "node-a",
        0,
        0,
        0,
        0,
        (),
        (),
    )
    assert len(load.board) == 16
    node.leave(member)


def test_tasks_that_wait_are_counted_with_their_ages_and_cancelled_ones_are_not(node: Node) -> None:
    member = node.join("client", "client")
    port = node.board.port(member)
    tickets = [port.submit("echo", (at,)) for at in range(3)]
    time.sleep(0.05)
    port.submit("echo", (9,))
    load = read(node)
    assert load.waiting == sum(count for _, count in load.ages) == 4
    assert 0.05 <= load.oldest < 10
    bounds = [0.0, *Histogram.bounds()]
    assert all(lower == pytest.approx(min(bounds, key=lambda b: abs(b - lower)), rel=1e-9) for lower, _ in load.ages)
    assert sum(count for lower, count in load.ages if lower >= 0.03) >= 3
    port.cancel(tickets[0])
    assert read(node).waiting == 3
    node.leave(member)


def test_what_is_computed_is_counted_and_a_sample_is_made_of_two_readings(node: Node) -> None:
    gate, begun = threading.Event(), threading.Event()

    def held() -> int:
        begun.set()
        gate.wait(20)
        return 1

    member = node.join("client", "client")
    node.worker("risk-compute-0-0", {"held": held})
    port = node.board.port(member)
    before = read(node)
    port.submit("held", ())
    port.submit("held", ())
    assert begun.wait(10)
    until(lambda: read(node).busy == 1)
    busy = read(node)
    assert (busy.agents, busy.busy, busy.running, busy.waiting) == (1, 1, 1, 1)
    time.sleep(0.1)
    gate.set()
    until(lambda: read(node).runs == 2)
    after = read(node)
    assert after.busy == 0
    assert after.board == before.board
    assert sum(count for _, count in after.queued) == 2
    assert after.run_seconds >= 0.1
    found = sample_of({"a": before}, {"a": after}, 5.0, 1)
    assert (found.arrivals, found.completed) == (2, 2)
    assert found.seconds == pytest.approx(after.time - before.time)
    node.leave(member)
