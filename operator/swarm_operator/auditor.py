"""Keeps the audit trails: watches the Swarms' specs, and appends what changed to ConfigMaps beside them.

A trail lies in ConfigMaps `<swarm>-audit-<number>`, each with at most `SEGMENT_ENTRIES` entries; a full one is made
immutable, which the API server enforces. They belong to no owner: a trail outlives its Swarm, whose deletion is its
last entry (until another of that name continues it). At most `SEGMENTS` are kept; the oldest is retired by an entry
that says so, and deleted. So a trail is bounded, needs no volume, and is backed up with the cluster's objects.
Rejected: Events (gone after an hour), annotations on the Swarm (whoever edits it holds the trail in hand, 256 KiB),
a file in the operator (gone with its pod), the status (rewritten by anybody with the status subresource).

Invariants: one writer, the leader; a segment is replaced only at the resourceVersion that was read, so that two leaders
for a moment can't fork a chain. What was written by another leader is read again, and not written twice: entries go by
the Swarm's UID and generation. Entries are appended before the status' anchor is moved.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from swarm_operator.audit import Anchor, canonical, changes, entry, read_segment, spec_hash
from swarm_operator.kube import Api, ApiError
from swarm_operator.names import LABEL_AUDIT, Key, audit_segment, selector_text
from swarm_operator.views import Manager, SwarmView

__all__ = ["Auditor", "Trail", "fetch"]

SEGMENT_ENTRIES: Final = 200
#: Of the 1 MiB that an object may have; the last spec lies beside the entries.
SEGMENT_BYTES: Final = 400_000
SEGMENTS: Final = 8
_PENDING: Final = 256
_TRIES: Final = 4

log = structlog.get_logger("audit")


@dataclass
class Trail:
    """A trail as it was read: its segments by number (the whole objects), and what an append needs to know."""

    segments: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def texts(self) -> list[tuple[int, str]]:
        """The segments' entries, as `verify` takes them."""
        return [(n, (item.get("data") or {}).get("entries", "")) for n, item in sorted(self.segments.items())]

    @property
    def last(self) -> dict[str, Any] | None:
        """The last entry that can be read."""
        for _, text in reversed(self.texts):
            for item in reversed(read_segment(text)):
                if item is not None:
                    return item
        return None

    @property
    def spec(self) -> Any:
        """The spec after the last entry; None when it is not known."""
        for number in sorted(self.segments, reverse=True):
            try:
                return json.loads((self.segments[number].get("data") or {})["spec"])
            except (KeyError, ValueError):
                continue
        return None

    def differs_from(self, anchor: Anchor) -> str:
        """How the trail contradicts what the status remembers of it; empty when it does not."""
        hashes = {item["n"]: item["hash"] for _, text in self.texts for item in read_segment(text) if item}
        found = hashes.get(anchor.entries - 1)
        if found == anchor.head:
            return ""
        state = "has another" if found else "is gone"
        return f"entry {anchor.entries - 1} should have the hash {anchor.head[:16]}…, and {state}"


async def fetch(api: Api, namespace: str, swarm: str) -> Trail:
    """Reads a trail.

    Raises:
        ApiError: the API server refuses or does not answer.
    """
    trail, token = Trail(), ""
    selector = selector_text({LABEL_AUDIT: swarm})
    while True:
        page = await api.list_page("ConfigMap", namespace, selector=selector, token=token)
        for raw in page.items:
            item = json.loads(bytes(raw))
            number = item["metadata"]["name"].removeprefix(audit_segment(swarm, ""))
            if number.isdecimal():
                trail.segments[int(number)] = item
        token = page.metadata.continue_
        if not token:
            return trail


@dataclass(frozen=True)
class _Change:
    old: SwarmView | None
    new: SwarmView | None


