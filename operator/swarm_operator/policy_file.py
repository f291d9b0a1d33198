"""Reads the operator's policy from its file, strictly.

A misspelt key in a policy would be a hole that nobody sees, so it is an error, as is a key that stands there twice, and
the operator does not start. The file is read once; a new one counts from the operator's next start (the chart restarts
it), so that all that a replica does is done by one policy.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from swarm_operator.policy import OPEN, Policy

__all__ = ["BadPolicy", "load", "parse"]

_MOST_BYTES: Final = 1 << 20


class BadPolicy(ValueError):  # noqa: N818 - named like the product's other errors
    """The file can't be read, or is no policy; says where and what to do."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping: YAML's own way is to let the last one count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(text: str, where: str = "policy") -> Policy:
    """A policy from YAML.

    Raises:
        BadPolicy: it is none; `where` begins the message.
    """
    try:
        document = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise BadPolicy(f"{where}: no YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return OPEN
    if not isinstance(document, dict):
        raise BadPolicy(f"{where}: must be a mapping, such as `images: [registry.example/*]`")
    empty = sorted(str(key) for key, value in document.items() if value is None)
    if empty:
        raise BadPolicy(
            f"{where}: {', '.join(empty)}: nothing stands there; leave it out, or write [] to allow nothing"
        )
    try:
        return Policy.model_validate(document, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise BadPolicy(f"{where}: " + "; ".join(_said(e["type"], e["loc"], e["msg"]) for e in found)) from error


def _said(kind: str, location: tuple[int | str, ...], message: str) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).lstrip(".")
    if kind != "extra_forbidden":
        return f"{path}: {message}"
    known = [info.alias or name for name, info in Policy.model_fields.items()]
    near = get_close_matches(path, known, 1)
    return f"{path}: there is no such key; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}")


def load(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        BadPolicy: the file can't be read, or is no policy.
    """
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        raise BadPolicy(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadPolicy(f"{path}: no UTF-8 text: {error.reason} at byte {error.start}") from error
    if len(data) > _MOST_BYTES:
        raise BadPolicy(f"{path}: more than {_MOST_BYTES >> 20} MiB; a policy is a few lines")
    return parse(text, str(path))
