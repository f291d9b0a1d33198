"""Lists and watches, as the cluster's own parts call them: pages, selectors, and what a watch may not miss."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from support.local_api import (
    WIDGETS,
    make_pod,
    make_widget,
)
from swarm_deploy.local.api.client import LocalClient, WatchEvent
from swarm_deploy.local.api.core import Api
from swarm_deploy.local.api.errors import ApiError

Object = dict[str, Any]


async def test_the_pages_of_a_list_show_one_moment(client: LocalClient, api: Api) -> None:
    for number in range(5):
        await client.create(WIDGETS, make_widget(f"w{number}"), namespace="default")
    kind = api.resource(WIDGETS)
    first = api.page(kind, "default", limit=2)
    assert (len(first.items), first.remaining) == (2, 3)
    await client.delete(WIDGETS, "w3", "default")
    await client.create(WIDGETS, make_widget("w9"), namespace="default")
    second = api.page(kind, "default", limit=2, resume=first.resume)
    third = api.page(kind, "default", limit=2, resume=second.resume)
    names = [o["metadata"]["name"] for p in (first, second, third) for o in p.items]
    assert names == ["w0", "w1", "w2", "w3", "w4"]
    assert third.resume == ""
    assert {p.revision for p in (first, second, third)} == {first.revision}


async def test_a_page_that_is_no_longer_held_is_gone_and_nonsense_is_refused(client: LocalClient, api: Api) -> None:
    kind = api.resource(WIDGETS)
    for number in range(3):
        await client.create(WIDGETS, make_widget(f"w{number}"), namespace="default")
    token = api.page(kind, "default", limit=1).resume
    for number in range(70):
        await client.patch(WIDGETS, "w0", {"metadata": {"labels": {"n": str(number)}}}, "default")
        api.page(kind, "default", limit=1)
    with pytest.raises(ApiError) as error:
        api.page(kind, "default", limit=1, resume=token)
    assert (error.value.code, error.value.reason) == (410, "Expired")
    with pytest.raises(ApiError) as error:
        api.page(kind, "default", limit=1, resume="nonsense!")
    assert error.value.code == 400


def test_a_list_of_a_moment_that_has_not_come_yet_is_refused(api: Api) -> None:
    with pytest.raises(ApiError) as error:
        api.page(api.resource("pods"), None, resource_version=str(api.store.revision + 1))
    assert (error.value.code, error.value.reason) == (504, "Timeout")
    assert error.value.status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    with pytest.raises(ApiError) as error:
        api.page(api.resource("pods"), None, resource_version="1", match="Exact")
    assert error.value.code == 410
    with pytest.raises(ApiError) as error:
        api.page(api.resource("pods"), None, match="Exact")
    assert error.value.code == 422


async def test_selectors_choose_by_labels_and_fields(client: LocalClient) -> None:
    for name in ("a", "b"):
        pod = make_pod(name)
        pod["metadata"]["labels"] = {"name": name}
        await client.create("pods", pod, namespace="default")
    await client.subresource("pods", "b", "binding", {"target": {"name": "n"}}, "default")
    assert [o["metadata"]["name"] for o in (await client.list("pods", label_selector="name in (a)")).items] == ["a"]
    assert [o["metadata"]["name"] for o in (await client.list("pods", field_selector="spec.nodeName=n")).items] == ["b"]
    assert (await client.list("pods", "kube-system")).items == []


async def watched(client: LocalClient, count: int, *arguments: Any, **options: Any) -> list[WatchEvent]:
    events: list[WatchEvent] = []
    async with aclosing(client.watch(*arguments, **options)) as stream:
        async with asyncio.timeout(5):
            async for event in stream:
                events.append(event)
                if len(events) == count:
                    break
    return events


def short(events: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(e.type, e.object["metadata"]["name"]) for e in events]


async def test_a_watch_without_a_version_begins_with_what_there_is(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget("a"), namespace="default")
    await client.create(WIDGETS, make_widget("b"), namespace="default")
    watching = asyncio.create_task(watched(client, 3, WIDGETS))
    await asyncio.sleep(0)
    await client.delete(WIDGETS, "a", "default")
    assert short(await watching) == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


async def test_a_watch_from_a_list_misses_nothing(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget("a"), namespace="default")
    version = (await client.list(WIDGETS)).resource_version
    await client.patch(WIDGETS, "a", {"spec": {"size": 4}}, "default")
    await client.create(WIDGETS, make_widget("b"), namespace="default")
    assert short(await watched(client, 2, WIDGETS, version)) == [("MODIFIED", "a"), ("ADDED", "b")]


async def test_an_object_enters_and_leaves_a_selected_watch(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget("a"), namespace="default")
    version = (await client.list(WIDGETS)).resource_version
    for labels in ({"x": "1"}, {"y": "1"}, {"x": None}, {"x": "1"}):
        await client.patch(WIDGETS, "a", {"metadata": {"labels": labels}}, "default")
    await client.delete(WIDGETS, "a", "default")
    events = await watched(client, 5, WIDGETS, version, label_selector="x=1")
    assert [e.type for e in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    versions = [int(e.object["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(versions), "also what has left is shown under the revision at which it left"
    assert events[2].object["metadata"]["labels"] == {"x": "1", "y": "1"}, "in its last state that fitted"


async def test_a_watch_sees_its_own_namespace_only(client: LocalClient) -> None:
    version = (await client.list("configmaps")).resource_version
    await client.create("configmaps", {"metadata": {"name": "a"}}, namespace="kube-system")
    await client.create("configmaps", {"metadata": {"name": "b"}}, namespace="default")
    assert short(await watched(client, 1, "configmaps", version, "default")) == [("ADDED", "b")]


async def test_a_watch_from_a_forgotten_version_is_gone(client: LocalClient, api: Api) -> None:
    version = (await client.list(WIDGETS)).resource_version
    await client.create(WIDGETS, make_widget("a"), namespace="default")
    api.store.compact(api.store.revision)
    with pytest.raises(ApiError) as error:
        await watched(client, 1, WIDGETS, version)
    assert (error.value.code, error.value.reason) == (410, "Expired")
    assert error.value.message.startswith("too old resource version: ")


async def test_a_watch_list_ends_its_beginning_with_a_bookmark(client: LocalClient, api: Api) -> None:
    await client.create("pods", make_pod(), namespace="default")
    events = []
    stream = api.watch(api.resource("pods"), "default", bookmarks=True, initial=True)
    async with aclosing(stream):
        async for event in stream:
            events.append(event)
            if event[0] == "BOOKMARK":
                break
    assert [e[0] for e in events] == ["ADDED", "BOOKMARK"]
    assert events[1][1] == {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "resourceVersion": str(api.store.revision),
            "annotations": {"k8s.io/initial-events-end": "true"},
        },
        "spec": {"containers": None},
        "status": {},
    }


@pytest.mark.looptime
async def test_a_selected_watch_gets_its_bookmarks_while_only_other_objects_change(
    client: LocalClient, api: Api
) -> None:
    """Its reader would hold it for dead otherwise, and begin anew."""

    async def change_others() -> None:
        for number in range(20):
            await asyncio.sleep(10.0)
            await client.create("configmaps", {"metadata": {"name": f"other-{number}"}}, namespace="default")

    others = asyncio.create_task(change_others())
    at, seen = asyncio.get_running_loop().time(), []
    version = (await client.list("configmaps")).resource_version
    stream = api.watch(
        api.resource("configmaps"), "default", resource_version=version, label_selector="mine", bookmarks=True
    )
    async with aclosing(stream):
        async for event in stream:
            seen.append((event[0], asyncio.get_running_loop().time() - at))
            if len(seen) == 3:
                break
    others.cancel()
    assert [kind for kind, _ in seen] == ["BOOKMARK"] * 3
    assert [round(when) for _, when in seen] == [60, 120, 180]
