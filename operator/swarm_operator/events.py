"""Kubernetes Events on the Swarm: what `kubectl describe` shows. Aggregated, rate-limited, and never in the way.

Equal events (reason and message) within ten minutes are one Event with a count. What one plan did is one event a kind
of action, not one a pod. Each Swarm has a budget (25 at once, then one every ten seconds), as in client-go; what is
over it is dropped and counted: Events are for people, and people have logs and metrics besides.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from swarm_operator.actions import (
    Action,
    Apply,
    CreatePod,
    Delete,
    DeletePod,
    DrainPod,
    EnsureKeys,
    MarkRevision,
    RepairPod,
)
from swarm_operator.api.v1alpha1 import API_VERSION, KIND
from swarm_operator.execute import Failure
from swarm_operator.kube import Api, ApiError
from swarm_operator.names import ANNOTATION_RECORD
from swarm_operator.rollout import FORESEEN, LOST
from swarm_operator.views import SwarmView

__all__ = ["Note", "Recorder", "notes_of"]

_WINDOW: Final = 600.0
_BURST: Final = 25.0
_REFILL_PER_S: Final = 0.1
# What agents tell is a record, and worth more.
_BURST_AGENTS: Final = 200.0
_REFILL_AGENTS: Final = 2.0
_KEPT: Final = 4096
_WARNINGS: Final = ("NodeLost", "PredictedFailure")
_BACKLOG: Final = 1000

log = structlog.get_logger("events")


@dataclass(frozen=True)
class Note:
    """Something that people may want to know."""

    type: str
    reason: str
    message: str
    #: What makes it one of its kind: then it is an Event of its own, never told twice; without it equals are counted.
    identity: str = ""
    #: Its facts for programs, kept in an annotation.
    record: dict[str, Any] | None = None


def notes_of(done: Iterable[Action], failures: Sequence[Failure]) -> list[Note]:
    """What a plan's outcome says to people."""
    by_reason: dict[str, list[str]] = {}
    notes: list[Note] = []
    for action in done:
        match action:
            case CreatePod():
                by_reason.setdefault("Created", []).append(f"pod {action.name}")
            case MarkRevision(outcome="failed"):
                notes.append(Note("Warning", "RolledBack", f"{action.name} failed and is rolled back: {action.why}"))
            case MarkRevision():
                notes.append(Note("Normal", "RevisionReady", f"{action.name}: all agents of the revision are ready"))
            case Apply(exists=False):
                by_reason.setdefault("Created", []).append(f"{action.kind} {action.name}")
            case EnsureKeys(exists=False):
                by_reason.setdefault("Created", []).append(f"{action.kind} {action.name}")
            case Apply() | EnsureKeys():
                by_reason.setdefault("Updated", []).append(f"{action.kind} {action.name}")
            case RepairPod():
                by_reason.setdefault("Repaired", []).append(f"pod {action.name}")
            case DeletePod() if action.why.startswith(LOST):
                by_reason.setdefault("NodeLost", []).append(f"pod {action.name} ({action.why}; it is replaced)")
            case DeletePod():
                by_reason.setdefault("Deleted", []).append(f"pod {action.name} ({action.why})")
            case Delete():
                by_reason.setdefault("Deleted", []).append(f"{action.kind} {action.name}")
            case DrainPod(again=False) if action.why.startswith(FORESEEN):
                by_reason.setdefault("PredictedFailure", []).append(f"pod {action.name} is replaced, {action.why}")
            case DrainPod(again=False):
                by_reason.setdefault("Draining", []).append(f"pod {action.name}")
    notes += [
        Note("Warning" if reason in _WARNINGS else "Normal", reason, f"{reason} {_listed(items)}"[:900])
        for reason, items in by_reason.items()
    ]
    for failure in failures[:3]:
        notes.append(Note("Warning", "Failed", str(failure)[:900]))
    return notes


def _listed(items: list[str]) -> str:
    items = sorted(items)
    return ", ".join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")


@dataclass
class _Sent:
    name: str
    first: str
    last_at: float
    count: int


