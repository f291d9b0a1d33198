"""Specs that are wrong in one known way each, made from the schema: a bound that is new has its cases at once.

`FULL` is a valid spec in which every field of the API stands; each case breaks one keyword of the schema at one path of
it. Whoever adds a field adds it to `FULL`, or a test fails that compares the two.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from swarm_operator.api.crd import crd

__all__ = ["CHECKED", "FULL", "SCHEMA", "Case", "cases", "random_spec", "refusals_of_the_schema", "walk"]

SCHEMA: Final[dict[str, Any]] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

_TEMPLATE: Final[dict[str, Any]] = {
    "labels": {"team": "risk"},
    "annotations": {"note": "x"},
    "runtimeClassName": "gvisor",
    "terminationGracePeriodSeconds": 30,
    "volumes": [
        {"name": "a", "configMap": {"name": "c"}},
        {"name": "b", "secret": {"name": "s"}},
        {"name": "c", "persistentVolumeClaim": {"name": "p"}},
        {"name": "d", "emptyDir": "1Gi"},
    ],
    "volumeMounts": [{"name": "a", "mountPath": "/a", "readOnly": True}],
}
#: A valid spec with every field of the API.
FULL: Final[dict[str, Any]] = {
    "image": "registry.example/agent:1",
    "imagePullPolicy": "IfNotPresent",
    "imagePullSecrets": [{"name": "pull"}],
    "suspend": False,
    "compute": {
        "replicas": 2,
        "min": 1,
        "max": 3,
        "standby": 1,
        "cpus": "2",
        "memory": "1Gi",
        "gpus": {"count": 1, "resource": "nvidia.com/gpu", "memoryPercent": 80},
        "kernels": ["risk.*"],
        "env": [
            {"name": "A", "value": "x"},
            {"name": "B", "secretKeyRef": {"name": "s", "key": "k", "optional": False}},
            {"name": "C", "configMapKeyRef": {"name": "c", "key": "k", "optional": True}},
        ],
        "podTemplate": _TEMPLATE,
    },
    "resource": {
        "interval": "100ms",
        "balance": True,
        "sensors": {"disabled": ["gpu"]},
        "caps": {"powerWatts": 300, "temperatureCelsius": 80},
        "nodeSelector": {"pool": "a"},
        "cpus": "100m",
        "memory": "512Mi",
        "podTemplate": copy.deepcopy(_TEMPLATE),
    },
    "transport": {
        "sharedMemory": {
            "medium": "HostPath",
            "size": "256Mi",
            "path": "/dev/shm",
            "taskSlots": 4096,
            "maxMembers": 256,
        },
        "zeromq": {"port": 7400, "restPort": 7480, "encryption": "Curve", "maxMessageSize": "256Mi"},
    },
    "scheduling": {
        "nodeSelector": {"zone": "a"},
        "tolerations": [
            {"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 30}
        ],
        "priorityClassName": "high",
        "schedulerName": "volcano",
        "topology": {
            "placement": "Spread",
            "key": "kubernetes.io/hostname",
            "maxSkew": 1,
            "required": False,
            "numa": "Any",
        },
        "cpuPinning": "Preferred",
        "gang": "Volcano",
        "queueName": "q",
    },
    "autoscaling": {
        "targetQueueTime": "50ms",
        "scaleInWindow": "2m",
        "maxStep": 10,
        "forecast": True,
        "schedule": [{"cron": "0 8 * * *", "timeZone": "Etc/UTC", "duration": "1h", "min": 2}],
    },
    "failover": {
        "heartbeatInterval": "20ms",
        "suspectAfter": "200ms",
        "deadAfter": "800ms",
        "maxAttempts": 4,
        "stragglers": {"factor": 2, "minRuntime": "20ms", "percent": 10},
        "prediction": {"threshold": 90},
    },
    "runtime": {
        "spin": "50us",
        "drainTimeout": "25s",
        "logLevel": "info",
        "threads": 0,
        "kernelModules": ["risk.kernels"],
    },
    "state": {
        "medium": "PersistentVolumeClaim",
        "claimName": "state",
        "sizeLimit": "1Gi",
        "checkpointInterval": "250ms",
    },
    "security": {
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "networkPolicy": False,
        "clients": [{"pods": {"app": "ui"}, "namespaces": {"team": "risk"}}, {"cidr": "10.0.0.0/8"}],
        "egress": [
            {"to": {"cidr": "10.1.0.0/16"}, "protocol": "TCP", "ports": [443]},
            {"to": {"pods": {"app": "db"}, "namespaces": {"team": "risk"}}},
        ],
        "keyRotation": "24h",
        "keyOverlap": "10m",
        "allowPickle": False,
    },
    "rollout": {
        "maxSurge": "25%",
        "maxUnavailable": 1,
        "paused": False,
        "progressDeadline": "10m",
        "autoRollback": False,
    },
}

Steps = tuple[str | int, ...]


@dataclass(frozen=True)
class Case:
    """One way to be wrong."""

    path: str
    keyword: str
    spec: dict[str, Any]
    #: What the API server says, its essential part.
    says: str

    def __str__(self) -> str:
        return f"{self.path} {self.keyword}"


def walk(schema: dict[str, Any], value: Any, steps: Steps = ()) -> Iterator[tuple[Steps, dict[str, Any], Any]]:
    """Each place of the schema that stands in the value: its steps, its schema, the value there."""
    yield steps, schema, value
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name in value:
                yield from walk(child, value[name], (*steps, name))
        if isinstance(schema.get("additionalProperties"), dict):
            for name in list(value)[:1]:
                yield from walk(schema["additionalProperties"], value[name], (*steps, name))
    elif isinstance(value, list) and "items" in schema:
        seen: set[str] = set()
        for index, entry in enumerate(value):
            for inner, node, found in walk(schema["items"], entry, (*steps, index)):
                shape = re.sub(r"\d+", "", repr(inner[len(steps) :]))
                if shape not in seen:
                    seen.add(shape)
                    yield inner, node, found


def written(steps: Steps) -> str:
    """As the API server writes a path."""
    return "spec" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _with(steps: Steps, change: Callable[[Any], Any]) -> dict[str, Any]:
    spec = copy.deepcopy(FULL)
    if not steps:
        return change(spec)  # type: ignore[no-any-return]
    at: Any = spec
    for step in steps[:-1]:
        at = at[step]
    at[steps[-1]] = change(at[steps[-1]])
    return spec


def _many(count: int, entry: Any, key: str | None) -> list[Any]:
    if isinstance(entry, dict):
        prefix = "/m" if key == "mountPath" else "m"
        return [{**entry, **({key: f"{prefix}{n}"} if key else {})} for n in range(count)]
    return [f"m{n}" for n in range(count)]


#: What each keyword's breach is, given its node and the valid value: the new value and what is said of it.
_WRONG_TYPE: Final = {"string": 7, "integer": "x", "boolean": "yes", "array": {"a": "b"}, "object": "x"}
_BREAKS: Final[dict[str, Callable[[dict[str, Any], Any], Any]]] = {
    "type": lambda node, value: _WRONG_TYPE[node["type"]],
    "x-kubernetes-int-or-string": lambda node, value: True,
    "minimum": lambda node, value: node["minimum"] - 1,
    "maximum": lambda node, value: node["maximum"] + 1,
    "minLength": lambda node, value: "",
    "maxLength": lambda node, value: (str(value) or "a") + "a" * node["maxLength"],
    "pattern": lambda node, value: "~ !"[: node.get("maxLength", 3)],
    "enum": lambda node, value: "Nothing",
    "maxItems": lambda node, value: _many(
        node["maxItems"] + 1, value[0], (node.get("x-kubernetes-list-map-keys") or [None])[0]
    ),
    "x-kubernetes-list-type": lambda node, value: [*value, value[0]],
    "maxProperties": lambda node, value: {f"k{n}": "v" for n in range(node["maxProperties"] + 1)},
}
_SAYS: Final = {
    "type": "must be of type",
    "x-kubernetes-int-or-string": "must be of type",
    "minimum": "should be greater than or equal to",
    "maximum": "should be less than or equal to",
    "minLength": "should be at least",
    "maxLength": "Too long",
    "pattern": "should match",
    "enum": "Unsupported value",
    "maxItems": "Too many",
    "x-kubernetes-list-type": "Duplicate value",
    "maxProperties": "Too many",
    "required": "Required value",
}
#: Every keyword of the schema that bounds; a test fails when there is one more.
CHECKED: Final = frozenset(_SAYS)


def cases() -> Iterator[Case]:
    """A case for each bound of the schema."""
    for steps, node, value in walk(SCHEMA["properties"]["spec"], FULL):
        for keyword in sorted(CHECKED & set(node)):
            if keyword == "required":
                for name in node["required"]:
                    spec = _with(steps, lambda held, name=name: {k: v for k, v in held.items() if k != name})
                    yield Case(written((*steps, name)), keyword, spec, _SAYS[keyword])
                continue
            if keyword == "x-kubernetes-list-type" and node[keyword] == "atomic":
                continue
            broken = _BREAKS[keyword](node, value)
            spec = _with(steps, lambda held, broken=broken: broken)
            # what an object holds that stands where a list should is refused before its type is looked at
            says = "unknown field" if keyword == "type" and isinstance(broken, dict) else _SAYS[keyword]
            yield Case(written(steps), keyword, spec, says)


_JUNK: Final = (
    None, True, -1, 0, 1, 10**12, 2**63, 0.5, "", " ", "0", "1", "true", "0%", "99999%", "-1", "1e3", "0.5", "None",
    "💥" * 3, "a" * 5000, "\n", "../..", "9h", "1us", [], [None], [""], [{}], ["x", "x"], {}, {"": ""},
    {"a" * 400: "x"},
    {"a": None}, {"name": "x"}, [[]], {"a": {"b": {"c": []}}},
)  # fmt: skip


def random_spec(chance: random.Random) -> dict[str, Any]:
    """A spec in which one to three places hold something else, are gone, or have something unknown beside them."""
    spec = copy.deepcopy(FULL)
    for _ in range(chance.randint(1, 3)):
        places = [steps for steps, _, _ in walk(SCHEMA["properties"]["spec"], spec) if steps]
        if not places:
            break
        steps = chance.choice(places)
        at: Any = spec
        for step in steps[:-1]:
            at = at[step]
        match chance.randrange(8):
            case 0:
                del at[steps[-1]]
            case 1 if isinstance(at, dict):
                at[f"x{chance.randrange(9)}"] = copy.deepcopy(chance.choice(_JUNK))
            case _:
                at[steps[-1]] = copy.deepcopy(chance.choice(_JUNK))
    return spec


def refusals_of_the_schema(spec: Any) -> list[str]:
    """What the embedded API server says of a spec, without its HTTP: unknown fields, bounds and rules."""
    from swarm_deploy.local.api import cel, structural

    swarm = {"apiVersion": "agentswarm.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": "risk"}, "spec": spec}
    pruned, unknown = structural.prune(SCHEMA, swarm)
    full = structural.default(SCHEMA, pruned)
    found = [f"{path}: unknown field" for path in unknown]
    causes = [*structural.validate(SCHEMA, full), *structural.list_causes(SCHEMA, full)]
    if not causes:
        causes = cel.rule_causes(SCHEMA, full)
    return found + [f"{cause.field}: {cause.text}" for cause in causes]
