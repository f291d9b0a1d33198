"""The audit trail: what it says of changes, that it goes on over restarts, and that whatever is done to it is found."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.operatorkit import make_swarm
from swarm_operator import auditor as auditor_module
from swarm_operator.audit import Anchor, canonical, changes, entry, read_segment, verify
from swarm_operator.auditor import Auditor, fetch
from swarm_operator.kube import ApiError, Page
from swarm_operator.names import Key
from swarm_operator.views import Manager, SwarmView, swarm_view

KEY = Key("default", "risk")


class Api:
    """ConfigMaps, with resourceVersions and immutability."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[str, Any]] = {}
        self._version = 0
        self.refuse = 0

    def _store(self, item: dict[str, Any]) -> bytes:
        if self.refuse:
            self.refuse -= 1
            raise ApiError(503, "Unavailable", "try again")
        self._version += 1
        meta = {**item["metadata"], "uid": item["metadata"].get("uid", f"u{self._version}")}
        item = {**item, "metadata": {**meta, "resourceVersion": str(self._version)}}
        self.maps[meta["name"]] = json.loads(json.dumps(item))
        return json.dumps(item).encode()

    async def create(self, item: dict[str, Any]) -> bytes:
        if item["metadata"]["name"] in self.maps:
            raise ApiError(409, "AlreadyExists", "it is there")
        return self._store(item)

    async def replace(self, item: dict[str, Any]) -> bytes:
        held = self.maps.get(item["metadata"]["name"])
        if held is None:
            raise ApiError(404, "NotFound", "it is not there")
        if held["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "it has changed")
        assert not held.get("immutable") or held["data"] == item["data"]
        return self._store(item)

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> bytes:
        del self.maps[name]
        return b"{}"

    async def list_page(self, kind: str, namespace: str, *, selector: str, token: str) -> Page:
        assert selector == "agentswarm.dev/audit=risk"
        return Page(items=[msgspec.Raw(json.dumps(item).encode()) for item in self.maps.values()])

    def edit(self, name: str, entries: str) -> None:
        """As somebody does who may write ConfigMaps."""
        self._version += 1
        self.maps[name]["data"]["entries"] = entries
        self.maps[name]["metadata"]["resourceVersion"] = str(self._version)


class Swarm:
    """A Swarm that is changed, and operators that watch it."""

    def __init__(self) -> None:
        self.api = Api()
        self.view: SwarmView | None = None
        self.generation = 0
        self.seconds = 0.0
        self.restart()

    def restart(self) -> None:
        self.auditor = Auditor(self.api, lambda: True, lambda: self.seconds)  # type: ignore[arg-type]

    def apply(self, spec: dict[str, Any], manager: str = "kubectl", *, seen: bool = True, **fields: Any) -> None:
        self.generation += 1
        self.seconds += 1
        old, managers = self.view, {m.manager: m for m in (self.view.managers if self.view else ())}
        managers[manager] = Manager(manager, "Apply", f"2026-01-01T00:00:{self.generation:02}Z", "", canonical(spec))
        given = {"generation": self.generation, "managers": tuple(managers.values()), "spec": spec} | fields
        status = self.view.status if self.view else {}
        self.view = make_swarm(**({"status": status} | given))
        if seen:
            self.auditor.changed(old, self.view)

    def list(self) -> None:
        """An operator that was started sees what is there."""
        self.auditor.changed(None, self.view)

    async def written(self) -> Anchor:
        await self.auditor.flush()
        assert self.view is not None
        anchor = self.auditor.anchor(self.view.uid)
        assert anchor is not None
        self.view = msgspec.structs.replace(
            self.view, status={"audit": {"entries": anchor.entries, "head": anchor.head}}
        )
        return anchor

    async def trail(self) -> list[dict[str, Any]]:
        texts = (await fetch(self.api, *KEY)).texts  # type: ignore[arg-type]
        return [item for _, text in texts for item in read_segment(text) if item]

    async def findings(self, anchor: Anchor | None = None) -> list[str]:
        return [str(f) for f in verify((await fetch(self.api, *KEY)).texts, anchor)]  # type: ignore[arg-type]


async def test_it_says_who_changed_what_when_and_from_what_to_what() -> None:
    swarm = Swarm()
    swarm.apply({"compute": {"replicas": 2}})
    swarm.apply({"compute": {"replicas": 5}, "suspend": True}, "horizontal-pod-autoscaler")
    anchor = await swarm.written()
    made, changed = await swarm.trail()
    assert (made["event"], made["generation"], made["prev"]) == ("Created", 1, "0" * 64)
    assert changed["event"] == "Changed"
    assert [by["manager"] for by in changed["by"]] == ["horizontal-pod-autoscaler"]
    assert changed["changes"] == [
        {"path": "spec.compute.replicas", "from": 2, "to": 5},
        {"path": "spec.suspend", "to": True},
    ]
    assert changed["time"].startswith("1970-01-01T00:00:02")
    assert await swarm.findings(anchor) == []


async def test_who_scales_again_by_the_subresource_is_named_although_its_entry_bears_no_time() -> None:
    swarm = Swarm()
    owners = (
        Manager("kubectl", "Apply", "2026-01-01T00:00:01Z", "", "spec"),
        Manager("agentswarm-autoscaler", "Update", "", "scale", "replicas"),
    )
    swarm.apply({"compute": {"replicas": 2}}, managers=owners[:1])
    for count in (5, 3):
        swarm.apply({"compute": {"replicas": count}}, managers=owners)
    swarm.apply({"compute": {"replicas": 3}, "suspend": True}, managers=owners)
    await swarm.written()
    by = [[(who["manager"], who.get("subresource", "")) for who in item["by"]] for item in await swarm.trail()]
    scaler, kubectl = [("agentswarm-autoscaler", "scale")], [("kubectl", "")]
    assert by == [kubectl, scaler, scaler, kubectl]


async def test_it_goes_on_after_a_restart_writes_nothing_twice_and_names_the_generations_that_it_missed() -> None:
    swarm = Swarm()
    swarm.apply({"compute": {"replicas": 1}})
    await swarm.written()
    swarm.restart()
    swarm.list()
    await swarm.written()
    assert len(await swarm.trail()) == 1
    swarm.apply({"compute": {"replicas": 2}}, seen=False)
    swarm.apply({"compute": {"replicas": 3}}, seen=False)
    swarm.restart()
    swarm.list()
    anchor = await swarm.written()
    last = (await swarm.trail())[-1]
    assert last["changes"] == [{"path": "spec.compute.replicas", "from": 1, "to": 3}]
    assert await swarm.findings(anchor) == ["gap at entry 1: generation 2 not seen one by one"]


async def test_two_leaders_for_a_moment_can_not_fork_the_chain() -> None:
    swarm = Swarm()
    swarm.apply({"a": 1})
    await swarm.written()
    other = Auditor(swarm.api, lambda: True, lambda: 0.0)  # type: ignore[arg-type]
    other.changed(None, swarm.view)
    await other.flush()
    before = swarm.view
    swarm.apply({"a": 2})
    other.changed(before, swarm.view)
    await asyncio.gather(other.flush(), swarm.auditor.flush())
    assert [item["generation"] for item in await swarm.trail()] == [1, 2]
    assert await swarm.findings() == []


async def test_what_the_api_server_refuses_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = Swarm()
    swarm.api.refuse = 1
    swarm.apply({"a": 1})
    await swarm.auditor.flush()
    assert await swarm.trail() == []
    await swarm.auditor.flush()
    assert len(await swarm.trail()) == 1


async def test_it_outlives_its_swarm_and_is_continued_by_the_next_of_that_name() -> None:
    swarm = Swarm()
    swarm.apply({"a": 1})
    await swarm.written()
    swarm.auditor.changed(swarm.view, None)
    await swarm.auditor.flush()
    swarm.view, swarm.generation = None, 0
    swarm.apply({"a": 2}, uid="another")
    await swarm.written()
    assert [item["event"] for item in await swarm.trail()] == ["Created", "Deleted", "Created"]
    assert (await swarm.trail())[-1]["replaces"] == make_swarm().uid
    assert await swarm.findings() == []


async def long(monkeypatch: pytest.MonkeyPatch, count: int = 40) -> Swarm:
    monkeypatch.setattr(auditor_module, "SEGMENT_ENTRIES", 5)
    monkeypatch.setattr(auditor_module, "SEGMENTS", 3)
    swarm = Swarm()
    for n in range(count):
        swarm.apply({"compute": {"replicas": n}})
    await swarm.written()
    return swarm


async def test_a_long_trail_is_bounded_sealed_and_vouches_for_where_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = await long(monkeypatch)
    assert len(swarm.api.maps) == 3
    assert [bool(item.get("immutable")) for _, item in sorted(swarm.api.maps.items())] == [True, True, False]
    trail = await swarm.trail()
    assert trail[0]["n"] > 0
    assert await swarm.findings(swarm.auditor.anchor(make_swarm().uid)) == []


@pytest.mark.parametrize("which", [0, 1, 2], ids=["first", "middle", "last"])
async def test_a_segment_that_vanishes_is_found(monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    swarm = await long(monkeypatch)
    anchor = swarm.auditor.anchor(make_swarm().uid)
    del swarm.api.maps[sorted(swarm.api.maps)[which]]
    assert any(f.startswith("BROKEN") for f in await swarm.findings(anchor))


async def test_an_operator_that_finds_its_trail_cut_off_says_so_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = Swarm()
    for n in range(4):
        swarm.apply({"a": n})
    await swarm.written()
    (name,) = swarm.api.maps
    swarm.api.edit(name, "\n".join(swarm.api.maps[name]["data"]["entries"].splitlines()[:2]) + "\n")
    swarm.apply({"a": 9})
    anchor = await swarm.written()
    assert any("the operator found the trail damaged" in f for f in await swarm.findings(anchor))
    swarm.restart()
    swarm.list()
    await swarm.written()
    assert sum(item["event"] == "Broken" for item in await swarm.trail()) == 1


def chain(count: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for n in range(count):
        last = items[-1] if items else None
        event = "Changed" if n else "Created"
        items.append(entry(last, uid="u", event=event, generation=n + 1, changes=[{"path": "spec.a", "to": n}]))
    return items


def text(items: list[dict[str, Any]]) -> str:
    return "".join(canonical(item) + "\n" for item in items)


@given(st.integers(1, 12))
def test_a_chain_that_nobody_touched_is_whole(count: int) -> None:
    items = chain(count)
    half = count // 2
    assert verify([(0, text(items[:half])), (1, text(items[half:]))], Anchor(count, items[-1]["hash"])) == []


@settings(max_examples=200)
@given(count=st.integers(2, 10), data=st.data())
def test_whatever_is_done_to_a_chain_is_found(count: int, data: st.DataObject) -> None:
    items = chain(count)
    anchor = Anchor(count, items[-1]["hash"])
    at = data.draw(st.integers(0, count - 1))
    harm = data.draw(st.sampled_from(["edit", "reseal", "delete", "truncate", "swap", "insert", "garble", "rewrite"]))
    if harm == "edit":
        items[at]["changes"] = [{"path": "spec.a", "to": "forged"}]
    elif harm == "reseal":  # edited, with a hash that fits
        last = items[at - 1] if at else None
        items[at] = entry(last, uid="u", event="Changed", generation=at + 1, changes=["forged"])
    elif harm == "delete":
        del items[at]
    elif harm == "truncate":
        del items[at:]
    elif harm == "swap":
        other = (at + 1) % count
        items[at], items[other] = items[other], items[at]
    elif harm == "insert":
        items.insert(at, entry(items[at], uid="u", event="Changed", generation=1))
    elif harm == "garble":
        lines = text(items).splitlines()
        lines[at] = lines[at][: len(lines[at]) // 2]
        assert any(f.broken for f in verify([(0, "\n".join(lines))], anchor))
        return
    else:
        items = chain(count + 1)[1:]  # a whole other chain
        items = [{**item, "n": n} for n, item in enumerate(items)]
    assert any(finding.broken for finding in verify([(0, text(items))], anchor)), harm


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=400), max_size=5))
def test_equal_specs_have_no_changes_and_unequal_ones_have_some(spec: dict[str, Any]) -> None:
    assert changes(spec, dict(spec)) == []
    assert changes(spec, {**spec, "added": 1}) != []
    assert all(len(canonical(change)) < 1200 for change in changes({}, spec))


def test_a_swarm_s_field_managers_are_read_but_for_the_status_writer() -> None:
    fields = [
        {"manager": "kubectl", "operation": "Apply", "time": "t", "fieldsV1": {"f:spec": {}}},
        {"manager": "kubectl", "operation": "Update", "time": "t", "subresource": "scale", "fieldsV1": {}},
        {"manager": "agentswarm-operator", "operation": "Apply", "time": "t", "subresource": "status"},
    ]
    raw = {"metadata": {"name": "risk", "namespace": "default", "managedFields": fields}}
    view = swarm_view(msgspec.json.encode(raw))
    assert [(m.manager, m.subresource) for m in view.managers] == [("kubectl", ""), ("kubectl", "scale")]
