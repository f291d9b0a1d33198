"""The simple paths of printer columns: `.spec.compute.replicas`, `.status.conditions[?(@.type=="Ready")].status`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

__all__ = ["find"]

_STEP = re.compile(
    r"""\.(?P<name>(?:\\.|[^.\[\]\\])+)          # .name, with \. for a dot in it
      | \[\s*['"](?P<quoted>[^'"]+)['"]\s*\]     # ['name']
      | \[(?P<index>-?\d+)\]                     # [0]
      | \[(?P<all>\*)\]                          # [*]
      | \[\?\(\s*@(?P<path>(?:\.[^\s=!<>)]+)?)\s*(?P<sign>==|!=)\s*(?P<value>"[^"]*"|'[^']*'|[^)\s]+)\s*\)\]""",
    re.VERBOSE,
)


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[tuple[str, Any], ...]:
    out: list[tuple[str, Any]] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if not match:
            return (("none", None),)
        if match["name"] is not None:
            out.append(("name", match["name"].replace("\\.", ".")))
        elif match["quoted"] is not None:
            out.append(("name", match["quoted"]))
        elif match["index"] is not None:
            out.append(("index", int(match["index"])))
        elif match["all"]:
            out.append(("all", None))
        else:
            value = match["value"]
            value = value[1:-1] if value[:1] in "\"'" else value
            out.append(("where", (match["path"], match["sign"], value)))
        position = match.end()
    return tuple(out)


def find(obj: Any, path: str) -> list[Any]:
    """Every value at the path; none when it leads nowhere."""
    values = [obj]
    for kind, what in _steps(path):
        found: list[Any] = []
        for value in values:
            if (kind == "name" and isinstance(value, dict) and what in value) or (
                kind == "index" and isinstance(value, list) and -len(value) <= what < len(value)
            ):
                found.append(value[what])
            elif kind == "all":
                found += value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
            elif kind == "where" and isinstance(value, list):
                inner, sign, wanted = what
                for item in value:
                    held = find(item, inner) if inner else [item]
                    same = bool(held) and _text(held[0]) == wanted
                    if same == (sign == "=="):
                        found.append(item)
        values = found
    return values


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
