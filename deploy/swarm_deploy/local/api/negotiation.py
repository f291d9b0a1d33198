"""What a request carries and what its client can read: bodies by Content-Type, answers by Accept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from swarm_deploy.local.api.errors import ApiError, bad_request, unsupported_media_type
from swarm_deploy.local.api.protobuf import MEDIA_TYPE, decode_protobuf

__all__ = ["Answer", "accepted", "decode_body", "duplicate_fields", "patch_type"]

Object = dict[str, Any]

_PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
_KNOWN = "application/json, application/yaml"


@dataclass(frozen=True, slots=True)
class Answer:
    """The form of an answer: `form` is object, table or partial; `media` the encoding."""

    form: str = "object"
    media: str = "application/json"


def accepted(header: str) -> Answer:
    """The first form in an Accept header that this server can give.

    Raises:
        ApiError: 406, there is none.
    """
    if not header:
        return Answer()
    for part in header.split(","):
        media, *rest = (p.strip() for p in part.split(";"))
        parameters = dict(p.split("=", 1) for p in rest if "=" in p)
        if media not in ("application/json", "application/yaml", "*/*", "application/*"):
            continue
        kind = parameters.get("as", "")
        encoding = "application/yaml" if media == "application/yaml" else "application/json"
        if kind == "Table" and parameters.get("g") == "meta.k8s.io" and parameters.get("v") == "v1":
            return Answer("table", encoding)
        if kind in ("PartialObjectMetadata", "PartialObjectMetadataList") and parameters.get("v") == "v1":
            return Answer("partial", encoding)
        if kind == "APIGroupDiscoveryList" and parameters.get("v") == "v2":
            return Answer("discovery", encoding)
        if not kind:
            return Answer("object", encoding)
    raise ApiError(406, f"only the following media types are accepted: {_KNOWN}")


def patch_type(content_type: str, *, custom: bool) -> Any:
    """Which of the four patches it is. Raises ApiError 415."""
    media = content_type.partition(";")[0].strip()
    if media not in _PATCH_TYPES:
        offered = [t for t in _PATCH_TYPES if not (custom and "strategic" in t)]
        raise unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: " + ", ".join(offered)
        )
    return _PATCH_TYPES[media]


def decode_body(body: bytes, content_type: str) -> Any:
    """A request's body as plain values; None for an empty one.

    Raises:
        ApiError: 400 when it can't be read, 415 when it is in another form.
    """
    if not body:
        return None
    media = content_type.partition(";")[0].strip()
    if media == MEDIA_TYPE:
        return decode_protobuf(body)
    if media in ("application/yaml", "application/apply-patch+yaml"):
        return _yaml(body)
    if media and media != "application/json" and media not in _PATCH_TYPES:
        raise unsupported_media_type(
            f"the body of the request was in an unknown format - accepted media types include: {_KNOWN}, {MEDIA_TYPE}"
        )
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as e:
        raise bad_request(f"couldn't get version/kind; json parse error: {e}") from None


def _yaml(body: bytes) -> Any:
    try:
        # What clients call YAML is nearly always JSON, which is decoded a hundred times faster.
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        pass
    import yaml

    try:
        return yaml.safe_load(body)
    except yaml.YAMLError as e:
        raise bad_request(f"error decoding YAML: {str(e).partition(chr(10))[0]}") from None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its keys, also those that stand twice."""


def duplicate_fields(body: bytes) -> list[str]:
    """The fields that stand twice in a JSON body, as `fieldValidation` names them."""
    found = False

    def hook(pairs: list[tuple[str, Any]]) -> Any:
        nonlocal found
        found = found or len({k for k, _ in pairs}) != len(pairs)
        return None

    try:
        json.loads(body, object_pairs_hook=hook)
    except ValueError:
        return []
    if not found:
        return []
    out: list[str] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for key, inner in value:
                here = f"{path}.{key}" if path else key
                if key in seen:
                    out.append(f'duplicate field "{here}"')
                seen.add(key)
                walk(inner, here)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                walk(inner, f"{path}[{index}]")

    walk(json.loads(body, object_pairs_hook=_Pairs), "")
    return out
