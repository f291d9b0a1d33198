"""The addresses that a hub's ROUTER listens at, and the key by which it proves itself at each.

While the swarm's keys are renewed a hub has two doors: its port, still with the old key, and a second port with the
next one. One ROUTER serves both, so that a session may come by either. When the next keys have become the keys, the
first door is opened anew with them, and the second is closed once the settings name it no more. Closing a door cuts
everybody off who came by it (ZeroMQ ends those connections with their listener): whoever has only the old key is out
then, and whoever has the new one comes in again by the other door, under the same session and the same ids.

Used under the reactor's lock. A port that was let go is free a moment later, hence the retries; `shown` says what is
really open, and nothing else may be told to the operator, which takes the next step by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import zmq

from swarm_agents.config import Settings, second_port
from swarm_agents.wire.keys import Keys
from swarm_agents.wire.network import Network
from swarm_agents.wire.reactor import Reactor

__all__ = ["Doors", "allowed_keys"]

#: A port that is taken is tried again after this long, doubled up to the most (seconds).
_AGAIN, _AGAIN_MOST = 0.002, 1.0


def allowed_keys(keys: Keys) -> dict[str, str]:
    """Whose connections are admitted, by public key: of the next set as well."""
    sets = (keys,) if keys.next is None else (keys, keys.next)
    return {key: kind for s in sets for key, kind in ((s.client_public, "client"), (s.hub_public, "hub"))}


class Doors:
    """See the module's text. Made with the first door open."""

    def __init__(
        self,
        network: Network,
        reactor: Reactor,
        settings: Settings,
        keys: Keys,
        *,
        node: str,
        host: str,
        log: Any,
        changed: Callable[[str, str], None] = lambda main, second: None,
    ) -> None:
        """`changed` is told the fingerprints of the keys at the main and at the second port, when they change.

        Raises:
            PortInUse: another process listens at the hub's port.
            SwarmError: the address can't be bound for another reason.
        """
        self._network, self._reactor, self._log, self._changed = network, reactor, log, changed
        self._node, self._host = node, host
        self._wanted: dict[str, Keys] = {}
        self._waits: dict[str, float] = {}
        self._said = ("", "")
        self._main = f"tcp://{host}:{settings.transport.hub_port}"
        self._second = f"tcp://{host}:{second_port(settings.transport)}"
        self.router = network.router(
            self._main,
            public=keys.hub_public,
            secret=keys.hub_secret,
            limit=settings.transport.max_message_bytes,
        )
        self._open: dict[str, Keys] = {self._main: keys}

    @property
    def addresses(self) -> list[str]:
        """Where it listens at present; the first is the hub's own address."""
        return [*self._open]

    @property
    def shown(self) -> tuple[str, str]:
        """The fingerprints of the keys that are served at the main and at the second port; empty where none are."""
        return tuple(self._open[door].fingerprint if door in self._open else "" for door in (self._main, self._second))  # type: ignore[return-value]

    def apply(self, settings: Settings, keys: Keys) -> None:
        """Opens what is wanted by these settings and keys, and closes everything else."""
        self._wanted = dict(self._wants(settings, keys))
        self._waits.clear()
        for address, served in list(self._open.items()):
            wanted = self._wanted.get(address)
            if wanted is None or wanted.hub_public != served.hub_public:
                del self._open[address]
                self._network.unbind(self.router, address)
                if wanted is not None:
                    self._waits[address] = _AGAIN
            elif wanted is not served:  # the clients' half may be another one
                self._open[address] = wanted
        self._try()

    def _wants(self, settings: Settings, keys: Keys) -> Iterator[tuple[str, Keys]]:
        yield self._main, keys
        listed = [hub.address for hub in settings.hubs if hub.node == self._node and hub.address]
        if keys.next is not None:
            yield self._second, keys.next
        elif self._second in listed:
            yield self._second, keys
        for address in listed:
            if address not in (self._main, self._second):
                yield address, keys  # a path of its own for those that can reach both

    def _try(self) -> None:
        again: list[float] = []
        for address, keys in self._wanted.items():
            if address in self._open:
                continue
            try:
                self._network.bind_also(self.router, address, public=keys.hub_public, secret=keys.hub_secret)
            except zmq.ZMQError as error:
                # For good, as an address that something in between translates; its own once the port is free.
                if address not in (self._main, self._second):
                    self._log.info("not listening on an address", address=address, reason=error.strerror)
                    continue
                wait = self._waits.get(address, _AGAIN)
                if wait >= _AGAIN_MOST:
                    self._log.warning("the hub can't listen on its port", address=address, reason=error.strerror)
                self._waits[address] = min(wait * 2, _AGAIN_MOST)
                again.append(wait)
            else:
                self._open[address] = keys
        if again:
            self._reactor.call_later(min(again), self._try)
        if self.shown != self._said:
            self._said = self.shown
            self._changed(*self._said)
