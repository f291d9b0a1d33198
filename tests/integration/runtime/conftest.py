"""Pods as processes of this machine: real supervisors on loopback addresses, and a client on their board."""

from __future__ import annotations

import contextlib
import itertools
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
from typing import Any, NamedTuple

import msgspec
import pytest
import zmq

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
#: What `swarm-agent` runs.
PROGRAM = "import sys; from swarm_agents.runtime.main import main; sys.exit(main())"
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

    def __init__(self, node: Node, name: str, address: str, environ: dict[str, str], program: str) -> None:
        self.name = name
        self.address = address
        self._log = node.root / f"{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program], stdout=log, stderr=subprocess.STDOUT, env=environ
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
        for name in ("hub", "client"):
            for half, key in zip(("public", "secret"), zmq.curve_keypair(), strict=True):
                (root / "keys" / f"{name}.{half}").write_bytes(key)

    @property
    def board(self) -> Path:
        return board_directory(self.root / "shm", UID)

    def write(self, settings: Settings) -> None:
        """Puts settings into the ConfigMap's file."""
        self.settings = settings
        (self.root / "config" / SETTINGS_FILE).write_bytes(encode_settings(settings))

    def with_runtime(self, **changes: Any) -> Settings:
        """The node's settings with another `runtime`, of the next generation."""
        old = self.settings
        runtime = msgspec.structs.replace(old.runtime, **changes)
        return msgspec.structs.replace(old, runtime=runtime, generation=old.generation + 1)

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

    def start(self, ordinal: int = 0, role: Role = Role.COMPUTE, program: str = PROGRAM, **changes: str | None) -> Pod:
        """Starts a pod; `changes` are made to its environment (None removes)."""
        environ = self.environ(ordinal, role)
        for key, value in changes.items():
            environ.pop(key, None)
            if value is not None:
                environ[key] = value
        pod = Pod(self, environ.get("POD_NAME", "nameless"), environ.get("POD_IP", ""), environ, program)
        self.pods.append(pod)
        return pod

    def close(self) -> None:
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
        return self.port.submit(kernel, args, {}, timeout=10, **options)

    def answers(self, count: int, seconds: float = 30) -> list[Any]:
        """Waits for so many answers."""
        found: list[Any] = []
        deadline = time.monotonic() + seconds
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} answers within {seconds} s"
            self.port.wait(0.1)
            found += self.port.poll(count - len(found))
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


class Crowd(NamedTuple):
    """See the fixture."""

    node: Node
    first: Pod
    second: Pod
    client: Client


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


@pytest.fixture(scope="session")
def warm_cache(pytestconfig: pytest.Config) -> Path:
    """A JIT cache that the first pod fills and all others find warm, in the next run too."""
    root = pytestconfig.rootpath / "build" / "test-jit"
    root.mkdir(parents=True, exist_ok=True)
    return root


@pytest.fixture
def client_of() -> Iterator[Callable[[Node], Client]]:
    """Makes clients on nodes' boards."""
    with contextlib.ExitStack() as stack:
        yield lambda node: stack.enter_context(contextlib.closing(Client(node.board)))


_numbers = itertools.count()


@pytest.fixture
def node(tmp_path: Path, warm_cache: Path) -> Iterator[Node]:
    """A node of this test's own, without pods."""
    with contextlib.closing(Node(tmp_path, warm_cache, next(_numbers))) as made:
        yield made


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory, warm_cache: Path) -> Iterator[Crowd]:
    """A node with two compute agents and a client, for all tests of a module: what each changes is put back."""
    with contextlib.closing(Node(tmp_path_factory.mktemp("node"), warm_cache, next(_numbers))) as made:
        pods = [made.start(0), made.start(1)]
        for pod in pods:
            pod.ready()
        with contextlib.closing(Client(made.board)) as client:
            yield Crowd(made, *pods, client)


@pytest.fixture
def pair(crowd: Crowd) -> Iterator[Crowd]:
    """The crowd, both agents at work."""
    settings = crowd.node.settings
    yield crowd
    crowd.node.write(settings)
    for pod in (crowd.first, crowd.second):
        assert pod.http("POST", "/v1/resume", b"")[0] == 202
        assert pod.http("PUT", "/v1/settings", encode_settings(settings))[0] == 200
        pod.ready()
    crowd.client.answers(crowd.client.port.pending)  # what a test that failed has left


@pytest.fixture
def lone(pair: Crowd) -> Crowd:
    """The crowd, only the first agent at work."""
    assert pair.second.http("POST", "/v1/drain", b"")[0] == 202
    eventually("drained", lambda: pair.second.status().get("state") == "drained")
    return pair
