"""A swarm to hurt: real agents on one simulated node or two, with the kernels of these benchmarks, and what killing
them takes.

Nothing is tuned: the settings are the defaults, but for the module of kernels (and the hubs' addresses, where there are
two nodes). A node that is lost loses all its processes at once, and its shared memory; when it is back it begins anew.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "transport")]

from pairs import cores  # noqa: E402
from pods import Node, Pod, node, shared_memory  # noqa: E402

from swarm_agents.config import Runtime  # noqa: E402

__all__ = [
    "KERNEL",
    "connection",
    "crew",
    "eventually",
    "fill",
    "forget",
    "lose",
    "on_board",
    "start_hub",
    "swarm_of",
    "warm",
]

KERNEL = "bench.work"
_RUNTIME = Runtime(kernel_modules=("failover_kernels",))


def eventually(what: str, look: Callable[[], Any], seconds: float = 60.0, pause: float = 0.002) -> Any:
    """Looks until there is something true to return.

    Raises:
        TimeoutError: there was nothing for so many seconds.
    """
    until = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > until:
            raise TimeoutError(f"did not come within {seconds:g} s: {what}")
        time.sleep(pause)
    return found


@contextlib.contextmanager
def _kernels_found() -> Iterator[None]:
    """Agents that are started meanwhile find `failover_kernels`."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def crew(agents: int, resource: bool = False) -> Iterator[tuple[Node, list[Pod]]]:
    """A node with so many compute agents, each on a core as long as there are some; they are ready."""
    with _kernels_found(), node(runtime=_RUNTIME, hubs=int(resource)) as here:
        made = [here.start("compute", number, cores()[(number + 1) % 2]) for number in range(agents)]
        if resource:
            here.start("resource", 0, cores()[0])
        for pod in here.pods:
            pod.ready()
        yield here, made


@contextlib.contextmanager
def swarm_of(*agents: int) -> Iterator[list[Node]]:
    """As many nodes as numbers are given, each with a hub and so many compute agents; all are ready."""
    with _kernels_found(), node(runtime=_RUNTIME, hubs=len(agents)) as first, contextlib.ExitStack() as stack:
        made = [first]
        for number in range(1, len(agents)):
            made.append(first.beside(stack.enter_context(shared_memory()), f"node-{number}"))
            stack.callback(made[-1].close)
        for each, count in zip(made, agents, strict=True):
            fill(each, count)
        for each in made:
            for pod in each.pods:
                pod.ready()
        yield made


def fill(here: Node, agents: int = 1) -> None:
    """Starts the pods of `node-n`: the n-th hub, and so many compute agents."""
    start_hub(here)
    for agent in range(agents):
        here.start("compute", _number(here) * 10 + agent, _core(here))


def start_hub(here: Node) -> Pod:
    """Starts the hub's pod of a node."""
    return here.start("resource", _number(here), _core(here))


def _number(here: Node) -> int:
    return int(here.name.rpartition("-")[2])


def _core(here: Node) -> int:
    """Nodes share the machine's cores in turn."""
    return cores()[(_number(here) + 1) % 2]


def connection(nodes: Sequence[Node], *, board: bool = False) -> Any:
    """How a program finds the swarm: by the hubs of these nodes, or by the first one's board alone."""
    from swarm_agents.client import Connection

    first = nodes[0]
    if board:
        return Connection(uid=first.settings.uid, board=str(first.board))
    keys = {name: (first.keys / name).read_text() for name in ("hub.public", "client.public", "client.secret")}
    return Connection(
        uid=first.settings.uid,
        hubs=tuple(hub for hub in first.settings.hubs if hub.node in {each.name for each in nodes}),
        server_key=keys["hub.public"],
        public_key=keys["client.public"],
        secret_key=keys["client.secret"],
    )


def on_board(board: Any, role: str = "compute") -> dict[int, str]:
    """The agents that are alive on a board: pid and pod."""
    return {info.pid: info.name for info in board.members() if info.alive and info.role == role}


def warm(swarm: Any, path: Path, pids: set[int], number: Callable[[], int]) -> None:
    """Has each of these agents end a task."""
    seen: set[int] = set()

    def busy() -> bool:
        futures = [swarm.submit(KERNEL, str(path), number(), 0.005, 0.005) for _ in range(2 * len(pids))]
        seen.update(int(future.result(60)[1]) for future in futures)
        return pids <= seen

    eventually("all agents take tasks", busy)


def lose(here: Node, *, silently: bool = False) -> float:
    """Takes all processes of a node away at once, and its shared memory; returns when that began (monotonic seconds).

    Killed, their connections are closed by the kernel; `silently` they only stop, as if the power had gone: nobody
    is told anything. They are killed in `forget`.
    """
    victims = [pid for pod in here.pods for pid in pod.pids()]
    began = time.monotonic()
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if silently else signal.SIGKILL)
    return began


def forget(here: Node) -> None:
    """Clears a lost node away, so that it can begin anew."""
    for pod in here.pods:
        for pid in pod.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for pod in here.pods:
        pod.process.wait()
    here.pods.clear()
    shutil.rmtree(here.board, ignore_errors=True)
