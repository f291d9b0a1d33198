"""A task goes on where it was on a node that was neither its own nor the one that its copies were sent to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from swarm_agents.runtime.mirror import holders, partner
from swarm_agents.runtime.store import ASK, ASK_PATIENCE, WANT, Store, list_files, task_key

NODES = ["node-0", "node-1", "node-2"]
ARRAY = np.random.default_rng(1).normal(size=50_000)


def key_with_partner(node: str) -> str:
    """A task's key whose copies go from node-0 to this one."""
    return next(key for n in range(99) if partner(key := task_key((7, n), "team.simulate"), "node-0", NODES) == node)


class Three:
    """Three nodes and their hubs."""

    def __init__(self, root: Path, stack: contextlib.ExitStack) -> None:
        self.nodes = [Node(root / name) for name in NODES]
        self.hubs: list[Hub] = []
        settings = [make_settings() for _ in self.nodes]
        addresses = tuple(
            HubAddress(node=name, address=f"tcp://127.0.0.1:{each.transport.hub_port}")
            for name, each in zip(NODES, settings, strict=True)
        )
        for number, node in enumerate(self.nodes):
            stack.callback(node.close)
            member = node.join(f"risk-resource-{number}", "resource")
            hub = Hub(
                Desk(node.board, member),
                msgspec.structs.replace(settings[number], hubs=addresses),
                KEYS,
                node=NODES[number],
                name=member.name,
                host="127.0.0.1",
                log=get_logger(),
                keep=node.directory,
            )
            hub.start()
            self.hubs.append(hub)
        eventually(lambda: all(len(hub.carrier.finding) == 2 for hub in self.hubs))
        eventually(lambda: all(len(hub._mirroring._reached) == 2 for hub in self.hubs))  # type: ignore[union-attr]

    def store(self, number: int) -> Store:
        return Store(self.nodes[number].directory, Checkpoints(), owner=f"risk-compute-{number}-0", place=(1, 1))


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Three]:
    with contextlib.ExitStack() as stack:
        made = Three(tmp_path, stack)
        closed = list(made.hubs)
        try:
            yield made
        finally:
            for hub in closed:
                if hub in made.hubs:
                    hub.shut()


def read_from(three: Three, number: int, key: str) -> Any:
    kept = three.store(number).keeper(key, lambda: True).read()
    return None if kept is None else kept.value


def test_the_copy_of_a_lost_nodes_checkpoint_is_found_by_a_third_node(three: Three) -> None:
    key = key_with_partner("node-1")
    keeper = three.store(0).keeper(key, lambda: True)
    keeper.write({"step": 5, "sums": ARRAY})
    eventually(lambda: list_files(three.nodes[1].directory, ("board.copy-",), key))
    assert list_files(three.nodes[2].directory, ("board.copy-",), key) == []
    assert read_from(three, 2, key) is None, "nobody has a reason to ask"

    three.hubs.pop(0).shut()
    eventually(lambda: (three.nodes[2].directory / ASK).exists())
    found = read_from(three, 2, key)
    assert found["step"] == 5
    np.testing.assert_array_equal(found["sums"], ARRAY)
    assert list(three.nodes[2].directory.glob(f"{WANT}*")) == []

    # It goes on there in a later term, and what it keeps then is the newest.
    successor = three.store(2).keeper(key, lambda: True)
    assert successor.read() is not None
    successor.write({"step": 6})
    assert successor.term > keeper.term
    assert read_from(three, 2, key) == {"step": 6}
    successor.done()
    assert list_files(three.nodes[2].directory, ("board.keep-", "board.copy-"), key) == []
    keeper.release()


def test_what_nobody_has_is_not_waited_for_longer_than_the_others_take_to_say_so(three: Three) -> None:
    three.hubs.pop(0).shut()
    eventually(lambda: (three.nodes[2].directory / ASK).exists())
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: read_from(three, 2, task_key((9, n), "team.fresh")), range(40)))
    assert found == [None] * 40
    assert time.monotonic() - begun < 40 / 8 * ASK_PATIENCE, "they were told, and not left waiting"
    assert list(three.nodes[2].directory.glob(f"{WANT}*")) == []


def test_a_node_that_is_still_there_is_asked_for_what_it_keeps_itself(three: Three) -> None:
    key = key_with_partner("node-2")
    keeper = three.store(0).keeper(key, lambda: True)
    keeper.write("value")
    # The task was begun on node-0, which drains, and has come to node-1: its hub says so.
    three.hubs[1]._mirroring.ask()  # type: ignore[union-attr]
    assert read_from(three, 1, key) == "value"
    keeper.done()


def test_those_who_may_have_a_copy_are_few_and_the_partner_is_the_first_of_them() -> None:
    nodes = [f"node-{n}" for n in range(50)]
    for n in range(20):
        key = task_key((3, n), "team.simulate")
        home, other = nodes[n], nodes[n + 20]
        kept_by = partner(key, home, nodes)
        left = [node for node in nodes if node != home]
        assert kept_by == other or kept_by in holders(key, other, left)[:1]
        assert holders(key, other, left, origin="node-49")[0] == "node-49"
        assert len(holders(key, other, left)) == 4
