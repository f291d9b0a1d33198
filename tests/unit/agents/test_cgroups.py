"""Cgroups of version 1, 2 and both, on recorded machines: where they stand and what they limit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from support.machinekit import machine
from swarm_agents import cgroups


def test_version_2_has_everything_in_one_tree_and_the_tightest_level_counts(tmp_path: Path) -> None:
    root = machine(tmp_path, "server")
    own, slice_ = cgroups.memory_levels(root)
    assert own == cgroups.Memory(used=104857600.0, reclaimable=20971520.0, limit=209715200.0)
    assert own.working == 104857600.0 - 20971520.0
    assert slice_.left == 262144000.0 - 209715200.0
    assert cgroups.tightest_memory(root) == slice_
    assert cgroups.cpu_limit(root) == 1.5
    assert cgroups.cpuset(root) == {1, 2, 3}, "the pod's own group has none: the one above counts"


def test_version_1_has_a_tree_for_each_controller_and_says_no_limit_by_a_number(tmp_path: Path) -> None:
    root = machine(tmp_path, "vm")
    at = cgroups.place("memory", root)
    assert at is not None
    assert (at.old, at.folder) == (True, "sys/fs/cgroup/memory"), "its path lies outside of what is mounted"
    assert cgroups.reclaimable(at) == 10485760.0
    assert cgroups.memory_limit(at) is None
    assert [level.limit for level in cgroups.memory_levels(root)] == [math.inf]
    assert cgroups.tightest_memory(root) is None
    assert cgroups.cpu_limit(root) == 0.5
    assert cgroups.cpuset(root) == {0}


def test_a_hybrid_has_memory_in_the_one_and_cpu_in_the_other(tmp_path: Path) -> None:
    root = machine(tmp_path, "arm")
    tightest = cgroups.tightest_memory(root)
    assert tightest is not None
    assert (tightest.working, tightest.limit) == (600000.0, 4000000.0)
    at = cgroups.place("cpu", root)
    assert at is not None
    assert (at.old, at.folder) == (False, "sys/fs/cgroup/unified/agent")
    assert cgroups.cpu_limit(root) is None
    assert cgroups.cpuset(root) == frozenset()


def test_another_process_is_found_by_its_own_file(tmp_path: Path) -> None:
    root = machine(tmp_path, "server")
    (root / "proc/17").mkdir()
    (root / "proc/17/cgroup").write_text("0::/kubepods.slice\n")
    at = cgroups.place("memory", root, "17")
    assert at is not None
    assert cgroups.memory_limit(at) == 262144000.0


@pytest.mark.parametrize("text", ["", "\n", "max max", "nonsense", "-1", "-1 100000", "0 0", "1" * 400, "\0"])
@pytest.mark.parametrize("kind", ["server", "vm", "arm"])
def test_what_makes_no_sense_limits_nothing(tmp_path: Path, kind: str, text: str) -> None:
    root = machine(tmp_path, kind)
    for path in (root / "sys/fs/cgroup").rglob("*"):
        if path.is_file():
            path.write_text(text)
    assert cgroups.tightest_memory(root) is None
    assert cgroups.cpu_limit(root) is None
    assert cgroups.cpuset(root) == frozenset()


def test_a_path_that_would_leave_the_tree_is_not_followed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no cgroup"):
        cgroups.parse_where(b"0::/../../etc\n")
    root = machine(tmp_path, "server")
    (root / "proc/self/cgroup").write_text("0::/../../etc\n")
    at = cgroups.place("memory", root)
    assert at is None or at.folder == "sys/fs/cgroup"
