"""The revisions of a Swarm as they are kept: ControllerRevisions, numbered, marked with what became of them. Pure.

Two marks, as annotations, are all that a roll-back remembers, so that it outlives every operator:

- `ready`: all agents of the revision were ready for a while. It stays, until the spec comes to that revision anew.
- `failed`, with the reason: they did not become ready in time. It stays for as long as the spec comes to this revision
  and asks for roll-backs: whoever edits a rolling field, or takes `rollout.autoRollback` back, has it tried afresh.

A revision that the spec comes back to is the newest again and has no marks: what ran a month ago need not run today.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from swarm_operator.actions import Action, Apply, Delete, MarkRevision
from swarm_operator.drift import as_wanted, waits_for
from swarm_operator.names import ANNOTATION_FAILED, ANNOTATION_READY, controller_revision
from swarm_operator.objects import revision_manifest
from swarm_operator.revision import rolling_part
from swarm_operator.snapshot import Snapshot
from swarm_operator.views import ObjectView

if TYPE_CHECKING:
    from swarm_operator.rollback import Course, Verdict

__all__ = ["HISTORY", "Record", "actions", "records"]

#: ControllerRevisions that are kept beside those that are needed.
HISTORY: Final = 5
#: Of the reason in the mark.
_WHY: Final = 500


@dataclass(frozen=True)
class Record:
    """One revision that is kept."""

    revision: str
    number: int
    part: Mapping[str, Any]
    marks: Mapping[str, str]
    view: ObjectView

    @property
    def ready(self) -> bool:
        """Whether its agents were all ready once."""
        return ANNOTATION_READY in self.marks

    @property
    def failed(self) -> str:
        """Why its agents did not become ready; empty: that is not said."""
        return self.marks.get(ANNOTATION_FAILED, "")


def records(snapshot: Snapshot) -> list[Record]:
    """The Swarm's own revisions, oldest first."""
    prefix = controller_revision(snapshot.swarm.name, "")
    found = []
    for (kind, name), view in snapshot.objects.items():
        if kind != "ControllerRevision" or view.deleting or not name.startswith(prefix):
            continue
        if snapshot.swarm.uid not in view.owners and view.owners:
            continue
        data, notes = view.body.get("data"), view.body["metadata"].get("annotations") or {}
        part = data.get("spec") if isinstance(data, dict) else None
        marks = {key: notes[key] for key in (ANNOTATION_READY, ANNOTATION_FAILED) if key in notes}
        number = int(view.body.get("revision") or 0)
        found.append(Record(name[len(prefix) :], number, part if isinstance(part, dict) else {}, marks, view))
    return sorted(found, key=lambda record: (record.number, record.revision))


def actions(
    snapshot: Snapshot, course: Course, verdict: Verdict, running: Collection[str], blocked: list[str], now: float
) -> list[Action]:
    """Keeps the revision that the spec comes to, marks and unmarks, and deletes what is not needed any more.

    Args:
        running: revisions by which pods run.
    """
    found: list[Action] = []
    known = records(snapshot)
    name = controller_revision(snapshot.swarm.name, course.asked)
    if not waits_for(snapshot.objects.get(("ControllerRevision", name)), snapshot.swarm.uid, blocked):
        found += _newest(snapshot, course, verdict, known, now)
    for record in known:
        if record.revision == course.asked:
            continue
        marks = {key: text for key, text in record.marks.items() if key != ANNOTATION_FAILED}
        if record.revision == verdict.former:
            marks[ANNOTATION_READY] = _stamp(now)
        if marks != record.marks:
            mark = "ready" if ANNOTATION_READY in marks and not record.ready else ""
            found.append(_apply(snapshot, record.revision, record.number, record.part, marks, True, mark))
    return found + _spare(snapshot, course, known, running)


def _newest(snapshot: Snapshot, course: Course, verdict: Verdict, known: list[Record], now: float) -> list[Action]:
    own = next((record for record in known if record.revision == course.asked), None)
    number = max((record.number for record in known if record is not own), default=0) + 1
    marks: dict[str, str] = {}
    mark = why = ""
    if own is not None and own.number >= number:
        number, marks = own.number, dict(own.marks)
        if not course.asked_spec.rollout.auto_rollback:
            marks.pop(ANNOTATION_FAILED, None)
        if verdict.ready and not own.ready:
            mark, marks[ANNOTATION_READY] = "ready", _stamp(now)
        elif verdict.failed and not own.failed:
            mark, why = "failed", verdict.failed[:_WHY]
            marks[ANNOTATION_FAILED] = why
    action = _apply(snapshot, course.asked, number, rolling_part(course.asked_spec), marks, own is not None, mark, why)
    if own is not None and own.marks == marks and as_wanted(action.manifest, own.view):
        return []
    return [action]


def _apply(
    snapshot: Snapshot,
    revision: str,
    number: int,
    part: Mapping[str, Any],
    marks: Mapping[str, str],
    exists: bool,
    mark: str = "",
    why: str = "",
) -> Apply:
    manifest = revision_manifest(snapshot.swarm, revision, number, dict(part), marks)
    name = manifest["metadata"]["name"]
    if mark:
        return MarkRevision("ControllerRevision", name, manifest, exists=exists, outcome=mark, why=why)
    return Apply("ControllerRevision", name, manifest, exists=exists)


def _spare(snapshot: Snapshot, course: Course, known: list[Record], running: Collection[str]) -> list[Action]:
    ready = [record.revision for record in known if record.ready and record.revision != course.asked]
    needed = {course.asked, course.revision, course.target, *ready[-1:], *running}
    spare = [r for r in known if r.revision not in needed and snapshot.swarm.uid in r.view.owners]
    return [Delete(r.view.kind, r.view.name, r.view.uid) for r in spare[: max(0, len(spare) - HISTORY)]]


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
