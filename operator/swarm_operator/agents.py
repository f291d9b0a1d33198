"""Talks to the agents over HTTP, and keeps what they said: settings pushed, drains asked for.

A pod with a board of its own holds two agents, the hub and the compute agent (`PodView.ports`); what they say is put
together into one report. Such a pod drains in that order: the hub takes nothing more while the agent still computes,
and only when the hub owes nobody anything is the agent asked to claim nothing more.

The table is an observation like any other: it is lost with the process, and the next plan asks again. An agent that
does not answer is noted as such, with the time, so that the planner decides when to try again; no call is retried here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import aiohttp
import msgspec

from swarm_operator.actions import AskAgent, DrainPod, PushSettings, ResumePod
from swarm_operator.pinning import cpu_list
from swarm_operator.views import AgentReport

__all__ = ["Agents"]

_TIMEOUT: Final = aiohttp.ClientTimeout(total=5, sock_connect=2)
#: Calls in flight at once, over all swarms.
_CONCURRENT: Final = 64


class _Failing(msgspec.Struct):
    probability: float = 0.0
    reasons: tuple[str, ...] = ()


class _Status(msgspec.Struct):
    state: str = ""
    running: int = 0
    settings: str = ""
    role: str = ""
    cores: tuple[int, ...] = ()
    cores_exclusive: bool | None = msgspec.field(name="coresExclusive", default=None)
    cores_code: str = msgspec.field(name="coresCode", default="")
    cores_reason: str = msgspec.field(name="coresReason", default="")
    numa_nodes: tuple[int, ...] | None = msgspec.field(name="numaNodes", default=None)
    unfit: str = ""
    failing: _Failing = msgspec.field(default_factory=_Failing)
    keys: tuple[str, str] = ("", "")


class _Pushed(msgspec.Struct):
    settings: str = ""


#: States in which an agent has nothing in hand and takes nothing.
_EMPTY: Final = ("drained", "stopped")


_PLACE: Final = ("cores", "exclusive", "cores_code", "cores_reason", "numa", "unfit")


def _together(states: Sequence[str]) -> str:
    """The state of a pod whose agents are in these: while one has left and another has not, it is leaving."""
    for state in ("starting", "draining", "unfit", "ready"):
        if state in states:
            return "draining" if state in ("unfit", "ready") and set(states) & set(_EMPTY) else state
    return states[0]


async def _each(ask: Callable[[int], Awaitable[_Status]], ports: Iterable[int]) -> Sequence[_Status]:
    """Asks all agents of a pod at once; the first that fails fails for all, when each has been heard."""
    answers = await asyncio.gather(*map(ask, ports), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if isinstance(answer, _Status)]


class Agents:
    """The HTTP client of all agents, and the table of their reports by pod UID."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._limit = asyncio.Semaphore(_CONCURRENT)
        self._reports: dict[str, AgentReport] = {}

    def reports(self, uids: Any) -> Mapping[str, AgentReport]:
        """What is known of these pods."""
        return {uid: self._reports[uid] for uid in uids if uid in self._reports}

    def forget(self, uid: str) -> None:
        """A pod is gone."""
        self._reports.pop(uid, None)

    async def close(self) -> None:
        """Closes the connections."""
        if self._session:
            await self._session.close()

    async def push(self, action: PushSettings, token: str, body: bytes) -> AgentReport:
        """`PUT /v1/settings`, then `GET /v1/status`."""

        async def one(port: int) -> _Status:
            pushed = await self._call("PUT", action.ip, port, "/v1/settings", token, body)
            acknowledged = msgspec.json.decode(pushed, type=_Pushed).settings
            status = await self._status("GET", action.ip, port, "/v1/status", token)
            return msgspec.structs.replace(status, settings=acknowledged)

        async def talk() -> AgentReport:
            return self._report(action.restarts, await _each(one, action.ports))

        return await self._asked(action, talk)

    async def drain(self, action: DrainPod, token: str) -> AgentReport:
        """`POST /v1/drain`; the answer's state says whether the agent is empty."""
        before = self._reports.get(action.uid)
        since = before.drain_since if before and before.restarts == action.restarts else None
        since = self._clock() if since is None else since

        async def talk() -> AgentReport:
            said: list[_Status] = []
            for port in action.ports:
                said.append(await self._status("POST", action.ip, port, "/v1/drain", token))
                if said[-1].state not in _EMPTY:
                    break
            report = self._report(action.restarts, said)
            return msgspec.structs.replace(report, drain_since=since)

        return await self._asked(action, talk, drain_since=since)

    async def resume(self, action: ResumePod, token: str) -> AgentReport:
        """`POST /v1/resume`."""

        async def one(port: int) -> _Status:
            return await self._status("POST", action.ip, port, "/v1/resume", token)

        async def talk() -> AgentReport:
            return self._report(action.restarts, await _each(one, action.ports))

        return await self._asked(action, talk)

    async def look(self, action: AskAgent, token: str) -> AgentReport:
        """`GET /v1/status`; what it was asked before is kept."""
        before = self._reports.get(action.uid)
        since = before.drain_since if before and before.restarts == action.restarts else None

        async def one(port: int) -> _Status:
            return await self._status("GET", action.ip, port, "/v1/status", token)

        async def talk() -> AgentReport:
            report = self._report(action.restarts, await _each(one, action.ports))
            return msgspec.structs.replace(report, drain_since=since)

        return await self._asked(action, talk, drain_since=since)

    async def events(self, ip: str, port: int, token: str, after: int) -> bytes:
        """`GET /v1/events`: what happened since the event of this number.

        Raises:
            OSError, TimeoutError, ValueError, aiohttp.ClientError: it does not answer, or refuses.
        """
        return await self._call("GET", ip, port, f"/v1/events?after={after}", token)

    async def load(self, ip: str, port: int, token: str) -> bytes:
        """`GET /v1/load`: the load of the agent's node.

        Raises:
            OSError, TimeoutError, ValueError, aiohttp.ClientError: it does not answer, or refuses.
        """
        return await self._call("GET", ip, port, "/v1/load", token)

    def _report(self, restarts: int, said: Sequence[_Status]) -> AgentReport:
        """What a pod's agents say, as one: settings count as acknowledged when all of them run by these."""
        settings = {status.settings for status in said}
        gravest = max((status.failing for status in said), key=lambda failing: failing.probability)
        # a hub runs where there is room, and computes nothing
        worker = next((status for status in said if status.role != "resource"), said[0])
        return AgentReport(
            restarts=restarts,
            checked=self._clock(),
            settings=settings.pop() if len(settings) == 1 else "",
            state=_together([status.state for status in said]),
            running=sum(status.running for status in said),
            cores=cpu_list(worker.cores),
            exclusive=worker.cores_exclusive,
            cores_code=worker.cores_code,
            cores_reason=worker.cores_reason[:300],
            numa=worker.numa_nodes,
            unfit=worker.unfit[:500],
            failing=gravest.probability,
            failing_why="; ".join(gravest.reasons)[:300],
            keys=next((status.keys for status in said if status.keys[0]), ("", "")),
        )

    async def _asked(
        self, action: AskAgent | PushSettings | DrainPod | ResumePod, talk: Any, drain_since: float | None = None
    ) -> AgentReport:
        before = self._reports.get(action.uid)
        if before and before.restarts != action.restarts:
            before = None
        try:
            report: AgentReport = await talk()
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError, ValueError) as error:
            known = before or AgentReport(restarts=action.restarts, checked=0.0)
            report = msgspec.structs.replace(
                known,
                checked=self._clock(),
                failures=known.failures + 1,
                error=f"{type(error).__name__}: {error}"[:200],
                drain_since=drain_since if drain_since is not None else known.drain_since,
            )
        if before and not report.cores_code:  # of a pod whose hub leaves first only the hub was asked
            place = {name: getattr(before, name) for name in _PLACE}
            report = msgspec.structs.replace(report, **place)
        self._reports[action.uid] = report
        return report

    async def _status(self, method: str, ip: str, port: int, path: str, token: str) -> _Status:
        return msgspec.json.decode(await self._call(method, ip, port, path, token), type=_Status)

    async def _call(self, method: str, ip: str, port: int, path: str, token: str, body: bytes | None = None) -> bytes:
        if self._session is None:
            # Pods are reached directly, whatever proxy the environment names for the world outside.
            # Kept for those that are asked every other second; each connection that nobody uses costs some 40 KiB.
            # Addresses are numbers: there is no second one to try meanwhile.
            connector = aiohttp.TCPConnector(limit=_CONCURRENT, keepalive_timeout=3, happy_eyeballs_delay=None)
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False, connector=connector)
        host = f"[{ip}]" if ":" in ip else ip
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        async with (
            self._limit,
            self._session.request(
                method, f"http://{host}:{port}{path}", data=body, headers=headers, allow_redirects=False
            ) as response,
        ):
            data = await response.read()
            if response.status >= 400:
                raise ValueError(f"{method} {path} was answered {response.status}: {data[:150]!r}")
            return data
