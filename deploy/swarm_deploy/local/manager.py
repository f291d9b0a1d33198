"""Starts, finds and stops the embedded cluster of a state directory, from another process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from swarm_agents.errors import SwarmError
from swarm_deploy.local.record import Record, start_time

__all__ = ["Cluster", "LocalClusterError", "default_state"]


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
        return self.state / "kubeconfig"

    def record(self) -> Record | None:
        """What runs, or None."""
        try:
            record = msgspec.json.decode((self.state / "cluster.json").read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError):
            return None
        return record if start_time(record.pid) == record.start_time else None

    def start(
        self, *, nodes: int = 2, cpus_per_node: int = 4, port: int = 0, operator: bool = True, back_off: float = 10.0,
        timeout: float = 60.0, progress: Callable[[str], None] = lambda _: None,
    ) -> Record:  # fmt: skip
        """Starts it in the background and waits until it answers.

        Raises:
            LocalClusterError: it runs already, or did not come up.
        """
        if self.record() is not None:
            raise LocalClusterError(f"a cluster runs in {self.state} already: `swarm status` shows it")
        (self.state / "log").mkdir(parents=True, exist_ok=True)
        os.chmod(self.state, 0o700)
        words = [sys.executable, "-m", "swarm_deploy.local", "serve", "--state", str(self.state)]
        words += ["--nodes", str(nodes), "--cpus-per-node", str(cpus_per_node), "--port", str(port)]
        words += ["--back-off", str(back_off)] + ([] if operator else ["--no-operator"])
        log = self.state / "log" / "cluster.log"
        if operator:
            self._warm(progress)
        progress("starting the API server, the scheduler, the kubelets and the operator")
        with log.open("ab") as file:
            at = file.tell()
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, cwd="/"
            )
        until = time.monotonic() + timeout
        while (record := self.record()) is None or record.pid != process.pid:
            if process.poll() is not None:
                with log.open("rb") as text:
                    text.seek(at)
                    said = text.read().decode(errors="replace").strip().splitlines()
                raise LocalClusterError(said[-1] if said else f"the cluster ended at once; see {log}")
            if time.monotonic() > until:
                process.kill()
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

    def summary(self) -> list[str]:
        """A line for each Swarm, as the API server tells it."""
        from swarm_operator.kube import ApiError, connect

        async def read() -> list[dict[str, Any]]:
            api = await connect(str(self.kubeconfig))
            try:
                return [json.loads(bytes(item)) for item in (await api.list_page("Swarm", "")).items]
            finally:
                await api.close()

        try:
            swarms = asyncio.run(read())
        except (ApiError, OSError) as error:
            return [f"swarms: {error}"]
        lines = []
        for swarm in swarms:
            meta, status = swarm["metadata"], swarm.get("status", {})
            part = status.get("compute", {})
            ready = f"{part.get('ready', 0)} of {part.get('desired', 0)} compute agents ready"
            lines.append(f"swarm {meta['namespace']}/{meta['name']}: {ready}")
        return lines

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
        shutil.rmtree(self.state)

    def stop(self, timeout: float = 30.0) -> bool:
        """Stops it and all its pods; False when nothing ran."""
        record = self.record()
        if record is None:
            return False
        os.kill(record.pid, signal.SIGTERM)
        until = time.monotonic() + timeout
        while start_time(record.pid) == record.start_time:
            if time.monotonic() > until:
                os.kill(record.pid, signal.SIGKILL)  # its pods die with it
            time.sleep(0.02)
        try:
            os.waitpid(record.pid, os.WNOHANG)
        except ChildProcessError:
            pass
        return True
