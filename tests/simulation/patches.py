"""Faults planted in Python code, by putting a wrong function in the place of a right one for the length of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["PATCHES", "planted"]


def _hang_not_seen() -> list[tuple[Any, str, Any]]:
    from swarm_agents.runtime import watch

    return [(watch, "judge", lambda *args, **kwargs: None)]


def _death_too_soon() -> list[tuple[Any, str, Any]]:
    from swarm_agents.runtime import watch

    # A sign of life that is one beat late is taken for a death.
    return [(watch, "judge", lambda silent, *args: watch.Verdict(True, silent) if silent > 0.015 else None)]


def _death_not_seen() -> list[tuple[Any, str, Any]]:
    from swarm_agents.runtime.watch import Watch

    return [(Watch, "released", lambda watch, index: None), (Watch, "look", lambda watch, *args, **kwargs: None)]


def _reaper_asleep() -> list[tuple[Any, str, Any]]:
    from swarm_agents.shm.board import Board

    return [*_death_not_seen(), (Board, "reap", lambda board: [])]


def _asked_twice() -> list[tuple[Any, str, Any]]:
    from swarm_agents.resource.hub import Hub

    right = Hub.submit

    def submit(hub: Any, *args: Any) -> Any:
        find, hub.sessions.find = hub.sessions.find, lambda task: None
        try:
            return right(hub, *args)
        finally:
            hub.sessions.find = find

    return [(Hub, "submit", submit)]


def _acknowledged_in_vain() -> list[tuple[Any, str, Any]]:
    from swarm_agents.resource.hub import Hub

    return [(Hub, "_on_ack", lambda *args: None)]


def _loss_forgotten() -> list[tuple[Any, str, Any]]:
    from swarm_agents.resource.carrier import Carrier

    return [(Carrier, "_hand_back", lambda carrier, forwards, reason, **how: None)]


def _path_forgotten() -> list[tuple[Any, str, Any]]:
    from swarm_agents.resource.carrier import Carrier

    return [(Carrier, "_resend", lambda *args: None)]


def _not_asked_again() -> list[tuple[Any, str, Any]]:
    from swarm_agents.client.session import Session

    return [(Session, "_resubmit", lambda *args: None)]


def _credit_kept() -> list[tuple[Any, str, Any]]:
    from swarm_agents.wire.credit import Window

    return [(Window, "give", lambda *args: None)]


def _answer_counted_again() -> list[tuple[Any, str, Any]]:
    from swarm_agents.resource.peers import Peer

    return [(Peer, "settle", lambda peer, task: peer.forwarded.get(task))]


def _circle() -> list[tuple[Any, str, Any]]:
    from swarm_agents.resource.carrier import Carrier
    from swarm_agents.resource.hub import Hub

    return [(Hub, "_askers", lambda *args: []), (Carrier, "is_away", lambda *args: False)]


def _sessions_kept() -> list[tuple[Any, str, Any]]:
    from swarm_agents.resource.sessions import Sessions

    return [(Sessions, "expire", lambda *args: [])]


def _lane_lost() -> list[tuple[Any, str, Any]]:
    import msgspec

    from swarm_agents.resource.desk import Desk

    right = Desk.claim

    def claim(desk: Any, lane: int) -> Any:
        claimed = right(desk, lane)
        if claimed is not None:
            claimed = msgspec.structs.replace(claimed, submit=msgspec.structs.replace(claimed.submit, lane=2))
        return claimed

    return [(Desk, "claim", claim)]


def _silence_trusted() -> list[tuple[Any, str, Any]]:
    from swarm_agents.resource.peers import Pulse

    return [(Pulse, "missed", lambda *args: 0)]


def _silent_hub_kept() -> list[tuple[Any, str, Any]]:
    from swarm_agents.client import tcp

    return [(tcp, "_SILENT_HEARTBEATS", 1 << 30)]


def _hops_unbounded() -> list[tuple[Any, str, Any]]:
    from swarm_agents.resource import carrier

    return [(carrier, "MAX_HOPS", 1 << 30)]


def _deadline_too_soon() -> list[tuple[Any, str, Any]]:
    from swarm_agents.client import tcp

    right = tcp._submission

    def submission(request: Any) -> Any:
        import msgspec

        submit = right(request)
        return submit if submit.budget is None else msgspec.structs.replace(submit, budget=submit.budget - 0.05)

    return [(tcp, "_submission", submission)]


PATCHES: dict[str, Callable[[], list[tuple[Any, str, Any]]]] = {
    "hang-not-seen": _hang_not_seen,
    "death-too-soon": _death_too_soon,
    "death-not-seen": _reaper_asleep,
    "asked-twice": _asked_twice,
    "acknowledged-in-vain": _acknowledged_in_vain,
    "loss-forgotten": _loss_forgotten,
    "path-forgotten": _path_forgotten,
    "not-asked-again": _not_asked_again,
    "credit-kept": _credit_kept,
    "answer-counted-again": _answer_counted_again,
    "circle": _circle,
    "sessions-kept": _sessions_kept,
    "lane-lost": _lane_lost,
    "silence-trusted": _silence_trusted,
    "silent-hub-kept": _silent_hub_kept,
    "hops-unbounded": _hops_unbounded,
    "deadline-too-soon": _deadline_too_soon,
}


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Has the fault of this name in Python code, if it is one."""
    before: list[tuple[Any, str, Any]] = []
    for owner, attribute, wrong in PATCHES[name]() if name in PATCHES else ():
        before.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, wrong)
    try:
        yield
    finally:
        for owner, attribute, right in reversed(before):
            setattr(owner, attribute, right)
