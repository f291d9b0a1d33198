"""The description of the REST interface: OpenAPI 3.1, written by hand, held against the routes by a test.

Rejected: generating it by FastAPI, which brings a second validator of bodies and costs more to import than the hub.
"""

from __future__ import annotations

from typing import Any

from swarm_agents import __version__
from swarm_agents.config import Priority

__all__ = ["document"]


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    task = {"$ref": "#/components/schemas/Task"}
    body = {"required": True, "content": _content(task)}
    named = [{"name": "task", "in": "path", "required": True, "schema": {"type": "string"}}]
    wait = {
        "name": "wait",
        "in": "query",
        "description": "Seconds to wait for the answer, at most 60.",
        "schema": {"type": "number", "minimum": 0},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Agent Swarm",
            "version": __version__,
            "description": "Submits work to a swarm. The bearer token is in the swarm's Secret.",
        },
        "security": [{"token": []}],
        "paths": {
            "/v1/tasks": {
                "post": _operation(
                    "submitTask", "Submit a task", {"202": _response("It is on the board.", {"$ref": _ref("Id")})}, body
                )
            },
            "/v1/tasks/{task}": {
                "parameters": named,
                "get": _operation(
                    "getTask",
                    "How a task stands, and its value when it is done",
                    {"200": _response("Pending, done or failed.", {"$ref": _ref("State")})},
                    parameters=[wait],
                ),
                "delete": _operation(
                    "deleteTask",
                    "Cancel a task, or forget its answer",
                    {"204": {"description": "It is gone, whether or not it was there."}},
                ),
            },
            "/v1/run": {
                "post": _operation(
                    "runTask",
                    "Submit a task and wait for its value",
                    {"200": _response("Done.", {"$ref": _ref("State")})},
                    body,
                )
            },
            "/v1/kernels": {
                "get": _operation(
                    "listKernels", "The kernels and their signatures", {"200": _response("All.", {"type": "object"})}
                )
            },
            "/v1/swarm": {
                "get": _operation(
                    "getSwarm",
                    "Members and queues of this node, the other hubs, and the sensors",
                    {"200": _response("At this moment.", {"type": "object"})},
                )
            },
            "/openapi.json": {
                "get": _operation(
                    "getDescription", "This document", {"200": _response("OpenAPI 3.1.", {"type": "object"})}
                )
                | {"security": []}
            },
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _schemas() -> dict[str, Any]:
    value = {"$ref": _ref("Value")}
    number = {"type": "number"}
    return {
        "Task": {
            "type": "object",
            "required": ["kernel"],
            "additionalProperties": False,
            "properties": {
                "kernel": {"type": "string"},
                "args": {"type": "array", "items": value},
                "kwargs": {"type": "object", "additionalProperties": value},
                "priority": {"type": "string", "enum": list(Priority), "default": str(Priority.NORMAL)},
                "deadline": {"type": ["number", "null"], "description": "Seconds from now."},
                "id": {
                    "type": ["string", "null"],
                    "pattern": "^[0-9a-f]{1,16}-[0-9a-f]{1,16}$",
                    "description": "Chosen by the client, so that a repeated request submits nothing twice.",
                },
                "timeout": {**number, "description": "Of /v1/run: seconds to wait, at most 60.", "minimum": 0},
            },
        },
        "Id": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
        "State": {
            "type": "object",
            "required": ["id", "state"],
            "properties": {
                "id": {"type": "string"},
                "state": {"type": "string", "enum": ["pending", "done", "failed"]},
                "value": value,
                "error": {"$ref": _ref("Error")},
                "info": {
                    "type": "object",
                    "properties": {
                        "agent": {"type": "string"},
                        "attempts": {"type": "integer"},
                        "queuedSeconds": number,
                        "runSeconds": number,
                        "hops": {"type": "integer"},
                    },
                },
            },
        },
        "Error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "type": {"type": "string", "description": "The exception that a kernel raised."},
                "traceback": {"type": "string"},
            },
        },
        "Value": {
            "description": "Any JSON; arrays, bytes and complex numbers as below.",
            "anyOf": [{"$ref": _ref("Array")}, {"$ref": _ref("Bytes")}, {"$ref": _ref("Complex")}, {}],
        },
        "Array": {
            "type": "object",
            "required": ["dtype", "shape", "data"],
            "properties": {
                "dtype": {"description": "NumPy's name of the type, '<f8', or a list of fields."},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "data": {
                    "description": "The bytes in C order; a (nested) list of numbers is taken too.",
                    "anyOf": [{"type": "string", "contentEncoding": "base64"}, {"type": "array"}],
                },
            },
        },
        "Bytes": {
            "type": "object",
            "required": ["bytes"],
            "properties": {"bytes": {"type": "string", "contentEncoding": "base64"}},
        },
        "Complex": {
            "type": "object",
            "required": ["complex"],
            "properties": {"complex": {"type": "array", "prefixItems": [number, number], "items": False}},
        },
    }


def _operation(
    name: str,
    summary: str,
    responses: dict[str, Any],
    body: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    refused = _response("Refused; the code says why.", {"type": "object", "properties": {"error": _error()}})
    operation = {"operationId": name, "summary": summary, "responses": responses | {"default": refused}}
    return operation | ({"requestBody": body} if body else {}) | ({"parameters": parameters} if parameters else {})


def _error() -> dict[str, str]:
    return {"$ref": _ref("Error")}


def _ref(name: str) -> str:
    return f"#/components/schemas/{name}"


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": _content(schema)}
