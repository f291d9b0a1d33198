"""A local cluster made for one run, with small file systems of its own, and the swarm on it.

The cluster lies below one temporary directory. Where this process may mount, the cluster's disk and its shared memory
are small file systems, which can be filled without anybody else noticing. Its kubelets start a container again soon
however often it was shot: the back-off of a real one exists for programs that fail by themselves.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from swarm_agents.errors import SwarmError
from swarm_deploy.chaos import fill, ledger
from swarm_deploy.chaos.ground import LocalGround
from swarm_deploy.local.manager import Cluster
from swarm_deploy.local.processes import Process, end, marked
from swarm_deploy.local.record import CLUSTER_MARK, Record, shared_memory

__all__ = ["OwnGround"]

#: Each simulated node has room for the whole swarm, so that one may be lost.
_CPUS = 12
#: The file systems' sizes: what the cluster needs, and some more (bytes).
_DISK, _SHM_A_NODE = 768 << 20, 192 << 20
_ARENA = "32Mi"


class OwnGround(LocalGround):
    """A cluster made for this run, and a small swarm on it."""

    def __init__(self, *, nodes: int, replicas: int, standby: int, scratch: Path | None = None) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="agentswarm-chaos-", dir=scratch))
        super().__init__(Cluster(self.scratch / "state"), "default", "chaos", "")
        self.ledger = self.scratch / "ledger"
        self.ledger.mkdir()
        self.walks = True
        self.unable = {}
        self._nodes, self._replicas, self._standby = nodes, replicas, standby
        self._mounts: list[Path] = []
        self._id = secrets.token_hex(4)
        self._shared = shared_memory(self._id)

    def start(self, say: Callable[[str], None]) -> None:
        """Starts the cluster, and applies the swarm.

        Raises:
            SwarmError: it does not start.
        """
        state = self.cluster.state
        if why := fill.mountable(self.scratch):
            self.unable |= dict.fromkeys(("shm-full", "disk-full"), why)
        else:
            for where, size in ((state, _DISK), (self._shared, self._nodes * _SHM_A_NODE)):
                fill.mount(where, size)
                self._mounts.append(where)
        state.mkdir(mode=0o700, exist_ok=True)
        (state / "cluster-id").write_text(self._id)
        self.start_cluster(say)
        made = self.call(
            "PATCH",
            f"{self.path}?fieldManager=swarm-chaos&force=true",
            self._manifest(),
            kind="application/apply-patch+yaml",
        )
        self.uid = made["metadata"]["uid"]

    def start_cluster(self, say: Callable[[str], None] = lambda _: None) -> Record:
        """Starts the cluster, for the first time or after it was killed."""
        return self.cluster.start(
            nodes=self._nodes,
            cpus_per_node=_CPUS,
            back_off=0.2,
            most_back_off=2.0,
            heartbeat=1.0,
            node_grace=6.0,
            progress=say,
        )

    def kill_cluster(self) -> None:
        """SIGKILL of the process that is API server, scheduler and kubelets in one: its pods die with it."""
        process = Process.of(self.record.pid)
        assert process is not None
        process.send(signal.SIGKILL)
        until = time.monotonic() + 10
        while process.alive() and time.monotonic() < until:
            time.sleep(0.005)
        with suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)

    def _manifest(self) -> dict[str, Any]:
        assert self.ledger is not None
        return {
            "apiVersion": "agentswarm.dev/v1alpha1",
            "kind": "Swarm",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "compute": {
                    "replicas": self._replicas,
                    "standby": self._standby,
                    "cpus": "1",
                    "memory": "256Mi",
                    "env": [{"name": ledger.VARIABLE, "value": ledger.value_of(self.ledger)}],
                },
                "transport": {"sharedMemory": {"size": _ARENA, "taskSlots": 1024, "maxMembers": 64}},
                "runtime": {"kernelModules": ["swarm_deploy.chaos.kernels"], "drainTimeout": "5s"},
                # A task that was with many victims is not to be blamed here, where everybody becomes one.
                "failover": {"maxAttempts": 10},
            },
        }

    def keep_logs(self, directory: Path) -> list[Path]:
        """Copies the logs of the cluster, the operator and the pods, for whoever looks for the reason of something."""
        kept = []
        state = self.cluster.state
        for log in (*state.glob("log/*.log"), *state.glob("nodes/*/logs/*/*/*.log")):
            target = directory / "_".join(log.relative_to(state).parts)
            directory.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                kept.append(Path(shutil.copy(log, target)))
        return kept

    def close(self) -> list[str]:
        """Stops everything and removes it."""
        with suppress(SwarmError, OSError):
            self.cluster.stop()
        end(marked(CLUSTER_MARK, self._id), 2.0)
        for where in reversed(self._mounts):
            fill.unmount(where)
        shutil.rmtree(self.scratch, ignore_errors=True)
        left = [f"process {process.pid}" for process in marked(CLUSTER_MARK, self._id)]
        left += [str(path) for path in (self._shared, self.scratch) if path.exists()]
        mounts = Path("/proc/self/mounts").read_text()
        return left + [f"mount {where}" for where in self._mounts if f" {where} " in mounts]
