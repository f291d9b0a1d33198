"""The resource agent as the runtime drives it: start, settings, drain, a fence, and a stop that waits for answers."""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from support.boardkit import Node
from support.wirekit import KEYS, UID, connection_to, eventually, make_settings
from swarm_agents.client import Swarm
from swarm_agents.config import Hub, Identity, Role, Settings
from swarm_agents.errors import Fenced
from swarm_agents.resource.agent import ResourceAgent
from swarm_agents.runtime.context import AgentContext
from swarm_agents.runtime.scoreboard import AgentState, Scoreboard


class Running:
    """A resource agent on a thread, and the runtime's part played by the test."""

    def __init__(self, node: Node, keys: Path, settings: Settings, name: str) -> None:
        self.node = node
        identity = Identity(
            swarm="risk", namespace="test", uid=UID, role=Role.RESOURCE, ordinal=0, pod=f"risk-resource-{name}",
            pod_uid="x", pod_ip="127.0.0.1", node=name, revision="", config_dir=keys, keys_dir=keys,
            shm_dir=node.directory.parent, cache_dir=keys,
        )  # fmt: skip
        self.context = AgentContext(identity, settings, node.board, Scoreboard(), None, structlog.get_logger())
        self.errors: list[BaseException] = []
        ResourceAgent.prepare(identity, settings)
        self.agent = ResourceAgent(self.context)
        self._stop_beat = threading.Event()
        self.join()
        self.agent.start()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        eventually(lambda: self.agent.hub is not None or self.errors or self.waits)

    @property
    def waits(self) -> bool:
        return self.context.scoreboard.state is AgentState.WAITING

    def join(self) -> None:
        self.context.member = self.node.join(self.context.identity.pod, "resource")

    def _run(self) -> None:
        while not self.context.stopping:
            try:
                self.agent.run()
            except Fenced:
                self.context.fenced = True
            except BaseException as error:
                self.errors.append(error)
                return
            if self.context.fenced:
                self.join()
                self.context.fenced = False

    def apply(self, settings: Settings) -> None:
        old, self.context.settings = self.context.settings, settings
        self.agent.dispatch(self.agent.settings_changed, old, settings)

    def leave(self) -> None:
        self.stop()
        self.node.board.leave(self.context.member)

    def stop(self, grace: float = 5.0) -> None:
        self.context.stop_at = time.monotonic() + grace
        self.context.stopping = True
        self.context.wake()
        self.thread.join(20)
        assert not self.thread.is_alive()
        assert self.errors == []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("hub.public", "hub.secret", "client.public", "client.secret", "token"):
        (keys / name).write_text(getattr(KEYS, name.replace(".", "_")))
    running: list[Running] = []

    def make(name: str = "a", settings: Settings | None = None, node: Node | None = None) -> Running:
        running.append(Running(node or Node(tmp_path / name), keys, settings or make_settings(), name))
        return running[-1]

    yield make
    for agent in running:
        agent.stop()
    for agent in running:
        agent.node.close()


def is_at_work(agent: Running) -> bool:
    return agent.agent.hub is not None


def test_a_second_hub_of_a_node_waits_and_begins_when_the_first_has_left(start):
    first = start()
    first.node.worker()
    settings = first.context.settings
    second = start("b", settings, first.node)  # with the same ports: it must not open them while the first has them
    assert second.waits
    with Swarm.connect(connection_to(address(settings))) as swarm:
        assert swarm.run("core.double", 4, timeout=10) == 8
        assert not is_at_work(second)
        first.leave()
        eventually(lambda: is_at_work(second))
        assert not second.waits
        assert swarm.run("core.double", 5, timeout=10) == 10


def test_a_hub_that_waits_takes_the_place_of_one_that_is_declared_dead_which_then_waits_itself(start):
    first = start()
    second = start("b", node=first.node)
    member = first.context.member
    first.node.board.declare_dead(member.index, member.epoch)
    first.context.fenced = True  # as its heartbeat finds out
    first.context.wake()
    eventually(lambda: is_at_work(second))
    eventually(lambda: first.waits)
    assert not is_at_work(first)


def test_a_hub_that_waits_can_be_stopped(start):
    first = start()
    second = start("b", first.context.settings, first.node)
    second.stop()
    assert not is_at_work(second)
    assert is_at_work(first)


def address(settings: Settings) -> str:
    return f"tcp://127.0.0.1:{settings.transport.hub_port}"


