"""Events have two faces, `v1` and `events.k8s.io/v1`: the same object under other names. The first one is stored."""

from __future__ import annotations

from typing import Any

__all__ = ["from_core", "to_core"]

Object = dict[str, Any]

_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_BACK = {new: old for old, new in _NAMES.items()}


def from_core(event: Object) -> Object:
    """A stored event as events.k8s.io/v1 shows it."""
    out = {_NAMES.get(k, k): v for k, v in event.items()}
    return {**out, "apiVersion": "events.k8s.io/v1"}


def to_core(event: Object) -> Object:
    """An event of events.k8s.io/v1 as it is stored."""
    out = {_BACK.get(k, k): v for k, v in event.items()}
    out.setdefault("involvedObject", {})
    out.setdefault("source", {})
    return {**out, "apiVersion": "v1"}
