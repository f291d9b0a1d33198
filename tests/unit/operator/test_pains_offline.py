"""Pains of the peers that need no cluster to show: a watch that stalls, and edits that nobody looks at."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from support.badspecs import FULL, SCHEMA, walk, written
from swarm_operator.api.read import read_spec
from swarm_operator.httpd import STALE_AFTER
from swarm_operator.reflector import SILENCE, Reflector
from swarm_operator.revision import revision_of
from swarm_operator.store import Store
from swarm_operator.views import decode


class Stalled:
    """An API server that lists, accepts a watch and then says nothing, and ends nothing."""

    def __init__(self) -> None:
        self.silence = 0.0
        self.watching = asyncio.Event()

    async def list_page(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(items=(), metadata=SimpleNamespace(resource_version="1", continue_=""))

    async def watch(self, *_: Any, silence: float, **__: Any) -> AsyncIterator[bytes]:
        self.silence = silence
        self.watching.set()
        await asyncio.Event().wait()
        yield b""


async def test_a_watch_that_stalls_silently_turns_health_red() -> None:
    api, clock = Stalled(), [0.0]
    store = Store(lambda old, new: None)
    reflector = Reflector(
        api,  # type: ignore[arg-type]
        "Pod",
        "",
        store,
        lambda raw: decode("Pod", raw),
        selector="",
        clock=lambda: clock[0],
        jitter=lambda: 0.0,
    )
    task = asyncio.create_task(reflector.run())
    async with asyncio.timeout(10):
        await api.watching.wait()
    assert reflector.age() == 0.0
    clock[0] = STALE_AFTER + 1
    assert reflector.age() > STALE_AFTER, "what /healthz fails by"
    assert 0 < api.silence == SILENCE < STALE_AFTER, "the watch itself is given up before that"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


#: Goes with claimName, and is refused alone.
_NOT_ALONE = "spec.state.medium"


def _edited() -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for steps, node, value in walk(SCHEMA["properties"]["spec"], FULL):
        path, said = written(steps), str(node.get("description", ""))
        change = next((word for word in ("rolling", "live") if said.endswith(f"({word})") or f"({word})" in said), "")
        if not change or "properties" in node or path == _NOT_ALONE:
            continue
        other: Any
        if "enum" in node:
            other = next(word for word in node["enum"] if word != value)
        elif isinstance(value, bool):
            other = not value
        elif isinstance(value, int):
            other = value + 1 if value < node["maximum"] else value - 1
        elif isinstance(value, list):
            other = []
        elif isinstance(value, dict):
            other = {"other": "x"}
        elif node.get("x-kubernetes-int-or-string"):
            other = "3" if "CPU" in said else "2Gi" if "%" not in str(value) else "30%"
        elif str(value)[:1].isdigit():
            continue  # durations are bound to each other: below
        else:
            other = f"{value}x"
        spec: Any = copy.deepcopy(FULL)
        at = spec
        for step in steps[:-1]:
            at = at[step]
        at[steps[-1]] = other
        if path.endswith("podTemplate.volumes"):
            at["volumeMounts"] = []
        found.append((path, change, spec))
    return found


@pytest.mark.parametrize(("path", "change", "spec"), _edited(), ids=lambda v: v if isinstance(v, str) else "")
def test_no_edit_of_the_spec_is_ignored(path: str, change: str, spec: dict[str, Any]) -> None:
    """A rolling field makes another revision; a live one none, so that no pod is made anew for it."""
    parsed, _ = read_spec(FULL)
    assert parsed is not None
    edited, wrong = read_spec(spec)
    assert edited is not None, wrong
    assert edited != parsed
    assert (revision_of(edited) != revision_of(parsed)) == (change == "rolling"), path
