"""A node that slows down gives back what it has not begun, for others; what it has begun stays where it is."""

from __future__ import annotations

import msgspec
import pytest

from support.boardkit import Node
from support.wirekit import FakeDesk, HubThread, eventually, make_settings
from swarm_agents.config import Failover, Settings
from swarm_agents.config import Hub as HubAddress
from swarm_agents.resource.desk import Desk
from swarm_agents.resource.peers import Forward
from swarm_agents.resource.recall import Recalls
from swarm_agents.wire import schema

IDLE = schema.Load(workers=4, idle=4, room=1000, run_mean=0.001)


def forward(number: int, sent: float, kernel: str = "k") -> Forward[None]:
    return Forward(None, schema.Submit((1, number), kernel, 2), [], 0, sent)


def known(seconds: float = 0.1, count: int = 20) -> Recalls:
    recalls = Recalls()
    for _ in range(count):
        recalls.learn("k", seconds)
    return recalls


def test_what_has_been_away_for_far_too_long_is_late() -> None:
    recalls = known()
    away = [forward(1, sent=0.0), forward(2, sent=0.15), forward(3, sent=0.0, kernel="unknown")]
    assert recalls.late(away, Failover(), 0.19) == []
    assert recalls.late(away, Failover(), 0.21) == [(1, 1)]
    assert recalls.late(away, Failover(), 0.3) == [], "it was asked for"
    assert recalls.late(away, Failover(), 0.42) == [(1, 1), (1, 2)]
    recalls.forget((1, 1))
    assert recalls.late([forward(1, sent=0.5)], Failover(), 0.6) == []


def test_of_kernels_that_are_hardly_known_and_of_short_times_nothing_is() -> None:
    assert known(count=19).late([forward(1, sent=0.0)], Failover(), 1e6) == []
    assert known(1e-5).late([forward(1, sent=0.0)], Failover(), 0.019) == []
    assert known().late([forward(1, sent=0.0)], Failover(straggler_factor=9.0), 0.8) == []


@pytest.fixture
def three(make_hub):
    """Three hubs: `a` has work and nobody to do it, `b` takes it first, `c` is idle later."""

    def make(*desks: FakeDesk, **failover: float) -> list[HubThread]:
        every = [make_settings() for _ in desks]
        names = ["node-a", "node-b", "node-c"]
        hubs = tuple(
            HubAddress(node=name, address=f"tcp://127.0.0.1:{each.transport.hub_port}")
            for name, each in zip(names, every, strict=True)
        )
        made = []
        for name, each, desk in zip(names, every, desks, strict=True):
            settings: Settings = msgspec.structs.replace(
                each, hubs=hubs, failover=msgspec.structs.replace(each.failover, **failover)
            )
            made.append(make_hub(desk, settings, node=name))
        for hub in made:
            eventually(lambda hub=hub: all(peer.open for peer in hub.hub.peers.values()))
        return made

    return make


def teach(first: HubThread, a: FakeDesk, number: int = 100) -> None:
    """What comes back quickly, so that the hub knows what its tasks take."""
    first.call(lambda: [a.own((9, n), "core.echo", n) for n in range(number)])
    eventually(lambda: len(a.committed) == number)


def test_tasks_that_a_slow_node_has_not_begun_are_answered_by_another(three) -> None:
    a, b, c = FakeDesk(workers=0, auto=False), FakeDesk(), FakeDesk(room=0, auto=True)
    b.shown = IDLE
    first, second, _ = three(a, b, c)
    teach(first, a)
    b.auto = False  # it takes tasks as before, and begins none
    first.call(lambda: [a.own((1, n), "core.echo", n) for n in range(10)])
    eventually(lambda: len(b.waiting) == 10)
    c.room, c.shown = 1000, IDLE
    eventually(lambda: all((1, n) in a.committed for n in range(10)))
    assert sorted(task for task in c.begun if task[0] == 1) == [(1, n) for n in range(10)]
    assert [task for task in b.begun if task[0] == 1] == []
    assert a.handed_back == [], "what was not begun counts as no attempt"
    # Not each of them has to be called back: the slow node may itself have found that the other one is idler.
    assert first.hub.counts["recalled"] >= 1
    assert second.hub.counts["given_back_late"] >= 1


def test_what_a_slow_node_has_begun_is_left_to_it(three) -> None:
    a, b, c = FakeDesk(workers=0, auto=False), FakeDesk(), FakeDesk(room=0)
    b.shown = IDLE
    first, second, _ = three(a, b, c)
    teach(first, a)
    b.auto = False
    first.call(lambda: a.own((1, 1), "core.echo", 7))
    eventually(lambda: len(b.waiting) == 1)
    begun = second.call(b.waiting.popleft)  # it is in an agent's hand
    c.room, c.shown = 1000, IDLE
    eventually(lambda: first.hub.counts["recalled"] >= 2)
    assert c.begun == []
    assert second.hub.counts["given_back_late"] == 0
    second.call(lambda: (b._compute(begun), b._wake()))
    eventually(lambda: (1, 1) in a.committed)


def test_nothing_is_called_back_where_the_settings_allow_no_share(three) -> None:
    a, b, c = FakeDesk(workers=0, auto=False), FakeDesk(), FakeDesk(room=0)
    b.shown = IDLE
    first, second, _ = three(a, b, c, straggler_share=0.0)
    teach(first, a)
    b.auto = False
    first.call(lambda: a.own((1, 1), "core.echo", 7))
    eventually(lambda: len(b.waiting) == 1)
    c.room, c.shown = 1000, IDLE
    beats = [link for peer in first.hub.peers.values() for link in peer.links.values()]
    for _ in range(5):
        before = [link.heard for link in beats]
        eventually(lambda before=before: all(link.heard > then for link, then in zip(beats, before, strict=True)))
    assert first.hub.counts["recalled"] == 0
    second.call(b.work)
    eventually(lambda: (1, 1) in a.committed)


def test_a_board_gives_back_what_nobody_has_claimed_and_nothing_else(tmp_path) -> None:
    node = Node(tmp_path / "a")
    desk = Desk(node.board, node.join("risk-resource-0", "resource"))
    worker = node.board.worker(node.join("risk-compute-0", "compute"))
    try:
        payload = [msgspec.msgpack.encode([[], {}])]
        for number in (1, 2):
            desk.submit(schema.Submit((1, number), "core.noop", 2), payload)
        claim = worker.claim(0.0)
        assert claim.task_id == (1, 1)
        assert not desk.withdraw((1, 1))
        assert not claim.cancelled(), "and it is not told to end"
        assert desk.withdraw((1, 2))
        assert not desk.withdraw((1, 2))
        assert not desk.withdraw((1, 3))
        assert worker.claim(0.0) is None
        assert worker.commit(claim, None)
        answers = {found.answer.task: found.answer.error for found in desk.answers()}
        assert answers[1, 1] is None
        assert answers[1, 2]["code"] == "TaskCancelled"
    finally:
        desk.close()
        node.close()
