"""From a stored spec to the model: the operator's own reading of what the API server let through."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
from pydantic import ValidationError

from swarm_operator.api.v1alpha1 import SwarmSpec

__all__ = ["read_spec"]


@lru_cache(maxsize=1024)
def _read(encoded: bytes) -> tuple[SwarmSpec | None, str]:
    try:
        return SwarmSpec.model_validate(msgspec.json.decode(encoded)), ""
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        return None, "; ".join(f"{'.'.join(map(str, ('spec', *e['loc'])))}: {e['msg']}" for e in found[:10])


def read_spec(spec: dict[str, Any]) -> tuple[SwarmSpec | None, str]:
    """The spec as a model, or None and why it is none.

    The API server checks first; this is for a CRD of another version, and for `swarm plan`, which has no API server.
    """
    return _read(msgspec.json.encode(spec, order="sorted"))
