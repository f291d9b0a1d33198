"""Answers over HTTP: the encodings, headers and query parameters that all paths share."""

from __future__ import annotations

import platform
from typing import Any

import msgspec
from aiohttp import web

from swarm_deploy.local.api.errors import invalid, invalid_value, unsupported_value
from swarm_deploy.local.api.negotiation import Answer
from swarm_deploy.local.api.resources import Resource

__all__ = [
    "VERSION",
    "dry_run",
    "integer",
    "json_answer",
    "listed",
    "send",
    "validation",
    "version",
    "warning",
]

Object = dict[str, Any]

VERSION = "v1.36.2"


def warning(text: str) -> str:
    """A Warning header that clients show to the person behind them."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'299 - "{quoted}"'


def listed(resource: Resource, items: list[Object], meta: Object) -> Object:
    """A list as its kind writes it."""
    if resource.custom:
        return {
            "apiVersion": resource.group_version,
            "items": items,
            "kind": resource.list_kind,
            "metadata": meta,
        }
    # The items of a typed list don't repeat what the list says.
    bare = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in items]
    return {"kind": resource.list_kind, "apiVersion": resource.group_version, "metadata": meta, "items": bare}


def json_answer(body: Object, code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=msgspec.json.encode(body),
        status=code,
        content_type="application/json",
        headers={"Cache-Control": "no-cache, private", **(headers or {})},
    )


def send(body: Object, answer: Answer, code: int = 200, headers: list[tuple[str, str]] | None = None) -> web.Response:
    """An answer in the encoding that the client asked for."""
    if answer.media == "application/yaml":
        import yaml

        response = web.Response(text=yaml.safe_dump(body), status=code, content_type="application/yaml")
        response.headers["Cache-Control"] = "no-cache, private"
    else:
        response = json_answer(body, code)
    for name, value in headers or ():
        response.headers.add(name, value)
    return response


def integer(query: Any, name: str) -> int:
    """A number among the query parameters; 0 when it is absent. Raises ApiError 422."""
    text = query.get(name, "")
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        cause = invalid_value(name, text, f'strconv.ParseInt: parsing "{text}": invalid syntax')
        raise invalid("ListOptions", "meta.k8s.io", "", [cause]) from None


def dry_run(values: list[str]) -> bool:
    """Whether the request only asks what would happen. Raises ApiError 422."""
    if not values:
        return False
    if values != ["All"]:
        raise invalid("CreateOptions", "meta.k8s.io", "", [unsupported_value("dryRun", values[0], ["All"])])
    return True


def validation(value: str) -> str:
    """What becomes of unknown fields. Raises ApiError 422."""
    if value not in ("", "Strict", "Warn", "Ignore"):
        cause = unsupported_value("fieldValidation", value, ["", "Ignore", "Strict", "Warn"])
        raise invalid("CreateOptions", "meta.k8s.io", "", [cause])
    return value or "Warn"


def version() -> Object:
    """`/version`."""
    major, minor = VERSION.removeprefix("v").split(".")[:2]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": VERSION,
        "gitCommit": "agentswarm-embedded",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "none",
        "platform": f"linux/{machine}",
    }
