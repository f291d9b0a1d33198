"""The hub's place on the board, without a hub."""

from __future__ import annotations

import threading
from typing import cast

from support.shm import make_board, make_worker
from swarm_agents.resource.desk import Desk
from swarm_agents.wire.reactor import Reactor


def test_an_idle_hub_sleeps_after_an_agent_has_died(tmp_path):
    board = make_board(tmp_path)
    hub = board.join("swarm-resource-0", "resource")
    dead, _ = make_worker(board)
    desk = Desk(board, hub)
    calls: list[int] = []
    looked = threading.Event()

    def look() -> bool:
        calls.append(len(desk.answers()))
        looked.set()
        return True

    board.declare_dead(dead.index, dead.epoch)
    desk.listen(cast(Reactor, threading.Lock()), look)
    try:
        assert looked.wait(10), "the death asks every port for a look"
        threading.Event().wait(0.3)
        assert len(calls) < 10, "nothing new, and it is asked again and again"
    finally:
        desk.close()
