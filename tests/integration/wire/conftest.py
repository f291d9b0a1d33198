"""Hubs that are closed after the test, and that must not have met an exception that they did not expect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from support.boardkit import Node
from support.wirekit import FakeDesk, HubThread, eventually, make_settings
from swarm_agents.config import Hub as HubAddress
from swarm_agents.resource.desk import Desk
from swarm_agents.shm.board import Geometry

MakeHub = Callable[..., HubThread]


@pytest.fixture
def make_hub() -> Iterator[MakeHub]:
    hubs: list[HubThread] = []

    def make(desk: FakeDesk | None = None, settings=None, **options) -> HubThread:
        hub = HubThread(desk or FakeDesk(), settings or make_settings(), **options)
        hubs.append(hub)
        return hub

    yield make
    for hub in hubs:
        hub.close()
    assert [error for hub in hubs for error in hub.errors] == []


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(name: str = "a", geometry: Geometry | None = None) -> Node:
        node = Node(tmp_path / name, *([geometry] if geometry else []))
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.close()


@pytest.fixture
def serve(make_hub):
    """Hubs on nodes; those of the nodes named know each other."""

    def make(*nodes: Node) -> list[HubThread]:
        names = [f"node-{node.directory.name}" for node in nodes]
        settings = [make_settings() for _ in nodes]
        hubs = tuple(
            HubAddress(node=name, address=f"tcp://127.0.0.1:{each.transport.hub_port}")
            for name, each in zip(names, settings, strict=True)
        )
        made = []
        for node, name, each in zip(nodes, names, settings, strict=True):
            member = node.join(f"risk-resource-{name}", "resource")
            desk = Desk(node.board, member)
            made.append(make_hub(desk, msgspec.structs.replace(each, hubs=hubs), node=name))
        for hub in made:
            eventually(lambda hub=hub: all(peer.open for peer in hub.hub.peers.values()))
        return made

    return make
