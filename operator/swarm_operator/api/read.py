"""From a stored spec to the model: the operator's own reading of what the API server let through."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, get_args

import msgspec
from pydantic import ValidationError

from swarm_operator.api.fields import Model
from swarm_operator.api.v1alpha1 import SwarmSpec

__all__ = ["read_spec"]

_NO_FIELDS: Final = frozenset({"int", "str", "[key]"})


@lru_cache(maxsize=1024)
def _read(encoded: bytes) -> tuple[SwarmSpec | None, str]:
    try:
        return SwarmSpec.model_validate_json(encoded, strict=True), ""
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        return None, "; ".join(f"{_path(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in found[:10])


def _path(location: tuple[int | str, ...]) -> str:
    """As the API server writes it: spec.compute.env[0].name."""
    # pydantic names the options of a union (int, str, …) and of a map's key beside the fields
    steps = [step for step in location if step not in _NO_FIELDS]
    return "spec" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _model_of(annotation: Any) -> type[Model] | None:
    """The model within an annotation such as `list[Volume]` or `Gpus | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_of(inner))), None)


def _without_nulls(value: Any, model: type[Model] | None) -> Any:
    """A null field, or entry of a map, is left out, as the API server does; an unknown field stays, to be refused."""
    if isinstance(value, list):
        return [_without_nulls(entry, model) for entry in value]
    if not isinstance(value, dict):
        return value
    if model is None:
        return {key: inner for key, inner in value.items() if inner is not None}
    known = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
    return {
        key: _without_nulls(inner, _model_of(known.get(key)))
        for key, inner in value.items()
        if inner is not None or key not in known
    }


def read_spec(spec: Any) -> tuple[SwarmSpec | None, str]:
    """The spec as a model, or None and why it is none, with the path of each field that is wrong.

    The API server checks first; this is for a CRD of another version, and for `swarm plan`, which has no API server.
    It is as strict: a number in quotes is no number.
    """
    try:
        encoded = msgspec.json.encode(_without_nulls(spec, SwarmSpec), order="sorted")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return None, f"spec: can't be written as JSON: {error}"
    return _read(encoded)
