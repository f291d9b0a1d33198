"""Who owns which field: the bookkeeping in `metadata.managedFields`, and server-side apply, which is decided by it.

Every write is recorded under a field manager. An update takes what it changes and never fails; an apply claims what
it names, fails where another owns it with another value (unless forced), and removes what it named before and no
longer names, unless somebody else owns it too. The order of steps, and the exceptions for `kubectl`'s change from
client-side to server-side apply, are those of a real server, so that the recorded exchanges come out the same.

Not provided: conversion of field sets between versions of a kind. Only one version of a custom resource is stored,
and conversion `None` renames nothing, so a set is valid in each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from swarm_deploy.local.api import fields as fs
from swarm_deploy.local.api.errors import ApiError, bad_request
from swarm_deploy.local.api.fields import Fields
from swarm_deploy.local.api.types import Type

__all__ = ["LAST_APPLIED", "apply", "manager_of", "release_to_scale", "update"]

Object = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_MOST_UPDATERS = 10
_OLDER = "ancient-changes"

# Identity and bookkeeping belong to the server, not to a manager.
_NEVER: Fields = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        ("f:metadata",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                "name",
                "namespace",
                "creationTimestamp",
                "selfLink",
                "uid",
                "clusterName",
                "generation",
                "managedFields",
                "resourceVersion",
            )
        ),
    }
)


@dataclass(frozen=True, slots=True)
class _Key:
    """What tells one entry from another. Appliers are one whatever the version; updaters are one a version."""

    manager: str
    operation: str
    version: str
    subresource: str


@dataclass(frozen=True, slots=True)
class _Entry:
    fields: Fields
    version: str
    time: str | None


_Entries = dict[_Key, _Entry]


def manager_of(field_manager: str, user_agent: str) -> str:
    """The manager a write counts for: the one it names, or the program's name."""
    return field_manager or user_agent.partition("/")[0] or "unknown"


def _decode(written: list[Object]) -> _Entries:
    out: _Entries = {}
    for entry in written:
        operation = entry.get("operation", "")
        if operation not in ("Apply", "Update") or entry.get("fieldsType", "FieldsV1") != "FieldsV1":
            raise ValueError("unreadable managedFields")
        version = entry.get("apiVersion", "")
        key = _Key(
            entry.get("manager", ""), operation, "" if operation == "Apply" else version, entry.get("subresource", "")
        )
        out[key] = _Entry(fs.decode(entry.get("fieldsV1") or {}), version, entry.get("time"))
    return out


def _encode(entries: _Entries) -> list[Object]:
    out = []
    ordered = sorted(
        entries.items(),
        key=lambda e: (e[0].operation, e[1].time or "", e[0].manager, e[1].version, e[0].subresource),
    )
    for key, entry in ordered:
        written: Object = {"manager": key.manager, "operation": key.operation, "apiVersion": entry.version}
        if entry.time is not None:
            written["time"] = entry.time
        written |= {"fieldsType": "FieldsV1", "fieldsV1": fs.encode(entry.fields)}
        if key.subresource:
            written["subresource"] = key.subresource
        out.append(written)
    return out


def _bare(obj: Object) -> Object:
    """The object without its bookkeeping: that is never compared."""
    meta = obj.get("metadata")
    if isinstance(meta, dict) and "managedFields" in meta:
        return {**obj, "metadata": {k: v for k, v in meta.items() if k != "managedFields"}}
    return obj


def _with(obj: Object, entries: _Entries) -> Object:
    meta = {k: v for k, v in (obj.get("metadata") or {}).items() if k != "managedFields"}
    if entries:
        meta["managedFields"] = _encode(entries)
    return {**obj, "metadata": meta}


def _entries(live: Object, sent: Object, *, subresource: str) -> _Entries:
    """The entries to start from. A client may edit them through the object itself; nonsense leaves the live ones."""
    live_written = (live.get("metadata") or {}).get("managedFields") or []
    sent_written = (sent.get("metadata") or {}).get("managedFields")
    if not subresource and sent_written is not None:
        if sent_written == [{}]:
            return {}
        try:
            decoded = _decode(sent_written)
        except (ValueError, TypeError, AttributeError):
            decoded = {}
        if decoded:
            return decoded
    try:
        return _decode(live_written)
    except (ValueError, TypeError, AttributeError):
        return {}


