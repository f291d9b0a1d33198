"""Writes the references in `deploy/reference/`: every field of a Swarm, every command, metric and kernel.

They are made from the CRD, the commands, the kernels and the metrics' declarations themselves, so they can't say
anything that the product does not; `make verify` fails when they are out of date. Run as
`python -m swarm_deploy.reference`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from swarm_deploy.cli import COMMANDS, module_of
from swarm_deploy.kernels_reference import kernels_reference
from swarm_deploy.metrics_reference import metrics_reference

__all__ = ["commands_reference", "main", "swarm_reference"]

_DEPLOY = Path(__file__).parent.parent
_CRD = _DEPLOY / "crds" / "swarms.agentswarm.dev.yaml"


def swarm_reference(crd: dict[str, Any]) -> str:
    """The fields of `spec` and `status` as Markdown tables, one a level, in the CRD's order."""
    (version,) = crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    lines = [
        "# Swarm",
        "",
        f"`{crd['spec']['group']}/{version['name']}`, kind `{crd['spec']['names']['kind']}`. Generated from the CRD;",
        "`kubectl explain swarm.spec --recursive` says the same on a cluster.",
        "",
        "A field is *live* (pushed to the running agents, no restart) or *rolling* (new pods, a few at a time).",
        "",
    ]
    for name in ("spec", "status"):
        lines += _tables(name, schema["properties"][name])
    return "\n".join(lines).rstrip() + "\n"


def _tables(path: str, schema: dict[str, Any]) -> Iterator[str]:
    """One table for the object at `path`, then those of the objects below it."""
    required = set(schema.get("required", ()))
    yield f"## `{path}`"
    yield ""
    if schema.get("description"):
        yield schema["description"]
        yield ""
    yield "| field | type | default | |"
    yield "|---|---|---|---|"
    below: list[tuple[str, dict[str, Any]]] = []
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else f"`{_short(field['default'])}`" if "default" in field else ""
        text = " ".join(field.get("description", "").split()).replace("|", "\\|")
        yield f"| `{name}` | {_type(field)} | {default} | {text} |"
        inner = field.get("items", field) if field.get("type") == "array" else field
        if inner.get("properties"):
            below.append((f"{path}.{name}" + ("[]" if inner is not field else ""), inner))
    yield ""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"- {rule.get('message', rule['rule'])}"
    if schema.get("x-kubernetes-validations"):
        yield ""
    for name, inner in below:
        yield from _tables(name, inner)


def _short(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).replace("\n...", "").strip()


def _type(field: dict[str, Any]) -> str:
    kind = "integer or string" if field.get("x-kubernetes-int-or-string") else field.get("type", "any")
    if kind == "array":
        return f"list of {_type(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"map of {_type(field['additionalProperties'])}"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return f"{kind}, {low} to {high}"
    return f"{kind}, from {low}" if low is not None else f"{kind}, up to {high}" if high is not None else str(kind)


def commands_reference() -> str:
    """Each command with its docstring and its options."""
    lines = ["# The `swarm` command", "", "Also `kubectl swarm`. Generated from the commands themselves.", ""]
    for name in COMMANDS:
        function = getattr(importlib.import_module(f"swarm_deploy.commands.{module_of(name)}"), module_of(name))
        lines += [f"## `swarm {name}`", "", inspect.getdoc(function) or "", ""]
        lines += ["| option | default | |", "|---|---|---|"]
        hints = get_type_hints(function, include_extras=True)
        for parameter in inspect.signature(function).parameters.values():
            info = next((m for m in getattr(hints[parameter.name], "__metadata__", ()) if hasattr(m, "help")), None)
            text = getattr(info, "help", "") or ""
            lines.append(f"| {_spelling(parameter, info)} | {_default(parameter)} | {text} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _spelling(parameter: inspect.Parameter, info: Any) -> str:
    declared = [d for d in getattr(info, "param_decls", None) or () if isinstance(d, str)]
    if declared:
        return ", ".join(f"`{d}`" for d in declared)
    if type(info).__name__ == "ArgumentInfo":
        return f"`{parameter.name.upper()}`"
    return f"`--{parameter.name.replace('_', '-')}`"


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "required"
    if parameter.default in (None, "", False):
        return ""
    return f"`{parameter.default}`"


def main() -> int:
    """Writes the files; they are committed."""
    out = _DEPLOY / "reference"
    out.mkdir(exist_ok=True)
    (out / "swarm.md").write_text(swarm_reference(yaml.safe_load(_CRD.read_text())))
    (out / "commands.md").write_text(commands_reference())
    (out / "kernels.md").write_text(kernels_reference())
    (out / "metrics.md").write_text(metrics_reference())
    return 0


if __name__ == "__main__":
    sys.exit(main())
