"""Hubs of two nodes over real ZeroMQ: work moves to the idler one, and comes back when that one dies."""

from __future__ import annotations

import msgspec
import pytest

from support.wirekit import KEYS, FakeDesk, HubThread, connection, eventually, make_settings
from swarm_agents.client import Swarm
from swarm_agents.config import Hub as HubAddress
from swarm_agents.config import Settings
from swarm_agents.wire import schema
from swarm_agents.wire.keys import make_keys


def hub_of(node: str, settings: Settings, address: str | None = None) -> HubAddress:
    return HubAddress(node=node, address=address or f"tcp://127.0.0.1:{settings.transport.hub_port}")


@pytest.fixture
def pair(make_hub):
    """Two hubs that know each other: `a` has work, `b` has workers."""

    def make(a: FakeDesk, b: FakeDesk) -> tuple[HubThread, HubThread]:
        of_a, of_b = make_settings(), make_settings()
        hubs = (hub_of("node-a", of_a), hub_of("node-b", of_b))
        first = make_hub(a, msgspec.structs.replace(of_a, hubs=hubs))
        second = make_hub(b, msgspec.structs.replace(of_b, hubs=hubs), node="node-b")
        for hub, other in ((first, "node-b"), (second, "node-a")):
            eventually(lambda hub=hub, other=other: hub.hub.peers[other].open)
        return first, second

    return make


def test_a_node_without_workers_has_its_tasks_computed_by_another(pair):
    a, b = FakeDesk(workers=0, auto=False), FakeDesk()
    first, _ = pair(a, b)
    with Swarm.connect(connection(first)) as swarm:
        futures = [swarm.submit("core.double", n) for n in range(20)]
        assert [future.result(10) for future in futures] == [2 * n for n in range(20)]
        assert {future.info.hops for future in futures} == {1}
    assert sorted(b.begun) == sorted(future.task for future in futures), "under the same ids"
    assert a.begun == []


def test_what_the_nodes_own_clients_have_submitted_moves_as_well(pair):
    a, b = FakeDesk(workers=0, auto=False), FakeDesk()
    first, _ = pair(a, b)
    first.call(lambda: a.own((1, 1), "core.double", 21))
    eventually(lambda: a.committed == {(1, 1): 42})


def heartbeats(hub: HubThread, count: int = 1) -> None:
    """Waits until a hub has heard from its peers so often."""
    links = [link for peer in hub.hub.peers.values() for link in peer.links.values()]
    for _ in range(count):
        before = [link.heard for link in links]
        eventually(lambda before=before: all(link.heard > then for link, then in zip(links, before, strict=True)))


def test_a_deep_queue_sends_a_part_of_its_work_away_and_an_even_one_none(pair):
    a, b = FakeDesk(workers=1, auto=False), FakeDesk(workers=1, auto=False)
    a.room = b.room = 0  # nobody can be sent anything yet
    first, second = pair(a, b)
    first.call(lambda: [a.own((1, n), "core.echo", n) for n in range(40)])
    second.call(lambda: [b.own((2, n), "core.echo", n) for n in range(40)])
    heartbeats(first)
    heartbeats(second)
    a.room = b.room = 1000
    heartbeats(first, 3)
    heartbeats(second, 3)
    assert first.hub.counts["forwarded"] + second.hub.counts["forwarded"] == 0

    second.call(b.work)
    eventually(lambda: first.hub.counts["forwarded"] > 0)
    eventually(lambda: (second.call(b.work), len(a.committed))[1] > 0)
    assert first.call(lambda: len(a.committed) + len(a.waiting) + first.hub.in_hand) == 40


def test_a_peer_that_dies_gives_its_tasks_back_at_once(pair):
    a, b = FakeDesk(workers=0, auto=False), FakeDesk(auto=False)
    first, second = pair(a, b)
    first.call(lambda: [a.own((1, n), "core.echo", n) for n in range(5)])
    eventually(lambda: len(b.waiting) == 5)
    assert first.hub.in_hand == 5
    second.sever()
    eventually(lambda: sorted(a.handed_back) == [(1, n) for n in range(5)])
    a.workers = 1
    first.call(a.work)
    assert len(a.committed) == 5


def test_a_task_that_is_on_the_board_twice_is_not_forwarded_twice_and_both_end(pair):
    """As after a hub's death: the one that it had put there, and the one of the client that submitted again."""
    a, b = FakeDesk(workers=0, auto=False), FakeDesk(auto=False)
    first, second = pair(a, b)
    first.call(lambda: [a.own((1, 1), "core.echo", 1), a.own((1, 1), "core.echo", 1)])
    eventually(lambda: len(b.waiting) == 1)
    assert first.hub.in_hand == 1
    eventually(lambda: (second.call(b.work), first.call(lambda: len(a.waiting) + first.hub.in_hand))[1] == 0)
    assert first.hub.counts["forwarded_answered"] == 2