def _without(entries: _Entries, comparison: fs.Comparison, own: _Key | None, *, conflicts_too: bool) -> _Entries:
    taken = comparison.modified | comparison.added
    out: _Entries = {}
    for key, entry in entries.items():
        if key != own:
            left = entry.fields - comparison.removed
            if conflicts_too:
                left -= taken
            if not left:
                continue
            entry = entry if left == entry.fields else replace(entry, fields=left)
        out[key] = entry
    return out


def update(
    kind: Type,
    live: Object,
    sent: Object,
    *,
    manager: str,
    version: str,
    now: str,
    subresource: str = "",
    ignore: tuple[fs.Path, ...] = (),
) -> Object:
    """The object that was sent, with the bookkeeping of what it changed.

    Args:
        live: what is there; for a new object the empty one of its kind.
        version: the apiVersion the client speaks.
        ignore: what this endpoint does not write (a status, where there is a status subresource).
    """
    entries = _entries(live, sent, subresource=subresource)
    try:
        comparison = fs.compare(kind, _bare(live), _bare(sent))
    except fs.Undeclared:
        # An item without its key belongs to nobody; validation refuses it right after.
        return _with(sent, entries)
    entries = _without(entries, comparison, None, conflicts_too=True)
    mine = _writable((comparison.modified | comparison.added) - _NEVER, ignore)
    entries = {k: replace(e, fields=e.fields - _NEVER) for k, e in entries.items()}
    if mine:
        key = _Key(manager, "Update", version, subresource)
        before = entries.get(key)
        entries[key] = _Entry(mine | before.fields if before else mine, version, now)
        entries = _capped(entries)
    return _with(sent, {k: e for k, e in entries.items() if e.fields})


def _writable(fields: Fields, ignore: tuple[fs.Path, ...]) -> Fields:
    return frozenset(p for p in fields if not any(p[: len(i)] == i for i in ignore))


def _capped(entries: _Entries) -> _Entries:
    """At most ten updaters; the oldest are kept together as one."""
    updaters = sorted((k for k in entries if k.operation == "Update"), key=lambda k: (entries[k].time or "", k.manager))
    excess = len(updaters) - _MOST_UPDATERS
    if excess <= 0:
        return entries
    out = dict(entries)
    for key in updaters[: excess + 1]:
        entry = out.pop(key)
        bucket = _Key(_OLDER, "Update", entry.version, key.subresource)
        held = out.get(bucket)
        out[bucket] = replace(entry, fields=entry.fields | held.fields) if held else entry
    return out


class _Conflicts(Exception):  # noqa: N818 - becomes an ApiError
    def __init__(self, found: list[tuple[_Key, fs.Path]]) -> None:
        super().__init__()
        self.found = found


