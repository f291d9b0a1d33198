"""Memory that nothing is kept in goes back to the kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

from swarm_operator import heap

_PROGRAM = """
import sys
from swarm_operator import heap
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
blocks = [bytes(4000) for _ in range(20_000)]
kept = blocks[::100]
del blocks
before = resident()
trimmed = heap.trim()
print(trimmed, before - resident())
"""


def test_free_pages_between_live_ones_go_back() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    trimmed, freed = done.stdout.split()
    if trimmed == "False":
        pytest.skip("this C library has no malloc_trim")
    assert int(freed) > 40 << 20


def test_a_c_library_without_it_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    assert heap.trim() is False
