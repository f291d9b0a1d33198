"""Kernels write their results in place: where the agent lends shared memory, and where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from support.shm import make_board, make_port, make_worker
from swarm_agents.compute.context import Context


def test_without_an_agent_it_is_ordinary_memory() -> None:
    array = Context().array((3, 4), np.int16)
    assert (array.shape, array.dtype) == ((3, 4), np.int16)
    assert array.flags.owndata


def test_in_an_agent_the_result_is_handed_over_as_it_lies(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    (member, port), (agent, worker) = make_port(board), make_worker(board)
    port.submit("test.fill")
    claim = worker.claim(5)
    assert claim is not None
    array = Context(memory=worker.array).array((100, 10), np.float32)
    array[:] = 4
    address = array.ctypes.data
    worker.commit(claim, array)
    del array
    assert port.wait(5)
    (answer,) = port.poll(copy=False)
    assert answer.value.ctypes.data == address
    assert float(answer.value.sum()) == 4000
    del answer
    assert board.stats().arena_used == 0
    board.leave(agent)
    board.leave(member)