def test_a_task_that_the_peer_refuses_comes_back_as_one_that_was_not_begun(pair):
    a, b = FakeDesk(workers=0, auto=False), FakeDesk(room=0, auto=False)
    b.shown = schema.Load(workers=4, idle=4, room=100)  # it has filled up since it said this
    first, second = pair(a, b)
    first.call(lambda: a.own((1, 1), "core.echo", 1))
    eventually(lambda: second.hub.counts["refused_full"] > 3)
    b.room = 1000
    eventually(lambda: (second.call(b.work), len(a.committed))[1] == 1)
    assert a.handed_back == [], "four refusals would have used up its attempts"


def test_a_late_answer_of_a_peer_that_was_given_up_changes_nothing(pair):
    a, b = FakeDesk(workers=0, auto=False), FakeDesk(auto=False)
    first, second = pair(a, b)
    first.call(lambda: a.own((1, 1), "core.echo", 1))
    eventually(lambda: len(b.waiting) == 1)
    a.workers = 1
    # The connection breaks, and comes back with the peer none the wiser.
    first.call(lambda: [link.reset() for link in first.hub.peers["node-b"].links.values()])
    eventually(lambda: a.handed_back == [(1, 1)])
    eventually(lambda: first.hub.peers["node-b"].open)
    eventually(lambda: b.cancelled == [(1, 1)])
    first.call(a.work)
    second.call(b.work)
    assert a.committed.keys() == {(1, 1)}
    assert first.hub.counts["forwarded_answered"] == 0


def test_a_task_that_is_cancelled_at_home_is_cancelled_where_it_was_sent(pair):
    a, b = FakeDesk(workers=0, auto=False), FakeDesk(auto=False)
    first, _ = pair(a, b)
    first.call(lambda: a.own((1, 1), "core.echo", 1))
    eventually(lambda: len(b.waiting) == 1)
    first.call(lambda: a.given_up.add((1, 1)))
    eventually(lambda: b.cancelled == [(1, 1)])
    assert first.hub.in_hand == 0


def test_a_second_address_carries_on_when_the_first_one_breaks(make_hub):
    """Two paths to one node: the same hub behind two addresses, one of which is a tunnel that is cut."""
    from support.wirekit import Tunnel

    of_a, of_b = make_settings(), make_settings()
    b = FakeDesk(auto=False)
    second = make_hub(b, of_b, node="node-b")
    with Tunnel(of_b.transport.hub_port) as tunnel:
        a = FakeDesk(workers=0, auto=False)
        hubs = (hub_of("node-b", of_b, f"tcp://127.0.0.1:{tunnel.port}"), hub_of("node-b", of_b))
        first = make_hub(a, msgspec.structs.replace(of_a, hubs=hubs))
        peer = eventually(lambda: first.hub.peers["node-b"])
        eventually(lambda: all(link.open for link in peer.links.values()))
        first.call(lambda: [a.own((1, n), "core.echo", n) for n in range(5)])
        eventually(lambda: len(b.waiting) == 5)
        tunnel.cut()
        eventually(lambda: not peer.links[f"tcp://127.0.0.1:{tunnel.port}"].open)
        second.call(b.work)
        eventually(lambda: len(a.committed) == 5)
        assert a.handed_back == []
        assert len(b.begun) == 5


def test_a_path_that_swallows_everything_is_avoided_and_used_again_when_it_is_back(make_hub):
    """No connection breaks: only heartbeats tell. What went by that path goes again, once is counted."""
    from support.wirekit import Tunnel

    of_a, of_b = make_settings(), make_settings()
    b = FakeDesk(auto=False)
    second = make_hub(b, of_b, node="node-b")
    with Tunnel(of_b.transport.hub_port) as tunnel, Tunnel(of_b.transport.hub_port) as spare:
        a = FakeDesk(workers=0, auto=False)
        addresses = [f"tcp://127.0.0.1:{each.port}" for each in (tunnel, spare)]
        hubs = tuple(hub_of("node-b", of_b, address) for address in addresses)
        first = make_hub(a, msgspec.structs.replace(of_a, hubs=hubs))
        peer = eventually(lambda: first.hub.peers.get("node-b"))
        main, other = (peer.links[address] for address in addresses)
        eventually(lambda: main.rtt and other.rtt)
        first.call(lambda: (setattr(main, "rtt", 1e-4), setattr(other, "rtt", 1e-4)))
        assert first.call(lambda: peer.link) is main, "the first in the settings"
        tunnel.freeze()
        first.call(lambda: [a.own((1, n), "core.echo", n) for n in range(5)])
        eventually(lambda: main.suspected or not main.open)
        eventually(lambda: len(b.waiting) == 5)
        assert peer.link is other
        second.call(b.work)
        eventually(lambda: len(a.committed) == 5)
        tunnel.thaw()
        eventually(lambda: main.open and not main.suspected and peer.link is main, within=20)
        first.call(lambda: a.own((1, 9), "core.echo", 9))
        eventually(lambda: (second.call(b.work), len(a.committed) == 6)[1])
        assert a.handed_back == []
        assert len(b.begun) == len(set(b.begun)) == 6, "late copies were recognised"


