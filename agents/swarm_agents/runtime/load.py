"""What a node's board says of its load, for whoever decides how many agents there should be (`GET /v1/load`).

Read by the supervisor, which has the board mapped anyway, when somebody asks: no task and no agent is disturbed, and
nothing is kept here. Counts are sums since the board was made; who wants to know what happened meanwhile subtracts two
readings of one board (`board` says which it is). Only NumPy is used: a compiled function that is not in the cache would
stop the supervisor, which watches over heartbeats, for as long as it is compiled.

A task that this node's hub carries to another node is counted by both boards: it waits on the one, then on the other,
and its run is noted on both. `forwarded` is how many came here that way and were answered, so that the sum of `runs`
over all nodes less that of `forwarded` is how many tasks were computed.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from swarm_agents.config import Role
from swarm_agents.shm.layout import (
    GEN_MASK,
    H_HIST_AT,
    H_LANE_SLOTS,
    H_MAX_MEMBERS,
    H_NONCE,
    H_SLOTS_AT,
    H_STATES_AT,
    HIST_BUCKETS,
    HIST_QUEUED,
    HIST_ROUND_TRIP,
    HIST_RUN,
    HIST_SHIFT,
    HIST_WORDS,
    HISTOGRAMS,
    LANES,
    M_EMPTY,
    PATHS,
    READY,
    S_CANCEL,
    S_SUBMITTED,
    SLOT_STRIDE,
)
from swarm_agents.shm.members import record_at, word_at

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board
    from swarm_agents.shm.files import Mapping

__all__ = ["read_load"]

#: Lower bound of each bucket of the board's histograms, in seconds: two an octave from 128 ns on, the first is 0.
_LOWER = np.array(
    [0.0] + [2.0 ** (HIST_SHIFT + at // 2) * (1.5 if at % 2 else 1.0) * 1e-9 for at in range(HIST_BUCKETS - 1)]
)
_WORKERS = frozenset({str(Role.COMPUTE), str(Role.STANDBY)})


def read_load(board: Board, node: str) -> dict[str, Any]:
    """The board's load as plain data; times are in seconds.

    `queued` and `ages` are histograms, `[[lower bound, count], …]` without the empty buckets: how long the tasks that
    were begun had waited, and how long those that wait now have.

    Raises:
        BoardMismatch: the file was cut short.
    """
    board.refuse_cut()
    members = [info for info in board.members() if info.alive and info.role in _WORKERS]
    mapping, words = board.mapping, board.words
    now = time.monotonic_ns()
    ages = _ages(mapping, words, now)
    queued, runs, run_seconds, forwarded = _counted(mapping, words)
    return {
        "node": node,
        "board": f"{struct.unpack_from('<Q', mapping.view, H_NONCE * 8)[0]:016x}",
        "time": now * 1e-9,
        "waiting": int(ages.size),
        "oldest": float(ages.max()) if ages.size else 0.0,
        "ages": _sparse(np.bincount(np.searchsorted(_LOWER, ages, "right") - 1, minlength=HIST_BUCKETS)),
        "agents": len(members),
        "busy": sum(info.running > 0 for info in members),
        "running": sum(info.running for info in members),
        "runs": runs,
        "runSeconds": run_seconds,
        "queued": _sparse(queued),
        "forwarded": forwarded,
    }


def _ages(mapping: Mapping, words: dict[int, int], now: int) -> np.ndarray[Any, Any]:
    """Seconds since the submission of each task that waits, and that its submitter has not cancelled."""
    slots = LANES * words[H_LANE_SLOTS]
    states = np.frombuffer(mapping.view, np.int64, slots, words[H_STATES_AT])
    waiting = np.flatnonzero((states & 7) == READY)
    if not waiting.size:
        return np.empty(0)
    stride = SLOT_STRIDE // 8
    fields = np.frombuffer(mapping.view, np.int64, slots * stride, words[H_SLOTS_AT]).reshape(slots, stride)
    generations = (states[waiting] >> 42) & GEN_MASK
    waiting = waiting[fields[waiting, S_CANCEL // 8] != generations + 1]
    ages: np.ndarray[Any, Any] = np.maximum(now - fields[waiting, S_SUBMITTED // 8], 0) * 1e-9
    return ages


def _counted(mapping: Mapping, words: dict[int, int]) -> tuple[np.ndarray[Any, Any], int, float, int]:
    """Of all who were ever on the board: waits by bucket, runs, their seconds, answers to other nodes' hubs."""
    most = words[H_MAX_MEMBERS]
    used = []
    for index in range(most):
        state, _, epoch = word_at(mapping, record_at(words, index))
        if state != M_EMPTY or epoch:
            used.append(index)
    shape = (most, LANES, HISTOGRAMS, HIST_WORDS)
    counts = np.frombuffer(mapping.view, np.int64, int(np.prod(shape)), words[H_HIST_AT]).reshape(shape)
    sums = counts[used].sum(axis=(0, 1))
    run = sums[HIST_RUN]
    answered = sums[HIST_ROUND_TRIP + PATHS.index("node"), :HIST_BUCKETS]
    seconds = float(run[HIST_BUCKETS]) * 1e-9
    return sums[HIST_QUEUED, :HIST_BUCKETS], int(run[:HIST_BUCKETS].sum()), seconds, int(answered.sum())


def _sparse(counts: np.ndarray[Any, Any]) -> list[list[float]]:
    return [[float(_LOWER[at]), int(counts[at])] for at in np.flatnonzero(counts)]
