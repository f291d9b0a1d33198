"""The agent's own cgroup, of version 1, 2 or both: its limits, how often it was held back, and whom the kernel killed.

In a hybrid tree a controller is where /proc/self/cgroup says it is, and version 2 has the rest. In a container the path
that is said may lie outside of what is mounted: then the mount's root is the container's own.
"""

from __future__ import annotations

from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.parse import cgroups, keyed
from swarm_agents.resource.sensing.reading import Availability, Reading, Source, unavailable

__all__ = ["cgroup"]

#: Version 1 says "no limit" by a number about as large as there is (bytes).
_NONE = 1 << 60


def cgroup(files: Files, process: str = "self") -> Source:
    """Of the process of this id, as /proc below the root has it."""

    def folder(controller: str, path: str, probe: str) -> str:
        for mount in (f"sys/fs/cgroup/{controller}", "sys/fs/cgroup/unified", "sys/fs/cgroup"):
            for place in (f"{mount.rstrip('/')}{path.rstrip('/')}/", f"{mount.rstrip('/')}/"):
                if (files.root / place / probe).exists():
                    return place
        return ""

    def numbers(path: str) -> dict[str, int]:
        try:
            return keyed(files.read(path))
        except OSError:
            return {}

    def read() -> Reading:
        where = cgroups(files.read(f"proc/{process}/cgroup"))
        if where != known.get("where"):  # as after the process was moved
            known["where"] = where
            known["memory"] = (
                folder("memory", where["memory"], "memory.usage_in_bytes")
                if "memory" in where
                else folder("", where.get("", "/"), "memory.current")
            )
            known["cpu"] = (
                folder("cpu", where["cpu"], "cpu.cfs_quota_us")
                or folder("cpu,cpuacct", where["cpu"], "cpu.cfs_quota_us")
                if "cpu" in where
                else folder("", where.get("", "/"), "cpu.stat")
            )
        values: dict[str, float] = {}
        memory, cpu = str(known["memory"]), str(known["cpu"])
        old_memory, old_cpu = "memory" in where, "cpu" in where
        if memory:
            used = files.number(memory + ("memory.usage_in_bytes" if old_memory else "memory.current"))
            limit = files.number(memory + ("memory.limit_in_bytes" if old_memory else "memory.max"))
            if used is not None and used >= 0:
                values["cgroup_memory_used_bytes"] = float(used)
            if limit is not None and 0 < limit < _NONE:
                values["cgroup_memory_limit_bytes"] = float(limit)
            events = numbers(memory + ("memory.oom_control" if old_memory else "memory.events"))
            if "oom_kill" in events:
                values["cgroup_oom_kills"] = float(events["oom_kill"])
        if cpu:
            if old_cpu:
                quota, period = files.number(cpu + "cpu.cfs_quota_us"), files.number(cpu + "cpu.cfs_period_us")
            else:
                words = files.text(cpu + "cpu.max").split()
                quota, period = (int(word) if word.isdigit() else None for word in [*words, "", ""][:2])
            if quota is not None and quota > 0 and period:
                values["cgroup_cpu_limit_cores"] = quota / period
            counted = numbers(cpu + "cpu.stat")
            if "nr_throttled" in counted:
                values["cgroup_throttles"] = float(counted["nr_throttled"])
            held = counted.get("throttled_time", 0) / 1e9 if old_cpu else counted.get("throttled_usec", 0) / 1e6
            if "throttled_time" in counted or "throttled_usec" in counted:
                values["cgroup_throttled_seconds"] = held
        if not values:
            return unavailable("no controller of the agent's cgroup can be read")
        return Reading(Availability.AVAILABLE, values)

    known: dict[str, object] = {}
    return read
