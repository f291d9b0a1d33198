"""The CRD is what the models say, is structural, bounded and slim, and its defaults are the agents' own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from support.operatorkit import make_spec, make_swarm
from swarm_agents.config import Failover, Runtime, Sensing, Settings, Transport
from swarm_operator.api.crd import CRD_FILE, crd, crd_yaml
from swarm_operator.api.fields import Change
from swarm_operator.api.read import read_spec
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.revision import change_of
from swarm_operator.settings import settings_of

SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


NODES = dict(nodes(SCHEMA))


def test_the_committed_crd_is_the_generated_one() -> None:
    assert CRD_FILE.read_text() == crd_yaml(), "run `make generate` and commit deploy/crds"


def test_the_crd_is_slim() -> None:
    assert CRD_FILE.stat().st_size < 100_000


@pytest.mark.parametrize("path", NODES)
def test_every_node_of_the_schema_is_structural(path: str) -> None:
    node = NODES[path]
    assert "type" in node or node.get("x-kubernetes-int-or-string"), "a structural schema gives each node a type"
    forbidden = {"$ref", "anyOf", "oneOf", "allOf", "not", "title", "const", "definitions", "$defs", "uniqueItems"}
    assert not forbidden & set(node)
    assert not {key for key in node if key.startswith("x-") and not key.startswith("x-kubernetes-")}
    assert not ("properties" in node and "additionalProperties" in node)


@pytest.mark.parametrize("path", [p for p in NODES if p.startswith("spec")])
def test_every_list_string_and_map_of_the_spec_is_bounded(path: str) -> None:
    node = NODES[path]
    match node.get("type"):
        case "array":
            assert "maxItems" in node
        case "string":
            assert "maxLength" in node or "enum" in node
        case "object" if "additionalProperties" in node:
            assert "maxProperties" in node
        case "integer":
            assert {"minimum", "maximum"} <= set(node)
        case None:
            assert "maxLength" in node, "an int-or-string is bounded for the cost of CEL"


@pytest.mark.parametrize("path", [p for p in NODES if p and not p.endswith(("[]", "{}")) and p != "metadata"])
def test_every_field_has_a_description(path: str) -> None:
    assert NODES[path].get("description"), f"{path}: kubectl explain would say nothing"


def leaves(model: type[BaseModel], path: str = "spec") -> Iterator[tuple[str, Any, type[BaseModel] | None]]:
    for name, info in model.model_fields.items():
        # the items of a list change with the list
        options = () if get_origin(info.annotation) is list else get_args(info.annotation)
        models = [a for a in (info.annotation, *options) if isinstance(a, type) and issubclass(a, BaseModel)]
        yield f"{path}.{info.alias or name}", info, models[0] if models else None
        if models:
            yield from leaves(models[0], f"{path}.{info.alias or name}")


@pytest.mark.parametrize(
    ("path", "info", "model"), list(leaves(SwarmSpec)), ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_field_says_whether_it_is_live_or_rolling(path: str, info: Any, model: Any) -> None:
    change = change_of(info)
    if model is not None:
        assert change is None, "an object's fields say it, each for itself"
    else:
        assert change is not None
        assert f"({change.value})" in info.description
        assert change in list(Change)


def test_transition_rules_guard_the_fixed_fields() -> None:
    for path, info, _ in leaves(SwarmSpec):
        if change_of(info) is Change.FIXED:
            parent = path.rsplit(".", 1)[0]
            rules = [rule["rule"] for rule in NODES[parent].get("x-kubernetes-validations", ())]
            assert "self == oldSelf" in rules, path


def test_the_defaults_are_the_agents_own() -> None:
    made = settings_of(make_swarm(), SwarmSpec(), "r", ())
    assert made == Settings(
        swarm="risk",
        namespace="default",
        uid=made.uid,
        revision="r",
        transport=Transport(),
        failover=Failover(),
        sensing=Sensing(),
        runtime=Runtime(),
    )


def test_scale_and_status_are_subresources_and_the_columns_exist() -> None:
    version = crd()["spec"]["versions"][0]
    assert set(version["subresources"]) == {"status", "scale"}
    for path in version["subresources"]["scale"].values():
        assert path.lstrip(".") in NODES
    for column in version["additionalPrinterColumns"]:
        path = column["jsonPath"].lstrip(".").split("[?")[0]
        assert path in NODES or path.startswith("metadata"), column
    names = crd()["spec"]["names"]
    assert names["shortNames"] == ["sw"]
    assert "all" in names["categories"]


def test_defaults_in_the_schema_are_those_of_the_models() -> None:
    def check(model: type[BaseModel], path: str) -> None:
        for name, info in model.model_fields.items():
            node = NODES[f"{path}.{info.alias or name}"]
            default = info.get_default(call_default_factory=True)
            if isinstance(default, BaseModel):
                # completed by the API server, field by field; where rules stand they must hold for what is written
                assert set(node["default"]) <= set(node["properties"]), path
                assert bool(node["default"]) == bool(node.get("x-kubernetes-validations")), path
                check(type(default), f"{path}.{info.alias or name}")
            elif default in (None, [], {}):
                assert "default" not in node
            else:
                assert node["default"] == default, f"{path}.{info.alias}"

    check(SwarmSpec, "spec")


@pytest.mark.parametrize(
    ("spec", "path", "says"),
    [
        ({"compute": {"replicas": -1}}, "spec.compute.replicas", "greater than or equal to 0"),
        ({"compute": {"replicas": 5001}}, "spec.compute.replicas", "less than or equal to 5000"),
        ({"compute": {"replica": 1}}, "spec.compute.replica", "Extra inputs"),
        ({"compute": {"min": 1}}, "spec.compute", "min and max go together"),
        ({"compute": {"min": 3, "max": 2}}, "spec.compute", "min may not exceed max"),
        ({"compute": {"cpus": "lots"}}, "spec.compute.cpus", "write 2, 500m or 0.5"),
        ({"compute": {"memory": "1.5Gi"}}, "spec.compute.memory", "such as 512Mi"),
        (
            {"compute": {"env": [{"name": "SWARM_UID", "value": "x"}]}},
            "spec.compute.env[0].name",
            "set by the operator",
        ),
        (
            {"compute": {"podTemplate": {"volumeMounts": [{"name": "a", "mountPath": "/a"}]}}},
            "spec.compute",
            "no volume",
        ),
        ({"resource": {"interval": "5ms"}}, "spec.resource", "from 10ms to 1m"),
        ({"resource": {"interval": "soon"}}, "spec.resource.interval", "pattern"),
        ({"failover": {"deadAfter": "100ms"}}, "spec.failover", "shorter than deadAfter"),
        ({"transport": {"zeromq": {"port": 9402}}}, "spec.transport.zeromq", "9402 is taken"),
        ({"transport": {"zeromq": {"encryption": "off"}}}, "spec.transport.zeromq.encryption", "'Curve' or 'None'"),
        ({"rollout": {"maxSurge": 0, "maxUnavailable": "0%"}}, "spec.rollout", "can't both be 0"),
        ({"rollout": {"maxSurge": "120%"}}, "spec.rollout.maxSurge", "0% to 100%"),
        ({"state": {"medium": "PersistentVolumeClaim"}}, "spec.state", "claimName goes with"),
        ({"security": {"runAsUser": 0}}, "spec.security.runAsUser", "greater than or equal to 1"),
    ],
)
def test_a_bad_spec_is_refused_with_field_and_reason(spec: dict[str, Any], path: str, says: str) -> None:
    parsed, wrong = read_spec(spec)
    assert parsed is None
    assert wrong.startswith(path)
    assert says in wrong


def test_quantities_are_read_in_every_usual_notation() -> None:
    spec = make_spec(compute={"cpus": 2, "memory": "1024Mi"}, rollout={"maxSurge": 1})
    assert (spec.compute.cpus, spec.compute.memory) == ("2", "1Gi")
    assert make_spec(compute={"cpus": "0.5"}).compute.cpus == "500m"
    assert make_spec(compute={"cpus": "2000m"}).compute.cpus == "2"
