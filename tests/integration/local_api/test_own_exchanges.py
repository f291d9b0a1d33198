"""A client's conversation with the embedded API, word for word: what it asks, and what it was answered before.

The answers in `data/own_answers.json` have the shape of a real API server's: `test_recorded_exchanges` holds the
embedded one to those wherever the recordings are at hand. This test needs nothing but the repository, so that a
change of any word, field path or owner shows on a bare clone as well. After a change that is meant:

    SWARM_WRITE_ANSWERS=1 pytest tests/integration/local_api/test_own_exchanges.py

and read the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from support.replay import differences
from swarm_deploy.local.api.client import LocalClient

from .conftest import Http

Object = dict[str, Any]

_ANSWERS = Path(__file__).with_name("data") / "own_answers.json"
_WIDGETS = "/apis/example.test/v1/namespaces/default/widgets"
_CORE = "/api/v1/namespaces/default"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_MERGE, _JSON = "application/merge-patch+json", "application/json-patch+json"
_STRATEGIC, _APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"


def _widget(**spec: Any) -> Object:
    return {"apiVersion": "example.test/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}


def _named(name: str, /, **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": spec}


# What is asked: a name, the method, the path, the body, the headers.
_ASKED: list[tuple[str, str, str, Any, dict[str, str]]] = [
    ("a widget that is not there", "GET", f"{_WIDGETS}/w", None, {}),
    (
        "create",
        "POST",
        f"{_WIDGETS}?fieldManager=creator&fieldValidation=Strict",
        _widget(size=3, notes={"a": "b"}),
        {},
    ),
    ("create again", "POST", _WIDGETS, _widget(size=3), {}),
    ("an unknown field", "POST", f"{_WIDGETS}?fieldValidation=Strict", _named("x", size=1, sise=2), {}),
    ("a number too small", "POST", _WIDGETS, _named("x", size=-1), {}),
    ("text for a number, and no spec", "POST", _WIDGETS, _named("x", size="two", spare=5), {}),
    ("a choice that is none, a name that is none", "POST", _WIDGETS, _named("X_1", size=1, colour="maybe"), {}),
    ("a required field", "POST", _WIDGETS, {"metadata": {"name": "x"}}, {}),
    ("a rule over two fields", "POST", _WIDGETS, _named("x", size=1, spare=2), {}),
    ("an item twice", "POST", _WIDGETS, _named("x", size=1, parts=[{"id": "a"}, {"id": "a"}]), {}),
    ("too many items", "POST", _WIDGETS, _named("x", size=1, parts=[{"id": c} for c in "abcd"]), {}),
    ("too long", "POST", _WIDGETS, _named("x", size=1, name="abcdefghi"), {}),
    ("merge patch", "PATCH", f"{_WIDGETS}/w?fieldManager=patcher", {"spec": {"size": 4}}, {"Content-Type": _MERGE}),
    (
        "json patch",
        "PATCH",
        f"{_WIDGETS}/w?fieldManager=patcher",
        [{"op": "test", "path": "/spec/size", "value": 4}, {"op": "add", "path": "/spec/tags", "value": ["t"]}],
        {"Content-Type": _JSON},
    ),
    (
        "a json patch whose test fails",
        "PATCH",
        f"{_WIDGETS}/w",
        [{"op": "test", "path": "/spec/size", "value": 9}],
        {"Content-Type": _JSON},
    ),
    ("strategic merge patch", "PATCH", f"{_WIDGETS}/w", {"spec": {"size": 4}}, {"Content-Type": _STRATEGIC}),
    (
        "apply what another owns",
        "PATCH",
        f"{_WIDGETS}/w?fieldManager=applier",
        _widget(size=5),
        {"Content-Type": _APPLY},
    ),
    (
        "apply by force",
        "PATCH",
        f"{_WIDGETS}/w?fieldManager=applier&force=true",
        _widget(size=5, parts=[{"id": "a", "weight": 1.5}]),
        {"Content-Type": _APPLY},
    ),
    ("apply less", "PATCH", f"{_WIDGETS}/w?fieldManager=applier", _widget(size=5), {"Content-Type": _APPLY}),
    ("apply without a manager", "PATCH", f"{_WIDGETS}/w", _widget(size=5), {"Content-Type": _APPLY}),
    (
        "apply a field that is not there",
        "PATCH",
        f"{_WIDGETS}/w?fieldManager=applier",
        _widget(size=5, sise=1),
        {"Content-Type": _APPLY},
    ),
    (
        "status",
        "PATCH",
        f"{_WIDGETS}/w/status?fieldManager=operator",
        {"spec": {"size": 9}, "status": {"ready": 2, "selector": "a=b"}},
        {"Content-Type": _MERGE},
    ),
    ("scale", "PATCH", f"{_WIDGETS}/w/scale", {"spec": {"replicas": 7}}, {"Content-Type": _MERGE}),
    ("read scale", "GET", f"{_WIDGETS}/w/scale", None, {}),
    (
        "replace an old version",
        "PUT",
        f"{_WIDGETS}/w",
        {**_widget(size=1), "metadata": {"name": "w", "resourceVersion": "1"}},
        {},
    ),
    ("replace without a version", "PUT", f"{_WIDGETS}/w", _widget(size=1), {}),
    (
        "a dry run",
        "PATCH",
        f"{_WIDGETS}/w?dryRun=All&fieldManager=asker",
        {"spec": {"size": 8}},
        {"Content-Type": _MERGE},
    ),
    ("a table", "GET", _WIDGETS, None, {"Accept": _TABLE}),
    ("a list", "GET", _WIDGETS, None, {}),
    (
        "a configuration",
        "POST",
        f"{_CORE}/configmaps?fieldManager=creator",
        {"metadata": {"name": "c"}, "data": {"a": "1"}},
        {},
    ),
    (
        "a headless service",
        "POST",
        f"{_CORE}/services?fieldManager=creator",
        _named("s", clusterIP="None", selector={"a": "b"}, ports=[{"name": "hub", "port": 7400}]),
        {},
    ),
    (
        "a secret",
        "POST",
        f"{_CORE}/secrets?fieldManager=creator",
        {"metadata": {"name": "k"}, "stringData": {"k": "v"}},
        {},
    ),
    (
        "a budget",
        "POST",
        "/apis/policy/v1/namespaces/default/poddisruptionbudgets?fieldManager=creator",
        _named("b", minAvailable=1, selector={"matchLabels": {"a": "b"}}),
        {},
    ),
    (
        "a pod",
        "POST",
        f"{_CORE}/pods?fieldManager=creator",
        _named(
            "p",
            containers=[
                {
                    "name": "c",
                    "image": "x",
                    "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "readinessProbe": {"httpGet": {"port": 9402}},
                    "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}},
                }
            ],
            volumes=[{"name": "v"}],
        ),
        {},
    ),
    ("a pod as a table", "GET", f"{_CORE}/pods", None, {"Accept": _TABLE}),
    (
        "a strategic merge patch of a pod",
        "PATCH",
        f"{_CORE}/pods/p?fieldManager=patcher",
        {"spec": {"containers": [{"name": "c", "image": "y:1"}]}},
        {"Content-Type": _STRATEGIC},
    ),
    ("a kind that nothing here runs", "POST", "/apis/apps/v1/namespaces/default/deployments", _named("d"), {}),
    ("a namespace that is not there", "POST", "/api/v1/namespaces/nowhere/configmaps", {"metadata": {"name": "c"}}, {}),
    ("delete a service", "DELETE", f"{_CORE}/services/s", None, {}),
    ("delete a widget", "DELETE", f"{_WIDGETS}/w", {"propagationPolicy": "Background"}, {}),
    ("delete it again", "DELETE", f"{_WIDGETS}/w", None, {}),
    ("what the kind can do", "GET", "/apis/example.test/v1", None, {}),
    ("no such kind", "GET", "/apis/example.test/v1/gadgets", None, {}),
]


def _shared(where: str) -> bool:
    """Texts of built-in columns are nobody's promise."""
    return ".columnDefinitions" in where and where.endswith(".description")


async def test_every_answer_is_the_one_that_was_given_before(http: Http) -> None:
    assert LocalClient(http.server.api, "kubelet")
    given: dict[str, Object] = {}
    for name, method, path, body, headers in _ASKED:
        sent = {k.replace("-", "_"): v for k, v in headers.items()}
        status, answered, content = await http.ask(method, path, body, User_Agent="tester/1", **sent)
        given[name] = {"status": status, "body": content}
        if "Warning" in answered:
            given[name]["warning"] = answered["Warning"]
    if os.environ.get("SWARM_WRITE_ANSWERS"):
        _ANSWERS.write_text(json.dumps(given, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    expected = json.loads(_ANSWERS.read_text(encoding="utf-8"))
    found = differences(expected, given, "", _shared)
    assert not found, "\n".join(map(str, found[:20]))
