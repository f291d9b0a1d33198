"""A board with a client's port and an agent's worker, all in the test's own process; and one to pass arrays on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.arraykit import MIB
from support.shm import make_board, make_port, make_worker, small
from swarm_agents.shm.board import Board, Port, Worker


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return make_board(tmp_path)


@pytest.fixture
def port(board: Board) -> Port:
    return make_port(board)[1]


@pytest.fixture
def worker(board: Board) -> Worker:
    return make_worker(board)[1]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A board with a client and an agent; in the end nothing of theirs is left in the arena."""
    board = make_board(tmp_path, small(arena_bytes=8 * MIB))
    member, port = make_port(board)
    agent, worker = make_worker(board)
    yield SimpleNamespace(board=board, member=member, port=port, agent=agent, worker=worker, path=tmp_path)
    gc.collect()
    stats = board.stats()
    assert (stats.arrays, stats.leases, stats.arena_used) == (0, 0, 0)
    board.leave(agent)
    board.leave(member)
    assert not board.directory.exists()
