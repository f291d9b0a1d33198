"""What is kept beside the board: written whole or not at all, by one writer at a time, within bounds."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swarm_agents.config import Checkpoints
from swarm_agents.errors import PayloadError, PayloadTooLarge
from swarm_agents.runtime.keepfile import FORMAT, Head, KeepFile, read, split
from swarm_agents.runtime.store import ORPHANED, Janitor, Store, list_files, parse_task, task_key
from swarm_agents.runtime.volume import Volume

KEY = task_key((7, 9), "team.simulate")
ARRAY = np.arange(5000.0)


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, text: str, **fields: Any) -> None:
        self.lines.append((text, fields))


def yes() -> bool:
    return True


def make_store(directory: Path, **limits: Any) -> Store:
    return Store(directory, Checkpoints(**limits), owner="risk-compute-0-0", place=(1, 1), log=Log())


def keep(store: Store, *values: Any, key: str = KEY) -> Path:
    """Keeps values by one writer, which then dies: nothing is put away."""
    keeper = store.keeper(key, yes)
    for value in values:
        assert keeper.write(value)
    assert keeper.file is not None
    return keeper.file.path


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
ARRAYS = hnp.arrays(
    st.sampled_from(["f8", "i4", "u1", "U5", "M8[ns]", "c16", "?"]), hnp.array_shapes(min_dims=0, min_side=0)
)


@settings(max_examples=60, deadline=None)
@given(
    value=st.recursive(
        SCALARS | st.binary() | ARRAYS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4)
    ),
    version=st.integers(0, 2**32 - 1),
)
def test_what_is_kept_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, value: Any, version: int) -> None:
    path = tmp_path_factory.mktemp("keep") / "file"
    parts = split(value)
    file = KeepFile(path, parts.length)
    file.begin(Head(KEY, 3))
    file.write(parts, version=version)
    file.close()
    head, kept, flaws = read(path, KEY)
    assert (head, flaws) == (Head(KEY, 3), ())
    assert kept is not None
    assert (kept.version, kept.term, kept.sequence) == (version, 3, 1)
    np.testing.assert_equal(kept.value, value)


def test_the_newest_of_many_values_is_read_and_its_file_does_not_grow(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    keeper = store.keeper(KEY, yes)
    sizes = set()
    for number in range(7):
        keeper.write({"step": number, "sums": ARRAY + number})
        (name,) = names(tmp_path)
        sizes.add((tmp_path / name).stat().st_size)
    assert len(sizes) == 1
    kept = make_store(tmp_path).read(KEY)
    assert kept is not None
    assert kept.value["step"] == 6
    np.testing.assert_array_equal(kept.value["sums"], ARRAY + 6)
    assert os.stat(tmp_path / name).st_mode & 0o777 == 0o600
    assert name.startswith("board"), "who removes the board removes what lies beside it by this name"


def test_a_value_that_has_outgrown_its_file_moves_into_a_larger_one(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    path = keep(store, 1, np.zeros(1 << 20, np.uint8))
    assert names(tmp_path) == [path.name]
    assert make_store(tmp_path).read(KEY).value.nbytes == 1 << 20  # type: ignore[union-attr]


@pytest.mark.parametrize("damage", ["value", "checksum", "cut", "begun"])
def test_a_torn_value_is_recognised_logged_and_the_one_before_it_taken(tmp_path: Path, damage: str) -> None:
    path = keep(make_store(tmp_path), {"step": 1, "sums": ARRAY}, {"step": 2, "sums": ARRAY})
    raw = bytearray(path.read_bytes())
    second = 4096  # the buffers take turns, the second value lies in the first of them
    if damage == "value":
        raw[second + 64 + 900] ^= 1
    elif damage == "checksum":
        raw[second + 28] ^= 1
    elif damage == "begun":
        raw[second + 8 : second + 16] = bytes(8)
    else:
        second = 4096 + (len(raw) - 4096) // 2
        del raw[second + 500 :]
    path.write_bytes(raw)
    store = make_store(tmp_path)
    kept = store.read(KEY)
    assert kept is not None
    assert kept.value["step"] == (2 if damage == "cut" else 1)
    if damage != "cut":
        ((_, fields),) = store.log.lines
        assert fields["reason"] == "number 2 is torn"


@pytest.mark.parametrize("damage", ["magic", "format", "head", "empty", "other"])
def test_a_file_that_is_unusable_as_a_whole_is_passed_over_for_an_earlier_writers(tmp_path: Path, damage: str) -> None:
    keep(make_store(tmp_path), "old")
    saved = (tmp_path / names(tmp_path)[0]).read_bytes()
    path = keep(make_store(tmp_path), "new")
    (tmp_path / path.name.replace("00000002", "00000001")).write_bytes(saved)
    raw = bytearray(path.read_bytes())
    if damage == "magic":
        raw[:4] = b"nope"
    elif damage == "format":
        raw[8] = FORMAT + 1
    elif damage == "head":
        raw[40] ^= 1
    elif damage == "other":
        keep(make_store(tmp_path), 1, key=task_key((7, 9), "team.other"))
        (found,) = list_files(tmp_path, ("board.keep-",), task_key((7, 9), "team.other"))
        raw = bytearray(found.path.read_bytes())
        found.path.unlink()
    else:
        raw = bytearray()
    path.write_bytes(raw)
    store = make_store(tmp_path)
    assert store.read(KEY).value == "old"  # type: ignore[union-attr]
    ((text, fields),) = store.log.lines
    assert "older" in text
    assert fields["file"] == path.name


@settings(max_examples=80, deadline=None)
@given(cut=st.integers(0, 60_000), flips=st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 255)), max_size=4))
def test_no_damage_to_a_file_gives_another_value_than_was_kept(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flips: list[tuple[int, int]]
) -> None:
    directory = tmp_path_factory.mktemp("keep")
    path = keep(make_store(directory), ARRAY[:1000], ARRAY[:1001])
    raw = bytearray(path.read_bytes())
    for at, change in flips:
        raw[at % len(raw)] ^= change
    path.write_bytes(raw[: max(len(raw) - cut, 0)])
    kept = make_store(directory).read(KEY)
    if kept is not None:
        assert kept.value.tobytes() == ARRAY[: 999 + kept.sequence].tobytes()


def test_a_value_of_another_version_is_passed_over_for_an_older_one_of_the_right_one(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    keeper = store.keeper(KEY, yes)
    keeper.write("of before the update", version=2)
    keeper.release()
    saved = (tmp_path / names(tmp_path)[0]).read_bytes()
    successor = store.keeper(KEY, yes)
    successor.write("of after it", version=3)
    (tmp_path / names(tmp_path)[0].replace("00000002", "00000001")).write_bytes(saved)
    assert store.read(KEY, usable=lambda kept: kept.version == 2).value == "of before the update"  # type: ignore[union-attr]
    ((_, fields),) = store.log.lines
    assert fields["reason"] == "number 1 is of version 3"
    assert store.read(KEY, usable=lambda kept: kept.version == 9) is None


# -- fencing


def test_a_successor_writes_a_file_of_its_own_and_its_predecessor_can_not_reach_it(tmp_path: Path) -> None:
    alive = [True]
    predecessor = make_store(tmp_path).keeper(KEY, lambda: alive[0])
    predecessor.write("first")
    store = make_store(tmp_path)
    successor = store.keeper(KEY, yes)
    assert successor.read().value == "first"  # type: ignore[union-attr]
    successor.write("second")
    assert successor.term == predecessor.term + 1
    # It wakes up in the midst of a write: it had looked whether it still holds the task, long ago.
    predecessor.write("late")
    assert store.read(KEY).value == "second"  # type: ignore[union-attr]
    alive[0] = False
    assert predecessor.write("later") is False
    predecessor.release()
    assert [one.term for one in store.find(KEY)] == [2]


def test_a_predecessor_that_wakes_up_before_its_first_checkpoint_takes_no_term(tmp_path: Path) -> None:
    fenced = make_store(tmp_path)
    successor = make_store(tmp_path).keeper(KEY, yes)
    answers = iter([True, True, False])

    def held() -> bool:
        answer = next(answers)
        if fenced.counts["looked"] == 1:
            # Between the look and the link: it is stopped, declared dead, and its successor begins.
            assert successor.write("the successor's")
        fenced.counts["looked"] += 1
        return answer

    assert fenced.keeper(KEY, held).write("late") is False
    assert make_store(tmp_path).read(KEY).value == "the successor's"  # type: ignore[union-attr]
    assert len(names(tmp_path)) == 1, "what it had prepared is gone"


def test_a_predecessor_that_was_first_is_followed_by_a_higher_term(tmp_path: Path) -> None:
    predecessor = make_store(tmp_path).keeper(KEY, yes)
    looked = []

    def held() -> bool:
        looked.append(1)
        if len(looked) == 2:
            assert predecessor.write("late but lawful")
        return True

    successor = make_store(tmp_path).keeper(KEY, held)
    assert successor.write("the successor's")
    assert (predecessor.term, successor.term) == (1, 2)
    assert make_store(tmp_path).read(KEY).value == "the successor's"  # type: ignore[union-attr]


# -- bounds, and what is left behind


def test_a_value_over_the_limit_is_refused_with_what_to_do(tmp_path: Path) -> None:
    keeper = make_store(tmp_path, max_bytes=10_000).keeper(KEY, yes)
    with pytest.raises(PayloadTooLarge, match=r"over the limit of 10000.*checkpoints\.maxBytes"):
        keeper.write(np.zeros(2000))
    with pytest.raises(PayloadError):
        keeper.write(object())
    assert keeper.write(np.zeros(100))


def test_when_the_nodes_share_is_used_up_a_task_goes_on_without_and_says_so_once(tmp_path: Path) -> None:
    store = make_store(tmp_path, node_bytes=200_000)
    assert store.keeper(KEY, yes).write(np.zeros(5000))
    other = store.keeper(task_key((7, 10), "team.simulate"), yes)
    assert [other.write(np.zeros(12_000)) for _ in range(3)] == [False] * 3
    assert store.counts["skipped"] == 3
    ((_, fields),) = store.log.lines
    assert "nodeBytes" in fields["reason"]
    assert len(names(tmp_path)) == 1
    assert store.used() < 200_000


def test_an_answered_task_leaves_one_file_which_the_next_task_takes(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for number in range(3):
        keeper = store.keeper(task_key((7, number), "team.simulate"), yes)
        keeper.write({"task": number})
        assert [len(store.find(keeper.key)), len(names(tmp_path))] == [1, 1]
        assert store.read(keeper.key).value == {"task": number}  # type: ignore[union-attr]
        keeper.done()
        assert store.find(keeper.key) == []
    store.close()
    assert names(tmp_path) == []


class Board:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tasks: set[tuple[int, int]] = set()

    def find(self, task: tuple[int, int]) -> str | None:
        return "claimed" if task in self.tasks else None


def test_a_janitor_removes_what_belongs_to_no_task_for_long_and_nothing_else(tmp_path: Path) -> None:
    now, board = [0.0], Board(tmp_path)
    store = make_store(tmp_path)
    keep(store, 1, key=task_key((1, 1), "a.b"))
    keep(store, 1, key=task_key((1, 2), "a.b"))
    state = keep(store, 1, key="agent risk-compute-0")
    keeper = store.keeper(task_key((1, 3), "a.b"), yes)
    keeper.write(1)
    keeper.done()  # and its agent is killed: the spare file stays
    board.tasks.add((1, 1))
    janitor = Janitor(board, clock=lambda: now[0])  # type: ignore[arg-type]
    assert janitor.tidy([(1, 1)]) == 0
    now[0] = ORPHANED - 1
    assert janitor.tidy([(1, 1)]) == 0
    now[0] = ORPHANED
    assert janitor.tidy([(1, 1)]) == 1
    assert janitor.tidy([]) == 0
    now[0] = 2 * ORPHANED
    assert janitor.tidy([]) == 1
    board.tasks.clear()
    janitor.tidy([])
    now[0] = 3 * ORPHANED
    assert janitor.tidy([]) == 1
    assert names(tmp_path) == [state.name], "an agent's state is no task's"


def test_a_key_says_which_task_it_is() -> None:
    assert parse_task(task_key((2**64 - 1, 3), "a.b")) == ((2**64 - 1, 3), "a.b")
    assert parse_task("agent risk-compute-0") is None


# -- the volume


def volume_store(shm: Path, disk: Path, **limits: Any) -> Store:
    shm.mkdir(exist_ok=True)
    given_limits = Checkpoints(volume_interval=0.001, **limits)
    log = Log()
    return Store(shm, given_limits, owner="o", place=(1, 1), log=log, volume=Volume(disk, given_limits, log=log))


def flush(store: Store) -> None:
    assert store.volume is not None
    assert store.volume.flush(10)


def test_what_is_kept_survives_the_loss_of_shared_memory_on_a_volume(tmp_path: Path) -> None:
    store = volume_store(tmp_path / "shm", tmp_path / "disk")
    keep(store, {"sums": ARRAY}, {"sums": ARRAY + 1})
    flush(store)
    assert len(names(tmp_path / "disk")) == 1
    for path in (tmp_path / "shm").iterdir():
        path.unlink()
    again = volume_store(tmp_path / "shm", tmp_path / "disk")
    keeper = again.keeper(KEY, yes, fresh=False)
    kept = keeper.read()
    assert kept is not None
    np.testing.assert_array_equal(kept.value["sums"], ARRAY + 1)
    keeper.write("further")
    assert keeper.term == 2, "it comes after the one on the volume"
    flush(again)
    assert [one.term for one in list_files(tmp_path / "disk", ("keep-",))] == [2]
    keeper.done()
    flush(again)
    assert names(tmp_path / "disk") == []


def test_a_torn_copy_on_the_volume_is_no_worse_than_none(tmp_path: Path) -> None:
    store = volume_store(tmp_path / "shm", tmp_path / "disk")
    path = keep(store, ARRAY)
    flush(store)
    (copy,) = (tmp_path / "disk").iterdir()
    copy.write_bytes(copy.read_bytes()[:-10])
    assert volume_store(tmp_path / "shm", tmp_path / "disk").read(KEY).value.nbytes == ARRAY.nbytes  # type: ignore[union-attr]
    path.unlink()
    last = volume_store(tmp_path / "shm", tmp_path / "disk")
    assert last.read(KEY) is None
    assert last.log.lines


def test_a_volume_that_is_full_or_gone_disturbs_nobody(tmp_path: Path) -> None:
    store = volume_store(tmp_path / "shm", tmp_path / "disk", volume_bytes=1000)
    keep(store, ARRAY)
    flush(store)
    ((_, fields),) = store.log.lines
    assert "volumeBytes" in fields["reason"]
    assert names(tmp_path / "disk") == []
    (tmp_path / "disk").rmdir()
    keep(store, ARRAY + 1)
    flush(store)
    assert store.read(KEY).value[0] == 1  # type: ignore[union-attr]


def test_the_checksum_is_of_everything_that_a_buffer_says(tmp_path: Path) -> None:
    path = keep(make_store(tmp_path), b"abc")
    raw = path.read_bytes()
    at = 4096 + (len(raw) - 4096) // 2
    length = int.from_bytes(raw[at + 8 : at + 16], "little")
    body = raw[at + 64 : at + 64 + length]
    want = int.from_bytes(raw[at + 28 : at + 32], "little")
    assert zlib.crc32(body, zlib.crc32(raw[at : at + 28] + bytes(4))) == want
