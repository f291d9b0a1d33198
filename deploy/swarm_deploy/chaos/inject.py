"""Does to a local cluster what a fault says, and undoes it when its time is over.

`Injector.inject` returns a `Strike`, which knows whom it hit and how it is undone; None when there was nobody to hit.
What is undone more than once is undone once. A process is stopped and continued by its number and start time, so that
one which died meanwhile (its supervisor kills an agent that was found hung) is left alone.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TypeVar

from swarm_agents.config import HUB_PORT
from swarm_agents.errors import Unreachable
from swarm_deploy.chaos import fill, partition
from swarm_deploy.chaos.faults import Fault
from swarm_deploy.chaos.ground import ChaosError, Ground, LocalGround
from swarm_deploy.chaos.own import OwnGround
from swarm_deploy.chaos.targets import Target, find, operators
from swarm_deploy.local.processes import Process
from swarm_deploy.local.record import shared_memory

__all__ = ["Injector", "Strike"]

T = TypeVar("T")
#: How long a cluster that was started again may take until it is shot at again (seconds).
_WHOLE = 30.0


class Strike:
    """One fault that was done."""

    def __init__(self, kind: str, target: str, undo: Callable[[], None] = lambda: None) -> None:
        self.kind = kind
        self.target = target
        self._undo = undo
        self._lock = threading.Lock()
        self.undone = False

    def undo(self) -> None:
        """Ends it; called again it does nothing."""
        with self._lock:
            if not self.undone:
                self._undo()
                self.undone = True


class Injector:
    """Does faults on one ground."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def inject(self, fault: Fault) -> Strike | None:
        """Does it now.

        Raises:
            SwarmError, OSError: it could not be done.
        """
        action, _, part = fault.kind.partition("-")
        match action, part:
            case ("kill" | "stop", "api"):
                return self._api(fault)
            case ("kill" | "stop", _):
                return self._signal(fault, part, kill=action == "kill")
            case "delete", _:
                return self._delete(fault, part)
            case "node", _:
                return self._node(fault)
            case "partition", _:
                return self._partition(fault)
            case "arena", _:
                return self._arena(fault)
            case "shm", _:
                return self._disk(fault, shm=True)
            case "disk", _:
                return self._disk(fault, shm=False)
        raise ChaosError(f"no fault is called {fault.kind}")

    @property
    def _local(self) -> LocalGround:
        """The local cluster whose processes are to be hit.

        Raises:
            ChaosError: it is none.
        """
        if not isinstance(self._ground, LocalGround):
            raise ChaosError("this needs the processes of a local cluster")
        return self._ground

    @property
    def _cluster(self) -> str:
        return self._local.record.cluster

    # -- processes

    def _targets(self, part: str) -> list[Target]:
        if part == "operator":
            return operators(self._cluster)
        return [target for target in find(self._cluster, self._ground.uid) if target.part == part]

    def _signal(self, fault: Fault, part: str, *, kill: bool) -> Strike | None:
        target = _picked(fault, self._targets(part))
        if target is None or not target.process.send(signal.SIGKILL if kill else signal.SIGSTOP):
            return None
        return Strike(fault.kind, str(target), lambda: _continue(target.process) if not kill else None)

    def _api(self, fault: Fault) -> Strike:
        ground = self._local
        if fault.kind == "stop-api":
            process = Process.of(ground.record.pid)
            if process is None or not process.send(signal.SIGSTOP):
                raise ChaosError("the API server is not there")
            return Strike(fault.kind, f"API server (process {process.pid})", lambda: _continue(process))
        if not isinstance(ground, OwnGround):
            raise ChaosError(ground.unable["kill-api"])
        pid = ground.record.pid
        ground.kill_cluster()

        def again() -> None:
            ground.start_cluster()
            with suppress(ChaosError):  # whether it heals is found out at the end; shot at it is when it had a chance
                ground.wait_ready(_WHOLE)

        return Strike(fault.kind, f"API server (process {pid}), started again", again)

    # -- objects

    def _delete(self, fault: Fault, part: str) -> Strike | None:
        ground = self._ground
        role = {"agent": "compute", "standby": "standby", "hub": "resource"}[part]
        pods = sorted(
            pod["metadata"]["name"]
            for pod in ground.pods()
            if pod["metadata"]["labels"].get("agentswarm.dev/role") == role
            and not pod["metadata"].get("deletionTimestamp")
        )
        name = _picked(fault, pods)
        if name is None:
            return None
        ground.call("DELETE", f"/api/v1/namespaces/{ground.namespace}/pods/{name}", {"gracePeriodSeconds": 0})
        return Strike(fault.kind, f"pod {name}")

    def _node(self, fault: Fault) -> Strike | None:
        cluster = self._local.cluster
        name = _picked(fault, self._ground.nodes())
        if name is None:
            return None
        cluster.node_stop(name)
        return Strike(fault.kind, name, lambda: _insist(lambda: cluster.node_start(name)))

    # -- the network, and what can be full

    def _partition(self, fault: Fault) -> Strike | None:
        nodes = sorted({target.node for target in self._targets("hub")})
        pairs = [(a, b) for i, a in enumerate(nodes) for b in nodes[i + 1 :]]
        pair = _picked(fault, pairs)
        if pair is None:
            return None

        def hub_of(node: str) -> Callable[[], list[int]]:
            return lambda: [target.process.pid for target in self._targets("hub") if target.node == node]

        cut = partition.Cut(hub_of(pair[0]), hub_of(pair[1]), HUB_PORT)

        def heal() -> None:
            cut.heal()
            if cut.problem is not None:
                raise ChaosError(f"the partition was not kept up: {cut.problem}")

        return Strike(fault.kind, f"{pair[0]} from {pair[1]} ({cut.connections} connections)", heal)

    def _arena(self, fault: Fault) -> Strike | None:
        node = _picked(fault, sorted(self._ground.boards()))
        if node is None:
            return None
        stack = ExitStack()
        filler = stack.enter_context(fill.arena_full(self._ground.boards()[node]))
        ended = threading.Event()
        thread = threading.Thread(target=filler.hold, args=(ended,), name="chaos-arena", daemon=True)
        thread.start()

        def undo() -> None:
            ended.set()
            thread.join()
            stack.close()

        return Strike(fault.kind, f"the arena of {node} ({filler.bytes >> 20} MiB taken)", undo)

    def _disk(self, fault: Fault, *, shm: bool) -> Strike:
        where = shared_memory(self._cluster) if shm else self._local.cluster.state
        stack = ExitStack()
        filler = stack.enter_context(fill.disk_full(where))
        what = "the boards' file system" if shm else "the disk"
        return Strike(fault.kind, f"{what} ({filler.bytes >> 20} MiB taken, {filler.free()} bytes free)", stack.close)


def _picked(fault: Fault, candidates: Sequence[T]) -> T | None:
    return candidates[min(int(fault.pick * len(candidates)), len(candidates) - 1)] if candidates else None


def _continue(process: Process) -> None:
    process.send(signal.SIGCONT)


def _insist(work: Callable[[], None], times: int = 50) -> None:
    """Again while the API server does not answer, as after it was stopped."""
    for left in reversed(range(times)):
        try:
            work()
            return
        except Unreachable:
            if not left:
                raise
            threading.Event().wait(0.2)
