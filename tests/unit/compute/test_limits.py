"""What one task may take: time by a timer that needs no GIL, memory by a limit on the process's own."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from swarm_agents.compute.limits import Bounds, bounded, grace
from swarm_agents.compute.registry import kernel
from swarm_agents.runtime.inputs import MOST, describe

_HOLDS_THE_GIL = """
import ctypes
from swarm_agents.compute.limits import Bounds, bounded
with bounded(Bounds(seconds=0.05)):
    ctypes.PyDLL(None).sleep(60)  # holds the GIL
"""


def test_what_holds_the_gil_beyond_its_time_ends_by_an_alarm_that_has_a_name() -> None:
    done = subprocess.run([sys.executable, "-c", _HOLDS_THE_GIL], check=False, timeout=50, capture_output=True)
    assert done.returncode == -signal.SIGALRM


def _in_a_child(act: object) -> int:
    """Runs it in a fork, whose limits are its own; the exit status."""
    pid = os.fork()
    if not pid:
        signal.setitimer(signal.ITIMER_REAL, 0.0)  # not the test's own time-out
        status = 9
        try:
            status = act()  # type: ignore[operator]
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_ends_in_time_leaves_no_timer_and_no_limit_behind() -> None:
    def act() -> int:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        with bounded(Bounds(seconds=0.01, memory=1 << 20)):
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
            assert resource.getrlimit(resource.RLIMIT_DATA) != before
        time.sleep(0.01 + grace(0.01))
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
        return 0

    assert _in_a_child(act) == 0


def test_memory_beyond_the_bound_is_a_memory_error_of_the_task_and_the_process_goes_on() -> None:
    def act() -> int:
        with bounded(Bounds(memory=64 << 20)):
            np.ones(4 << 20)  # half of it
            try:
                np.ones(32 << 20)
            except MemoryError:
                pass
            else:
                return 1
        np.ones(32 << 20)
        return 0

    assert _in_a_child(act) == 0


def test_the_nearer_of_limit_and_deadline_counts_and_one_that_has_passed_is_bounded_too() -> None:
    def act() -> int:
        with bounded(Bounds(seconds=100.0), time_left=-1.0):
            assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= grace(0.0)
        with bounded(Bounds(memory=1 << 30)):
            assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        return 0

    assert _in_a_child(act) == 0


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": -1.0}, {"most_memory": 0}])
def test_bounds_that_nothing_can_keep_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected .* above 0"):
        kernel("limits.none", **options)  # type: ignore[arg-type]


def test_inputs_are_described_without_a_value() -> None:
    secret = "4111-1111"
    text = describe((np.zeros((2, 3), np.float32), 7, None), {"name": secret, "items": [1, 2], "x": np.float64(3.5)})
    assert text == "float32[2, 3], int, None, name=str[9], items=list[2], x=float64"
    assert len(describe((), {f"n{i}": i for i in range(500)})) == MOST
