"""Loopback addresses for pods: each has one of its own, so that all can use the same ports, as in a real cluster.

Linux answers on the whole of 127.0.0.0/8. A cluster claims one second octet for as long as its daemon lives, by an
abstract Unix socket (which the kernel frees when the process dies, however it dies); within it a node has the third
octet and a pod the fourth. So two clusters on one machine never meet.
"""

from __future__ import annotations

import socket

__all__ = ["Addresses", "AddressesExhaustedError"]

_FIRST, _LAST = 16, 250


class AddressesExhaustedError(Exception):
    """No address is left."""


class Addresses:
    """The addresses of one cluster."""

    def __init__(self) -> None:
        """Claims an octet that no other cluster of this machine has.

        Raises:
            AddressesExhaustedError: over two hundred clusters run on this machine.
        """
        self._claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        for octet in range(_FIRST, _LAST):
            try:
                self._claim.bind(f"\0agentswarm-local-{octet}")
            except OSError:
                continue
            self._octet = octet
            break
        else:
            self._claim.close()
            raise AddressesExhaustedError("every range of loopback addresses is taken: stop a cluster (`swarm down`)")
        self._used: dict[int, set[int]] = {}

    def node(self, number: int) -> str:
        """A node's own address; nodes count from 1."""
        return f"127.{self._octet}.{number}.1"

    def take(self, node: int) -> str:
        """An address for a pod on the node."""
        used = self._used.setdefault(node, set())
        for last in range(2, 255):
            if last not in used:
                used.add(last)
                return f"127.{self._octet}.{node}.{last}"
        raise AddressesExhaustedError(f"node {node} has no address left: it runs 253 pods")

    def release(self, address: str) -> None:
        """Gives an address back."""
        _, _, node, last = map(int, address.split("."))
        self._used.get(node, set()).discard(last)

    def close(self) -> None:
        """Gives the range back."""
        self._claim.close()
