"""Pods as processes of this machine: real supervisors on loopback addresses, and a client on their board."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm_agents.config import (
    AGENT_PORT,
    SETTINGS_FILE,
    Failover,
    Role,
    Runtime,
    Settings,
    Transport,
    board_directory,
    encode_settings,
)
from swarm_agents.shm.board import Board

TOKEN = "a-token-for-tests"
UID = "11111111-2222-3333-4444-555555555555"


def eventually(what: str, look: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Looks until there is something true to return."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"did not come within {seconds} s: {what}"
        time.sleep(0.005)


class Pod:
    """One `swarm-agent` process with its environment, log and HTTP interface."""

    def __init__(self, node: Node, name: str, role: Role, address: str, environ: dict[str, str]) -> None:
        self.name = name
        self.address = address
        self._log = node.root / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "swarm_agents.runtime"], stdout=log, stderr=subprocess.STDOUT, env=environ
            )

    def http(self, method: str, path: str, body: bytes | None = None, token: str | None = TOKEN) -> tuple[int, Any]:
        """Status and decoded body of a request; (0, None) when nothing listens."""
        request = urllib.request.Request(f"http://{self.address}:{AGENT_PORT}{path}", data=body, method=method)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                status, raw = answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                status, raw = refused.code, refused.read()
        except OSError:
            return 0, None
        return status, json.loads(raw) if raw[:1] in b"{[" else raw.decode()

    def status(self) -> dict[str, Any]:
        return self.http("GET", "/v1/status")[1] or {}

    def ready(self) -> Pod:
        """Waits until the pod is ready."""

        def look() -> bool:
            assert self.process.poll() is None, f"the pod ended:\n{self._log.read_text()}"
            return self.http("GET", "/readyz")[0] == 200

        eventually(f"{self.name} ready", look, 90)
        return self

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of the log, those of one event only when it is named."""
        found = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in found if event is None or line["event"] == event]

    def metric(self, sample: str) -> float:
        """One sample of /metrics, by its text up to the value."""
        text = self.http("GET", "/metrics")[1]
        for line in text.splitlines():
            if line.startswith(sample + " "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"{sample} is not among the metrics:\n{text}")

    def ended(self, seconds: float = 30) -> int:
        """Waits for the process's end and returns its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end:\n{self._log.read_text()}") from None

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


class Node:
    """A simulated node: a shared-memory directory, a swarm's settings and keys, and the pods that are started on it."""

    def __init__(self, root: Path, cache: Path, number: int) -> None:
        self.root = root
        self.cache = cache
        self.pods: list[Pod] = []
        # A loopback address of its own for each pod of each test of each run.
        self._network = f"127.{100 + os.getpid() % 100}.{number % 250 + 1}"
        self.settings = Settings(
            swarm="risk",
            namespace="default",
            uid=UID,
            generation=1,
            transport=Transport(task_slots=256, arena_bytes=4 << 20, max_members=16),
            failover=Failover(heartbeat_interval=0.02, suspect_after=0.3, dead_after=1.5),
            runtime=Runtime(drain_timeout=10.0),
        )
        for name in ("config", "keys", "shm", "cache"):
            (root / name).mkdir()
        self.write(self.settings)
        (root / "keys" / "token").write_text(TOKEN + "\n")

    @property
    def board(self) -> Path:
        return board_directory(self.root / "shm", UID)

    def write(self, settings: Settings) -> None:
        """Puts settings into the ConfigMap's file."""
        self.settings = settings
        (self.root / "config" / SETTINGS_FILE).write_bytes(encode_settings(settings))

    def environ(self, ordinal: int = 0, role: Role = Role.COMPUTE) -> dict[str, str]:
        """What the operator's pod template and the kubelet put into a pod's environment."""
        name = f"risk-{role}-{ordinal}-0"
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SWARM_CPUS", "NUMBA_"))},
            "SWARM_NAME": "risk",
            "SWARM_NAMESPACE": "default",
            "SWARM_UID": UID,
            "SWARM_ROLE": role,
            "SWARM_ORDINAL": str(ordinal),
            "SWARM_REVISION": "r1",
            "POD_NAME": name,
            "POD_UID": f"uid-of-{name}",
            "POD_IP": f"{self._network}.{1 + ordinal + 100 * list(Role).index(role) % 250}",
            "NODE_NAME": "node-0",
            "SWARM_CONFIG_DIR": str(self.root / "config"),
            "SWARM_KEYS_DIR": str(self.root / "keys"),
            "SWARM_SHM_DIR": str(self.root / "shm"),
            "SWARM_CACHE_DIR": str(self.cache),
        }

    def start(self, ordinal: int = 0, role: Role = Role.COMPUTE, **changes: str | None) -> Pod:
        """Starts a pod; `changes` are made to its environment (None removes)."""
        environ = self.environ(ordinal, role)
        for key, value in changes.items():
            environ.pop(key, None)
            if value is not None:
                environ[key] = value
        pod = Pod(self, environ.get("POD_NAME", "nameless"), role, environ.get("POD_IP", ""), environ)
        self.pods.append(pod)
        return pod

    def client(self) -> Client:
        return Client(self.board)

    def stop(self) -> None:
        """Ends what still runs."""
        for pod in self.pods:
            pod.terminate()
        for pod in self.pods:
            try:
                pod.process.wait(10)
            except subprocess.TimeoutExpired:
                pod.process.kill()
                pod.process.wait()


class Client:
    """A program of a user's, reduced to the board."""

    def __init__(self, directory: Path) -> None:
        self.board = Board.attach(directory)
        self.member = self.board.join("client", "client")
        self.port = self.board.port(self.member)

    def submit(self, kernel: str, *args: Any, **options: Any) -> Any:
        return self.port.submit(kernel, args, {}, **options)

    def answers(self, count: int, seconds: float = 30) -> list[Any]:
        """Waits for so many answers."""
        found: list[Any] = []
        deadline = time.monotonic() + seconds
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} answers within {seconds} s"
            self.port.wait(0.1)
            found += self.port.poll()
        return found

    def info(self, name: str) -> Any:
        """The youngest member of that name; None when there is none."""
        found = [info for info in self.board.members() if info.name == name]
        return max(found, key=lambda info: (info.alive, info.epoch)) if found else None

    def agent_pid(self, pod: Pod) -> int:
        """The pod's agent process that is alive on the board."""

        def look() -> int:
            info = self.info(pod.name)
            return info.pid if info is not None and info.alive else 0

        return int(eventually(f"{pod.name} on the board", look))

    def close(self) -> None:
        self.board.leave(self.member)


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JIT cache that the first pod of the run fills and the others find warm."""
    return tmp_path_factory.mktemp("jit")


@pytest.fixture
def node(tmp_path: Path, warm_cache: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    made = Node(tmp_path, warm_cache, request.session.items.index(request.node))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def compute(node: Node) -> Pod:
    """A node with one ready compute agent."""
    return node.start().ready()


@pytest.fixture
def client(node: Node, compute: Pod) -> Iterator[Client]:
    made = node.client()
    yield made
    made.close()
