"""The longest gap in service that clients see when hubs die.

Two nodes with a hub and an agent each. A client submits no-ops one after the other, and the gap is the time between two
answers. The hub that serves the client is killed again and again; `on_node` is a client on the board of its node,
`off_node` one that has only the hubs' addresses, in which case the hub's whole pod is killed, supervisor and all, so
that nobody brings it back at the old address while the client looks for another.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

from figures import quantile
from scene import connection, eventually, on_board, start_hub, swarm_of

__all__ = ["off_node", "on_node"]

_KERNEL = "core.noop"


class _Stream:
    """No-ops one after the other, on a thread; what is kept are the longest gaps."""

    def __init__(self, swarm: Any) -> None:
        self._swarm = swarm
        self._ended = False
        self.longest = 0.0
        self.answers = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        last = time.monotonic()
        try:
            while not self._ended:
                self._swarm.submit(_KERNEL).result(30)
                now = time.monotonic()
                self.longest = max(self.longest, now - last)
                last = now
                self.answers += 1
        except BaseException as error:
            self._error = error

    def __enter__(self) -> _Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()
        if self._error is not None:
            raise self._error

    def since(self) -> float:
        """The longest gap since this was asked last."""
        longest, self.longest = self.longest, 0.0
        return longest


def _gaps(losses: int, *, on_board_: bool) -> dict[str, float]:
    quiet, gaps = [], []
    with swarm_of(1, 1) as nodes:
        from swarm_agents.client import Swarm
        from swarm_agents.shm.board import Board

        where = connection(nodes, board=on_board_)
        with Swarm.connect(where) as swarm, _Stream(swarm) as stream:
            for _ in range(losses):
                time.sleep(0.5)
                stream.since()
                time.sleep(1.0)
                quiet.append(stream.since())
                hubs = {hub.address: hub.node for hub in nodes[0].settings.hubs}
                here = nodes[0] if on_board_ else next(n for n in nodes if n.name == hubs[swarm.endpoint])
                pod = next(pod for pod in here.pods if "resource" in pod.name)
                (agent,) = on_board(Board.attach(here.board), "resource")
                for pid in [agent] if on_board_ else [pod.process.pid, agent]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(1.5)
                gaps.append(stream.since())
                if not on_board_:
                    pod.process.wait()
                    here.pods.remove(pod)
                    start_hub(here).ready()
                eventually(
                    "a hub again",
                    lambda: set(on_board(Board.attach(here.board), "resource")) - {agent},  # noqa: B023
                )
            answers = stream.answers
    return {
        "longest": max(gaps),
        "p50": quantile(gaps, 0.5),
        "longest_without": max(quiet),
        "kills": float(losses),
        "answers": float(answers),
    }


def on_node(losses: int = 20) -> dict[str, float]:
    """The longest gap (seconds) of a client on the node whose hub is killed."""
    return _gaps(losses, on_board_=True)


def off_node(losses: int = 10) -> dict[str, float]:
    """The longest gap (seconds) of a client elsewhere, whose hub is killed."""
    return _gaps(losses, on_board_=False)


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*map(int, sys.argv[2:])))
