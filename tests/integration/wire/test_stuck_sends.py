"""A large payload that is sent from where it lies in the arena, to a node that has hung: its memory stays what it is.

The sockets' buffers hold a part of it, ZeroMQ looks at the rest for as long as the connection stands. Until it has let
go, the task's claim is not settled, and so its block is given to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from support.boardkit import Node
from support.wirekit import HubThread, Tunnel, connection, eventually, make_settings
from swarm_agents.client import Swarm
from swarm_agents.config import Hub as HubAddress
from swarm_agents.resource.desk import Claimed, Desk
from swarm_agents.shm.board import Geometry

#: More than the kernel's buffers of a connection take.
LARGE = 24 << 20
GEOMETRY = Geometry(task_slots=256, arena_bytes=64 << 20, max_members=16)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Home, where no agent is, and another one with an agent."""
    home, other = Node(tmp_path / "home", GEOMETRY), Node(tmp_path / "other", GEOMETRY)
    other.worker("risk-compute-1-1", kernels={"test.sum": lambda array: float(array.sum())})
    yield home, other
    home.close()
    other.close()


def serve(
    make_hub: Callable[..., HubThread], node: Node, name: str, settings, hubs: tuple[HubAddress, ...]
) -> HubThread:
    desk = Desk(node.board, node.join(f"risk-resource-{name}", "resource"))
    return make_hub(desk, msgspec.structs.replace(settings, hubs=hubs), node=name)


@pytest.mark.parametrize("dies", [False, True], ids=["hangs until it is given up", "hangs and then dies"])
def test_a_payload_whose_sending_is_stuck_stays_in_its_block_until_zeromq_has_let_go(make_hub, nodes, dies: bool):
    home, other = nodes
    transport = {"arena_bytes": 64 << 20, "max_message_bytes": 48 << 20}
    here, there = (make_settings(transport=transport, failover={"dead_after": 3.0}) for _ in range(2))
    with Tunnel(there.transport.hub_port) as tunnel:
        serve(make_hub, other, "node-b", there, ())
        first = serve(
            make_hub, home, "node-a", here, (HubAddress(node="node-b", address=f"tcp://127.0.0.1:{tunnel.port}"),)
        )
        peer = first.hub.peers["node-b"]
        eventually(lambda: peer.open)
        settled: list[bool] = []
        hand_back, claim = first.desk.hand_back, first.desk.claim

        def watched(claimed: Claimed, *, untouched: bool = False) -> None:
            settled.append(any(forward.held for forward in stuck))
            hand_back(claimed, untouched=untouched)

        def hang(lane: int) -> Claimed | None:
            if (claimed := claim(lane)) is not None:
                tunnel.freeze()  # nothing of it passes, and nothing was late before
            return claimed

        first.desk.hand_back, first.desk.claim = watched, hang
        with Swarm.connect(connection(first)) as swarm:
            array = np.arange(LARGE // 8, dtype=np.float64)
            future = swarm.submit("test.sum", array)
            stuck = eventually(lambda: first.call(lambda: list(peer.forwarded.values())), 30)
            used = home.board.stats().arena_used
            assert used >= LARGE
            assert stuck[0].held, "the payload was not stuck: the test shows nothing"
            block = np.frombuffer(stuck[0].payload[1], np.float64)
            if dies:
                tunnel.cut()
            # Others want the room meanwhile; they get other memory, or wait.
            home.worker("risk-compute-0-1", kernels={"test.sum": lambda array: float(array.sum())})
            with Swarm.connect(home.url) as local:
                while stuck[0].held:
                    np.testing.assert_array_equal(block, array)
                    local.run("core.echo", np.full(1 << 20, 7.0), timeout=20)
            assert future.result(30) == float(array.sum())
            del block
        assert settled, "nothing was handed back"
        assert not any(settled), "the claim was settled while ZeroMQ still looked at the payload"
    eventually(lambda: home.board.sweep() == 0 and home.board.stats().arena_used == 0)
