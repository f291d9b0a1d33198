"""Work is refused while memory is short, and taken again when it is not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from swarm_agents.errors import SwarmFull
from swarm_agents.resource.headroom import Headroom, reclaimable
from swarm_agents.resource.sensing.reading import Availability, Reading, unavailable

GIB = float(1 << 30)


def cgroup(used: float, limit: float = GIB) -> dict[str, Reading]:
    values = {"cgroup_memory_used_bytes": used, "cgroup_memory_limit_bytes": limit}
    return {"cgroup": Reading(Availability.AVAILABLE, values)}


def node(free: float, whole: float = 10 * GIB) -> dict[str, Reading]:
    return {"memory": Reading(Availability.AVAILABLE, {"memory_bytes": whole, "memory_available_bytes": free})}


def test_what_fits_is_taken_and_what_would_use_the_reserve_is_not() -> None:
    headroom = Headroom(lambda: 0.0)
    headroom.look(0.0, cgroup(0.5 * GIB))
    headroom.admit(int(0.4 * GIB))
    with pytest.raises(SwarmFull, match="memory limit of 1024 MiB"):
        headroom.admit(int(0.4 * GIB))
    headroom.admit(1000)
    headroom.look(0.1, cgroup(0.5 * GIB))
    headroom.admit(int(0.4 * GIB))


def test_it_closes_below_the_reserve_and_opens_only_well_above_it() -> None:
    headroom, open_ = Headroom(lambda: 0.0), []
    for used in (0.9, 0.96, 0.94, 0.93, 0.91, 0.94):
        headroom.look(0.0, cgroup(used * GIB))
        open_.append(not headroom.closed)
    assert open_ == [True, False, False, False, True, True]
    headroom.look(0.0, cgroup(0.99 * GIB))
    with pytest.raises(SwarmFull):
        headroom.admit(0)


def test_pages_that_the_kernel_would_give_back_count_as_free() -> None:
    headroom = Headroom(lambda: 0.5 * GIB)
    headroom.look(0.0, cgroup(GIB))
    headroom.admit(1000)


def test_they_are_not_looked_up_while_there_is_enough() -> None:
    def never() -> float:
        raise AssertionError("that file is dear to read")

    Headroom(never).look(0.0, cgroup(0.5 * GIB))


def test_the_nodes_memory_counts_too() -> None:
    headroom = Headroom(lambda: 0.0)
    headroom.look(0.0, cgroup(0.1 * GIB) | node(0.3 * GIB))
    with pytest.raises(SwarmFull, match="node's memory"):
        headroom.admit(1)


@pytest.mark.parametrize(
    "readings",
    [
        {},
        {"cgroup": unavailable("no"), "memory": unavailable("no")},
        cgroup(math.nan),
        cgroup(-1.0),
        cgroup(1.0, math.inf),
        cgroup(1.0, 0.0),
        node(math.nan),
        {"cgroup": Reading(Availability.AVAILABLE, {"cgroup_memory_used_bytes": 5.0})},
    ],
)
def test_where_nothing_sensible_is_known_nothing_is_refused(readings: dict[str, Reading]) -> None:
    headroom = Headroom(lambda: 0.0)
    headroom.look(0.0, readings)
    headroom.admit(1 << 40)


def test_a_small_limit_is_still_good_for_something() -> None:
    headroom = Headroom(lambda: 0.0)
    headroom.look(0.0, cgroup(0.0, 32.0 * 2**20))
    headroom.admit(16 << 20)


def test_what_can_be_given_back_is_read_of_either_version(tmp_path: Path) -> None:
    assert reclaimable(tmp_path) == 0.0
    old = tmp_path / "sys/fs/cgroup/memory/memory.stat"
    old.parent.mkdir(parents=True)
    old.write_text("cache 9\ntotal_inactive_file 4096\n")
    assert reclaimable(tmp_path) == 4096.0
    (tmp_path / "sys/fs/cgroup/memory.stat").write_text("anon 1\ninactive_file 8192\nactive_file 3\n")
    assert reclaimable(tmp_path) == 8192.0
    (tmp_path / "sys/fs/cgroup/memory.stat").write_text("inactive_file")
    assert reclaimable(tmp_path) == 0.0
