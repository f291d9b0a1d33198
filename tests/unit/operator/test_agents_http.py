"""The operator's side of the agents' HTTP interface: token, acknowledgement, drain, and agents that do not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from swarm_agents.config import AGENT_PORT, HUB_AGENT_PORT, Settings, encode_settings, settings_revision
from swarm_operator.actions import DrainPod, PushSettings, ResumePod
from swarm_operator.agents import Agents, _together

IP = "127.83.1.7"
SETTINGS = Settings(swarm="risk", namespace="default", uid="u")
REVISION = settings_revision(SETTINGS)


class Agent:
    """An agent as the contract describes it."""

    def __init__(self) -> None:
        self.state, self.running, self.settings = "ready", 2, ""
        self.fails = False
        self.tokens: list[str] = []

    def status(self) -> dict[str, Any]:
        return {"state": self.state, "running": self.running, "settings": self.settings, "agent": "a", "cores": []}

    async def handle(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers.get("Authorization", ""))
        if self.fails:
            return web.json_response({"error": "of another swarm"}, status=400)
        match request.method, request.path:
            case "PUT", "/v1/settings":
                assert await request.read() == encode_settings(SETTINGS)
                self.settings = REVISION
                return web.json_response({"settings": REVISION})
            case "GET", "/v1/status":
                return web.json_response(self.status())
            case "POST", "/v1/drain":
                self.state = "draining" if self.running else "drained"
                return web.json_response(self.status(), status=202)
            case "POST", "/v1/resume":
                self.state = "ready"
                return web.json_response(self.status())
        return web.Response(status=404)


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    one = Agent()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, IP, AGENT_PORT).start()
    yield one
    await runner.cleanup()


@pytest.fixture
async def agents() -> AsyncIterator[Agents]:
    one = Agents(lambda: 100.0)
    yield one
    await one.close()


def push(ip: str = IP, restarts: int = 0) -> PushSettings:
    return PushSettings("Pod", "p", "uid", ip, restarts, REVISION)


async def test_a_push_is_acknowledged_with_the_revision_and_tells_how_the_agent_is(
    agent: Agent, agents: Agents
) -> None:
    report = await agents.push(push(), "secret", encode_settings(SETTINGS))
    assert (report.settings, report.state, report.running, report.failures) == (REVISION, "ready", 2, 0)
    assert set(agent.tokens) == {"Bearer secret"}
    assert agents.reports(["uid", "other"]) == {"uid": report}


async def test_a_drain_is_asked_until_the_agent_is_empty_and_keeps_its_begin(agent: Agent, agents: Agents) -> None:
    drain = DrainPod("Pod", "p", "uid", IP, 0)
    first = await agents.drain(drain, "t")
    assert (first.state, first.drain_since) == ("draining", 100.0)
    agents._clock = lambda: 120.0
    agent.running = 0
    second = await agents.drain(drain, "t")
    assert (second.state, second.drain_since) == ("drained", 100.0)
    resumed = await agents.resume(ResumePod("Pod", "p", "uid", IP, 0), "t")
    assert (resumed.state, resumed.drain_since) == ("ready", None)


async def test_an_agent_that_refuses_is_noted_and_counted(agent: Agent, agents: Agents) -> None:
    agent.fails = True
    for count in (1, 2):
        report = await agents.push(push(), "t", encode_settings(SETTINGS))
        assert report.failures == count
        assert "400" in report.error
        assert "of another swarm" in report.error
    agent.fails = False
    assert (await agents.push(push(), "t", encode_settings(SETTINGS))).failures == 0


async def test_an_agent_that_is_not_there_is_noted_and_nothing_is_raised(agents: Agents) -> None:
    report = await agents.drain(DrainPod("Pod", "p", "uid", "127.83.1.99", 0), "t")
    assert report.failures == 1
    assert report.drain_since == 100.0


async def test_what_an_agent_said_before_its_restart_is_forgotten(agent: Agent, agents: Agents) -> None:
    agent.fails = True
    await agents.push(push(), "t", encode_settings(SETTINGS))
    report = await agents.push(push(restarts=1), "t", encode_settings(SETTINGS))
    assert (report.failures, report.restarts) == (1, 1)
    agents.forget("uid")
    assert agents.reports(["uid"]) == {}


class Pair:
    """The agents of a pod that has a board of its own: its hub, and its compute agent."""

    def __init__(self) -> None:
        self.hub, self.agent = Agent(), Agent()
        self.asked: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        one = "hub" if request.url.port == HUB_AGENT_PORT else "agent"
        self.asked.append(f"{one} {request.path}")
        return await (self.hub if one == "hub" else self.agent).handle(request)


BOTH = (HUB_AGENT_PORT, AGENT_PORT)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    one = Pair()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for port in BOTH:
        await web.TCPSite(runner, IP, port).start()
    yield one
    await runner.cleanup()


async def test_settings_count_as_acknowledged_when_both_agents_of_a_pod_run_by_them(pair: Pair, agents: Agents) -> None:
    both = PushSettings("Pod", "p", "uid", IP, 0, REVISION, BOTH)
    report = await agents.push(both, "t", encode_settings(SETTINGS))
    assert (report.settings, report.state, report.running) == (REVISION, "ready", 4)
    assert pair.hub.settings == pair.agent.settings == REVISION
    pair.agent.fails = True
    report = await agents.push(both, "t", encode_settings(SETTINGS))
    assert report.failures == 1
    assert "of another swarm" in report.error


async def test_a_pods_hub_drains_while_its_agent_still_computes_and_the_agent_then(pair: Pair, agents: Agents) -> None:
    drain = DrainPod("Pod", "p", "uid", IP, 0, False, BOTH)
    assert (await agents.drain(drain, "t")).state == "draining"
    assert pair.agent.state == "ready", "there may be tasks on the board that the hub has promised to others"
    pair.hub.running = 0
    assert (await agents.drain(drain, "t")).state == "draining"
    assert (pair.hub.state, pair.agent.state) == ("drained", "draining")
    pair.agent.running = 0
    assert (await agents.drain(drain, "t")).state == "drained"
    resumed = await agents.resume(ResumePod("Pod", "p", "uid", IP, 0, BOTH), "t")
    assert (resumed.state, pair.hub.state, pair.agent.state) == ("ready", "ready", "ready")


@pytest.mark.parametrize(
    ("states", "together"),
    [
        (["drained", "drained"], "drained"),
        (["drained", "stopped"], "drained"),
        (["drained", "ready"], "draining"),
        (["ready", "draining"], "draining"),
        (["ready", "starting"], "starting"),
        (["ready", "ready"], "ready"),
        (["something new"], "something new"),
    ],
)
def test_a_pod_has_left_when_all_of_its_agents_have(states: list[str], together: str) -> None:
    assert _together(states) == together
