"""Members of a board are killed at random instants, thousands of times, while a client keeps a checked workload going.

Agents that claim and commit, clients that submit and take, and members that sweep and reap are children of this process
and get SIGKILL after a random time, in whatever they are doing: joining, claiming, writing a result, sweeping. This
process is the client whose tasks are counted. Checked: every task of its own is answered, once, with the value that its
argument asks for; no task was committed by two agents; when all are gone, no slot, block or lease is taken and no file
is left.

`SWARM_KILLS=10000 pytest tests/chaos/shm/test_shm_board_kills.py` is the long form (about three minutes); the suite
kills fewer.
"""

from __future__ import annotations

import functools
import gc
import mmap
import os
import random
import signal
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.shm import UID
from swarm_agents.config import Priority
from swarm_agents.errors import SwarmError, SwarmFull
from swarm_agents.shm.board import Board, Geometry

KILLS = int(os.environ.get("SWARM_KILLS", "800"))
#: Members at work at any time, by what they do, and how many of them.
ROLES = {"agent": 3, "client": 1, "sweeper": 1}
#: How long a member lives, in seconds: some are killed while they still join.
LIFE = 0.01
OUTSTANDING = 48
SIZES = (0, 40, 300, 2_000, 20_000)


@functools.cache
def _payload(kind: int) -> np.ndarray:
    return np.random.default_rng(kind).integers(0, 256, SIZES[kind % len(SIZES)], np.uint8)


def payload(number: int) -> np.ndarray:
    """The argument of a task: none of its neighbours has the same."""
    return _payload(number % 499)


@functools.cache
def _checksum(kind: int) -> int:
    return zlib.crc32(_payload(kind).tobytes())


def expected(number: int) -> list[object]:
    """A task's answer."""
    return [number, _checksum(number % 499)]


class Ledger:
    """Counts commits by task, in memory that the children share: each adds one when its commit was taken."""

    def __init__(self, tasks: int) -> None:
        self._map = mmap.mmap(-1, tasks)
        self.counts = np.frombuffer(self._map, np.uint8)

    def committed(self, number: int) -> None:
        self.counts[number % len(self.counts)] += 1


def work(board: Board, name: str, ledger: Ledger) -> None:
    """An agent: answers what it claims, or hands it back now and then."""
    member = board.join(name, "compute")
    worker = board.worker(member)
    done = 0
    while True:
        claim = worker.claim(0.05)
        if claim is None:
            continue
        number, data = claim.args
        answer = [number, zlib.crc32(data.tobytes())]
        done += 1
        if done % 11 == 0:
            worker.hand_back(claim, begun=False)
        elif worker.commit(claim, answer if number % 3 else [*answer, data]) and number >= 0:
            ledger.committed(number)


def ask(board: Board, name: str, _: Ledger) -> None:
    """A client whose tasks nobody counts: it dies with them underway."""
    member = board.join(name, "client")
    port = board.port(member)
    number = -1
    while True:
        try:
            port.submit("check", (number, payload(-number)), priority=Priority.HIGH)
            number -= 1
        except SwarmFull:
            port.wait(0.01)
        if number % 5 == 0:
            port.poll()


def sweep(board: Board, name: str, _: Ledger) -> None:
    """A member that does nothing but put the board in order."""
    board.join(name, "resource")
    while True:
        board.reap()
        board.sweep()


def feed(board: Board, name: str, _: Ledger) -> None:
    """A client that is left alone, so that the agents always have something in hand when they are killed."""
    member = board.join(name, "client")
    port = board.port(member)
    asked: dict[tuple[int, int], int] = {}
    number = -1
    while True:
        while len(asked) < OUTSTANDING:
            try:
                asked[port.submit("check", (number, payload(-number))).task_id] = number
            except SwarmFull:
                break
            number -= 1
        port.wait(0.005)
        for answer in port.poll():
            mine = asked.pop(answer.ticket.task_id)
            if answer.error is not None or answer.value[:2] != [mine, expected(-mine)[1]]:
                raise AssertionError(f"task {mine} came back wrong: {answer}")


DUTIES: dict[str, Callable[[Board, str, Ledger], None]] = {
    "agent": work,
    "client": ask,
    "sweeper": sweep,
    "feeder": feed,
}


