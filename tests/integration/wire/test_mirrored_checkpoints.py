"""Checkpoints travel from hub to hub, are found where the task goes on, and go when it is answered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from support.boardkit import Node
from support.wirekit import KEYS, eventually, make_settings
from swarm_agents.config import Checkpoints
from swarm_agents.config import Hub as HubAddress
from swarm_agents.resource.desk import Desk
from swarm_agents.resource.hub import Hub
from swarm_agents.runtime.logs import get_logger
from swarm_agents.runtime.store import Store, list_files, task_key

KEY = task_key((11, 12), "team.simulate")
ARRAY = np.random.default_rng(0).normal(size=100_000)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node, Callable[[int], Hub]]]:
    """Two nodes, and what starts the hub of one of them."""
    nodes = [Node(tmp_path / name) for name in "ab"]
    settings = [make_settings() for _ in nodes]
    addresses = tuple(
        HubAddress(node=f"node-{n}", address=f"tcp://127.0.0.1:{each.transport.hub_port}")
        for n, each in enumerate(settings)
    )
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.callback(node.close)

        def start(number: int, **options: Any) -> Hub:
            node = nodes[number]
            member = node.join(f"risk-resource-{number}-{len(node.board.members())}", "resource")
            given = msgspec.structs.replace(settings[number], hubs=addresses)
            hub = Hub(
                Desk(node.board, member),
                given,
                KEYS,
                node=f"node-{number}",
                name=member.name,
                host="127.0.0.1",
                log=get_logger(),
                **({"keep": node.directory} | options),
            )
            hub.start()
            stack.callback(hub.shut)
            return hub

        yield nodes[0], nodes[1], start


def keeper_on(node: Node) -> Any:
    return Store(node.directory, Checkpoints(), owner="risk-compute-0-0", place=(1, 1)).keeper(KEY, lambda: True)


def found_on(node: Node) -> Any:
    kept = Store(node.directory, Checkpoints()).read(KEY)
    return None if kept is None else kept.value


def test_a_checkpoint_is_on_the_other_node_when_its_own_is_lost(pair: Any) -> None:
    first, second, start = pair
    hub, _ = start(0), start(1)
    keeper = keeper_on(first)
    for step in range(3):
        keeper.write({"step": step, "sums": ARRAY + step})
    found = eventually(lambda: found_on(second))
    eventually(lambda: found_on(second)["step"] == 2)
    found = found_on(second)
    np.testing.assert_array_equal(found["sums"], ARRAY + 2)
    # The task is begun again over there, while its first node is still there: the later term counts.
    successor = keeper_on(second)
    assert successor.read().value["step"] == 2
    successor.write({"step": 9})
    keeper.write({"step": 3})
    assert found_on(second) == {"step": 9}
    successor.release()
    keeper.done()
    eventually(lambda: not list_files(second.directory, ("board.copy-",)))
    assert hub.counts["errors"] == 0


def test_a_hub_that_keeps_no_copies_is_sent_none(pair: Any) -> None:
    first, second, start = pair
    hub = start(0)
    start(1, keep=None)
    eventually(lambda: all(peer.open for peer in hub.peers.values()))
    keeper = keeper_on(first)
    keeper.write(1)
    eventually(lambda: hub.peers["node-1"].rtt)
    assert hub.carrier.copying == set()
    assert list_files(second.directory, ("board.copy-",)) == []
    keeper.done()
