"""What a client keeps of tasks that a hub has refused for overload."""

from __future__ import annotations

import math

from swarm_agents.client.shed import Shed, patience
from swarm_agents.errors import Overloaded

ERROR = Overloaded("overloaded: bulk work is refused, retry after 2 s", 2.0)


def test_a_task_is_tried_again_when_the_hub_says_and_no_sooner():
    shed: Shed[int] = Shed()
    assert shed.refuse(1, 3, ERROR, 10.0) == 12.0


def test_a_submitter_who_does_not_wait_so_long_hears_the_refusal():
    shed: Shed[int] = Shed()
    shed.note(1, 11.0)
    assert shed.refuse(1, 3, ERROR, 10.0) is None
    assert shed.holds(3) is None
    shed.note(2, 12.5)
    assert shed.refuse(2, 3, ERROR, 10.0) == 12.0
    assert shed.refuse(2, 3, ERROR, 12.0) is None, "the second time is too late"


def test_others_of_the_lane_wait_behind_it_and_no_other_lane_does():
    shed: Shed[int] = Shed()
    shed.refuse(1, 3, ERROR, 10.0)
    shed.refuse(2, 3, ERROR, 10.0)
    assert shed.holds(3) is ERROR
    assert shed.holds(0) is shed.holds(2) is None
    assert shed.leave(1)
    assert shed.holds(3) is ERROR
    assert shed.forget(2)
    assert shed.holds(3) is None
    assert not shed.leave(2)


def test_a_task_that_is_refused_twice_counts_once():
    shed: Shed[int] = Shed()
    shed.refuse(1, 2, ERROR, 10.0)
    shed.refuse(1, 2, ERROR, 10.5)
    assert shed.leave(1)
    assert shed.holds(2) is None


def test_patience_ends_with_the_timeout_or_the_deadline_whichever_is_nearer():
    assert patience(None, None, 5.0, 1000.0) == math.inf
    assert patience(2.0, None, 5.0, 1000.0) == 7.0
    assert patience(2.0, 1001.0, 5.0, 1000.0) == 6.0
    assert patience(None, 999.0, 5.0, 1000.0) == 4.0
