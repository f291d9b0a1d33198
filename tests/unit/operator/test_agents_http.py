"""The operator's side of the agents' HTTP interface: token, acknowledgement, drain, and agents that do not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from swarm_agents.config import AGENT_PORT, Settings, encode_settings, settings_revision
from swarm_operator.actions import DrainPod, PushSettings, ResumePod
from swarm_operator.agents import Agents

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
