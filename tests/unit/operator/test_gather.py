"""What agents tell becomes Kubernetes Events: each once, with its times, and not what is history."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from support.operatorkit import make_pod, make_swarm
from swarm_agents.config import AGENT_PORT, HUB_AGENT_PORT
from swarm_agents.runtime.events import TOLD, Events
from swarm_deploy.commands.events import rows
from swarm_operator.actions import AskAgent
from swarm_operator.events import Recorder
from swarm_operator.gather import _TOLD, INTERVAL, Gatherer, note_of
from swarm_operator.kube import ApiError
from swarm_operator.names import ANNOTATION_RECORD, Key

FAILED_OVER: dict[str, Any] = {
    "member": "risk-compute-1-0",
    "member_epoch": 3,
    "tasks": 2,
    "detect": 0.012,
    "claim": 3e-4,
    "resume": 1e-3,
}


class Silent:
    def __getattr__(self, name: str) -> Any:
        return lambda *args, **fields: None


class Api:
    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}

    async def create(self, manifest: dict[str, Any]) -> bytes:
        name = manifest["metadata"]["name"]
        if name in self.events:
            raise ApiError(409, "AlreadyExists", "it is there")
        self.events[name] = manifest
        return b"{}"


class World:
    """One swarm with one pod, whose supervisor can be started anew."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.swarm, self.pod = make_swarm(), make_pod(ip="10.0.0.1")
        self.api = Api()
        self.down = False
        self.asked: list[int] = []
        self.restart()

    def restart(self) -> None:
        self.pod_events = Events(Silent(), now=lambda: self.now)
        self.hub_events = Events(Silent(), now=lambda: self.now)

    def operator(self, pods: list[Any] | None = None) -> tuple[Gatherer, Recorder]:
        swarms = SimpleNamespace(get=lambda *key: self.swarm)
        held = SimpleNamespace(of=lambda key: pods or [self.pod])
        cache = SimpleNamespace(
            swarms=lambda: [Key("default", "risk")],
            store=lambda kind, namespace: swarms if kind == "Swarm" else held,
            token=lambda key: "token",
        )
        agents = SimpleNamespace(events=self.answer)
        recorder = Recorder(self.api, "one", lambda: self.now)  # type: ignore[arg-type]
        made = Gatherer(cache, agents, recorder, lambda: True, lambda: self.now, lambda: self.now)  # type: ignore[arg-type]
        return made, recorder

    async def answer(self, ip: str, port: int, token: str, after: int) -> bytes:
        self.asked.append(after)
        if self.down:
            raise ConnectionRefusedError
        kept = self.pod_events if port == AGENT_PORT else self.hub_events
        return msgspec.json.encode({"run": kept.run, "last": kept.last, "events": kept.recent(after)})

    async def round(self, operator: tuple[Gatherer, Recorder]) -> list[str]:
        before = set(self.api.events)
        await operator[0].round()
        await operator[1].flush()
        self.now += 30.0
        return [event["reason"] for name, event in self.api.events.items() if name not in before]


async def test_the_hub_in_a_pod_with_a_board_of_its_own_is_asked_as_well() -> None:
    world = World()
    world.pod = make_pod(ip="10.0.0.1", ports=(HUB_AGENT_PORT, AGENT_PORT))
    one = world.operator()
    world.pod_events.record("FailedOver", **FAILED_OVER)
    world.hub_events.record("HubLost", peer="risk-compute-2-0", tasks=1)
    assert sorted(await world.round(one)) == ["FailedOver", "HubLost"]
    assert await world.round(one) == []
    world.hub_events.record("HubBack", peer="risk-compute-2-0")
    assert await world.round(one) == ["HubBack"]


async def test_each_event_is_told_once_also_by_another_operator() -> None:
    world = World()
    one = world.operator()
    world.pod_events.record("AgentJoined", index=1)
    world.pod_events.record("FailedOver", **FAILED_OVER)
    assert await world.round(one) == ["FailedOver"]
    assert await world.round(one) == []
    assert await world.round(world.operator()) == []
    world.pod_events.record("AgentReplaced", member_epoch=4, seconds=0.03)
    assert await world.round(one) == ["AgentReplaced"]
    assert world.asked[-1] == 2, "only what is new is asked for"


