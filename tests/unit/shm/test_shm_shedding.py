"""A board that refuses new work of some lanes: who is refused, for how long, and what is never refused."""

from __future__ import annotations

import time

import numpy as np
import pytest

from support.shm import make_board, make_port, make_worker
from swarm_agents.config import Priority
from swarm_agents.errors import Overloaded, SwarmFull, from_wire, to_wire
from swarm_agents.resource.degrade import HOLDS, Degrade
from swarm_agents.resource.overload import Level, Overload
from swarm_agents.shm.shedding import oldest_waits, refusal, refuse, refused_from


@pytest.fixture
def board(tmp_path):
    return make_board(tmp_path)


def taken(port, priority, *args, **options) -> bool:
    try:
        port.submit("core.echo", args, priority=priority, **options)
    except Overloaded:
        return False
    return True


@pytest.mark.parametrize(
    ("lanes", "accepted"), [(0, list(Priority)), (1, list(Priority)[:3]), (2, [Priority.CRITICAL, Priority.HIGH])]
)
def test_the_less_urgent_lanes_are_refused_and_no_others(board, lanes, accepted):
    _, port = make_port(board)
    refuse(board.mapping, lanes, 1.5, 10)
    assert [priority for priority in Priority if taken(port, priority)] == accepted
    assert refused_from(board.mapping) == len(accepted)


@pytest.mark.parametrize("lanes", [-1, 3, 4])
def test_urgent_work_can_not_be_refused(board, lanes):
    with pytest.raises(ValueError, match="no others"):
        refuse(board.mapping, lanes, 1.0, 10)


def test_the_refusal_says_what_is_refused_and_when_to_come_again(board):
    _, port = make_port(board)
    refuse(board.mapping, 1, 1.5, 10)
    with pytest.raises(Overloaded, match=r"^overloaded: bulk work is refused, retry after 1\.5 s$") as caught:
        port.submit("core.echo", priority=Priority.BULK)
    assert caught.value.retry_after == 1.5
    assert isinstance(caught.value, SwarmFull)
    refuse(board.mapping, 2, 0.25, 10)
    with pytest.raises(Overloaded, match="bulk and normal work are refused"):
        port.submit("core.echo")


def test_every_way_to_submit_is_refused(board):
    _, port = make_port(board)
    shared = port.put(np.arange(8.0))
    ticket = port.submit("core.echo", (shared,), priority=Priority.CRITICAL)  # now the short way is known
    refuse(board.mapping, 2, 1.0, 10)
    large = np.zeros(20_000)
    for args in ((), (1,), (shared,), (large,), (shared, large)):
        assert not taken(port, Priority.NORMAL, *args)
    with pytest.raises(Overloaded):
        port.submit_raw("core.echo", b"\x92\x90\x80")
    assert port.cancel(ticket)
    assert board.stats().events["shed"]["local"]["normal"] == 6


def test_what_was_accepted_before_stays_and_is_answered(board):
    _, worker = make_worker(board)
    _, port = make_port(board)
    port.submit("core.echo", (7,), priority=Priority.BULK)
    refuse(board.mapping, 2, 1.0, 10)
    claim = worker.claim(1.0)
    assert claim is not None
    assert worker.commit(claim, 7)
    assert port.wait(5)
    (answer,) = port.poll()
    assert answer.ticket.lane == 3


def test_what_was_accepted_elsewhere_before_is_taken(board):
    _, port = make_port(board)
    refuse(board.mapping, 2, 1.0, 10)
    with port.accepted():
        assert taken(port, Priority.BULK)
    assert not taken(port, Priority.BULK)


def test_a_submitter_with_patience_is_taken_when_it_is_over(board):
    _, port = make_port(board)
    refuse(board.mapping, 1, 0.05, 0.15)
    assert taken(port, Priority.BULK, timeout=10)


def test_a_refusal_that_nobody_renews_ends_by_itself(board):
    now = time.monotonic()
    refuse(board.mapping, 2, 1.0, 0.05, now)
    assert refusal(board.mapping, 3, now) is not None
    assert refusal(board.mapping, 3, now + 0.06) is None
    assert refused_from(board.mapping, now + 0.06) == 4


def test_the_error_keeps_its_time_on_the_wire():
    again = from_wire(to_wire(Overloaded("overloaded: bulk work is refused, retry after 1.5 s", 1.5)))
    assert isinstance(again, Overloaded)
    assert again.retry_after == 1.5
    assert from_wire({"code": "Overloaded", "message": "x", "retryAfter": "soon"}).retry_after == 1.0


def test_the_oldest_wait_of_each_lane_is_seen_and_what_is_begun_waits_no_more(board):
    _, worker = make_worker(board)
    _, port = make_port(board)
    assert list(oldest_waits(board.mapping, board.words, time.monotonic_ns())) == [0.0] * 4
    port.submit("core.echo", priority=Priority.HIGH)
    port.submit("core.echo", priority=Priority.BULK)
    later = time.monotonic_ns() + 5_000_000_000
    port.submit("core.echo", priority=Priority.BULK)
    critical, high, normal, bulk = oldest_waits(board.mapping, board.words, later)
    assert critical == normal == 0.0
    assert 5.0 <= high < 6.0
    assert 5.0 <= bulk < 6.0
    claim = worker.claim(1.0)
    assert claim is not None
    assert claim.priority is Priority.HIGH
    assert oldest_waits(board.mapping, board.words, later)[1] == 0.0
    assert oldest_waits(board.mapping, board.words, 0) == (0.0,) * 4, "a clock behind the task's is no wait"


class Clock:
    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> int:
        return int(self.now * 1e9)


def test_a_node_that_can_not_keep_up_refuses_bulk_tells_why_and_takes_it_again_by_itself(board):
    told: list[tuple[str, dict[str, str]]] = []
    clock = Clock()
    degrade = Degrade(board, lambda event, **fields: told.append((event, fields)), Overload(), clock)
    _, worker = make_worker(board)
    _, port = make_port(board)
    port.submit("core.echo", (), priority=Priority.NORMAL)

    def go(seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            clock.now += 0.1
            degrade.look(clock.now, {})

    go(1.5)
    assert degrade.overload.level is Level.NORMAL
    assert degrade.stretch == 1.0
    go(2.0)
    assert degrade.overload.level is Level.SHED_BULK
    assert refusal(board.mapping, 3, clock.now) is not None
    assert refusal(board.mapping, 3, clock.now + HOLDS + 0.1) is None, "unless it is told again"
    assert degrade.stretch > 1.0
    assert degrade.report()["state"] == "SHED_BULK"
    ((event, fields),) = told
    assert (event, fields["state"], fields["refused"]) == ("Overloaded", "SHED_BULK", "bulk")
    assert "normal work" in fields["cause"]
    claim = worker.claim(1.0)
    assert claim is not None
    go(3.0)
    assert degrade.overload.level is Level.NORMAL
    assert refusal(board.mapping, 3, clock.now) is None
    assert [event for event, _ in told] == ["Overloaded", "OverloadEased"]
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in degrade.metrics()
        for sample in metric.samples
    }
    assert values["swarm_node_overload_level",] == 0
    assert values["swarm_node_overload_changes_total", "shed_bulk"] == 1
    assert values["swarm_node_oldest_wait_seconds", "normal"] == 0


def test_without_agents_nothing_is_refused(board):
    clock = Clock()
    degrade = Degrade(board, clock_ns=clock)
    _, port = make_port(board)
    port.submit("core.echo", ())
    for _ in range(100):
        clock.now += 0.1
        degrade.look(clock.now, {})
    assert degrade.overload.level is Level.NORMAL
