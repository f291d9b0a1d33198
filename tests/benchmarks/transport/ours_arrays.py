"""Our side of `array_1MiB_vs_pyzmq_ipc`: an array handed to a co-located agent through the public API, and back.

As with the peer, the array is written beforehand and what comes is handed back: here as a task's argument, which the
agent returns as the task's result, and which the submitter takes as a view. Nothing is copied either way, and both
sides touch the first and the last element, so that what was handed over is known to be there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pairs import cores, one_way_seconds, partner, pin

_UID = "transport-benchmark"


def _echo(directory: Path) -> None:
    from swarm_agents.shm.board import Board

    board = Board.attach(directory)
    member = board.join("echo", "compute")
    worker = board.worker(member)
    while True:
        claim = worker.claim(1.0)
        if claim is None:
            continue
        if claim.kernel == "stop":
            worker.commit(claim, None)
            break
        (array,) = claim.args
        assert array[0] == array[-1]
        worker.commit(claim, array)
    board.leave(member)


def array_one_way(nbytes: int = 1 << 20, count: int = 5_000) -> float:
    """Seconds one way: half of the round trip of one array of `nbytes` bytes."""
    import numpy as np

    from swarm_agents.shm.board import Board, Geometry

    pin(cores()[0])
    shared = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="agentswarm-bench-", dir=shared))
    try:
        board = Board.open(folder / "board", Geometry(1024, 8 * nbytes + (16 << 20), 16), swarm_uid=_UID)
        member = board.join("bench", "client")
        port = board.port(member)
        array = port.array((nbytes,), np.uint8)
        array[:] = 7
        with partner(_echo, folder / "board"):

            def exchange() -> Any:
                port.submit("echo", (array,))
                port.wait(60.0)
                (answer,) = port.poll(1, copy=False)
                back = answer.value
                assert back[0] == back[-1]
                return back

            back = exchange()
            assert back.nbytes == nbytes
            assert np.shares_memory(back, array)
            seconds = one_way_seconds(exchange, count, count // 10 + 1)
            port.submit("stop")
            port.wait(60.0)
        board.leave(member)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return seconds