class Auditor:
    """Appends while this replica leads. `changed` is told of every change to a Swarm that the watch shows."""

    def __init__(
        self,
        api: Api,
        leads: Callable[[], bool],
        now: Callable[[], float],
        anchored: Callable[[Key], None] = lambda key: None,
    ) -> None:
        self._api, self._leads, self._now = api, leads, now
        self._anchored = anchored
        self._trails: dict[Key, Trail] = {}
        self._anchors: dict[str, Anchor] = {}
        self._pending: dict[Key, list[_Change]] = {}
        self._wake = asyncio.Event()
        self.entries = 0

    def changed(self, old: SwarmView | None, new: SwarmView | None) -> None:
        """A Swarm came, changed or went."""
        view = new or old
        if view is None or (old and new and old.uid == new.uid and old.generation == new.generation):
            return
        waiting = self._pending.setdefault(Key(view.namespace, view.name), [])
        waiting.append(_Change(old, new))
        del waiting[:-_PENDING]  # what is left out shows as a gap of generations
        self._wake.set()

    def anchor(self, uid: str) -> Anchor | None:
        """Where this Swarm's trail ends, as far as this replica has written or read it."""
        return self._anchors.get(uid)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            if not self._pending or not self._leads():
                self._wake.clear()
                try:
                    async with asyncio.timeout(1.0):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            if self._leads():
                await self.flush()
            else:
                self._trails.clear()  # another writes now
                await asyncio.sleep(0.2)

    async def flush(self) -> None:
        """Writes what is waiting; what the API server refuses stays waiting."""
        for key in list(self._pending):
            waiting = self._pending.get(key, [])
            while waiting:
                try:
                    await self._write(key, waiting[0])
                except ApiError as error:
                    log.warning("audit entry not written, it is tried again", swarm=str(key), error=str(error))
                    self._trails.pop(key, None)
                    await asyncio.sleep(0.5)
                    return
                waiting.pop(0)
            self._pending.pop(key, None)

    async def _write(self, key: Key, change: _Change) -> None:
        for attempt in range(_TRIES):
            trail = self._trails.get(key)
            if trail is None:
                trail = self._trails[key] = await fetch(self._api, *key)
                await self._compare(key, trail, change)
            try:
                fields, spec = self._fields(trail, change)
                if fields:
                    await self._append(key, trail, fields, spec)
                break
            except ApiError as error:
                self._trails.pop(key, None)
                if error.status not in (404, 409) or attempt == _TRIES - 1:
                    raise
        view, last = change.new, trail.last if trail else None
        if view is not None and last is not None:
            self._anchors[view.uid] = Anchor(last["n"] + 1, last["hash"])
            self._anchored(key)
        elif view is None:
            self._trails.pop(key, None)

    async def _compare(self, key: Key, trail: Trail, change: _Change) -> None:
        """A trail that is not what the status remembers of it was tampered with, and says so from now on."""
        said = (change.new.status.get("audit") or {}) if change.new else {}
        try:
            anchor = Anchor(int(said["entries"]), str(said["head"]))
        except (KeyError, TypeError, ValueError):
            return
        why = trail.differs_from(anchor) if anchor.entries > 0 else ""
        last = trail.last
        if why and not (last and last.get("event") == "Broken" and last.get("why") == why):
            log.error("the audit trail was tampered with", swarm=str(key), why=why)
            await self._append(key, trail, {"event": "Broken", "why": why}, trail.spec)

    def _fields(self, trail: Trail, change: _Change) -> tuple[dict[str, Any] | None, Any]:
        last, old, new = trail.last, change.old, change.new
        mine = _last_of(trail, (new or old).uid if (new or old) else "")  # type: ignore[union-attr]
        if new is None:
            assert old is not None
            if mine and mine["event"] == "Deleted":
                return None, None
            fields: dict[str, Any] = {"event": "Deleted", "uid": old.uid, "generation": old.generation, "by": []}
            return fields, trail.spec
        if mine and mine.get("generation", 0) >= new.generation:
            return None, None  # another leader was faster, or this one before it was started anew
        before = trail.spec if mine else {}
        fields = {
            "event": "Changed" if mine else "Created",
            "uid": new.uid,
            "generation": new.generation,
            "by": _by(old if old and old.uid == new.uid else None, new),
            "changes": changes(before, new.spec),
            "spec": spec_hash(new.spec),
        }
        if last and not mine and last.get("uid") not in (None, new.uid):
            fields["replaces"] = last["uid"]
        return fields, new.spec

    async def _append(self, key: Key, trail: Trail, fields: dict[str, Any], spec: Any) -> None:
        number = max(trail.segments, default=-1)
        held = trail.segments.get(number)
        text = (held.get("data") or {}).get("entries", "") if held else ""
        if held is None or len(text) > SEGMENT_BYTES or text.count("\n") >= SEGMENT_ENTRIES or held.get("immutable"):
            if held is not None and not held.get("immutable"):
                trail.segments[number] = await self._replace({**held, "immutable": True})
            number, held, text = number + 1, None, ""
        lines: list[str] = []
        last = trail.last
        oldest = min(trail.segments, default=0)
        retire = held is None and len(trail.segments) >= SEGMENTS
        if retire:
            ends = [item for item in read_segment(dict(trail.texts)[oldest]) if item]
            ended = (
                {"segment": oldest, "last": ends[-1]["n"], "hash": ends[-1]["hash"]} if ends else {"segment": oldest}
            )
            last = entry(last, time=self._stamp(), event="Retired", retired=ended)
            lines.append(canonical(last))
        last = entry(last, time=self._stamp(), **fields)
        lines.append(canonical(last))
        data = {"entries": text + "".join(f"{line}\n" for line in lines), "spec": canonical(spec)}
        if held is None:
            meta = {"name": audit_segment(key.name, number), "namespace": key.namespace, "labels": _labels(key.name)}
            made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
            trail.segments[number] = json.loads(await self._api.create(made))
        else:
            trail.segments[number] = await self._replace({**held, "data": data})
        self.entries += len(lines)
        log.info("audit", swarm=str(key), n=last["n"], hash=last["hash"], what=last["event"], by=last.get("by"))
        if retire:
            old = trail.segments.pop(oldest)["metadata"]
            await self._api.delete("ConfigMap", key.namespace, old["name"], old["uid"])

    async def _replace(self, item: dict[str, Any]) -> dict[str, Any]:
        meta = {k: v for k, v in item["metadata"].items() if k != "managedFields"}
        found = await self._api.replace({"apiVersion": "v1", "kind": "ConfigMap", **item, "metadata": meta})
        return dict(json.loads(found))

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _labels(swarm: str) -> dict[str, str]:
    """Not the label that the operator's watches select by: it need not hold the trails in memory."""
    return {LABEL_AUDIT: swarm, "app.kubernetes.io/name": "agentswarm", "app.kubernetes.io/component": "audit"}


