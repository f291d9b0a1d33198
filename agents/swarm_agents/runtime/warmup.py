"""Loading every compiled function that an agent calls, by using each once, before the first fork.

A board of a few hundred KiB in a temporary directory is joined, used and left. With a warm JIT cache that loads code
and compiles nothing; the forked agents inherit it, so that none of them waits at its first task.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

__all__ = ["use_a_board_once"]


def use_a_board_once() -> None:
    """Calls what claiming, answering, beating, watching and burying need."""
    from swarm_agents.config import Role
    from swarm_agents.shm import witness
    from swarm_agents.shm.board import Board, Geometry
    from swarm_agents.shm.layout import R_CANCELLED
    from swarm_agents.shm.second import begin_second, claimed, yield_second
    from swarm_agents.shm.tasks import _end_ready
    from swarm_agents.shm.vigil import beat_until_stopped, glance, stop_beating

    with tempfile.TemporaryDirectory(prefix="swarm-warm-") as root:
        board = Board.open(Path(root) / "board", Geometry(256, 1 << 20, 8), swarm_uid="warm-up")
        client, agent, dead = board.join("a", "client"), board.join("b", Role.COMPUTE), board.join("c", Role.COMPUTE)
        port, worker = board.port(client), board.worker(agent)
        large = np.zeros(8192)
        for value in (None, large):
            port.submit("core.echo", (value,))
            claim = worker.claim(0.0)
            assert claim is not None
            claim.cancelled()
            (in_hand,) = claimed(board, dead.index)
            begin_second(board, dead, in_hand)
            yield_second(board.mapping.base, in_hand.slot, in_hand.word)
            worker.commit(claim, value)
            port.wait(0.0)
            port.poll()
        for finish in (worker.hand_back, lambda claim: worker.fail(claim, ValueError("warm"))):
            port.submit("core.noop")
            claim = worker.claim(0.0)
            assert claim is not None
            finish(claim)
        ticket = port.submit("core.noop")
        _end_ready(board.mapping.base, ticket.slot, -1, R_CANCELLED)  # of no effect: no state is this word
        port.cancel(ticket)
        port.poll()
        worker.claim(0.001)
        board.heartbeat(agent, cpu=0.0, rss=0)
        wish = np.zeros(2, np.int64)
        address = int(wish.ctypes.data)
        stop_beating(address)
        beat_until_stopped(board.mapping.base, agent.index, agent.epoch, address)
        glance(board.mapping.base, 10**9)
        witness.longest_pause(board.mapping.base, 10**9)
        witness.accuse(board.mapping.base, dead.index, dead.epoch, agent.index)
        witness.accusers(board.mapping.base, dead.index, dead.epoch)
        witness.absolve(board.mapping.base, dead.index, dead.epoch, agent.index)
        witness.vouch(board.mapping.base, dead.index, 0)
        witness.is_vouched(board.mapping.base, dead.index)
        board.find((0, 0))
        board.stats()
        board.declare_dead(dead.index, dead.epoch)
        board.reap()
        board.sweep()
        board.depths()
        for member in (dead, agent, client):
            board.leave(member)
