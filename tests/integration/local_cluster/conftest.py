"""Local clusters inside the test's own process, and the proof that nothing of them stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.leftovers import processes, stays_empty_within
from support.localnode import InProcess, in_process


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[InProcess]:
    """One node with four CPUs."""
    async with in_process(tmp_path / "state") as made:
        yield made
        shm = made.shm
    _nothing_left(tmp_path, shm)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[InProcess]:
    """Two nodes with four CPUs each."""
    async with in_process(tmp_path / "state", nodes=2) as made:
        yield made
        shm = made.shm
    _nothing_left(tmp_path, shm)


def _nothing_left(tmp_path: Path, shm: Path) -> None:
    assert not stays_empty_within(5, lambda: processes(str(tmp_path)))
    assert not shm.exists(), "the cluster left shared memory"
