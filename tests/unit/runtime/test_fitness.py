"""Whether an agent's place is what the Swarm asks for, read from made-up /sys trees."""

import os
from pathlib import Path

import pytest

from swarm_agents.runtime import cores
from swarm_agents.runtime.cores import Code, Cores
from swarm_agents.runtime.fitness import Wishes, numa_nodes, report

OWN = Cores((2, 3), True, "its own", Code.EXCLUSIVE)


def make_numa(root: Path, **lists: str) -> Path:
    for node, cpus in lists.items():
        there = root / "sys/devices/system/node" / node
        there.mkdir(parents=True)
        (there / "cpulist").write_text(cpus + "\n")
    return root


def make_cpus(root: Path, online: str, quota: str) -> Path:
    (root / "sys/devices/system/cpu").mkdir(parents=True)
    (root / "sys/devices/system/cpu/online").write_text(online)
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_text(quota)
    return root


@pytest.mark.parametrize(
    ("cpus", "nodes"), [((0, 1), (0,)), ((4, 7), (1,)), ((3, 4), (0, 1)), ((0, 9), None), ((), None)]
)
def test_numa_nodes_are_those_of_the_cpus_and_unknown_where_a_cpu_is_on_none(tmp_path: Path, cpus, nodes) -> None:
    assert numa_nodes(cpus, make_numa(tmp_path, node0="0-3", node1="4-7")) == nodes


def test_a_kernel_that_tells_nothing_of_numa_gives_unknown_and_not_zero(tmp_path: Path) -> None:
    assert numa_nodes((0,), tmp_path) is None


def test_an_agent_without_the_operators_wishes_pins_itself_and_asks_for_nothing() -> None:
    wishes = Wishes.from_environment({})
    assert wishes.pins
    assert wishes.unmet(Cores((0,), False, "shared", Code.NO_STATIC_POLICY), None) == ""


def test_pinning_none_leaves_the_agent_where_the_kernel_puts_it() -> None:
    assert not Wishes.from_environment({"SWARM_CPU_PINNING": "None"}).pins


@pytest.mark.parametrize("name", ["SWARM_CPU_PINNING", "SWARM_NUMA"])
def test_a_wish_that_nobody_knows_is_an_error_that_names_the_variable(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Wishes.from_environment({name: "Sometimes"})


@pytest.mark.parametrize("code", list(Code))
def test_required_pinning_is_met_only_by_cores_that_no_other_pod_has(code: Code) -> None:
    unmet = Wishes("Required", "Any").unmet(Cores((2,), None, "so it is", code), (0,))
    assert bool(unmet) == (code not in (Code.EXCLUSIVE, Code.SIMULATED))
    assert not unmet or ("so it is" in unmet and "cpuManagerPolicy" in unmet)


@pytest.mark.parametrize(("nodes", "word"), [((0,), ""), ((0, 1), "single-numa-node"), (None, "does not say")])
def test_required_numa_is_met_only_by_cores_of_one_node(nodes, word: str) -> None:
    unmet = Wishes("None", "Required").unmet(OWN, nodes)
    assert bool(unmet) == bool(word)
    assert word in unmet


def test_what_is_only_preferred_never_makes_an_agent_unfit() -> None:
    assert Wishes("Preferred", "Preferred").unmet(Cores((0, 9), False, "shared", Code.SHARED_POOL), (0, 1)) == ""


def test_the_report_says_unknown_as_null() -> None:
    said = report(Wishes(), Cores((1,), None, "?", Code.UNKNOWN), None)
    assert (said["coresExclusive"], said["numaNodes"], said["coresCode"], said["unfit"]) == (None, None, "Unknown", "")


@pytest.mark.parametrize(
    ("allowed", "quota", "whole", "code"),
    [
        ({2, 3}, "max 100000", "2", Code.EXCLUSIVE),  # from 1.33 on exclusive cores have no quota
        ({2, 3}, "200000 100000", "2", Code.EXCLUSIVE),  # before
        ({1, 2, 3, 4, 5, 6, 7}, "max 100000", "2", Code.SHARED_POOL),
        ({1, 2, 3, 4, 5, 6, 7}, "200000 100000", "2", Code.SHARED_POOL),
        ({0, 1, 2, 3, 4, 5, 6, 7}, "200000 100000", "2", Code.NO_STATIC_POLICY),
        ({2, 3}, "max 100000", "", Code.UNKNOWN),
        ({2, 3}, "50000 100000", "", Code.SHARED_POOL),
    ],
)
def test_what_was_asked_for_tells_own_cores_from_the_shared_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: set[int], quota: str, whole: str, code: Code
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    seen = cores.observe({"SWARM_WHOLE_CPUS": whole}, make_cpus(tmp_path, "0-7", quota))
    assert seen.code is code
    assert seen.exclusive is {Code.EXCLUSIVE: True, Code.UNKNOWN: None}.get(code, False)


def test_a_number_of_cpus_that_is_none_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SWARM_WHOLE_CPUS"):
        cores.observe({"SWARM_WHOLE_CPUS": "two"}, make_cpus(tmp_path, "0-1023", "max 100000"))
