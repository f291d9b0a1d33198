"""The CPU manager gives CPUs to one container only, and claims nothing that is not so."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm_deploy.local.kubelet.cpus import CpuManager, whole_cpus


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=30), st.integers(1, 6), st.integers(1, 12))
def test_no_cpu_is_ever_given_twice(steps: list[tuple[bool, int]], cpus: int, real: int) -> None:
    manager = CpuManager(0, cpus, 1, real=list(range(real)), isolated=frozenset())
    held: list[str] = []
    for number, (take, count) in enumerate(steps):
        if take:
            assignment = manager.take(f"c{number}", count)
            assert len(assignment.simulated) in (0, count)
            assert assignment.real
            if assignment.simulated:
                held.append(f"c{number}")
        elif held:
            manager.release(held.pop(0))
        given = [cpu for owned in manager.exclusively_held.values() for cpu in owned]
        assert len(given) == len(set(given))
        assert set(manager.exclusively_held) == set(held)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 24))
def test_what_is_called_exclusive_shares_no_real_cpu_with_anybody(nodes: int, cpus: int, real: int) -> None:
    managers = [CpuManager(n, cpus, nodes, real=list(range(real)), isolated=frozenset()) for n in range(nodes)]
    taken = [(m, m.take(f"{n}/{c}", 1)) for n, m in enumerate(managers) for c in range(cpus)]
    claimed = [cpu for _, a in taken if a.exclusive != "false" for cpu in a.real]
    others = [cpu for _, a in taken if a.exclusive == "false" for cpu in a.real]
    others += [cpu for m in managers for cpu in m.shared]
    assert len(claimed) == len(set(claimed))
    assert not set(claimed) & set(others)


def test_exclusive_means_it_only_where_the_kernel_keeps_others_off() -> None:
    alone = CpuManager(0, 2, 1, real=[4, 5], isolated=frozenset({5}))
    assert alone.take("a", 1).environment() == {"SWARM_CPUS": "5", "SWARM_CPUS_EXCLUSIVE": "true"}
    assert CpuManager(0, 2, 1, real=[4, 5], isolated=frozenset()).take("a", 1).exclusive == "simulated"
    assert CpuManager(0, 2, 2, real=[4, 5], isolated=frozenset({4, 5})).take("a", 1).exclusive == "false"


def test_those_that_share_have_what_is_left_and_never_nothing() -> None:
    manager = CpuManager(0, 2, 1, real=[0, 1], isolated=frozenset())
    assert manager.shared == (0, 1)
    manager.take("a", 1)
    assert manager.shared == (0,)
    manager.take("b", 1)
    assert manager.shared == (0,)
    assert manager.take("c", 1).simulated == ()


def test_only_whole_cpus_of_guaranteed_pods_are_given_away() -> None:
    assert whole_cpus(2000, 2000, "Guaranteed") == 2
    assert whole_cpus(1500, 1500, "Guaranteed") == 0
    assert whole_cpus(2000, 1000, "Burstable") == 0
    assert whole_cpus(0, 0, "Guaranteed") == 0
