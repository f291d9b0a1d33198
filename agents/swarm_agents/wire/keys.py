"""The swarm's CURVE keys: one pair for all its hubs, one pair for all its clients, and the token of its REST interface.

A hub proves itself with the hub pair to clients and to other hubs, and is a client of theirs with the same pair. Who
holds the client pair may submit; who holds the hub pair may also forward. Keys a pod or a user of their own would need
a directory of keys and its revocation; Kubernetes' own access control to the Secret decides who gets these instead.

While the keys are renewed there are two sets: those that hold, and the `next` ones, which hubs take as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from swarm_agents.config import key_fingerprint
from swarm_agents.errors import WrongKey

__all__ = ["Keys", "keys_from", "load_keys", "make_keys"]

_Z85_LENGTH = 40
_PAIRS = ("hub.public", "hub.secret", "client.public", "client.secret")
_NEXT = "next."


class Keys(Struct, frozen=True, kw_only=True):
    """Key pairs in Z85 (40 characters each); all empty where the swarm's encryption is off."""

    hub_public: str = ""
    hub_secret: str = ""
    client_public: str = ""
    client_secret: str = ""
    token: str = ""
    #: What follows these, while they are being renewed.
    next: Keys | None = None

    @property
    def fingerprint(self) -> str:
        """Tells this set from others, and nothing of its secrets."""
        return key_fingerprint(self.hub_public, self.client_public)

    @property
    def whole(self) -> bool:
        """Whether all keys are there and each public one belongs to its secret: files may be read half renewed."""
        import zmq

        pairs = ((self.hub_public, self.hub_secret), (self.client_public, self.client_secret))
        try:
            fits = all(public and zmq.curve_public(secret.encode()).decode() == public for public, secret in pairs)
        except (ValueError, zmq.ZMQError):
            return False
        return fits and (self.next is None or self.next.whole)

    def of_server(self, public: str) -> Keys:
        """The set that a hub with this public key belongs to; these, if it is none that is known."""
        return self.next if self.next is not None and public and public == self.next.hub_public else self

    def __repr__(self) -> str:
        """Never the secrets: a settings object ends up in a log sooner or later."""
        after = "" if self.next is None else f", next={self.next!r}"
        return f"Keys(hub_public={self.hub_public!r}, client_public={self.client_public!r}{after})"


def load_keys(directory: Path) -> Keys:
    """Reads the files of the swarm's Secret: `hub.public`, `hub.secret`, `client.public`, `client.secret`, `token`.

    A file that is missing is an empty key: a client's machine has no hub secret. While the keys are renewed there are
    `next.hub.public` and so on as well; an incomplete next set is none.

    Raises:
        WrongKey: a file holds something that is no key.
    """

    def read(name: str) -> str:
        try:
            return (directory / name).read_text().strip()
        except FileNotFoundError:
            return ""

    pairs = {name: read(name) for name in (*_PAIRS, *(f"{_NEXT}{name}" for name in _PAIRS))}
    for name, key in pairs.items():
        if key and len(key) != _Z85_LENGTH:
            raise WrongKey(
                f"{directory / name} holds {len(key)} characters, a CURVE key has {_Z85_LENGTH}: "
                "delete the swarm's Secret, and the operator makes it again"
            )
    return keys_from({**pairs, "token": read("token")})


def keys_from(data: Mapping[str, str]) -> Keys:
    """The same from the content of the files.

    Raises:
        KeyError: one of the keys that hold is missing; an incomplete next set is none.
    """
    following = {name: data.get(f"{_NEXT}{name}", "") for name in _PAIRS}
    token = data["token"]
    after = _keys(following, token) if all(following.values()) else None
    return msgspec.structs.replace(_keys(data, token), next=after)


def _keys(pairs: Mapping[str, str], token: str) -> Keys:
    return Keys(
        hub_public=pairs["hub.public"],
        hub_secret=pairs["hub.secret"],
        client_public=pairs["client.public"],
        client_secret=pairs["client.secret"],
        token=token,
    )


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
