"""A ring's file: who may look into it, what is no ring, what does not fit, and who removes it."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from support.ringkit import make
from swarm_agents.errors import (
    RingMismatch,
    SharedMemoryFull,
    Unreachable,
)
from swarm_agents.shm.ring import Ring


def test_only_its_owner_can_look_into_a_ring_and_its_memory_is_there(tmp_path: Path) -> None:
    ring, _, _ = make(tmp_path)
    status = ring.path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_blocks * 512 >= status.st_size
    assert [path.name for path in tmp_path.iterdir()] == ["ring"]


def test_a_path_that_is_taken_is_not_overwritten(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(FileExistsError, match="open it"):
        Ring.create(tmp_path / "ring")
    assert [path.name for path in tmp_path.iterdir()] == ["ring"]


def test_a_ring_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="nobody has made it"):
        Ring.open(tmp_path / "nowhere")


def _write_word(path: Path, index: int, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(index * 8)
        file.write(struct.pack("<q", value))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: _write_word(path, 0, 77), "no ring"),
        (lambda path: _write_word(path, 1, 99), "version 99"),
        (lambda path: os.truncate(path, 10), "truncated"),
        (lambda path: os.truncate(path, 4096), "truncated"),
        (lambda path: path.chmod(0o644), "chmod 600"),
    ],
    ids=["magic", "version", "cut short", "cut", "mode"],
)
def test_a_file_that_is_no_ring_is_refused_with_advice(tmp_path: Path, spoil: Any, message: str) -> None:
    ring, _, _ = make(tmp_path, slots=1024)
    spoil(ring.path)
    with pytest.raises(RingMismatch, match=message):
        Ring.open(ring.path)


def test_a_ring_larger_than_its_file_system_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises((SharedMemoryFull, OSError), match=r"left|large"):
        Ring.create(tmp_path / "ring", slots=1 << 24, slot_bytes=1 << 24)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"slots": 100}, {"slot_bytes": 0}, {"frames": "variable", "slot_bytes": 48}])
def test_a_shape_that_cannot_be_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not"):
        Ring.create(tmp_path / "ring", **options)


def test_the_last_user_removes_the_ring(tmp_path: Path) -> None:
    ring, tx, rx = make(tmp_path)
    tx.close()
    assert not ring.remove_if_unused()
    rx.close()
    assert ring.remove_if_unused()
    assert not ring.path.exists()
