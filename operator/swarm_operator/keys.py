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

from swarm_agents.config import key_fingerprint
from swarm_operator.keyrecord import (
    KEY_NAMES,
    NEXT_NAMES,
    RECORD,
    KeyState,
    Record,
    Stage,
    read_record,
    write_record,
)

__all__ = ["KeyMemory", "complete", "examine", "keep_record", "make_pair", "make_token", "observe", "turned"]

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


def observe(data: Mapping[str, str]) -> KeyState:
    """`examine`, and how far the renewal of the keys is."""
    state, record, following = examine(data), read_record(data.get(RECORD, "")), _next(data)
    missing = list(state.missing)
    hub, client = following.get("hub.public", ""), following.get("client.public", "")
    if record is None:
        missing.append(RECORD)
    elif record.stage.has_next and not following:
        missing += NEXT_NAMES
    return KeyState(
        missing=tuple(missing),
        hub_public=state.hub_public,
        fingerprint="" if state.missing else key_fingerprint(data["hub.public"], data["client.public"]),
        next_hub_public=hub,
        next_fingerprint=key_fingerprint(hub, client),
        record=record,
    )


def _next(data: Mapping[str, str]) -> dict[str, str]:
    """The next set under the names that it will have; empty unless it is whole."""
    found = {name.removeprefix("next."): data.get(name, "") for name in NEXT_NAMES}
    return {} if set(examine(found).missing) - {"token"} else found


def keep_record(
    keys: Mapping[str, str],
    have: Mapping[str, str],
    remembered: Mapping[str, str],
    asked: str,
    now: float,
    pair: Callable[[], tuple[str, str]] = make_pair,
) -> dict[str, str]:
    """Keys that `complete` has made of a Secret, with the record of their renewal, and the next set where it is due.

    `asked`: the request that stands when keys are made for the first time: those are new anyhow.
    """
    out = {name: keys[name] for name in KEY_NAMES}
    record = read_record(have.get(RECORD, "")) or read_record(remembered.get(RECORD, ""))
    if record is None:
        record = Record(made=int(now), since=int(now), asked="" if have else asked)
    elif out["hub.secret"] not in (have.get("hub.secret"), remembered.get("hub.secret")):
        record = Record(made=int(now), since=int(now), asked=record.asked, count=record.count)
    if record.stage.has_next:
        following = _next(have) or _next(remembered) or _new_next(pair)
        out |= {f"next.{name}": value for name, value in following.items()}
    return {**out, RECORD: write_record(record)}


def _new_next(pair: Callable[[], tuple[str, str]]) -> dict[str, str]:
    (hub, hub_secret), (client, client_secret) = pair(), pair()
    return {
        "hub.public": hub,
        "hub.secret": hub_secret,
        "client.public": client,
        "client.secret": client_secret,
    }


def turned(have: Mapping[str, str], to: Record, pair: Callable[[], tuple[str, str]] = make_pair) -> dict[str, str]:
    """A Secret's data in the next stage: a next set is made as it begins, and is the set once the old one ends.

    Raises:
        ValueError: the Secret is not whole; it is repaired first.
    """
    if observe(have).missing:
        raise ValueError("the Secret is not whole")
    out, following = {name: have[name] for name in KEY_NAMES}, _next(have)
    if to.stage is Stage.OFFERED:
        following = _new_next(pair)
    elif to.stage is Stage.ENDING:
        out |= following
    if to.stage.has_next:
        out |= {f"next.{name}": value for name, value in following.items()}
    return {**out, RECORD: write_record(to)}


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
