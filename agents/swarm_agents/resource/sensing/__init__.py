"""What the node's hardware is doing: each source a module, each value with how far it can be trusted."""

from __future__ import annotations

import os
from pathlib import Path

from swarm_agents.resource.sensing.cgroup import cgroup
from swarm_agents.resource.sensing.cpu import cpu, frequency, idle, load
from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.gpu import gpus
from swarm_agents.resource.sensing.heat import temperature, throttling
from swarm_agents.resource.sensing.io import disks, network
from swarm_agents.resource.sensing.memory import bandwidth, faults, memory, numa, pressure, shared_memory
from swarm_agents.resource.sensing.power import power
from swarm_agents.resource.sensing.reading import Availability, Reading, Source
from swarm_agents.resource.sensing.sampler import Sensors

__all__ = ["QUICK", "ROOT", "Availability", "Reading", "Sensors", "Source", "make_sensors", "sources"]

#: The environment variable that names where the node's /proc and /sys are found, as `/host` for `/host/proc`.
ROOT = "SWARM_SENSORS_ROOT"
#: The sensors that are read each interval: files of /proc and of cgroups. The others are read once a second.
QUICK = frozenset({"cpu", "memory", "load", "pressure", "disks", "network", "cgroup"})


def sources(root: Path, board: Path) -> dict[str, Source]:
    """All sensors, by the names that `spec.resource.sensors` uses; `board` is the directory of the node's board."""
    files, slow = Files(root), Files(root)  # one each thread: none waits for, or closes, the other's
    return {
        "cpu": cpu(files),
        "memory": memory(files),
        "load": load(files),
        "pressure": pressure(files),
        "disks": disks(files),
        "network": network(files),
        "cgroup": cgroup(files),
        "shared_memory": shared_memory(board),
        "frequency": frequency(slow),
        "idle": idle(slow),
        "faults": faults(slow),
        "numa": numa(slow),
        "bandwidth": bandwidth(slow),
        "temperature": temperature(slow),
        "throttling": throttling(slow),
        "power": power(slow),
        "gpu": gpus(),
    }


def make_sensors(board: Path, root: Path | None = None) -> Sensors:
    """The sensors of the node, below `root` or where the environment says."""
    found = sources(root or Path(os.environ.get(ROOT) or "/"), board)
    return Sensors(found, slow=found.keys() - QUICK)
