"""A directory in shared memory that is this test's alone."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def shm_scratch() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="agentswarm-chaos-test-", dir="/dev/shm"))
    try:
        yield made
    finally:
        shutil.rmtree(made)
