"""Starts, finds and stops the embedded cluster of a state directory, from another process.

The daemon is found by its record (`cluster.json`) and is the one meant only if its process began when the record says.
Its lock on the directory lives as long as it does, however it ends; so whoever gets the lock knows that no daemon runs,
and that what carries the cluster's mark is left over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from swarm_agents.errors import SwarmError, Unreachable
from swarm_deploy.local.processes import end, marked
from swarm_deploy.local.record import CLUSTER_MARK, Record, shared_memory, start_time

__all__ = ["Cluster", "LocalClusterError", "default_state"]

#: An annotation of a Node; the kubelets know it as `kubelet.POWER`.
_POWER = "local.agentswarm.dev/power"
#: What may lie in a directory that becomes a cluster's: what `start` itself makes, and what was left half made.
_HARMLESS = {"log", "lock"}


class LocalClusterError(SwarmError):
    """The local cluster can't be started or stopped; the message says what to do."""


def default_state() -> Path:
    """Where the user's own cluster keeps its state."""
    given = os.environ.get("SWARM_LOCAL_STATE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "agentswarm" / "local"


class Cluster:
    """The cluster of one state directory."""

    def __init__(self, state: Path | None = None) -> None:
        self.state = (state or default_state()).absolute()

    @property
    def kubeconfig(self) -> Path:
        """By which kubectl and every client reach it; it is there once the cluster was started."""
        return self.state / "kubeconfig"

    def record(self) -> Record | None:
        """What runs, or None."""
        try:
            record = msgspec.json.decode((self.state / "cluster.json").read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError):
            return None
        return record if start_time(record.pid) == record.start_time else None

    # -- starting ---------------------------------------------------------------------------------------------------

    def start(
        self,
        *,
        nodes: int = 2,
        cpus_per_node: int = 4,
        port: int = 0,
        operator: bool = True,
        audit: bool = True,
        back_off: float = 10.0,
        most_back_off: float = 300.0,
        heartbeat: float = 10.0,
        node_grace: float = 40.0,
        timeout: float = 60.0,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Record:
        """Starts it in the background and waits until it answers. Interrupted, it leaves nothing running.

        Args:
            port: of the API server; 0 takes the one it had last time, or else a free one.
            audit: whether the API server notes every request in audit.log, of which it keeps 32 MiB.
            back_off: seconds before the second restart of a container that keeps ending.
            most_back_off: seconds before a restart at most; each wait is twice as long as the one before it.
            heartbeat: seconds between two signs of life of a node.
            node_grace: seconds after the last one until a node is held for dead.

        Raises:
            LocalClusterError: it runs already, the directory is somebody else's, or it did not come up.
        """
        if (running := self.record()) is not None:
            raise LocalClusterError(
                f"a cluster runs in {self.state} already (process {running.pid}): `swarm status` shows it, `swarm down`"
                " ends it"
            )
        self._make_directory()
        words = [sys.executable, "-m", "swarm_deploy.local", "serve", "--state", str(self.state)]
        words += ["--nodes", str(nodes), "--cpus-per-node", str(cpus_per_node), "--port", str(port)]
        words += ["--back-off", str(back_off), "--most-back-off", str(most_back_off)]
        words += ["--heartbeat", str(heartbeat), "--node-grace", str(node_grace)]
        words += [] if operator else ["--no-operator"]
        words += [] if audit else ["--no-audit"]
        log = self.state / "log" / "cluster.log"
        if (self.state / "cluster.json").exists():
            progress("the last cluster here did not end properly; what it left is cleared away")
        if operator:
            self._warm(progress)
        parts = ["the API server", "the scheduler", f"{nodes} kubelets", *(["the operator"] if operator else [])]
        progress(f"starting {', '.join(parts)}")
        with log.open("ab") as file:
            at = file.tell()
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, cwd="/"
            )
        try:
            return self._wait(process, log, at, timeout)
        except BaseException:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            raise

    def _make_directory(self) -> None:
        try:
            present = {entry.name for entry in self.state.iterdir()} if self.state.exists() else set()
            if (others := sorted(present - _HARMLESS)) and "cluster-id" not in present:
                raise LocalClusterError(
                    f"{self.state} holds other things ({', '.join(others[:3])}) and was never a local cluster's: name"
                    " another directory by --state"
                )
            (self.state / "log").mkdir(parents=True, exist_ok=True)
            self.state.chmod(0o700)
        except OSError as error:
            raise LocalClusterError(
                f"{self.state} can't be used ({error.strerror}): name another directory by --state or SWARM_LOCAL_STATE"
            ) from error

    def _wait(self, process: subprocess.Popen[bytes], log: Path, at: int, timeout: float) -> Record:
        until = time.monotonic() + timeout
        while (record := self.record()) is None or record.pid != process.pid:
            if process.poll() is not None:
                with log.open("rb") as text:
                    text.seek(at)
                    said = text.read().decode(errors="replace").strip().splitlines()
                raise LocalClusterError(said[-1] if said else f"the cluster ended at once; see {log}")
            if time.monotonic() > until:
                raise LocalClusterError(f"the cluster did not come up within {timeout:g} s; see {log}")
            time.sleep(0.02)
        process.returncode = 0  # it is meant to outlive us, of which `Popen` would warn; `stop` reaps it
        return record

    @staticmethod
    def _warm(progress: Callable[[str], None]) -> None:
        """Compiles the kernels once for all agents to come; with a warm cache this only looks.

        In a process of its own, because Numba costs memory and the caller may be a small command.
        """
        from swarm_agents.runtime import jitcache

        if not jitcache.describe(jitcache.default_root()).entries:
            progress("compiling the kernels, once for this machine")
        program = "from swarm_agents.runtime import jitcache; jitcache.warm(jitcache.default_root())"
        words = [sys.executable, "-c", program]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise LocalClusterError(f"the kernels can't be compiled: {said[-1] if said else done.returncode}")

    # -- looking ----------------------------------------------------------------------------------------------------

    def summary(self) -> list[str]:
        """A line for each node, and for each Swarm, as the API server tells it."""
        from swarm_deploy.local.calls import call

        lines = []
        try:
            for node in call(self.kubeconfig, "GET", "/api/v1/nodes")["items"]:
                name = node["metadata"]["name"]
                conditions = {c["type"]: c["status"] for c in node["status"].get("conditions") or ()}
                state = {"True": "ready", "False": "not ready"}.get(conditions.get("Ready", ""), "not heard of")
                where = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}"
                pods = call(self.kubeconfig, "GET", where)["items"]
                running = sum(pod["status"].get("phase") == "Running" for pod in pods)
                lines.append(f"{name}: {state}, {running} of {len(pods)} pods running")
            for swarm in call(self.kubeconfig, "GET", "/apis/agentswarm.dev/v1alpha1/swarms")["items"]:
                meta, part = swarm["metadata"], swarm.get("status", {}).get("compute", {})
                ready = f"{part.get('ready', 0)} of {part.get('desired', 0)} compute agents ready"
                lines.append(f"swarm {meta['namespace']}/{meta['name']}: {ready}")
        except Unreachable as error:
            lines.append(str(error))
        return lines

    # -- nodes ------------------------------------------------------------------------------------------------------

    def node_stop(self, name: str) -> None:
        """Switches a simulated node off, as one pulls a plug: its processes are killed and nobody is told.

        Raises:
            Unreachable: there is no such node, or no cluster runs.
        """
        self._power(name, "off")

    def node_start(self, name: str) -> None:
        """Switches it on again; its pods are started as after a crash."""
        self._power(name, None)

    def _power(self, name: str, value: str | None) -> None:
        from swarm_deploy.local.calls import call

        patch: dict[str, Any] = {"metadata": {"annotations": {_POWER: value}}}
        call(self.kubeconfig, "PATCH", f"/api/v1/nodes/{name}", patch, kind="application/merge-patch+json")

    # -- stopping ---------------------------------------------------------------------------------------------------

    def stop(self, timeout: float = 30.0) -> bool:
        """Stops it and all its pods, and clears away what one that was killed has left; False when nothing ran."""
        record = self.record()
        if record is None:
            return self._clear()
        self._signal(record, signal.SIGTERM)
        until = time.monotonic() + timeout
        killed = False
        while start_time(record.pid) == record.start_time:
            if time.monotonic() > until and not killed:
                killed = self._signal(record, signal.SIGKILL)  # its pods die with it
            time.sleep(0.02)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(record.pid, os.WNOHANG)
        self._clear()
        return True

    @staticmethod
    def _signal(record: Record, number: int) -> bool:
        """To the process that is meant, and not to one that has got its number since."""
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(record.pid)
            try:
                if start_time(record.pid) == record.start_time:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)
        return True

    def _clear(self) -> bool:
        """Ends what a killed cluster has left; whether there was anything."""
        try:
            cluster = (self.state / "cluster-id").read_text().strip()
        except OSError:
            return False
        with self._locked() as alone:
            if not cluster or not alone:
                return False
            left = [process for process in marked(CLUSTER_MARK, cluster) if process.pid != os.getppid()]
            end(left, 2.0)
            shutil.rmtree(shared_memory(cluster), ignore_errors=True)
            (self.state / "cluster.json").unlink(missing_ok=True)
            return bool(left)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Whether the directory's lock could be had: then no daemon runs in it."""
        with (self.state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True

    def purge(self) -> None:
        """Removes all that a stopped cluster has kept.

        Raises:
            LocalClusterError: it runs, or the directory holds what is not a cluster's.
        """
        if self.record() is not None:
            raise LocalClusterError(f"the cluster in {self.state} runs: stop it first")
        if not self.state.exists():
            return
        if not (self.state / "cluster-id").exists():
            raise LocalClusterError(f"{self.state} is no local cluster's directory; nothing was removed")
        self._clear()
        shutil.rmtree(self.state)