def start(board: Board, role: str, number: int, ledger: Ledger) -> int:
    """Forks a member; its process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            DUTIES[role](board, f"{role}-{number}", ledger)
        except SwarmError:
            status = 0  # it was fenced, or found the board full of the dead
        finally:
            os._exit(status)
    return pid


def warm_up(board: Board) -> None:
    """Compiles, or loads, all that the children will call: they must not be killed over that."""
    agent, client = board.join("warm-up-agent", "compute"), board.join("warm-up-client", "client")
    worker, port = board.worker(agent), board.port(client)
    for number in range(2 * len(SIZES)):
        port.submit("check", (number, payload(number)))
        claim = worker.claim(1.0)
        if claim and number % 4 == 1 and worker.hand_back(claim, begun=False):
            claim = worker.claim(1.0)
        assert claim
        assert worker.commit(claim, [*claim.args])
        assert port.wait(1.0)
        port.poll()
    board.reap()
    board.sweep()
    board.leave(client)
    board.leave(agent)


@pytest.mark.timeout(900 + KILLS // 2)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of 3.12: forks beside threads, of which there are none here
def test_no_task_is_lost_torn_or_done_twice_whoever_is_killed_and_when(tmp_path: Path) -> None:
    seed = int(os.environ.get("SWARM_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"SWARM_SEED={seed}")  # shown when it fails
    chance = random.Random(seed)
    directory = tmp_path / "board"
    board = Board.open(directory, Geometry(1024, 8 << 20, 64), swarm_uid=UID)
    board.max_attempts = 100
    ledger = Ledger(1 << 20)
    me = board.join("the-client", "client")
    port = board.port(me)
    warm_up(board)
    ask_for: dict[tuple[int, int], int] = {}
    submitted = answered = started = killed = 0
    children: dict[int, str] = {}
    dying: list[tuple[int, str]] = []

    def bury() -> None:
        """Waits for those who were killed: later, because the kernel takes its time to take a process apart."""
        while dying:
            pid, role = dying.pop()
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL), f"a {role} failed by itself"

    def keep_going() -> None:
        nonlocal submitted, answered
        while len(ask_for) < OUTSTANDING:
            try:
                priority = chance.choice(tuple(Priority))
                ticket = port.submit("check", (submitted, payload(submitted)), priority=priority)
            except SwarmFull:
                break
            ask_for[ticket.task_id] = submitted
            submitted += 1
        for answer in port.poll():
            number = ask_for.pop(answer.ticket.task_id)  # KeyError: answered twice
            assert answer.error is None, (number, answer.error)
            value = answer.value
            if number % 3 == 0:
                assert (value[2] == payload(number)).all(), f"task {number} came back torn"
                value = value[:2]
            assert value == expected(number), f"task {number} came back wrong"
            answered += 1

    gc.freeze()  # so that children do not copy what they collect
    feeder = start(board, "feeder", 0, ledger)
    try:
        while killed < KILLS:
            for role, wanted in ROLES.items():
                for _ in range(wanted - sum(r == role for r in children.values())):
                    started += 1
                    children[start(board, role, started, ledger)] = role
            until = time.monotonic() + chance.random() * LIFE
            while True:
                keep_going()
                left = until - time.monotonic()
                if left <= 0:
                    break
                port.wait(min(left, 0.002))
            bury()
            for pid in chance.sample(sorted(children), chance.randint(1, len(children))):
                os.kill(pid, signal.SIGKILL)
                dying.append((pid, children.pop(pid)))
                killed += 1
            if chance.random() < 0.7:
                board.reap()
        assert os.waitpid(feeder, os.WNOHANG) == (0, 0), "the feeder was answered wrongly"
    finally:
        for pid in (*children, feeder):
            os.kill(pid, signal.SIGKILL)
        for pid in (*children, feeder, *(pid for pid, _ in dying)):
            os.waitpid(pid, 0)
        gc.unfreeze()

    # Nobody is left but this process and, from here on, one agent that lives.
    board.reap()
    board.sweep()
    last = start(board, "agent", started + 1, ledger)
    try:
        give_up = time.monotonic() + 60
        while ask_for:
            port.wait(0.1)
            for answer in port.poll():
                number = ask_for.pop(answer.ticket.task_id)
                assert answer.error is None
                assert answer.value[:2] == expected(number)
                answered += 1
            assert time.monotonic() < give_up, f"{len(ask_for)} tasks were lost: {sorted(ask_for.values())[:10]}"
    finally:
        os.kill(last, signal.SIGKILL)
        os.waitpid(last, 0)
    assert answered == submitted
    # Else the members were killed before they did anything, and nothing was shown.
    assert answered > killed / 4
    assert board.stats().totals["retried"] > 0
    assert ledger.counts.max() <= 1, f"committed twice: {np.flatnonzero(ledger.counts > 1)[:10]}"
    board.reap()
    board.sweep()
    board.sweep()  # the first one ends what the dead held; what hung on that is garbage now
    stats = board.stats()
    assert all(not any(states.values()) for states in stats.depth.values()), stats.depth
    assert stats.arena_used == 0
    print(f"{killed} killed, {submitted} tasks, each answered once; {stats.totals['retried']} taken from the dead")
    board.leave(me)
    assert not directory.exists(), list(directory.iterdir())
