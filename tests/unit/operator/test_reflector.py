"""The reflector under faults: what vanished while no watch ran, a history that is gone, a server that is not well."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import kmock as km
import pytest

from support.operatorkit import api_at, pod_json
from swarm_operator.names import Key
from swarm_operator.reflector import Reflector
from swarm_operator.store import Store
from swarm_operator.views import View, decode

pytestmark = [pytest.mark.kmock(cls=km.RawHandler)]

PODS = "/api/v1/pods"


def page(*names: str, version: str = "10", token: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version, "continue": token}, "items": [pod_json(n) for n in names]}


def event(kind: str, name: str, version: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, "object": pod_json(name, version=version, **fields)}).encode() + b"\n"


def status(code: int, reason: str) -> dict[str, Any]:
    return {"kind": "Status", "code": code, "reason": reason, "message": f"{reason} it is"}


class Running:
    def __init__(self, url: str) -> None:
        self.api = api_at(url)
        self.changes: list[tuple[str | None, str | None]] = []
        self.store = Store(self._changed)
        self.reflector = Reflector(
            self.api,
            "Pod",
            "",
            self.store,
            lambda raw: decode("Pod", raw),
            selector="agentswarm.dev/swarm",
            clock=time.monotonic,
            jitter=lambda: 0.0,
        )
        self.task = asyncio.create_task(self.reflector.run())

    def _changed(self, old: View | None, new: View | None) -> None:
        self.changes.append((getattr(old, "name", None), getattr(new, "name", None)))

    @property
    def names(self) -> set[str]:
        return {getattr(view, "name", "") for view in self.store}

    async def until(self, check: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not check():
                assert not self.task.done(), self.task
                await asyncio.sleep(0.01)


@pytest.fixture
async def running(kmock: Any) -> AsyncIterator[Running]:
    one = Running(str(kmock.url))
    yield one
    one.task.cancel()
    await asyncio.gather(one.task, return_exceptions=True)
    await one.api.close()


def watches(kmock: Any) -> list[Any]:
    return [request for request in kmock["get"] if request.params.get("watch")]


def watch(kmock: Any) -> Any:
    return kmock["get", km.params({"watch": "true"})]


def listing(kmock: Any) -> Any:
    return kmock["get", km.params({"limit": "500"})]


async def test_it_lists_in_pages_and_then_watches_from_there(kmock: Any, running: Running) -> None:
    listing(kmock)[:1] << page("a", "b", version="9", token="next")
    listing(kmock) << page("c", version="9")
    watch(kmock) << (event("ADDED", "d", "11"), event("DELETED", "a", "12"), ...)
    await running.until(lambda: running.names == {"b", "c", "d"})
    first, second = [r for r in kmock["get"] if not r.params.get("watch")]
    assert first.params["labelSelector"] == "agentswarm.dev/swarm"
    assert second.params["continue"] == "next"
    (only,) = watches(kmock)
    assert only.params["resourceVersion"] == "9"
    assert only.params["allowWatchBookmarks"] == "true"


@pytest.mark.parametrize("how", ["status", "event"])
async def test_after_410_it_lists_again_and_tells_what_vanished_meanwhile(
    kmock: Any, running: Running, how: str
) -> None:
    listing(kmock)[:1] << page("ghost", "stays", version="9")
    listing(kmock) << page("stays", "new", version="20")
    if how == "status":
        watch(kmock)[:1] << 410 << status(410, "Expired")
    else:
        error = json.dumps({"type": "ERROR", "object": status(410, "Expired")}).encode() + b"\n"
        watch(kmock)[:1] << (error,)
    watch(kmock) << (...,)
    await running.until(lambda: running.names == {"stays", "new"})
    assert ("ghost", None) in running.changes


async def test_a_broken_watch_is_resumed_where_it_was(kmock: Any, running: Running) -> None:
    listing(kmock) << page("a", version="9")
    watch(kmock)[:1] << (event("ADDED", "b", "15"),)
    watch(kmock) << (event("ADDED", "c", "16"), ...)
    await running.until(lambda: running.names == {"a", "b", "c"})
    assert [request.params["resourceVersion"] for request in watches(kmock)][:2] == ["9", "15"]
    assert len(running.changes) == 3, "nothing is told twice"


async def test_a_bookmark_moves_the_place_and_counts_as_heard(kmock: Any, running: Running) -> None:
    mark = {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": "99"}}}
    listing(kmock) << page(version="9")
    watch(kmock)[:1] << (json.dumps(mark).encode() + b"\n",)
    watch(kmock) << (...,)
    await running.until(lambda: len(watches(kmock)) >= 2)
    assert watches(kmock)[1].params["resourceVersion"] == "99"
    assert running.reflector.age() < 5


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_a_server_that_is_not_well_is_asked_again(kmock: Any, running: Running, code: int) -> None:
    listing(kmock)[:2] << code << status(code, "Busy")
    listing(kmock) << page("a")
    watch(kmock) << (...,)
    await running.until(lambda: running.names == {"a"})
    await running.until(lambda: running.reflector.error == "")


async def test_retry_after_is_kept(kmock: Any, running: Running) -> None:
    times: list[float] = []

    def answer() -> Any:
        times.append(time.monotonic())
        return page("a")

    listing(kmock)[:1] << 429 << {"Retry-After": "1"}
    listing(kmock) << answer
    watch(kmock) << (...,)
    begun = time.monotonic()
    await running.until(lambda: running.names == {"a"})
    assert times[0] - begun >= 0.9


async def test_a_line_that_is_no_json_does_not_end_the_reflector(kmock: Any, running: Running) -> None:
    listing(kmock) << page(version="9")
    watch(kmock)[:1] << (b"<html>proxy error</html>\n",)
    watch(kmock) << (event("ADDED", "a", "12"), ...)
    await running.until(lambda: running.names == {"a"})


async def test_a_watch_that_falls_silent_is_given_up_and_its_age_is_told(
    kmock: Any, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm_operator.reflector.SILENCE", 0.2)
    listing(kmock) << page("a", version="9")
    watch(kmock)[:3] << (...,)  # open, and not a line
    watch(kmock) << (event("ADDED", "b", "12"), ...)
    await running.until(lambda: len(watches(kmock)) >= 3)
    heard = running.reflector._heard
    assert running.reflector.age() >= 0.4, "an open connection is no sign of life"
    await running.until(lambda: running.names == {"a", "b"})
    assert running.reflector._heard > heard
    assert [request.params["resourceVersion"] for request in watches(kmock)] == ["9"] * 4, "resumed where it was"


async def test_a_list_that_is_cut_off_or_of_another_shape_is_asked_for_again(kmock: Any, running: Running) -> None:
    listing(kmock)[:1] << b'{"metadata": {"resourceVersion": "9"}, "items": [{"metadata"'
    listing(kmock)[:1] << {"metadata": {"resourceVersion": "9"}, "items": [{"metadata": 3}]}
    listing(kmock) << page("a", version="9")
    watch(kmock) << (...,)
    await running.until(lambda: running.names == {"a"})


async def test_a_line_in_several_pieces_is_one_event(kmock: Any, running: Running) -> None:
    line = event("ADDED", "a", "12") + event("ADDED", "b", "13")
    listing(kmock) << page(version="9")
    watch(kmock) << (line[:40], line[40:-30], line[-30:], ...)
    await running.until(lambda: running.names == {"a", "b"})


def view(name: str, version: str, **fields: Any) -> View:
    return decode("Pod", json.dumps(pod_json(name, version=version, **fields)).encode())


def test_an_update_that_changes_nothing_that_matters_wakes_no_one() -> None:
    changes: list[Any] = []
    store = Store(lambda old, new: changes.append((old, new)))
    store.put(view("a", "1"))
    store.put(view("a", "2", annotations={"kubelet": "chatter"}))
    assert len(changes) == 1


def test_an_older_version_is_passed_over() -> None:
    store = Store()
    store.put(view("a", "9", phase="Running"))
    store.put(view("a", "8", phase="Pending"))
    assert getattr(store.get("default", "a"), "phase", "") == "Running"


def test_the_answer_to_a_write_does_not_bring_back_what_the_watch_has_removed() -> None:
    store = Store()
    store.put(view("a", "5"))
    store.remove("default", "a", "7")
    store.put_written(view("a", "6"))
    assert len(store) == 0
    store.put_written(view("a", "8"))
    assert len(store) == 1, "a successor of the same name is another thing"


def test_a_list_does_not_drop_what_was_written_after_it() -> None:
    store = Store()
    store.put_written(view("a", "12"))
    store.replace([view("b", "3")], "10")
    assert len(store) == 2


def test_an_object_that_lost_its_label_concerns_the_swarm_that_had_it() -> None:
    store = Store()
    store.put(view("a", "1"))
    assert len(list(store.of(Key("default", "risk")))) == 1
    store.put(view("a", "2", labels={}))
    assert not list(store.of(Key("default", "risk")))
