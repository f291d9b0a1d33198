"""The swarm's CURVE keys: one pair for all its hubs, one pair for all its clients, and the token of its REST interface.

A hub proves itself with the hub pair to clients and to other hubs, and is a client of theirs with the same pair. Who
holds the client pair may submit; who holds the hub pair may also forward. Keys a pod or a user of their own would need
a directory of keys and its revocation; Kubernetes' own access control to the Secret decides who gets these instead.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from swarm_agents.errors import WrongKey

__all__ = ["Keys", "load_keys", "make_keys"]

_Z85_LENGTH = 40


class Keys(Struct, frozen=True, kw_only=True):
    """Key pairs in Z85 (40 characters each); all empty where the swarm's encryption is off."""

    hub_public: str = ""
    hub_secret: str = ""
    client_public: str = ""
    client_secret: str = ""
    token: str = ""

    def __repr__(self) -> str:
        """Never the secrets: a settings object ends up in a log sooner or later."""
        return f"Keys(hub_public={self.hub_public!r}, client_public={self.client_public!r})"


def load_keys(directory: Path) -> Keys:
    """Reads the files of the swarm's Secret: `hub.public`, `hub.secret`, `client.public`, `client.secret`, `token`.

    A file that is missing is an empty key: a client's machine has no hub secret.

    Raises:
        WrongKey: a file holds something that is no key.
    """

    def read(name: str) -> str:
        try:
            return (directory / name).read_text().strip()
        except FileNotFoundError:
            return ""

    pairs = {name: read(name) for name in ("hub.public", "hub.secret", "client.public", "client.secret")}
    for name, key in pairs.items():
        if key and len(key) != _Z85_LENGTH:
            raise WrongKey(
                f"{directory / name} holds {len(key)} characters, a CURVE key has {_Z85_LENGTH}: "
                "delete the swarm's Secret, and the operator makes it again"
            )
    return Keys(**{name.replace(".", "_"): key for name, key in pairs.items()}, token=read("token"))


def make_keys() -> Keys:
    """Fresh keys, for tests and for a swarm without an operator."""
    import secrets

    import zmq

    hub, client = zmq.curve_keypair(), zmq.curve_keypair()
    return Keys(
        hub_public=hub[0].decode(),
        hub_secret=hub[1].decode(),
        client_public=client[0].decode(),
        client_secret=client[1].decode(),
        token=secrets.token_urlsafe(24),
    )