def test_a_hub_of_another_version_is_told_so_and_given_no_work(make_hub, monkeypatch):
    of_a, of_b = make_settings(), make_settings()
    second = make_hub(FakeDesk(), of_b, node="node-b")
    monkeypatch.setattr("swarm_agents.resource.peers.pack", lambda *args: [b"ASW\x07?"])
    a = FakeDesk(workers=0, auto=False)
    first = make_hub(a, msgspec.structs.replace(of_a, hubs=(hub_of("node-b", of_b),)))
    eventually(lambda: second.hub.counts["refused_VersionMismatch"] > 0)
    first.call(lambda: a.own((1, 1), "core.echo", 1))
    assert first.hub.counts["forwarded"] == 0


def test_a_hub_that_is_pushed_new_settings_connects_to_who_is_new_and_lets_go_of_who_has_left(make_hub):
    a, b = FakeDesk(workers=0, auto=False), FakeDesk()
    of_a, of_b = make_settings(), make_settings()
    first, second = make_hub(a, of_a), make_hub(b, of_b, node="node-b")
    first.call(lambda: a.own((1, 1), "core.echo", 1))
    new = msgspec.structs.replace(of_a, hubs=(hub_of("node-b", of_b),))
    first.call(lambda: first.hub.apply(new))
    eventually(lambda: (1, 1) in a.committed)
    first.call(lambda: first.hub.apply(of_a))
    assert first.hub.peers == {}
    assert second.errors == []


def test_a_peer_with_other_keys_is_never_given_work(make_hub):
    a = FakeDesk(workers=0, auto=False)
    of_a, of_b = make_settings(), make_settings()
    make_hub(FakeDesk(), of_b, node="node-b", keys=make_keys())
    first = make_hub(a, msgspec.structs.replace(of_a, hubs=(hub_of("node-b", of_b),)))
    first.call(lambda: a.own((1, 1), "core.echo", 1))
    link = next(iter(first.hub.peers["node-b"].links.values()))
    eventually(lambda: link.outcome.name == "WRONG_KEY")
    assert first.hub.counts["forwarded"] == 0
    assert KEYS.hub_secret not in repr(KEYS)


def test_a_task_is_not_passed_on_for_ever(pair):
    """Each of two nodes believes the other to have workers: the task comes home, and is not sent again at once."""
    a, b = FakeDesk(workers=0, auto=False), FakeDesk(workers=0, auto=False)
    first, second = pair(a, b)
    for hub, other in ((first, "node-b"), (second, "node-a")):
        peer = hub.hub.peers[other]
        peer.load = msgspec.structs.replace(a.load(), workers=4, idle=4)
        peer.heard_load = lambda load: None
    first.call(lambda: a.own((1, 1), "core.echo", 1))
    eventually(lambda: second.hub.counts["given_back"] == 1)
    assert second.hub.counts["forwarded"] == 0, "not as another task to the hub that waits for it"
    # Who gave it back is not asked again for a while.
    eventually(lambda: first.hub.peers["node-b"].refuses_until > 0)

    def done_at_home() -> bool:
        first.call(a.work)
        return (1, 1) in a.committed

    eventually(done_at_home)
    assert a.begun == [(1, 1)]
    assert not b.begun


def test_a_task_that_its_node_can_not_do_any_more_is_given_back_and_waits_for_nobody_in_a_circle(pair):
    a, b = FakeDesk(workers=0, auto=False), FakeDesk(workers=1, auto=False)
    first, second = pair(a, b)
    with Swarm.connect(connection(first)) as swarm:
        future = swarm.submit("core.double", 21)
        eventually(lambda: b.waiting)
        # Now the far node has nobody, and this one has: the task must come home as the one that it is.
        second.call(lambda: setattr(b, "workers", 0))
        first.call(lambda: setattr(a, "workers", 1))
        eventually(lambda: second.hub.counts["given_back"] == 1)
        eventually(lambda: (first.call(a.work), future.done())[1])
        assert future.result(0) == 42
    assert first.hub.counts["repeated"] == 0


def test_a_task_that_was_recalled_can_be_sent_to_the_same_node_again(pair):
    a, b = FakeDesk(workers=0, auto=False), FakeDesk(auto=False)
    first, second = pair(a, b)
    first.call(lambda: a.own((1, 1), "core.double", 1))
    eventually(lambda: len(b.waiting) == 1)
    first.call(lambda: a.given_up.add((1, 1)))
    eventually(lambda: b.cancelled == [(1, 1)])
    # Whoever wanted it comes back, and asks for it under the same id.
    first.call(lambda: a.own((1, 1), "core.double", 21))
    eventually(lambda: len(b.waiting) == 2)
    second.call(b.work)
    eventually(lambda: a.committed == {(1, 1): 42})