async def test_an_agent_whose_cores_have_changed_is_asked_how_it_is_and_its_swarm_is_looked_at() -> None:
    world = World()
    looked: list[str] = []
    woken: list[Key] = []

    async def look(action: AskAgent, token: str) -> None:
        looked.append(f"{action.uid} {action.ip} {token}")

    gatherer, recorder = world.operator()
    gatherer._agents.look = look  # type: ignore[method-assign, assignment]
    gatherer._cache.on_key = woken.append
    world.pod_events.record("AgentJoined", index=1)
    assert await world.round((gatherer, recorder)) == []
    assert looked == []
    world.pod_events.record("CoresChanged", cpus="2-3", reason="shared", pinned=True)
    assert await world.round((gatherer, recorder)) == []
    assert looked == [f"{world.pod.uid} 10.0.0.1 token"]
    assert woken == [Key("default", "risk")]
    world.pod_events.record("PlacementUnmet", level="error", reason="scheduling.cpuPinning is Required")
    assert await world.round((gatherer, recorder)) == ["PlacementUnmet"]
    assert len(looked) == 2


async def test_a_supervisor_that_was_started_anew_is_read_from_its_beginning() -> None:
    world = World()
    one = world.operator()
    for _ in range(3):
        world.pod_events.record("FailedOver", **FAILED_OVER)
    assert len(await world.round(one)) == 3
    world.restart()
    world.pod_events.record("FailedOver", **FAILED_OVER)
    assert await world.round(one) == ["FailedOver"]


async def test_a_pod_that_does_not_answer_loses_nothing() -> None:
    world = World()
    one = world.operator()
    world.pod_events.record("FailedOver", **FAILED_OVER)
    world.down = True
    assert await world.round(one) == []
    world.down = False
    assert await world.round(one) == ["FailedOver"]


async def test_history_is_not_told_as_news() -> None:
    world = World()
    world.pod_events.record("FailedOver", **FAILED_OVER)
    world.now += 3600
    assert await world.round(world.operator()) == []


def test_both_sides_agree_on_what_is_told() -> None:
    assert set(_TOLD) == TOLD


async def test_the_command_shows_who_what_when_and_how_long() -> None:
    world = World()
    world.pod_events.record("FailedOver", **FAILED_OVER)
    await world.round(world.operator())
    (event,) = world.api.events.values()
    assert ANNOTATION_RECORD in event["metadata"]["annotations"]
    (row,) = rows([event])
    assert (row["event"], row["who"], row["node"], row["time"]) == ("FailedOver", "risk-compute-1-0", "node-a", 5000.0)
    assert row["durations"] == {"detect": 0.012, "claim": 3e-4, "resume": 1e-3}
    assert "held for dead 12.0 ms after its last heartbeat" in row["message"]
    # one that the operator made itself has no record, and is shown all the same
    plain = {"metadata": {"name": "x"}, "reason": "Created", "message": "Created pod p", "count": 3, "type": "Normal"}
    plain |= {"involvedObject": {"name": "risk"}, "lastTimestamp": "2026-01-02T03:04:05Z"}
    (row,) = rows([plain])
    assert (row["who"], row["count"], row["time"]) == ("risk", 3, 1767323045.0)


def test_an_event_that_only_the_pod_s_log_needs_is_no_note() -> None:
    assert note_of(make_pod(), "r", {"event": "AgentJoined", "number": 1}) is None


async def test_of_thousands_that_have_nothing_to_tell_each_is_asked_seldom_and_often_again_once_there_is_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("swarm_operator.gather.RATE", 1e9)
    world, pods = World(), [make_pod(ordinal=number, ip="10.0.0.1") for number in range(160)]
    gatherer, recorder = world.operator(pods)
    await gatherer.round()
    assert len(world.asked) == 160, "whoever is new is asked at once"

    async def rounds(seconds: int) -> int:
        before = len(world.asked)
        for _ in range(seconds):
            world.now += 1.0
            await gatherer.round()
        return len(world.asked) - before

    quiet = await rounds(50)
    assert 160 <= quiet <= 8 * 50, "five a second, whatever their number; every one in its turn"
    world.pod_events.record("AgentDied", member="risk-compute-1-0")
    while not gatherer._hot:
        assert await rounds(1) <= 160, "nobody tells"
    assert await rounds(6) >= (6 / INTERVAL - 1) * 160, "the siblings are asked often then"
    await recorder.flush()
