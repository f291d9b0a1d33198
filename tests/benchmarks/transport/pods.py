"""Real agents to measure against: `swarm-agent` as a pod's container runs it, with the environment a kubelet gives it.

Nothing is left out or tuned: the supervisor, its watch over the board, heartbeats, HTTP and the agent's own loop run as
in a pod, with the settings' defaults. The agent is kept on the second core by `SWARM_CPUS`, the embedded kubelet's way;
the measuring process has the first. Rejected: the agent's loop called in a forked child, which would measure an agent
that nobody runs.
"""

from __future__ import annotations

import contextlib
import copy
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
from typing import Any

from pairs import cores

from swarm_agents.config import SETTINGS_FILE, Hub, Settings, Transport, board_directory, encode_settings

__all__ = ["Node", "Pod", "node", "shared_memory", "use_cache"]

_PROGRAM = "import sys; from swarm_agents.runtime.main import main; sys.exit(main())"
_UID = "transport-benchmark"
_REPOSITORY = Path(__file__).resolve().parents[3]
#: A first start with a cold JIT cache compiles everything.
_READY_WITHIN = 300.0
#: Resource agents have the addresses above those of the others.
_HUBS = 100


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

    def __init__(self, process: subprocess.Popen[bytes], name: str, address: str, port: int, log: Path) -> None:
        self.process = process
        self.name = name
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

    def pids(self) -> list[int]:
        """The supervisor's process and the agent's, as far as there are."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [self.process.pid, *map(int, children.read_text().split())]
        except OSError:
            return [self.process.pid]

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        """What the pod has said."""
        return self._log.read_text()


class Node:
    """A node of its own: settings, keys, a board's directory, and the pods that were started on it."""

    def __init__(
        self, root: Path, shared: Path, cache: Path, transport: Transport, *, hubs: int = 0, **settings: Any
    ) -> None:
        """Of a swarm with so many hubs, whose nodes are `node-0` and so on; this is the first, see `beside`."""
        import zmq

        self.name = "node-0"
        self._root, self._cache = root, cache
        self._place(shared)
        self._network = f"127.{100 + os.getpid() // 250 % 100}.{os.getpid() % 250 + 1}"
        (root / "config").mkdir()
        (root / "keys").mkdir()
        addresses = [f"tcp://{self._network}.{1 + _HUBS + number}:{transport.hub_port}" for number in range(hubs)]
        self.settings = Settings(
            swarm="bench",
            namespace="default",
            uid=_UID,
            generation=1,
            transport=transport,
            hubs=tuple(Hub(node=f"node-{number}", address=address) for number, address in enumerate(addresses)),
            **settings,
        )
        (root / "config" / SETTINGS_FILE).write_bytes(encode_settings(self.settings))
        (root / "keys" / "token").write_text("token-of-a-benchmark\n")
        for name in ("hub", "client"):
            for half, key in zip(("public", "secret"), zmq.curve_keypair(), strict=True):
                (root / "keys" / f"{name}.{half}").write_bytes(key)

    def _place(self, shared: Path) -> None:
        self._shared = shared
        self.board = board_directory(shared, _UID)
        self.url = f"shm://{self.board}"
        self.pods: list[Pod] = []

    def beside(self, shared: Path, name: str) -> Node:
        """Another node of the same swarm, with shared memory of its own. Its pods need ordinals of their own, too."""
        twin = copy.copy(self)
        twin.name = name
        twin._place(shared)
        return twin

    @property
    def keys(self) -> Path:
        """The directory of the swarm's keys."""
        return self._root / "keys"

    def start(self, role: str = "compute", ordinal: int = 0, core: int | None = None) -> Pod:
        """Starts a pod on a core (None: the second); `ready` says when it is. The n-th node has the n-th hub."""
        name = f"bench-{role}-{ordinal}-0"
        address = f"{self._network}.{1 + ordinal + (_HUBS if role == 'resource' else 0)}"
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
            "NODE_NAME": self.name,
            "SWARM_CONFIG_DIR": str(self._root / "config"),
            "SWARM_KEYS_DIR": str(self._root / "keys"),
            "SWARM_SHM_DIR": str(self._shared),
            "SWARM_CACHE_DIR": str(self._cache),
            "SWARM_CPUS": str(cores()[1] if core is None else core),
        }
        log = self._root / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM], stdout=out, stderr=subprocess.STDOUT, env=environ
            )
        pod = Pod(process, name, address, self.settings.transport.agent_port, log)
        self.pods.append(pod)
        return pod

    def close(self) -> None:
        """Stops the pods as a kubelet does: asks, then kills."""
        for pod in self.pods:
            pod.process.send_signal(signal.SIGTERM)
        for pod in self.pods:
            try:
                pod.process.wait(15)
            except subprocess.TimeoutExpired:
                pod.process.kill()
                pod.process.wait()


@contextlib.contextmanager
def node(transport: Transport | None = None, **options: Any) -> Iterator[Node]:
    """A node for one measurement, by default with the settings' defaults; nothing of it is left."""
    cache = use_cache()
    with (
        tempfile.TemporaryDirectory(prefix="agentswarm-bench-") as root,
        shared_memory() as directory,
        contextlib.closing(Node(Path(root), directory, cache, transport or Transport(), **options)) as made,
    ):
        yield made


@contextlib.contextmanager
def shared_memory() -> Iterator[Path]:
    """A directory that a node's shared memory may lie in; nothing of it is left."""
    shared = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="agentswarm-bench-", dir=shared))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