def test_an_agent_serves_clients_reports_and_measures(start):
    agent = start()
    settings = agent.context.settings
    agent.node.worker()
    with Swarm.connect(connection_to(address(settings))) as swarm:
        assert swarm.run("core.double", 4, timeout=10) == 8
        info = swarm.info()
        assert {member["role"] for member in info["members"]} == {"compute", "resource"}
        assert info["queues"] == {"critical": 0, "high": 0, "normal": 0, "bulk": 0}
        assert info["sensors"]["memory"]["values"]["memory_bytes"] > 1e6
        assert info["latencySeconds"]["run"]["normal"]["p99"] > 0
    text = agent.agent.metrics().decode()
    assert 'swarm_hub_events_total{event="submitted"} 1.0' in text
    assert 'swarm_node_sensor{availability="available",sensor="memory"} 1.0' in text
    request = urllib.request.Request(
        f"http://127.0.0.1:{settings.transport.rest_port}/v1/kernels", headers={"Authorization": f"Bearer {KEYS.token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        kernels = msgspec.json.decode(response.read())["kernels"]
    assert "core.echo" in {kernel["name"] for kernel in kernels}


def test_a_push_of_settings_connects_two_agents_without_a_restart(start):
    bare, busy = start("a"), start("b")
    busy.node.worker("risk-compute-b")
    hub = Hub(node="b", address=address(busy.context.settings))
    with Swarm.connect(bare.node.url) as swarm:
        future = swarm.submit("core.double", 21)
        bare.apply(msgspec.structs.replace(bare.context.settings, hubs=(hub,), generation=2))
        assert future.result(10) == 42
        assert future.info.hops == 1


def test_a_fenced_agent_opens_again_with_its_new_place_and_its_clients_come_back(start):
    agent = start()
    gate = threading.Event()
    agent.node.worker(kernels={"test.gate": lambda value: (gate.wait(20), value)[1]})
    with Swarm.connect(connection_to(address(agent.context.settings))) as swarm:
        future = swarm.submit("test.gate", 1)
        first = agent.agent.hub
        eventually(lambda: first.sessions.unanswered == 1)
        member = agent.context.member
        agent.node.board.declare_dead(member.index, member.epoch)
        agent.context.fenced = True
        agent.context.wake()
        eventually(lambda: agent.agent.hub not in (None, first))
        gate.set()
        assert future.result(15) == 1


def test_a_stop_waits_for_what_other_nodes_compute(start):
    home, other = start("a"), start("b")
    entered, gate = threading.Event(), threading.Event()

    def hold(value: Any) -> Any:
        entered.set()
        assert gate.wait(20)
        return value

    other.node.worker("risk-compute-b", kernels={"test.gate": hold})
    hub = Hub(node="b", address=address(other.context.settings))
    home.apply(msgspec.structs.replace(home.context.settings, hubs=(hub,)))
    with Swarm.connect(home.node.url) as swarm:
        future = swarm.submit("test.gate", 3)
        assert entered.wait(10)
        stopping = threading.Thread(target=home.stop, args=(20.0,))
        stopping.start()
        eventually(lambda: home.agent.hub.draining)
        gate.set()
        assert future.result(10) == 3
        stopping.join(20)
        assert future.info.attempts == 1


def test_a_stop_whose_grace_is_over_hands_back_what_is_out(start):
    home, other = start("a"), start("b")
    entered, gate = threading.Event(), threading.Event()
    other.node.worker("risk-compute-b", kernels={"test.gate": lambda value: (entered.set(), gate.wait(20))[1]})
    hub = Hub(node="b", address=address(other.context.settings))
    home.apply(msgspec.structs.replace(home.context.settings, hubs=(hub,)))
    with contextlib.ExitStack() as stack:
        stack.callback(gate.set)
        swarm = stack.enter_context(Swarm.connect(home.node.url))
        future = swarm.submit("test.gate", 3)
        assert entered.wait(10)
        home.stop(grace=0.1)
        home.node.worker("risk-compute-a", kernels={"test.gate": lambda value: value})
        assert future.result(10) == 3
        assert future.info.attempts == 2


def test_a_drained_agent_says_so_and_a_resumed_one_serves_again(start):
    agent = start()
    agent.node.worker()
    agent.context.draining = True
    agent.context.wake()
    eventually(lambda: agent.context.scoreboard.state is AgentState.DRAINED)
    agent.context.draining = False
    agent.context.wake()
    eventually(lambda: not agent.agent.hub.draining)
    with Swarm.connect(connection_to(address(agent.context.settings))) as swarm:
        assert swarm.run("core.echo", 1, timeout=10) == 1
