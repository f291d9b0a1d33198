"""What memory is left, read from files as Linux writes them; and that what needs more is refused."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm_agents.compute import memory
from swarm_agents.errors import NotEnoughMemory, SwarmError, from_wire, to_wire

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8 GiB available and no cgroup's limit."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/kubepods/pod1/agent\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n")
    for level in ("", "kubepods", "kubepods/pod1", "kubepods/pod1/agent"):
        limited(tmp_path, level, "max")
    return tmp_path


def limited(root: Path, level: str, most: str, used: int = 0, inactive: int = 0) -> None:
    group = root / "sys/fs/cgroup" / level
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon {used - inactive}\ninactive_file {inactive}\n")


def test_without_a_limit_it_is_what_the_machine_has(root: Path) -> None:
    assert memory.available(root) == 8 * GIB


def test_the_narrowest_level_of_the_hierarchy_counts(root: Path) -> None:
    limited(root, "kubepods/pod1/agent", str(4 * GIB), used=GIB)
    limited(root, "kubepods/pod1", str(3 * GIB), used=GIB)
    assert memory.available(root) == 2 * GIB


def test_files_that_can_be_dropped_are_not_used_memory(root: Path) -> None:
    limited(root, "kubepods/pod1/agent", str(4 * GIB), used=3 * GIB, inactive=2 * GIB)
    assert memory.available(root) == 3 * GIB


def test_in_a_container_the_path_may_be_the_hosts_and_the_top_counts(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/elsewhere/on/the/host\n")
    limited(root, "", str(GIB), used=GIB // 2)
    assert memory.available(root) == GIB // 2


def test_a_group_over_its_limit_has_nothing_left(root: Path) -> None:
    limited(root, "kubepods", str(GIB), used=2 * GIB)
    assert memory.available(root) == 0.0


@pytest.mark.parametrize("text", ["", "nonsense", "-\n"])
def test_files_that_cannot_be_read_limit_nothing(root: Path, text: str) -> None:
    (root / "proc/meminfo").write_text(text)
    (root / "sys/fs/cgroup/kubepods/memory.max").write_text(text)
    assert memory.available(root) == math.inf


def test_this_machine_says_something_sensible() -> None:
    assert 0 < memory.available() < 1 << 50


def test_what_needs_more_is_refused_in_words_that_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 100.0 * (1 << 20))
    memory.require(100 << 20, "kernel a.b")
    with pytest.raises(NotEnoughMemory, match=r"kernel a\.b needs 4 TiB of memory, 100 MiB are available.*split"):
        memory.require(1 << 42, "kernel a.b")


def test_little_is_taken_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: pytest.fail("asked"))
    memory.require(memory.SMALL, "kernel a.b")


def test_the_refusal_is_a_memory_error_wherever_it_arrives() -> None:
    there = from_wire(to_wire(NotEnoughMemory("too large")))
    assert isinstance(there, MemoryError)
    assert isinstance(there, SwarmError)


_LIMITED = """
import resource
import numpy as np
from swarm_agents.compute import registry
scan = registry.get("science.scan")
scan(np.ones(10))
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (300 << 20),) * 2)
values = np.ones(20 << 20)
for kernel, argument in ((scan, values), (scan, np.broadcast_to(1.0, (1 << 40,)))):
    try:
        kernel(argument)
    except MemoryError as error:
        print(type(error).__name__, error)
print(scan(values[:10]).tolist())
"""


def test_a_process_with_a_limit_refuses_what_would_pass_it_and_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED], env=os.environ, capture_output=True, text=True, timeout=60, check=True
    )
    result, array, after = done.stdout.splitlines()
    assert result.startswith("NotEnoughMemory kernel science.scan needs 340.1 MiB of memory, 1")
    assert array.startswith("NotEnoughMemory an array of shape (1099511627776,), as float64, needs 8 TiB of memory")
    assert after == str([float(i) for i in range(1, 11)])
