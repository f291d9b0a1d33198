"""Loopback addresses: a /24 of 127.0.0.0/8 for each simulated node, and one address of it for each pod.

Pods share the machine's network, so an address is what keeps two agents on port 9402 apart. Two clusters of this
machine, also of different users, must not choose the same one: a block is claimed by binding an abstract Unix socket
named after it. Abstract sockets belong to a network namespace, exactly as loopback addresses do, and the kernel frees
them with the process.

A block is not enough: a program that listens on 0.0.0.0 takes a port on every loopback address. `taken` asks for each
port.

Rejected: lock files (they outlive a crash, and users do not share a directory), and 127.0.0.1 with a port for each
agent (the operator and the agents use fixed ports, as on a real cluster).
"""

from __future__ import annotations

import errno
import hashlib
import socket
from collections.abc import Iterable

from swarm_agents.errors import SwarmError

__all__ = ["AddressPool", "NoAddressError", "claim_block", "taken"]

# 127.0.x is left to what people configure by hand, 127.1 is often written for 127.0.0.1.
_FIRST, _LAST = 2, 254
_NODE = 1


class NoAddressError(SwarmError):
    """No loopback address is left."""


def claim_block(cluster: str, index: int, preferred: str = "") -> tuple[str, socket.socket]:
    """A free /24 as `127.x.y`, and what holds it: it is free again when that is closed.

    Args:
        preferred: the block that this node had before, which is taken again if nobody else has it.

    Raises:
        NoAddressError: every block is held.
    """
    start = int.from_bytes(hashlib.blake2b(cluster.encode(), digest_size=4).digest()) + index
    span = (_LAST - _FIRST + 1) * 256
    candidates = [preferred] if preferred else []
    candidates += [f"127.{_FIRST + n // 256}.{n % 256}" for n in ((start + step) % span for step in range(span))]
    for block in candidates:
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            holder.bind(f"\0agentswarm-net-{block}")
        except OSError as error:
            holder.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return block, holder
    raise NoAddressError(
        "every block of loopback addresses is held by a cluster of this machine: stop one (`swarm down`)"
    )


def taken(address: str, ports: Iterable[int]) -> list[int]:
    """Those of the TCP ports on which somebody listens already, at this address or at all of them."""
    held = []
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a closed connection's remains do not matter
            try:
                probe.bind((address, port))
                # Two sockets may bind with that option, if neither listens: so ask for that as well.
                probe.listen(1)
            except PermissionError:
                continue  # a privileged port: the container will say so itself
            except OSError:
                held.append(port)
    return held


class AddressPool:
    """One node's addresses: its own is the first; pods get the others in turn, so that none is used again at once."""

    def __init__(self, block: str) -> None:
        self.block = block
        self.node = f"{block}.{_NODE}"
        self._used: dict[str, str] = {}
        self._next = _NODE

    def take(self, owner: str, ports: Iterable[int] = (), preferred: str = "") -> str:
        """An address for a pod on which none of its ports is taken.

        Raises:
            NoAddressError: all are used, or a port is taken on each of them; the message says which.
        """
        wanted = list(ports)
        held: list[int] = []
        candidates = [preferred] if preferred.startswith(f"{self.block}.") else []
        for step in range(1, _LAST):
            candidates.append(f"{self.block}.{_NODE + 1 + (self._next - _NODE + step - 1) % (_LAST - _NODE)}")
        refused = 0
        for address in candidates:
            if address in self._used or address == self.node:
                continue
            if held := taken(address, wanted):
                refused += 1
                if refused < 8:
                    continue
                break  # a program listens on all addresses: no other one will do better
            self._used[address] = owner
            self._next = int(address.rpartition(".")[2])
            return address
        if held:
            listed = ", ".join(map(str, held))
            raise NoAddressError(
                f"port {listed} is taken on every address of this machine by a program that listens on 0.0.0.0:"
                f" stop it (`ss -ltnp 'sport = :{held[0]}'` shows it)"
            )
        raise NoAddressError(f"all {_LAST - _NODE} addresses of the node are used by pods")

    def release(self, address: str, owner: str) -> None:
        """Give an address back."""
        if self._used.get(address) == owner:
            del self._used[address]
