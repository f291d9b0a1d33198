"""Builders for tests of the embedded API: an API over a store in memory with a clock that stands, a kind of its own,
objects."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from swarm_deploy.local.api.app import API, make_app
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.api.core import DEFINITIONS, Api
from swarm_deploy.local.api.errors import ApiError
from swarm_deploy.local.api.lifecycle import Sweeper, set_up
from swarm_deploy.local.store import Store

__all__ = [
    "WIDGETS",
    "Broom",
    "Clock",
    "close_stores",
    "make_api",
    "make_client",
    "make_definition",
    "make_pod",
    "make_widget",
]

Object = dict[str, Any]

WIDGETS = "widgets.example.test"

_SCHEMA: Object = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 0, "maximum": 100},
                "spare": {"type": "integer", "default": 1},
                "colour": {"type": "string", "enum": ["red", "green"], "default": "red"},
                "name": {"type": "string", "maxLength": 8, "pattern": "^[a-z]*$"},
                "parts": {
                    "type": "array",
                    "maxItems": 3,
                    "items": {
                        "type": "object",
                        "required": ["id"],
                        "properties": {"id": {"type": "string"}, "weight": {"type": "number"}},
                    },
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["id"],
                },
                "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "notes": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "serial": {
                    "type": "string",
                    "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "serial may not change"}],
                },
            },
            "x-kubernetes-validations": [
                {
                    "rule": "self.spare <= self.size",
                    "messageExpression": "'spare ' + string(self.spare) + ' exceeds size ' + string(self.size)",
                }
            ],
        },
        "status": {"type": "object", "properties": {"ready": {"type": "integer"}, "selector": {"type": "string"}}},
    },
}


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Broom(Sweeper):
    """A sweeper that sweeps when it is told to."""

    def __init__(self, api: Api) -> None:
        before = api.sweeper
        super().__init__(api)
        api.sweeper = before


def make_definition(**version: Any) -> Object:
    """The Widget kind's definition; keywords replace parts of its one version."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": WIDGETS},
        "spec": {
            "group": "example.test",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wg"], "categories": ["all"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": deepcopy(_SCHEMA)},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.size",
                            "statusReplicasPath": ".status.ready",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                    **version,
                }
            ],
        },
    }


def make_api(store: Store | None = None, *, clock: Clock | None = None, definition: bool = True) -> Api:
    """An API with its namespaces, and the Widget kind unless it is not wanted."""
    store = store or Store(None)
    _MADE.append(store)
    api = make_app(store, token="secret", clock=clock or Clock())[API]
    set_up(api)
    if definition:
        api.create(api.resource(DEFINITIONS), "", make_definition(), manager="test")
    return api


_MADE: list[Store] = []


def close_stores() -> None:
    """Close what the builders opened; a fixture does it after each test."""
    while _MADE:
        _MADE.pop().close()


def make_client(api: Api, manager: str = "test") -> LocalClient:
    """A client that writes under a name."""
    return LocalClient(api, manager)


def make_widget(name: str = "w", **spec: Any) -> Object:
    """A valid Widget of size 3."""
    return {"metadata": {"name": name}, "spec": {"size": 3, **spec}}


def make_pod(name: str = "p", **spec: Any) -> Object:
    """A valid Pod of one container."""
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x:1"}], **spec}}


async def refused(call: Any) -> ApiError:
    with pytest.raises(ApiError) as error:
        await call
    return error.value
