"""Writes what in the chart is made elsewhere: the definition of Swarms, the operator's rights, the policy's schema, and
the table of values.

The rules for Prometheus are the other way round: the chart has them, and deploy/prometheus/ a copy.

Run as `python -m swarm_deploy.chart`. The README's table follows the file: a comment that begins with `# --` describes
the key under it, and a key without one belongs to the description above it (`resources` is one row, not four). A key
that is described nowhere is an error, so the table can't fall behind.

Rejected: helm-docs, the usual tool for this; it is a Go program that no registry of ours carries.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from swarm_operator import rbac
from swarm_operator.api.schema import structural
from swarm_operator.policy import Policy

__all__ = ["main", "rows", "values_table"]

_REPOSITORY: Final = Path(__file__).parents[2]
_CHART: Final = _REPOSITORY / "charts" / "agentswarm"
_CRD: Final = _REPOSITORY / "deploy" / "crds" / "swarms.agentswarm.dev.yaml"
_RULES: Final = _REPOSITORY / "deploy" / "prometheus" / "agentswarm.rules.yaml"
_MARK: Final = "# -- "


def rows(text: str) -> list[tuple[str, Any, str]]:
    """Key (dotted), default and description of each value that a values.yaml describes, in its order.

    Raises:
        ValueError: a value is described neither by a comment of its own nor by one of a key above it.
    """
    values = yaml.safe_load(text)
    described: dict[tuple[str, ...], str] = {}
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith(_MARK):
            comment = [bare.removeprefix(_MARK)]
        elif bare.startswith("#"):
            if comment:
                comment.append(bare.removeprefix("#").strip())
        elif not bare:
            comment = []
        elif ":" in bare and not bare.startswith("- "):
            depth = len(line) - len(line.lstrip())
            path = [(d, name) for d, name in path if d < depth] + [(depth, bare.partition(":")[0])]
            if comment:
                described[tuple(name for _, name in path)] = " ".join(comment)
            comment = []
    for leaf in _leaves(values, ()):
        if not any(leaf[:length] in described for length in range(1, len(leaf) + 1)):
            raise ValueError(f"values.yaml: nothing is said of {'.'.join(leaf)}; write `{_MARK}…` above it")
    return [(".".join(key), _at(values, key), said) for key, said in described.items()]


def _leaves(value: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not isinstance(value, dict) or not value:
        return [path]
    return [leaf for key, below in value.items() for leaf in _leaves(below, (*path, key))]


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def values_table(text: str) -> str:
    """The values as a Markdown table."""
    lines = ["| key | default | |", "|---|---|---|"]
    for key, default, said in rows(text):
        shown = json.dumps(default).replace("|", "\\|")
        lines.append(f"| `{key}` | `{shown}` | {said.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _readme() -> str:
    chart = yaml.safe_load((_CHART / "Chart.yaml").read_text())
    head = (_CHART / "README.in.md").read_text()
    table = values_table((_CHART / "values.yaml").read_text())
    return f"{head.rstrip()}\n\n## Values of {chart['name']} {chart['version']}\n\n{table}"


def _rights() -> str:
    """The rules of the operator's roles, for the chart's templates."""
    rules = {
        "served": rbac.rule_dicts(rbac.SERVED),
        "cluster": rbac.rule_dicts(rbac.CLUSTER),
        "leader": rbac.rule_dicts(rbac.LEADER),
        "users": {name: rbac.rule_dicts([rule]) for name, rule in rbac.USERS.items()},
    }
    return yaml.safe_dump(rules, sort_keys=False)


def _policy_schema() -> dict[str, Any]:
    """The operator's policy as values of the chart: what the operator would refuse at its start Helm refuses before."""
    schema = structural(Policy, {})
    keys = {
        name: {key: value for key, value in node.items() if key not in ("format", "default")}
        for name, node in schema["properties"].items()
    }
    return {"type": "object", "additionalProperties": False, "properties": keys}


def _values_schema(text: str) -> str:
    """values.schema.json, with the policy's part made anew."""
    schema = json.loads(text)
    schema["properties"]["policy"] = _policy_schema()
    return json.dumps(schema, indent=2) + "\n"


def main() -> int:
    """Writes the files."""
    (_CHART / "files").mkdir(exist_ok=True)
    (_CHART / "files" / _CRD.name).write_text(_CRD.read_text())
    (_CHART / "files" / "rights.yaml").write_text(_rights())
    (_CHART / "README.md").write_text(_readme())
    _RULES.parent.mkdir(exist_ok=True)
    _RULES.write_text(
        "# Generated: a copy of charts/agentswarm/files/rules.yaml.\n" + (_CHART / "files/rules.yaml").read_text()
    )
    values = _CHART / "values.schema.json"
    values.write_text(_values_schema(values.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
