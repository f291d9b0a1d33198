"""Environments are composed as a kubelet composes them."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_deploy.local.kubelet.environment import ConfigError, expand, field_value, make_environment, resource_value

Object = dict[str, Any]

POD: Object = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": '2"', "a": "1"}},
    "spec": {
        "nodeName": "node-1",
        "containers": [{"name": "main", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}],
    },
    "status": {"podIP": "127.9.9.2", "hostIP": "127.9.9.1"},
}


class Held:
    """ConfigMap `cm` {a: 1, 'not a name!': x} and Secret `se` {k: v}."""

    def config_map(self, namespace: str, name: str) -> Object | None:
        return {"data": {"a": "1", "not a name!": "x"}} if (namespace, name) == ("n", "cm") else None

    def secret(self, namespace: str, name: str) -> Object | None:
        return {"data": {"k": base64.b64encode(b"v").decode()}} if (namespace, name) == ("n", "se") else None


def env(**container: Any) -> dict[str, str]:
    return make_environment(POD, {"name": "main", **container}, {"PATH": "/bin"}, Held(), {"cpu": "4"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(C)", "$(C)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text(alphabet="ab $()", max_size=30).filter(lambda t: "$" not in t))
def test_text_without_a_dollar_stays(text: str) -> None:
    assert expand(text, {"a": "x"}) == text


def test_later_ones_win_and_refer_to_earlier_ones() -> None:
    made = env(
        envFrom=[{"configMapRef": {"name": "cm"}}, {"prefix": "S_", "secretRef": {"name": "se"}}],
        env=[{"name": "x", "value": "$(a)$(later)"}, {"name": "a", "value": "2"}, {"name": "later", "value": "$(a)"}],
    )
    assert made == {"PATH": "/bin", "a": "2", "S_k": "v", "x": "1$(later)", "later": "2"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "a"}}, 'configmap "no" not found'),
        ({"configMapKeyRef": {"name": "cm", "key": "b"}}, "couldn't find key b in ConfigMap n/cm"),
        ({"secretKeyRef": {"name": "se", "key": "b"}}, "couldn't find key b in Secret n/se"),
        ({"fieldRef": {"fieldPath": "status.phase"}}, "unsupported fieldPath"),
        ({"fileKeyRef": {}}, "can't take variable X from fileKeyRef"),
    ],
)
def test_what_is_missing_is_named(source: Object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        env(env=[{"name": "X", "valueFrom": source}])


def test_what_is_optional_may_be_missing() -> None:
    assert "X" not in env(
        env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": True}}}]
    )
    assert env(envFrom=[{"configMapRef": {"name": "no", "optional": True}}]) == {"PATH": "/bin"}


def test_fields_of_the_pod() -> None:
    assert field_value(POD, "metadata.labels") == 'a="1"\nb="2\\""'
    assert field_value(POD, "metadata.labels['a']") == "1"
    assert field_value(POD, "metadata.annotations['none']") == ""
    assert field_value(POD, "status.podIP") == "127.9.9.2"
    assert field_value(POD, "spec.nodeName") == "node-1"


@pytest.mark.parametrize(
    ("resource", "divisor", "expected"),
    [
        ("limits.cpu", "1", "2"),
        ("limits.cpu", "1m", "1500"),
        ("limits.memory", "1Mi", "64"),
        ("requests.cpu", "1m", "0"),
    ],
)
def test_resources_are_rounded_up_in_units_of_their_divisor(resource: str, divisor: str, expected: str) -> None:
    ref = {"containerName": "main", "resource": resource, "divisor": divisor}
    assert resource_value(POD, {}, ref, {}) == expected


def test_what_is_not_limited_is_limited_by_the_node() -> None:
    pod = {**POD, "spec": {"containers": [{"name": "main"}]}}
    assert resource_value(pod, pod["spec"]["containers"][0], {"resource": "limits.cpu"}, {"cpu": "4"}) == "4"
