"""How the keys of a swarm that runs are renewed: one stage after another, each kept in the Secret. Pure.

A stage is left only when every hub has said that it is in it, so nobody is ever asked for a key that he does not have:

- `Steady`: one set of keys, at the hubs' port.
- `Offered`: the Secret holds a next set. Every hub opens a second port with it, and admits who has either set.
- `Overlapping`: the settings name both ports. Hubs connect by both, clients that look for the swarm get the next keys.
  It lasts `security.keyOverlap`, in which whoever is outside can be given the new keys.
- `Ending`: the next set has become the set, and the old one is nowhere any more. The settings name the second port
  alone; every hub closes its port and opens it anew with the new key, which cuts off whoever has only the old one.
- `Returning`: the settings name both ports, both with the new key, so that everybody is back at the first before the
  second is closed: that is `Steady` again.

Private keys travel by the Secret alone, which the kubelet brings to the pods in its own time (a minute as a rule), and
settings by a push; that is why the hubs are asked which keys they serve (fingerprints). The stage is part of the
Secret's data, written in one go with the keys: an operator that dies anywhere, or another one, goes on from there.
Nothing is read from the status. Rejected: a new server key at the same port without a second one (nobody outside could
be told in time), and handing clients the new keys over the old connection (whoever stole the old would get the new).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from swarm_agents.config import Hub, Transport, second_port
from swarm_operator.actions import Action, AskAgent, TurnKeys
from swarm_operator.api.fields import seconds
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.keyrecord import KeyState, Record, Stage
from swarm_operator.names import secret
from swarm_operator.rollout import Agent
from swarm_operator.views import SwarmView

__all__ = ["Heard", "Turn", "Wishes", "doors", "step", "turn", "wishes"]

#: Links that were announced are given so long to be made, before those that they replace are closed (seconds).
SETTLE: Final = 3.0
#: How often a hub is asked which keys it serves, while that is waited for (seconds).
_ASK: Final = 2.0


class Wishes(NamedTuple):
    """What the Swarm says about its keys."""

    #: A digest of the request to renew them; empty when there is none.
    asked: str = ""
    #: How old they may become (seconds); None: as old as they like.
    period: float | None = None
    #: How long the old ones and the new ones are both taken (seconds).
    overlap: float = 600.0


class Heard(NamedTuple):
    """What the agents say."""

    #: The fingerprints of the keys at each hub's port and at its second one; None where it has not said.
    served: tuple[tuple[str, str] | None, ...] = ()
    #: Whether every agent runs by the settings of this stage.
    acknowledged: bool = False


@dataclass(frozen=True)
class Turn:
    """What a plan does about the keys."""

    actions: tuple[Action, ...] = ()
    #: Seconds until it is to be looked at again.
    again_in: float | None = None
    #: Hubs that do not serve yet what this stage wants, by their pods' names.
    waiting: tuple[str, ...] = ()


def wishes(swarm: SwarmView, spec: SwarmSpec) -> Wishes:
    """What a Swarm asks for."""
    period = spec.security.key_rotation
    asked = hashlib.blake2b(swarm.rotate_keys.encode(), digest_size=8).hexdigest() if swarm.rotate_keys else ""
    return Wishes(asked, seconds(period) if period else None, seconds(spec.security.key_overlap))


def wanted_at(state: KeyState) -> tuple[str, str]:
    """The fingerprints of the keys that each hub serves in this stage, at its port and at its second one."""
    match state.stage:
        case Stage.STEADY:
            return state.fingerprint, ""
        case Stage.OFFERED | Stage.OVERLAPPING:
            return state.fingerprint, state.next_fingerprint
        case _:
            return state.fingerprint, state.fingerprint


def step(
    record: Record, wanted: tuple[str, str], wish: Wishes, heard: Heard, now: float
) -> tuple[Record | None, float]:
    """The next stage, or None and the seconds until time alone may bring it (infinite: it does not)."""
    at, spent = int(now), max(now - record.since, 0.0)
    served = all(said == wanted for said in heard.served)
    following: Stage | None = None
    wait = float("inf")
    match record.stage:
        case Stage.STEADY:
            asked = bool(wish.asked) and wish.asked != record.asked
            if asked or (wish.period is not None and now >= record.made + wish.period):
                return msgspec.structs.replace(
                    record, stage=Stage.OFFERED, since=at, asked=wish.asked or record.asked
                ), 0.0
            return None, float("inf") if wish.period is None else record.made + wish.period - now
        case Stage.OFFERED:
            following = Stage.OVERLAPPING if served else None
        case Stage.OVERLAPPING:
            wait = max(wish.overlap, SETTLE) - spent
            if served and heard.acknowledged and wait <= 0:
                return msgspec.structs.replace(record, stage=Stage.ENDING, since=at, made=at), 0.0
        case Stage.ENDING:
            following = Stage.RETURNING if served and heard.acknowledged else None
        case Stage.RETURNING:
            wait = SETTLE - spent
            if heard.acknowledged and wait <= 0:
                return msgspec.structs.replace(record, stage=Stage.STEADY, since=at, count=record.count + 1), 0.0
    if following is not None:
        return msgspec.structs.replace(record, stage=following, since=at), 0.0
    return None, wait if wait > 0 else float("inf")


def doors(hub: Hub, transport: Transport, state: KeyState, encrypted: bool) -> tuple[Hub, ...]:
    """A hub's addresses as the settings have them in this stage, each with the key that it has there.

    Args:
        hub: its address at its own port, without a key.
    """
    if not encrypted:
        return (hub,)
    second = hub.address.removesuffix(f":{transport.hub_port}") + f":{second_port(transport)}"

    def door(address: str, key: str) -> Hub:
        return msgspec.structs.replace(hub, address=address, public_key=key)

    own = door(hub.address, state.hub_public)
    match state.stage:
        case Stage.STEADY | Stage.OFFERED:
            return (own,)
        case Stage.OVERLAPPING:
            return own, door(second, state.next_hub_public)
        case Stage.ENDING:
            return (door(second, state.hub_public),)
        case Stage.RETURNING:
            return own, door(second, state.hub_public)


def turn(
    swarm: SwarmView, spec: SwarmSpec, state: KeyState, hubs: Iterable[Agent], acknowledged: bool, now: float
) -> Turn:
    """The next stage if it is time for it, and a question to each hub that is waited for.

    Args:
        hubs: the agents whose pods have one, are ready, and stay.
        acknowledged: whether every agent runs by the settings of this stage.
    """
    record = state.record
    if record is None or state.missing:
        return Turn()  # the Secret is repaired first
    encrypted = spec.transport.zeromq.encryption == "Curve"
    found: Sequence[Agent] = sorted(hubs, key=lambda agent: agent.pod.name) if encrypted else ()
    wanted = wanted_at(state)
    served = tuple(agent.report.keys if agent.report else None for agent in found)
    following, wait = step(record, wanted, wishes(swarm, spec), Heard(served, acknowledged), now)
    if following is not None:
        return Turn((TurnKeys("Secret", secret(swarm.name), before=record, to=following),))
    if record.stage is Stage.STEADY:
        return Turn(again_in=None if wait == float("inf") else wait)
    late = [agent for agent, said in zip(found, served, strict=True) if said != wanted]
    actions: list[Action] = []
    waits = [wait]
    for agent in late:
        pod, report = agent.pod, agent.report
        rest = report.checked + _ASK * 2.0 ** min(report.failures, 4) - now if report else 0.0
        if rest > 0:
            waits.append(rest)
        else:
            actions.append(AskAgent("Pod", pod.name, pod.uid, pod.ip, pod.restarts, pod.ports))
            waits.append(_ASK)
    soonest = min(waits)
    return Turn(tuple(actions), None if soonest == float("inf") else soonest, tuple(a.pod.name for a in late))