def _last_of(trail: Trail, uid: str) -> dict[str, Any] | None:
    for _, text in reversed(trail.texts):
        for item in reversed(read_segment(text)):
            if item is not None and item.get("uid") == uid:
                return item
    return None


def _by(old: SwarmView | None, new: SwarmView) -> list[dict[str, str]]:
    """Who has written since `old`: the field managers whose entry changed; where that can't be told, who wrote last."""
    before = set(old.managers) if old else set()
    changed = [manager for manager in new.managers if manager not in before]
    if not changed and old is not None and _but_replicas(old) == _but_replicas(new):
        # Entries of the scale subresource bear no time: one who scales again can't be seen to have changed.
        changed = [manager for manager in new.managers if manager.subresource == "scale"]
    if not changed or old is None:
        newest = max((manager.time for manager in new.managers), default="")
        changed = [manager for manager in new.managers if manager.time == newest]
    return [_who(manager) for manager in changed]


def _but_replicas(view: SwarmView) -> dict[str, Any]:
    compute = {k: v for k, v in (view.spec.get("compute") or {}).items() if k != "replicas"}
    return {**view.spec, "compute": compute}


def _who(manager: Manager) -> dict[str, str]:
    said = {"manager": manager.manager, "operation": manager.operation, "time": manager.time}
    return said | ({"subresource": manager.subresource} if manager.subresource else {})
