"""The embedded cluster's store: revisions, conditional writes, history, and what outlives the process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_deploy.local.store import Compacted, Missing, Present, Stale, Store, StoreUnusable

Object = dict[str, Any]


@pytest.fixture
def store() -> Iterator[Store]:
    """An empty store in memory."""
    made = Store()
    yield made
    made.close()


def thing(name: str, **fields: Any) -> Object:
    return {"metadata": {"name": name}, **fields}


def test_every_write_gets_the_next_revision(store: Store) -> None:
    first = store.create("a", "n", "x", thing("x"))
    second = store.create("b", "n", "x", thing("x"))
    third = store.update("a", "n", "x", thing("x", value=1))
    assert [o["metadata"]["resourceVersion"] for o in (first, second, third)] == ["1", "2", "3"]
    assert store.revision == 3


def test_a_name_is_taken_once(store: Store) -> None:
    held = store.create("a", "n", "x", thing("x"))
    with pytest.raises(Present) as error:
        store.create("a", "n", "x", thing("x"))
    assert error.value.current is held
    assert store.revision == 1


def test_a_write_under_an_old_revision_is_refused(store: Store) -> None:
    store.create("a", "n", "x", thing("x"))
    store.update("a", "n", "x", thing("x", value=1), expect="1")
    with pytest.raises(Stale):
        store.update("a", "n", "x", thing("x", value=2), expect="1")
    with pytest.raises(Stale):
        store.delete("a", "n", "x", expect="1")
    with pytest.raises(Missing):
        store.update("a", "n", "y", thing("y"))
    held = store.get("a", "n", "x")
    assert held is not None
    assert held["value"] == 1


def test_what_was_handed_out_does_not_change(store: Store) -> None:
    before = store.create("a", "n", "x", thing("x", value=1))
    store.update("a", "n", "x", thing("x", value=2))
    assert before["value"] == 1


def test_a_list_is_ordered_by_namespace_and_name(store: Store) -> None:
    for namespace, name in (("b", "x"), ("a", "z"), ("a", "y")):
        store.create("r", namespace, name, thing(name, where=namespace))
    assert [(o["where"], o["metadata"]["name"]) for o in store.list("r")] == [("a", "y"), ("a", "z"), ("b", "x")]
    assert [o["metadata"]["name"] for o in store.list("r", "a")] == ["y", "z"]
    assert store.list("nothing") == []


async def test_a_watcher_sees_what_happened_after_its_revision_in_order(store: Store) -> None:
    store.create("a", "n", "x", thing("x"))
    watcher = store.watcher("a", 1)
    store.update("a", "n", "x", thing("x", value=1))
    store.create("other", "n", "y", thing("y"))
    store.delete("a", "n", "x")
    assert [(e.revision, e.type) for e in watcher.drain()] == [(2, "MODIFIED"), (4, "DELETED")]
    assert watcher.drain() == []


async def test_a_watcher_that_waits_is_woken_by_a_write_and_not_by_another_kinds(store: Store) -> None:
    watcher = store.watcher("a", 0)
    waiting = asyncio.create_task(watcher.wait())
    await asyncio.sleep(0)
    store.create("b", "n", "x", thing("x"))
    await asyncio.sleep(0)
    assert not waiting.done()
    store.create("a", "n", "x", thing("x"))
    assert await asyncio.wait_for(waiting, 5) is True
    assert len(watcher.drain()) == 1
    assert await watcher.wait(0.001) is False, "nothing more has happened"


async def test_a_reader_slower_than_the_history_is_told_so() -> None:
    store = Store(history=3)
    watcher = store.watcher("a", 0)
    for number in range(5):
        store.create("a", "n", f"x{number}", thing(f"x{number}"))
    with pytest.raises(Compacted) as error:
        watcher.drain()
    assert error.value.oldest == 2
    with pytest.raises(Compacted, match=r"too old resource version: 1 \(2\)"):
        store.watcher("a", 1)
    assert [e.revision for e in store.watcher("a", 2).drain()] == [3, 4, 5]
    store.close()


async def test_compaction_forgets_the_history_up_to_a_revision(store: Store) -> None:
    for name in "xyz":
        store.create("a", "n", name, thing(name))
    store.compact(2)
    assert store.oldest("a") == 2
    with pytest.raises(Compacted):
        store.watcher("a", 1)
    assert [e.name for e in store.watcher("a", 2).drain()] == ["z"]


async def test_the_event_stream_goes_on_without_end(store: Store) -> None:
    seen: list[str] = []

    async def follow() -> None:
        async for event in store.watch("a", 0):
            seen.append(event.name)
            if len(seen) == 2:
                return

    following = asyncio.create_task(follow())
    store.create("a", "n", "x", thing("x"))
    await asyncio.sleep(0)
    store.create("a", "n", "y", thing("y"))
    await asyncio.wait_for(following, 5)
    assert seen == ["x", "y"]


def test_objects_and_the_revision_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "cluster.db"
    store = Store(path)
    store.create("a", "n", "x", thing("x", text="ä", number=1.5, nothing=None, nested={"list": [1, {"k": True}]}))
    store.create("a", "n", "y", thing("y"))
    store.delete("a", "n", "y")
    held, revision = store.list("a"), store.revision
    store.close()
    again = Store(path)
    assert again.list("a") == held
    assert again.revision == revision == 3
    assert again.create("a", "n", "z", thing("z"))["metadata"]["resourceVersion"] == "4"
    with pytest.raises(Compacted):
        again.watcher("a", 1)
    again.close()


def test_a_state_in_use_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "cluster.db"
    store = Store(path)
    store.create("a", "n", "x", thing("x"))
    with pytest.raises(StoreUnusable, match="another cluster is running in it"):
        Store(path)
    store.close()


def test_a_state_of_another_layout_is_refused_with_what_to_do(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "cluster.db"
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version=99")
    other.close()
    with pytest.raises(StoreUnusable, match=r"written by another version.*Remove it"):
        Store(path)


def test_a_damaged_state_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "cluster.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnusable, match=r"not a database.*choose another state directory"):
        Store(path)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["create", "update", "delete"])), max_size=40))
def test_the_history_replayed_gives_what_the_store_holds(steps: list[tuple[str, str]]) -> None:
    store = Store()
    for number, (name, step) in enumerate(steps):
        try:
            if step == "create":
                store.create("r", "n", name, thing(name, value=number))
            elif step == "update":
                store.update("r", "n", name, thing(name, value=number))
            else:
                store.delete("r", "n", name)
        except (Present, Missing):
            pass
    replayed: dict[str, Object] = {}
    last = 0
    for event in store.watcher("r", 0).drain():
        assert event.revision > last
        last = event.revision
        assert (event.previous is None) == (event.name not in replayed)
        if event.type == "DELETED":
            del replayed[event.name]
        else:
            replayed[event.name] = event.object
    assert sorted(replayed.values(), key=lambda o: o["metadata"]["name"]) == store.list("r")
    store.close()