def apply(
    kind: Type,
    live: Object,
    config: Object,
    *,
    manager: str,
    version: str,
    now: str,
    force: bool,
    subresource: str = "",
    ignore: tuple[fs.Path, ...] = (),
) -> Object:
    """The live object with a configuration applied, and the bookkeeping; the live object itself where nothing changed.

    Args:
        ignore: what this endpoint does not write (a status, where there is a status subresource).

    Raises:
        ApiError: 409 when another manager owns a field with another value, 400 when the configuration is unreadable.
    """
    if (config.get("metadata") or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    if not manager:
        raise ApiError(
            422,
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
            reason="Invalid",
            details={
                "group": "meta.k8s.io",
                "kind": "PatchOptions",
                "causes": [
                    {
                        "reason": "FieldValueRequired",
                        "message": "Required value: is required for apply patch",
                        "field": "fieldManager",
                    }
                ],
            },
        )
    arguments = (kind, live, config, manager, version, now, subresource, ignore)
    try:
        out = _apply(*arguments, force=force)
    except _Conflicts as e:
        left = e.found
        if manager == "kubectl":
            # kubectl moved from client-side apply: what it had applied itself is no conflict.
            allowed = _applied_before(kind, live)
            left = [(key, path) for key, path in e.found if path not in allowed]
        if left:
            raise _refusal(left) from None
        out = _apply(*arguments, force=True)
    if manager == "kubectl":
        annotations = (out.get("metadata") or {}).get("annotations") or {}
        if LAST_APPLIED in annotations:
            text = json.dumps(config, separators=(",", ":"), sort_keys=True, ensure_ascii=False) + "\n"
            out = {**out, "metadata": {**out["metadata"], "annotations": {**annotations, LAST_APPLIED: text}}}
    return out


def _apply(
    kind: Type,
    live: Object,
    config: Object,
    manager: str,
    version: str,
    now: str,
    subresource: str,
    ignore: tuple[fs.Path, ...],
    *,
    force: bool,
) -> Object:
    entries = _entries(live, {}, subresource=subresource)
    live = _bare(live)
    try:
        mine = fs.claims(kind, config)
    except fs.Undeclared as e:
        meta = config.get("metadata") or {}
        where = "/".join(x for x in (meta.get("namespace", ""), meta.get("name", "")) if x)
        group, _, bare = version.rpartition("/")
        raise ApiError(
            500,
            f"failed to create typed patch object ({where}; {group}/{bare}, Kind={config.get('kind')}): {e}",
            reason="",
        ) from None
    mine = _writable(mine - _NEVER, ignore)
    key = _Key(manager, "Apply", "", subresource)
    before = entries.get(key)
    entries = dict(entries)
    entries[key] = _Entry(mine, version, before.time if before else None)

    merged = fs.merge(kind, live, config)
    if before and before.fields:
        merged = _prune(kind, merged, entries, before.fields)

    comparison = fs.compare(kind, live, merged)
    taken = comparison.modified | comparison.added
    found = [(k, p) for k, e in entries.items() if k != key for p in sorted(e.fields & taken)]
    if found and not force:
        raise _Conflicts(found)
    entries = _without(entries, comparison, key, conflicts_too=True)
    entries = {k: replace(e, fields=e.fields - _NEVER) for k, e in entries.items()}
    if not comparison.same:
        entries[key] = replace(entries[key], time=now)
    return _with(merged, {k: e for k, e in entries.items() if e.fields})


def _prune(kind: Type, merged: Object, entries: _Entries, last: Fields) -> Object:
    """Take away what the manager had applied before, and give back what it, or anybody else, still claims."""
    pruned = fs.remove(kind, merged, fs.with_named(kind, last)) or {}
    owned: Fields = frozenset().union(*(e.fields for e in entries.values()))
    had = fs.with_named(kind, fs.present(kind, merged))
    keep = fs.with_named(kind, fs.present(kind, pruned)) | fs.with_named(kind, owned)
    pruned = fs.remove(kind, merged, had - keep) or {}
    # Items of which nothing but the key was left, and which nobody claimed, are not this manager's to remove.
    left = fs.with_named(kind, fs.present(kind, pruned))
    result = fs.remove(kind, merged, (had - left) & fs.with_named(kind, last))
    return result or {}


def _applied_before(kind: Type, live: Object) -> Fields:
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    if not text:
        return frozenset()
    try:
        applied = json.loads(text)
        claimed = fs.claims(kind, applied)
    except (ValueError, fs.Undeclared):
        return frozenset()
    comparison = fs.compare(kind, _bare(live), applied)
    return claimed - comparison.modified - comparison.added


def _name(key: _Key) -> str:
    text = json.dumps(key.manager)
    if key.subresource:
        text += f' with subresource "{key.subresource}"'
    return f"{text} using {key.version}" if key.operation == "Update" else text


def _refusal(found: list[tuple[_Key, fs.Path]]) -> ApiError:
    found = sorted(found, key=lambda f: (_name(f[0]), f[1]))
    if len(found) == 1:
        message = f"Apply failed with 1 conflict: conflict with {_name(found[0][0])}: {fs.show(found[0][1])}"
    else:
        lines = []
        for key in dict.fromkeys(k for k, _ in found):
            lines.append(f"conflicts with {_name(key)}:")
            lines += [f"- {fs.show(p)}" for k, p in found if k == key]
        message = f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {_name(k)}", "field": fs.show(p)}
        for k, p in found
    ]
    return ApiError(409, message, details={"causes": causes})


def release_to_scale(obj: Object, *, manager: str, version: str, path: fs.Path) -> Object:
    """The bookkeeping of a write through the scale subresource: it owns the count, and nothing else."""
    entries = _entries(obj, {}, subresource="scale")
    entries = {k: replace(e, fields=e.fields - {path}) for k, e in entries.items()}
    entries[_Key(manager, "Update", version, "scale")] = _Entry(frozenset({path}), version, None)
    return _with(obj, {k: e for k, e in entries.items() if e.fields})
