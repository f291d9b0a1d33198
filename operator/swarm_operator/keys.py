"""The swarm's keys: two CURVE pairs (hubs, clients) and the token of the agents' HTTP interface.

Made once, and repaired key by key: a public key is derived from its secret, a secret that is not one is made anew with
its public key, and what is valid is left alone, since running agents hold it. What was valid last is remembered while
the operator runs, so that a Secret deleted by hand comes back with the keys that the agents use.

Nothing here prints or raises a secret's content. pyzmq is imported when the first key is examined.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from swarm_operator.snapshot import KEY_NAMES, KeyState

__all__ = ["KeyMemory", "complete", "examine", "make_pair", "make_token"]

_Z85: Final = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{32,128}")
#: Swarms whose keys are remembered.
_REMEMBERED: Final = 4096


def make_pair() -> tuple[str, str]:
    """A new CURVE pair: public, secret (Z85)."""
    import zmq

    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def make_token() -> str:
    """A new token, 256 bits."""
    return secrets.token_urlsafe(32)


@lru_cache(maxsize=2048)
def _public_of(secret: str) -> str:
    import zmq

    try:
        return zmq.curve_public(secret.encode()).decode()
    except (ValueError, zmq.ZMQError):
        return ""


def examine(data: Mapping[str, str]) -> KeyState:
    """Which keys are missing or invalid in a Secret's (decoded) data."""
    missing = []
    for pair in ("hub", "client"):
        public, secret = data.get(f"{pair}.public", ""), data.get(f"{pair}.secret", "")
        if not _Z85.fullmatch(secret) or not _public_of(secret):
            missing += [f"{pair}.public", f"{pair}.secret"]
        elif public != _public_of(secret):
            missing.append(f"{pair}.public")
    if not _TOKEN.fullmatch(data.get("token", "")):
        missing.append("token")
    hub = data.get("hub.public", "") if "hub.public" not in missing else ""
    return KeyState(missing=tuple(name for name in KEY_NAMES if name in missing), hub_public=hub)


def complete(
    data: Mapping[str, str],
    remembered: Mapping[str, str],
    pair: Callable[[], tuple[str, str]] = make_pair,
    token: Callable[[], str] = make_token,
) -> dict[str, str]:
    """Valid keys, of which as many as possible are from `data`, then from `remembered`; the rest is new."""
    out = {name: value for name, value in data.items() if name in KEY_NAMES}
    for name in examine(out).missing:
        if remembered.get(name):
            out[name] = remembered[name]
    missing = examine(out).missing
    for half in ("hub", "client"):
        if f"{half}.secret" in missing:
            out[f"{half}.public"], out[f"{half}.secret"] = pair()
        elif f"{half}.public" in missing:
            out[f"{half}.public"] = _public_of(out[f"{half}.secret"])
    if "token" in missing:
        out["token"] = token()
    return out


class KeyMemory:
    """The last valid keys of each Swarm, by its UID."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, dict[str, str]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<KeyMemory of {len(self._keys)} swarms>"

    def remember(self, uid: str, data: Mapping[str, str]) -> None:
        """Keeps keys that were examined and found whole."""
        self._keys[uid] = dict(data)
        self._keys.move_to_end(uid)
        if len(self._keys) > _REMEMBERED:
            self._keys.popitem(last=False)

    def of(self, uid: str) -> Mapping[str, str]:
        """What is remembered; empty when nothing is."""
        return self._keys.get(uid, {})

    def forget(self, uid: str) -> None:
        """A Swarm is gone."""
        self._keys.pop(uid, None)
