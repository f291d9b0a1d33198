"""Real agents to measure against: `swarm-agent` as a pod's container runs it, with the environment a kubelet gives it.

Nothing is left out or tuned: the supervisor, its watch over the board, heartbeats, HTTP and the agent's own loop run as
in a pod, with the settings' defaults. The agent is kept on the second core by `SWARM_CPUS`, the embedded kubelet's way;
the measuring process has the first. Rejected: the agent's loop called in a forked child, which would measure an agent
that nobody runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pairs import cores

from swarm_agents.config import SETTINGS_FILE, Settings, Transport, board_directory, encode_settings

__all__ = ["Node", "Pod", "node", "use_cache"]

_PROGRAM = "import sys; from swarm_agents.runtime.main import main; sys.exit(main())"
_UID = "transport-benchmark"
_REPOSITORY = Path(__file__).resolve().parents[3]
#: A first start with a cold JIT cache compiles everything.
_READY_WITHIN = 300.0


def use_cache() -> Path:
    """Has this process, and what it starts, keep compiled code where the pods of the benchmarks have theirs.

    To be called before Numba is imported.
    """
    from swarm_agents.runtime import jitcache

    root = _REPOSITORY / "build" / "bench" / "jit"
    jitcache.use(root)
    return root


class Pod:
    """One `swarm-agent`: a supervisor and the agent that it forked."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, port: int, log: Path) -> None:
        self.process = process
        self._url = f"http://{address}:{port}"
        self._log = log

    def ready(self) -> Pod:
        """Waits until the agent takes work."""
        until = time.monotonic() + _READY_WITHIN
        while True:
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the agent did not come up:\n{self._log.read_text()[-2000:]}")
            try:
                with urllib.request.urlopen(f"{self._url}/readyz", timeout=10) as answer:
                    if answer.status == 200:
                        return self
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.05)

    def agent_pid(self) -> int:
        """The agent's process: the supervisor's only child."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (pid,) = map(int, children)
        return pid

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=10) as answer:
            return str(answer.read().decode())


class Node:
    """A node of its own: settings, keys, a board's directory, and the pods that were started on it."""

    def __init__(self, root: Path, shared: Path, cache: Path, transport: Transport) -> None:
        import zmq

        self._root, self._shared, self._cache = root, shared, cache
        self.board = board_directory(shared, _UID)
        self.url = f"shm://{self.board}"
        self._pods: list[Pod] = []
        self._network = f"127.{100 + os.getpid() // 250 % 100}.{os.getpid() % 250 + 1}"
        (root / "config").mkdir()
        (root / "keys").mkdir()
        self.settings = Settings(swarm="bench", namespace="default", uid=_UID, generation=1, transport=transport)
        (root / "config" / SETTINGS_FILE).write_bytes(encode_settings(self.settings))
        (root / "keys" / "token").write_text("token-of-a-benchmark\n")
        for name in ("hub", "client"):
            for half, key in zip(("public", "secret"), zmq.curve_keypair(), strict=True):
                (root / "keys" / f"{name}.{half}").write_bytes(key)

    def start(self, role: str = "compute", ordinal: int = 0, core: int | None = None) -> Pod:
        """Starts a pod on a core (None: the second); `ready` says when it is."""
        name = f"bench-{role}-{ordinal}-0"
        address = f"{self._network}.{1 + ordinal + (100 if role == 'resource' else 0)}"
        environ = {
            **os.environ,
            "SWARM_NAME": "bench",
            "SWARM_NAMESPACE": "default",
            "SWARM_UID": _UID,
            "SWARM_ROLE": role,
            "SWARM_ORDINAL": str(ordinal),
            "SWARM_REVISION": "r1",
            "POD_NAME": name,
            "POD_UID": f"uid-of-{name}",
            "POD_IP": address,
            "NODE_NAME": "node-0",
            "SWARM_CONFIG_DIR": str(self._root / "config"),
            "SWARM_KEYS_DIR": str(self._root / "keys"),
            "SWARM_SHM_DIR": str(self._shared),
            "SWARM_CACHE_DIR": str(self._cache),
            "SWARM_CPUS": str(cores()[1] if core is None else core),
        }
        log = self._root / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM], stdout=out, stderr=subprocess.STDOUT, env=environ
            )
        pod = Pod(process, address, self.settings.transport.agent_port, log)
        self._pods.append(pod)
        return pod

    def close(self) -> None:
        """Stops the pods as a kubelet does: asks, then kills."""
        for pod in self._pods:
            pod.process.send_signal(signal.SIGTERM)
        for pod in self._pods:
            try:
                pod.process.wait(15)
            except subprocess.TimeoutExpired:
                pod.process.kill()
                pod.process.wait()


@contextlib.contextmanager
def node(transport: Transport | None = None) -> Iterator[Node]:
    """A node for one measurement, by default with the settings' defaults; nothing of it is left."""
    cache = use_cache()
    shared = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="agentswarm-bench-") as root:
        directory = Path(tempfile.mkdtemp(prefix="agentswarm-bench-", dir=shared))
        try:
            with contextlib.closing(Node(Path(root), directory, cache, transport or Transport())) as made:
                yield made
        finally:
            shutil.rmtree(directory, ignore_errors=True)
