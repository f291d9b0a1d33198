"""Agents that pass shared arrays about are killed at random instants: no answer shows other data, and nothing leaks."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.shm import Child, eventually, forked, make_board, make_port, small
from swarm_agents.shm.board import Board, Port

KILLS = 120
ITEMS = 3000


def value_of(array: np.ndarray) -> int:
    """The number that an array is filled with, all of it."""
    first = int(array.flat[0])
    assert (array == first).all(), "somebody else's data"
    return first


def serve(board: Board, name: str) -> None:
    """An agent: adds one to an array in place of a new one, and hands the argument back with it."""
    worker = board.worker(board.join(name, "compute"))
    kept = []
    while True:
        claim = worker.claim(0.05)
        if claim is None:
            continue
        array, number = claim.args
        assert value_of(array) == number
        made = worker.array(array.shape, array.dtype)
        made[:] = number + 1
        if number % 3 == 0:
            kept = [*kept[-4:], worker.arena.keep(array[::2])]
        worker.commit(claim, {"made": made[::-1], "given": array, "number": number})
        for each in kept:
            value_of(each)


@contextlib.contextmanager
def served(board: Board, name: str) -> Iterator[Child]:
    with forked(lambda: serve(board, name)) as child:
        yield child


def warm_up(board: Board, port: Port) -> None:
    """Compiles what the children need, before they are forked."""
    member = board.join("warm", "compute")
    worker = board.worker(member)
    array = port.array((ITEMS,), np.int64)
    array[:] = 1
    for _ in range(2):
        port.submit("warm", (array, 1))
        claim = worker.claim(5)
        assert claim is not None
        made = worker.array((3,), np.int64)
        worker.commit(claim, [made, worker.arena.keep(claim.args[0])])
        assert port.wait(5)
        port.poll(copy=False)
    del array, made, claim
    board.leave(member)
    board.sweep()


@pytest.mark.parametrize("copy", [True, False], ids=["copied", "shown"])
def test_agents_killed_anywhere_leave_no_lease_and_no_array_and_show_nothing_wrong(tmp_path: Path, copy: bool) -> None:
    board = make_board(tmp_path, small(arena_bytes=4 << 20))
    board.max_attempts = 100
    member, port = make_port(board)
    warm_up(board, port)
    rng = random.Random(3)
    sent, answered = 0, set()
    shown: list[np.ndarray] = []

    def take() -> None:
        for answer in port.poll(copy=copy):
            assert answer.error is None, answer.error
            number = answer.value["number"]
            assert number not in answered
            answered.add(number)
            assert value_of(answer.value["given"]) == number
            assert value_of(answer.value["made"]) == number + 1
            shown[:] = [*shown[-8:], answer.value["made"]]
        for each in shown:
            value_of(each)

    for kill in range(KILLS):
        with served(board, f"agent-{kill}") as child:
            until = time.monotonic() + rng.choice((0.004, 0.008, 0.012)) * rng.random() + 0.006
            while time.monotonic() < until:
                if port.pending < 6:
                    sent += 1
                    array = port.array((ITEMS,), np.int64)
                    array[:] = sent
                    port.submit("add", (array, sent))
                    del array
                take()
            child.kill()
            board.reap()
    with served(board, "the last one"):
        eventually(lambda: (take(), not port.pending)[1], what="all tasks answered")
    assert answered == set(range(1, sent + 1))
    eventually(lambda: not board.reap() and sum(info.alive for info in board.members()) == 1)
    shown.clear()
    gc.collect()
    board.sweep()
    stats = board.stats()
    assert (stats.arrays, stats.leases, stats.arena_used) == (0, 0, 0)
    assert stats.totals["retried"] > 0
    board.leave(member)


def test_clients_killed_anywhere_leave_no_lease_and_no_array(tmp_path: Path) -> None:
    board = make_board(tmp_path, small(arena_bytes=4 << 20))
    member, port = make_port(board)
    warm_up(board, port)
    agent = board.join("agent", "compute")
    worker = board.worker(agent)
    rng = random.Random(4)

    def use(name: str) -> None:
        mine = board.port(board.join(name, "client"))
        held: list[np.ndarray] = []
        number = 0
        while True:
            number += 1
            array = mine.array((ITEMS,), np.int64)
            array[:] = number
            mine.submit("add", (array,) if number % 2 else (array, array[3:]))
            held = [*held[-3:], array[5:]]
            if mine.wait(0.05):
                for answer in mine.poll(copy=False):
                    held.append(answer.value)
            for each in held:
                value_of(each)

    served_tasks = 0
    for kill in range(KILLS):
        with forked(lambda kill=kill: use(f"user-{kill}")) as child:
            until = time.monotonic() + 5
            begun = False
            while time.monotonic() < until:
                claim = worker.claim(0.0)
                if claim is None:
                    continue
                if not begun:
                    begun, until = True, time.monotonic() + 0.006 * rng.random()
                served_tasks += 1
                worker.commit(claim, claim.args[0])
                del claim
            child.kill()
            board.reap()
    while (claim := worker.claim(0.0)) is not None:
        worker.commit(claim, None)
    assert served_tasks > KILLS
    board.sweep()
    stats = board.stats()
    assert (stats.arrays, stats.leases, stats.arena_used) == (0, 0, 0)
    board.leave(agent)
    board.leave(member)
