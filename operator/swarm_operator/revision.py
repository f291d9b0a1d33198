"""The revision of a spec: a hash of what the user wrote in rolling fields, and of nothing else.

Why not a hash of the pod: an operator of a newer version writes another pod from the same spec, and would roll every
swarm in the cluster when it starts (lws#225). Why fields that equal their default are left out: a field that a later
API version adds has a default in every old Swarm, and must not change its revision. Values are canonical before they
are hashed (`1024Mi` and `1Gi` are one value), so that a rewritten manifest rolls nothing either.

What was hashed is kept in a ControllerRevision, for a roll-back (`with_rolling` puts it into a spec again) and for
people.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from swarm_operator.api.fields import CHANGE, Change
from swarm_operator.api.v1alpha1 import SwarmSpec

__all__ = ["change_of", "revision_of", "rolling_part", "with_rolling"]


def change_of(info: FieldInfo) -> Change | None:
    """What a change of the field does; None for an object, whose fields say it each for itself."""
    extra = info.json_schema_extra
    change = extra.get(CHANGE) if isinstance(extra, dict) else None
    return Change(str(change)) if change else None


def rolling_part(spec: SwarmSpec) -> dict[str, Any]:
    """The rolling and fixed fields that differ from their defaults, as plain data in the manifest's names."""
    return _part(spec)


def _part(model: BaseModel) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, key, change, default in _fields(type(model)):
        value = getattr(model, name)
        if change is None and isinstance(value, BaseModel):
            inner = _part(value)
            # `gpus: {}` asks for a GPU by its defaults alone: an optional object counts by being there
            if inner or (default is None and _rolls(type(value))):
                out[key] = inner
        elif change in (Change.ROLLING, Change.FIXED) and value != default:
            out[key] = _plain(value)
    return out


@cache
def _fields(model: type[BaseModel]) -> tuple[tuple[str, str, Change | None, Any], ...]:
    """Each field's name, its name in manifests, what a change of it does, and its default, which nobody changes."""
    return tuple(
        (name, info.alias or name, change_of(info), info.get_default(call_default_factory=True))
        for name, info in model.model_fields.items()
    )


@cache
def _rolls(model: type[BaseModel]) -> bool:
    return any(change_of(info) in (Change.ROLLING, Change.FIXED) for info in model.model_fields.values())


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True, exclude_defaults=True)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def with_rolling(spec: SwarmSpec, part: Mapping[str, Any]) -> SwarmSpec | None:
    """The spec with another's rolling part: its live fields, and all else as in `part`; None where that is no spec."""
    try:
        return SwarmSpec.model_validate(_merged(type(spec), spec, part))
    except (ValidationError, AttributeError, TypeError):  # a part that somebody else wrote
        return None


def _merged(model: type[BaseModel], value: BaseModel | None, part: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, key, change, default in _fields(model):
        mine = default if value is None else getattr(value, name)
        inner = _model_of(model, name) if change is None else None
        if inner is not None and (default is not None or _rolls(inner)):
            # an optional object with rolling fields is there or not as the part says
            if default is not None or key in part:
                out[key] = _merged(inner, mine, part.get(key, {}))
        elif change in (Change.ROLLING, Change.FIXED):
            if key in part:
                out[key] = part[key]
        elif mine is not None:
            out[key] = _plain(mine)
    return out


@cache
def _model_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The class of a field that holds an object, also where it is optional."""
    annotation = model.model_fields[name].annotation
    for kind in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def revision_of(spec: SwarmSpec) -> str:
    """Ten hexadecimal digits, the same for specs whose rolling fields mean the same."""
    data = json.dumps(rolling_part(spec), sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(data, digest_size=5).hexdigest()
