"""Which cores an agent has, read from made-up /sys trees."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.cpulist import format_cpus, parse_cpus
from swarm_agents.runtime import cores


def make_sys(root: Path, online: str, cpuset: str | None = None, quota: str | None = None) -> Path:
    (root / "sys/devices/system/cpu").mkdir(parents=True)
    (root / "sys/devices/system/cpu/online").write_text(online + "\n")
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    if cpuset is not None:
        (group / "cpuset.cpus.effective").write_text(cpuset + "\n")
    if quota is not None:
        (group / "cpu.max").write_text(quota + "\n")
    return root


@pytest.fixture
def affinity(monkeypatch: pytest.MonkeyPatch):
    def set_to(*cpus: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus))

    return set_to


@given(st.sets(st.integers(0, 300)))
def test_a_list_of_cpus_is_read_back_as_it_was_written(cpus: set[int]) -> None:
    assert parse_cpus(format_cpus(cpus)) == cpus


def test_ranges_are_written_short() -> None:
    assert format_cpus([5, 0, 2, 1]) == "0-2,5"


@pytest.mark.parametrize("text", ["x", "3-1", "1-", "-1", "1;2", "99999999"])
def test_what_is_no_list_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_cpus(text)


def test_an_agent_with_all_cpus_of_the_machine_shares_them(tmp_path: Path, affinity) -> None:
    affinity(0, 1, 2, 3)
    seen = cores.observe({}, make_sys(tmp_path, "0-3", "0-3", "max 100000"))
    assert (seen.cpus, seen.exclusive) == ((0, 1, 2, 3), False)
    assert "all 4 CPUs" in seen.reason


def test_a_cpuset_that_holds_the_limit_exactly_is_the_agents_own(tmp_path: Path, affinity) -> None:
    affinity(2, 3)
    seen = cores.observe({}, make_sys(tmp_path, "0-7", "2-3", "200000 100000"))
    assert (seen.cpus, seen.exclusive, seen.threads) == ((2, 3), True, 2)


def test_a_cpuset_without_a_quota_may_be_either_and_says_so(tmp_path: Path, affinity) -> None:
    affinity(2, 3)
    seen = cores.observe({}, make_sys(tmp_path, "0-7", "2-3", "max 100000"))
    assert seen.exclusive is None
    assert "either" in seen.reason


def test_a_shared_pool_larger_than_the_limit_is_shared(tmp_path: Path, affinity) -> None:
    affinity(2, 3, 4, 5)
    seen = cores.observe({}, make_sys(tmp_path, "0-7", "2-5", "150000 100000"))
    assert seen.exclusive is False
    assert "1.5 CPUs" in seen.reason


@pytest.mark.parametrize(("claim", "exclusive"), [("true", True), ("simulated", None), ("false", False), ("", False)])
def test_an_embedded_kubelets_word_is_taken_for_what_it_is_worth(tmp_path: Path, claim: str, exclusive) -> None:
    env = {"SWARM_CPUS": "1", "SWARM_CPUS_EXCLUSIVE": claim}
    seen = cores.observe(env, make_sys(tmp_path, "0-1"))
    assert (seen.cpus, seen.exclusive) == ((1,), exclusive)


def test_an_earlier_pin_does_not_hide_a_cpu_that_was_assigned_since(tmp_path: Path, affinity) -> None:
    affinity(0)
    assert cores.observe({"SWARM_CPUS": "0-1"}, make_sys(tmp_path, "0-3", "0-3")).cpus == (0, 1)


def test_cpus_that_the_kernel_does_not_allow_are_never_claimed(tmp_path: Path) -> None:
    env = {"SWARM_CPUS": "6-7", "SWARM_CPUS_EXCLUSIVE": "true"}
    seen = cores.observe(env, make_sys(tmp_path, "0-7", "0-3"))
    assert (seen.cpus, seen.exclusive) == ((0, 1, 2, 3), False)
    assert "6-7" in seen.reason


def test_a_bad_assignment_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SWARM_CPUS"):
        cores.observe({"SWARM_CPUS": "all"}, make_sys(tmp_path, "0-1"))


def test_a_process_is_pinned_with_all_its_threads() -> None:
    before = os.sched_getaffinity(0)
    one = min(before)
    try:
        assert cores.pin(cores.Cores((one,), None, ""))
        assert os.sched_getaffinity(0) == {one}
    finally:
        for thread in map(int, os.listdir("/proc/self/task")):
            os.sched_setaffinity(thread, before)


def test_a_pin_that_the_kernel_refuses_leaves_things_as_they_are() -> None:
    before = os.sched_getaffinity(0)
    assert not cores.pin(cores.Cores((4095,), None, ""))
    assert os.sched_getaffinity(0) == before
