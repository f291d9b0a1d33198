"""What is put aside on a disk comes back as it was, or is refused by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from swarm_agents.resource.spillfiles import SpillError, SpillFiles, in_memory

PARTS = [b"head", np.arange(1000.0).view(np.uint8), b"", np.empty((0, 3)), bytearray(b"x" * 5000)]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[SpillFiles]:
    files = SpillFiles(tmp_path, 1 << 20)
    yield files
    files.close()


def test_parts_come_back_as_they_were_and_a_dropped_file_takes_no_room(files: SpillFiles) -> None:
    spilled = files.write(PARTS)
    assert files.read(spilled) == [bytes(part) for part in PARTS]
    assert files.bytes == spilled.size == spilled.path.stat().st_size
    files.drop(spilled)
    assert files.bytes == 0
    assert not spilled.path.exists()
    assert files.read(files.write([])) == []


def test_every_torn_file_is_refused(files: SpillFiles) -> None:
    spilled = files.write([b"head", b"body" * 10])
    whole = spilled.path.read_bytes()
    for length in range(len(whole)):
        spilled.path.write_bytes(whole[:length])
        with pytest.raises(SpillError, match=f"has {length} bytes"):
            files.read(spilled)
    spilled.path.write_bytes(whole + b"x")
    with pytest.raises(SpillError):
        files.read(spilled)


def test_a_change_of_any_byte_is_seen(files: SpillFiles) -> None:
    spilled = files.write([b"head", b"body" * 10])
    whole = spilled.path.read_bytes()
    for at in range(len(whole)):
        spilled.path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        with pytest.raises(SpillError):
            files.read(spilled)
    spilled.path.write_bytes(whole)
    assert files.read(spilled) == [b"head", b"body" * 10]


def test_another_file_in_its_place_is_not_taken_for_it(files: SpillFiles) -> None:
    one, other = files.write([b"one"]), files.write([b"two"])
    other.path.rename(one.path)
    with pytest.raises(SpillError, match="not the file"):
        files.read(one)


def test_a_file_that_has_vanished_is_an_error_of_its_own_only(files: SpillFiles) -> None:
    gone, well = files.write([b"gone"]), files.write([b"well"])
    gone.path.unlink()
    with pytest.raises(SpillError, match="can't be read"):
        files.read(gone)
    files.drop(gone)
    assert files.read(well) == [b"well"]
    assert files.bytes == well.size


def test_no_more_is_written_than_allowed(tmp_path: Path) -> None:
    files = SpillFiles(tmp_path, 10_000)
    kept = files.write([b"x" * 6000])
    with pytest.raises(OSError, match="over the limit of 10000"):
        files.write([b"x" * 6000])
    files.drop(kept)
    assert files.read(files.write([b"x" * 6000])) == [b"x" * 6000]
    files.close()


def test_a_disk_that_is_full_leaves_no_half_file_and_no_room_taken(files: SpillFiles) -> None:
    def fail(out: object, data: bytes) -> None:
        if len(data) > 1000:
            raise OSError(28, "No space left on device")
        written(out, data)

    from swarm_agents.resource import spillfiles

    written = spillfiles._write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spillfiles, "_write", fail)
        with pytest.raises(OSError, match="No space"):
            files.write([b"small", b"x" * 5000])
    assert files.bytes == 0
    assert [path.name for path in files.directory.iterdir()] == ["lock"]
    assert files.read(files.write(PARTS))[0] == b"head"


def test_a_disk_with_less_than_a_tenth_left_is_not_filled(files: SpillFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(os.statvfs(files.directory))
    values[4] = values[2] // 20  # bavail
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(values))
    with pytest.raises(OSError, match="a tenth"):
        files.write([b"x"])


def test_what_the_dead_have_left_is_removed_and_what_the_living_hold_is_not(tmp_path: Path) -> None:
    living, dead = SpillFiles(tmp_path, 1 << 20), SpillFiles(tmp_path, 1 << 20)
    kept = living.write([b"kept"])
    dead.write([b"left"])
    os.close(dead._held)  # as the kernel does
    dead._held = -1
    another = SpillFiles(tmp_path, 1 << 20)
    assert not dead.directory.exists()
    assert living.read(kept) == [b"kept"]
    living.close()
    another.close()
    assert list(tmp_path.iterdir()) == []


def test_file_systems_in_memory_are_told_by_the_deepest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    real = os.path.realpath(tmp_path)
    lines = ["1 0 0:1 / / rw - ext4 /dev/a rw", f"2 1 0:2 / {real} rw,x shared:3 - tmpfs none rw", "cut off"]
    mounts.write_text("\n".join(lines))
    assert in_memory(tmp_path, mounts)
    assert not in_memory(Path("/"), mounts)
    assert not in_memory(tmp_path, tmp_path / "missing")