class Recorder:
    """Writes Events, in the background."""

    def __init__(self, api: Api, instance: str, clock: Callable[[], float]) -> None:
        self._api, self._instance, self._clock = api, instance, clock
        self._sent: OrderedDict[tuple[str, str, str], _Sent] = OrderedDict()
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._backlog: asyncio.Queue[tuple[SwarmView, Note]] = asyncio.Queue(_BACKLOG)
        self.dropped = 0

    def record(self, swarm: SwarmView, notes: Iterable[Note]) -> None:
        """Has notes written, or dropped where there are too many."""
        for note in notes:
            kind = "agents" if note.identity else "operator"
            if not self._within_budget(f"{swarm.uid}/{kind}") or self._backlog.full():
                self.dropped += 1
                continue
            self._backlog.put_nowait((swarm, note))

    def _within_budget(self, whose: str) -> bool:
        now = self._clock()
        burst, refill = (_BURST, _REFILL_PER_S) if whose.endswith("/operator") else (_BURST_AGENTS, _REFILL_AGENTS)
        tokens, at = self._tokens.get(whose, (burst, now))
        tokens = min(burst, tokens + (now - at) * refill)
        allowed = tokens >= 1.0
        self._tokens[whose] = (tokens - 1.0 if allowed else tokens, now)
        self._tokens.move_to_end(whose)
        while len(self._tokens) > _KEPT:
            self._tokens.popitem(last=False)
        return allowed

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            swarm, note = await self._backlog.get()
            try:
                await self._write(swarm, note)
            except ApiError as error:
                self.dropped += 1
                log.debug("event not written", reason=note.reason, error=str(error))

    async def flush(self) -> None:
        """Writes what is waiting, for a graceful stop."""
        while not self._backlog.empty():
            swarm, note = self._backlog.get_nowait()
            try:
                await self._write(swarm, note)
            except ApiError:
                return

    async def _write(self, swarm: SwarmView, note: Note) -> None:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if note.identity:
            await self._write_own(swarm, note)
            return
        identity = (swarm.uid, note.reason, note.message)
        sent = self._sent.get(identity)
        now = self._clock()
        if sent and now - sent.last_at < _WINDOW:
            sent.count, sent.last_at = sent.count + 1, now
            patch = {"count": sent.count, "lastTimestamp": stamp}
            try:
                await self._api.merge("Event", swarm.namespace, sent.name, patch)
                return
            except ApiError as error:
                if error.status != 404:
                    raise
        digest = hashlib.blake2b("\0".join(identity).encode() + stamp.encode(), digest_size=8).hexdigest()
        name = f"{swarm.name}.{digest}"
        await self._api.create(self._event(swarm, note, name, stamp))
        self._sent[identity] = _Sent(name, stamp, now, 1)
        self._sent.move_to_end(identity)
        while len(self._sent) > _KEPT:
            self._sent.popitem(last=False)

    async def _write_own(self, swarm: SwarmView, note: Note) -> None:
        digest = hashlib.blake2b(f"{swarm.uid}/{note.identity}".encode(), digest_size=8).hexdigest()
        at = (note.record or {}).get("time")
        when = datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else datetime.now(UTC)
        event = self._event(swarm, note, f"{swarm.name}.{digest}", when.strftime("%Y-%m-%dT%H:%M:%SZ"))
        try:
            await self._api.create(event)
        except ApiError as error:
            if error.status != 409:  # told already, by this operator or another
                raise

    def _event(self, swarm: SwarmView, note: Note, name: str, stamp: str) -> dict[str, Any]:
        meta: dict[str, Any] = {"name": name, "namespace": swarm.namespace}
        if note.record:
            meta["annotations"] = {ANNOTATION_RECORD: json.dumps(note.record, default=str)[:4096]}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": meta,
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": swarm.namespace,
                "name": swarm.name,
                "uid": swarm.uid,
                "resourceVersion": swarm.resource_version,
            },
            "type": note.type,
            "reason": note.reason,
            "message": note.message[:1024],
            "source": {"component": "agentswarm-operator"},
            "reportingComponent": "agentswarm.dev/operator",
            "reportingInstance": self._instance[:128],
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
