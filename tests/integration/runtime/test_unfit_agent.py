"""An agent whose cores have to be its own works while they are, and not a moment longer."""

from __future__ import annotations

import os
import time

import pytest

from swarm_agents import cgroups
from swarm_agents.runtime import cores

pytestmark = pytest.mark.skipif(
    cores.observe({"SWARM_WHOLE_CPUS": "1"}).code is not cores.Code.NO_STATIC_POLICY
    or cgroups.cpu_limit() is not None
    or len(os.sched_getaffinity(0)) < 2,
    reason="needs all of a machine with two CPUs or more, and no CPU quota",
)


def test_an_agent_takes_tasks_only_while_its_cores_are_its_own(pair, eventually) -> None:
    """The kernel's part, when the kubelet rewrites a cpuset, is played by an affinity."""
    pod = pair.node.start(2, SWARM_CPU_PINNING="Required", SWARM_WHOLE_CPUS="1")
    eventually("its word", lambda: pod.status().get("state") == "unfit", 90)
    status, body = pod.http("GET", "/readyz", token=None)
    assert (status, "cpuPinning is Required" in body["reason"]) == (503, True)
    assert pod.http("GET", "/healthz", token=None)[0] == 200, "another start would bring it the same cores"
    assert "shared: all" in pod.status()["unfit"]
    assert pod.log("PlacementUnmet")

    for other in (pair.first, pair.second):
        other.http("POST", "/v1/drain", b"")
        eventually("the others to be drained", lambda other=other: other.status().get("state") == "drained")
    pair.client.submit("core.echo", 7)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        assert not pair.client.port.poll(1), "an unfit agent took a task"
        time.sleep(0.01)

    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(pod.process.pid, {max(everywhere)})
    assert pair.client.answers(1)[0].value == 7
    assert pod.ready().status()["state"] == "ready"
    assert pod.status()["coresCode"] == "Exclusive"
    assert pod.http("POST", "/v1/drain", b"")[0] == 202
    assert pod.http("POST", "/v1/resume", b"")[1]["state"] == "ready"

    os.sched_setaffinity(pod.process.pid, everywhere)
    eventually("it to stop", lambda: pod.status().get("state") == "unfit")
    assert pod.http("GET", "/readyz", token=None)[0] == 503
    # a resume by the operator changes nothing of that
    assert pod.http("POST", "/v1/resume", b"")[1]["state"] == "unfit"
    pod.terminate()
    assert pod.ended() == 0
    for other in (pair.first, pair.second):
        other.http("POST", "/v1/resume", b"")
