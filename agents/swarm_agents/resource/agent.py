"""The resource agent of a node: hub, REST interface and sensors in one event loop.

The hub's place on the board is the agent's own; when the agent is fenced everything is closed and opened again with the
new place, because all that was in hand under the old one is void. A stop waits for the answers of tasks that other
nodes compute, as long as the grace allows, and hands the rest back.

A node has one hub. Where the board shows an earlier one at work this one waits, with all its imports done, and opens
its ports in the moment that the other leaves: so a roll need not leave the node without one while a pod starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import msgspec

from swarm_agents.config import Identity, Role, Settings
from swarm_agents.errors import UnknownKernel, WrongKey
from swarm_agents.resource import metrics
from swarm_agents.resource.aside import open_aside
from swarm_agents.resource.caps import Caps
from swarm_agents.resource.degrade import Degrade
from swarm_agents.resource.desk import Desk
from swarm_agents.resource.foresight.watcher import Foresight
from swarm_agents.resource.headroom import Headroom
from swarm_agents.resource.hub import Hub
from swarm_agents.resource.rest import Rest
from swarm_agents.resource.sensing import Reading, make_sensors
from swarm_agents.resource.weights import Weights
from swarm_agents.runtime.agent import AsyncAgent
from swarm_agents.runtime.scoreboard import AgentState
from swarm_agents.wire.keys import load_keys
from swarm_agents.wire.report import describe_board

__all__ = ["ResourceAgent"]

#: How often the loop looks whether it may end (seconds), while it waits for other nodes' answers, or begin.
_LOOK = 0.02
#: How often the Secret's files are read (seconds); the kubelet renews them in its own time, a minute as a rule.
_KEYS = 1.0


class Looker(Protocol):
    """Somebody who acts on what the sensors say: called after each reading, with monotonic seconds."""

    def look(self, now: float, readings: Mapping[str, Reading]) -> None: ...


class ResourceAgent(AsyncAgent):
    """See the module's text."""

    roles: ClassVar[tuple[Role, ...]] = (Role.RESOURCE,)
    announces_ready: ClassVar[bool] = True

    hub: Hub | None = None
    rest: Rest | None = None
    #: Why the keys' files can't be used at present.
    keys_unusable = ""

    @classmethod
    def prepare(cls, identity: Identity, settings: Settings) -> None:
        """Imports what is slow, so that a hub that died is back in milliseconds; the sensors' compiled code came with
        this module."""
        import uvicorn.protocols.http.h11_impl  # noqa: F401
        import zmq.utils.monitor  # noqa: F401

    def start(self) -> None:
        self.sensors = make_sensors(self.context.board.directory)
        context = self.context
        self.foresight = Foresight(
            context.board, lambda: context.settings.failover.dead_after, own=context.identity.pod
        )
        self.headroom = Headroom()
        self.degrade = Degrade(context.board, context.tell)
        self.caps = Caps(context.board, lambda: context.settings.sensing, context.tell)
        self.weights = Weights(context.board, context.tell)
        self.lookers: list[Looker] = [self.foresight, self.headroom, self.degrade, self.caps, self.weights]
        self.unwell: set[str] = set()
        self.keys = load_keys(self.context.identity.keys_dir)

    async def run_async(self) -> None:
        context, identity, settings = self.context, self.context.identity, self.context.settings
        member = context.member
        assert member is not None
        if not await self._turn():
            return
        hub = Hub(
            Desk(context.board, member),
            settings,
            self.keys,
            node=identity.node,
            name=identity.pod,
            host=identity.pod_ip,
            log=context.log,
            report=self.report,
            keep=context.board.directory,
            tell=context.tell,
        )
        hub.desk.headroom = self.headroom
        aside = open_aside(hub, identity.cache_dir, context.log)
        rest = Rest(hub, self.keys.token, report=self.report, kernels=self.kernels)
        self.sensors.start(
            lambda: context.settings.sensing.interval,
            lambda: context.settings.sensing.disabled,
            lambda: self.degrade.stretch,
        )
        try:
            await rest.start(identity.pod_ip, settings.transport.rest_port)
            hub.start()
            self.hub, self.rest = hub, rest
            self.context.announce_ready()
            await self._serve(hub, rest)
        finally:
            self.sensors.stop()
            self.hub = self.rest = None
            await rest.close()
            if aside is not None:
                await asyncio.to_thread(aside.close)
            await hub.close()

    async def _turn(self) -> bool:
        """Waits while a hub that was here before is at work; False: this agent is to leave, or was fenced."""
        context = self.context
        while not (context.fenced or context.leaving):
            if not self._predecessors():
                context.report(AgentState.STARTING)
                return True
            context.report(AgentState.WAITING)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self.changed.wait()
            self.changed.clear()
        return False

    def _predecessors(self) -> list[str]:
        """The resource agents that joined this board before this one, and are not known to be dead."""
        member = self.context.member
        assert member is not None
        hubs = {info.index: info for info in self.context.board.members() if info.alive and info.role == Role.RESOURCE}
        own = hubs.pop(member.index, None)
        return [] if own is None else [i.name for i in hubs.values() if (i.joined, i.index) < (own.joined, own.index)]

    async def _serve(self, hub: Hub, rest: Rest) -> None:
        context, loop = self.context, asyncio.get_running_loop()
        due = loop.time()
        keys_due = due + _KEYS
        while True:
            if not context.may_claim and not hub.draining:
                hub.drain()
            elif context.may_claim and hub.draining:
                hub.resume()
            idle = not hub.in_hand and not hub.sessions.unanswered
            if not context.may_claim and idle:
                context.report_idle()
            if context.fenced or (context.leaving and (idle or context.stop_in < 1.0)):
                return
            now = loop.time()
            if now >= keys_due:
                keys_due = now + _KEYS
                self.follow_keys(hub)
            if now >= due:
                due = max(due + context.settings.sensing.interval, now)
                self.sensors.watch()
                self.look(now, self.sensors.readings)
                rest.expire(now)
            context.scoreboard.set_running(hub.in_hand)
            pause = max(due - now, 0.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause if context.may_claim else min(pause, _LOOK)):
                    await self.changed.wait()
            self.changed.clear()

    def look(self, now: float, readings: Mapping[str, Reading]) -> None:
        """Has the lookers look; one that fails takes neither the others nor the hub with it, and is told of once."""
        for looker in self.lookers:
            name = type(looker).__name__
            try:
                looker.look(now, readings)
            except Exception as error:
                if name not in self.unwell:
                    self.unwell.add(name)
                    self.context.log.exception("a look at the sensors failed", looker=name, reason=str(error))

    def follow_keys(self, hub: Hub) -> None:
        """Has the hub go by the Secret's files as they are now, unless they can't be used."""
        try:
            keys = load_keys(self.context.identity.keys_dir)
            why = "" if keys.whole else "the pairs are not whole"
        except (WrongKey, OSError, ValueError) as error:
            keys, why = self.keys, str(error)
        if why != self.keys_unusable:
            self.keys_unusable = why
            if why:
                self.context.log.warning("the keys' files have changed but can't be used", reason=why)
        if not why and keys != self.keys:
            self.keys = keys
            hub.rekey(keys)

    def settings_changed(self, old: Settings, new: Settings) -> None:
        if self.hub is not None:
            self.hub.apply(new)

    def drain(self) -> None:
        if self.hub is not None:
            self.hub.drain()

    def stop(self) -> None:
        self.drain()

    def resume(self) -> None:
        if self.hub is not None and self.context.may_claim:
            self.hub.resume()

    def metrics(self) -> bytes:
        return metrics.text(
            self.context.board,
            self.context.identity.node,
            self.hub,
            self.sensors,
            self.foresight,
            [self.degrade.metrics, self.caps.metrics, self.weights.metrics],
        )

    def kernels(self) -> list[dict[str, str]]:
        """Names, signatures and summaries of the kernels that this release and the settings' modules register."""
        return _kernels(self.context.settings.runtime.kernel_modules)

    def report(self) -> dict[str, Any]:
        """What `GET /v1/swarm` and a client's `info` show."""
        identity, hub = self.context.identity, self.hub
        return describe_board(self.context.board) | {
            "swarm": identity.swarm,
            "namespace": identity.namespace,
            "node": identity.node,
            "generation": self.context.settings.generation,
            "hubs": [
                {
                    "node": peer.node,
                    "addresses": {address: link.outcome.value for address, link in peer.links.items()},
                    "open": peer.open,
                    "rttSeconds": peer.rtt,
                    "bytesPerSecond": peer.rate,
                    "underway": len(peer.forwarded),
                    "load": msgspec.structs.asdict(peer.load),
                }
                for peer in (hub.peers.values() if hub else ())
            ],
            "events": dict(hub.counts) if hub else {},
            "sensors": self.sensors.report(),
            "foresight": self.foresight.report(),
            "overload": self.degrade.report(),
            "caps": self.caps.report(),
            "placement": self.weights.report(),
        }


@functools.lru_cache(maxsize=4)
def _kernels(modules: tuple[str, ...]) -> list[dict[str, str]]:
    from swarm_agents.compute import registry

    registry.load(modules)
    found = []
    for name in registry.names():
        with contextlib.suppress(UnknownKernel):
            kernel = registry.get(name)
            found.append(
                {"name": name, "signature": str(kernel.signature), "summary": inspect.cleandoc(kernel.summary)}
            )
    return found
