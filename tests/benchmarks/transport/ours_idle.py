"""`parked_cpu`: what a node costs on which nothing is to be done.

A compute agent and a resource agent wait, each with its supervisor. What is taken is the run time of all threads of a
process as the scheduler has it (nanoseconds), over ten seconds that begin when all has settled. Nobody asks the pods
for anything meanwhile: a kubelet's probes and a Prometheus would add their own to the supervisors.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pods import node

__all__ = ["parked_cpu"]


def _used(pid: int) -> float:
    """Seconds of CPU of all threads of a process."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total * 1e-9


def parked_cpu(seconds: float = 10.0) -> dict[str, float]:
    """Shares of one core: of the `agent`, its `supervisor`, the `resource` agent and `resource_supervisor`."""
    with node() as here:
        compute, resource = here.start("compute"), here.start("resource")
        for pod in (compute, resource):
            pod.ready()
        pids = {
            "agent": compute.agent_pid(),
            "supervisor": compute.process.pid,
            "resource": resource.agent_pid(),
            "resource_supervisor": resource.process.pid,
        }
        time.sleep(2.0)
        began, before = time.monotonic(), {name: _used(pid) for name, pid in pids.items()}
        time.sleep(seconds)
        elapsed = time.monotonic() - began
        return {name: (_used(pid) - before[name]) / elapsed for name, pid in pids.items()}


if __name__ == "__main__":
    print(parked_cpu(*map(float, sys.argv[1:])))
