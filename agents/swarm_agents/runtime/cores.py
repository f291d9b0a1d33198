"""Which cores an agent runs on, and whether they are its own: read from the kernel, never assumed.

On Kubernetes a Guaranteed pod with whole CPUs gets cores for itself from the kubelet's static CPU Manager, which writes
them into the container's cpuset, and may write others later. Nothing in the container says "exclusive", so what is
reported is an inference with its reason, and `None` (not known) where the signs allow both. On the embedded cluster the
kubelet can't make a cpuset; it says in `SWARM_CPUS` and `SWARM_CPUS_EXCLUSIVE` what it assigned and what that is worth.

A cpuset that grows does not show in the affinity of a process that has pinned itself: since Linux 6.2 the kernel keeps
what was asked for and gives the part of it that the cpuset has. So once this process was pinned to its whole cpuset,
the cpuset's own file says what it may use, unless the affinity lacks CPUs of both: somebody else has narrowed it.

Invariants: `observe` reads and changes nothing; an agent is never pinned outside what the kernel allows it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from swarm_agents import cgroups
from swarm_agents.cpulist import format_cpus, parse_cpus

__all__ = ["Code", "Cores", "observe", "pin"]


#: The process that was pinned to the whole cpuset of then, and that cpuset; a forked child's is its parent's.
_pinned_whole: tuple[int, frozenset[int]] | None = None


class Code(StrEnum):
    """Why cores are or are not an agent's own, in one word, so that a thousand agents' reasons can be counted."""

    EXCLUSIVE = "Exclusive"
    #: On the embedded cluster: no other pod's, but perhaps another program's.
    SIMULATED = "Simulated"
    #: The cpuset is the whole machine: the node has no static CPU Manager.
    NO_STATIC_POLICY = "NoStaticPolicy"
    #: The cpuset is what the static CPU Manager leaves for all pods without cores of their own.
    SHARED_POOL = "SharedPool"
    #: The embedded cluster's nodes have more CPUs than the machine.
    OVERLAPPING = "Overlapping"
    #: The kernel allows other CPUs than were assigned.
    NOT_AS_ASSIGNED = "NotAsAssigned"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Cores:
    """The CPUs that an agent may run on.

    `exclusive` is True or False where it is known, None where it is not; `reason` says why, for people.
    """

    cpus: tuple[int, ...]
    exclusive: bool | None
    reason: str
    code: Code = Code.UNKNOWN

    @property
    def threads(self) -> int:
        """How many threads a parallel kernel can use at once."""
        return max(len(self.cpus), 1)


def observe(env: Mapping[str, str] | None = None, root: Path = Path("/")) -> Cores:
    """What this process may run on now. `root` is where /sys is found, for tests.

    Raises:
        ValueError: `SWARM_CPUS` is not a list of CPUs, or `SWARM_WHOLE_CPUS` not a number.
    """
    env = os.environ if env is None else env
    online = _read_cpus(root / "sys/devices/system/cpu/online") or frozenset(range(os.cpu_count() or 1))
    if env.get("SWARM_CPUS"):
        # The affinity says nothing here: it is what an earlier `pin` to these very CPUs has made of it.
        return _assigned(env, cgroups.cpuset(root) or online)
    allowed = frozenset(os.sched_getaffinity(0))
    if _pinned_whole is not None and _pinned_whole[0] == os.getpid():
        cpuset = cgroups.cpuset(root) & online
        if cpuset and allowed >= _pinned_whole[1] & cpuset:
            allowed = cpuset
    return _inferred(allowed, online, cgroups.cpu_limit(root), _whole(env))


def pin(cores: Cores, pid: int | None = None, *, root: Path = Path("/")) -> bool:
    """Keeps a process (None: this one) and the threads that it makes from now on, on the cores.

    False when the kernel says no: the process then runs where it ran.
    """
    global _pinned_whole
    process = os.getpid() if pid is None else pid
    wanted = frozenset(cores.cpus)
    if pid is None:
        _pinned_whole = (process, wanted) if wanted == cgroups.cpuset(root) else None
    try:
        for thread in map(int, os.listdir(f"/proc/{process}/task")):
            with contextlib.suppress(ProcessLookupError):  # that thread has ended; the others have not
                if os.sched_getaffinity(thread) != wanted:
                    os.sched_setaffinity(thread, wanted)
    except OSError:
        return False
    return True


def _assigned(env: Mapping[str, str], allowed: frozenset[int]) -> Cores:
    try:
        assigned = parse_cpus(env["SWARM_CPUS"])
    except ValueError as error:
        raise ValueError(f"SWARM_CPUS={env['SWARM_CPUS']!r}: expected a list of CPUs such as 0-2,5") from error
    usable = assigned & allowed
    if not usable:
        return Cores(
            tuple(sorted(allowed)),
            False,
            f"the kubelet assigned CPU {format_cpus(assigned)}, but this process may use {format_cpus(allowed)} only",
            Code.NOT_AS_ASSIGNED,
        )
    names = format_cpus(usable)
    claim = env.get("SWARM_CPUS_EXCLUSIVE", "").lower()
    if claim == "true":
        return Cores(tuple(sorted(usable)), True, f"the kubelet gave CPU {names} to this agent alone", Code.EXCLUSIVE)
    if claim == "simulated":
        return Cores(
            tuple(sorted(usable)),
            None,
            f"simulated: no other pod of this cluster has CPU {names}, other processes of the machine may run there",
            Code.SIMULATED,
        )
    return Cores(tuple(sorted(usable)), False, f"the kubelet gave CPU {names} to other pods too", Code.OVERLAPPING)


def _inferred(allowed: frozenset[int], online: frozenset[int], quota: float | None, whole: int) -> Cores:
    """`whole`: how many whole CPUs the pod asks for; 0 when that is not known.

    A container with cores of its own has no quota from Kubernetes 1.33 on (DisableCPUQuotaWithExclusiveCPUs), and one
    that is exactly as large before; a container in the shared pool has a quota in either. So without a quota the number
    of CPUs tells, where it is known what was asked for.
    """
    cpus, names = tuple(sorted(allowed)), format_cpus(allowed)
    if allowed == online:
        text = f"shared: all {len(online)} CPUs of the machine, with everything that runs on it"
        return Cores(cpus, False, text, Code.NO_STATIC_POLICY)
    if quota is None and whole:
        if len(allowed) == whole:
            text = f"cpuset {names} of {format_cpus(online)} holds exactly the {whole} CPUs asked for, without a quota"
            return Cores(cpus, True, text, Code.EXCLUSIVE)
        text = f"shared: cpuset {names} holds {len(allowed)} CPUs, while {whole} were asked for"
        return Cores(cpus, False, text, Code.SHARED_POOL)
    if quota is None:
        return Cores(
            cpus,
            None,
            f"cpuset {names} of {format_cpus(online)} and no CPU quota: either the static CPU Manager's own cores, "
            "or what it leaves for all other pods",
        )
    if quota == len(allowed):
        return Cores(
            cpus,
            True,
            f"cpuset {names} of {format_cpus(online)} holds exactly the {len(allowed)} CPUs of the limit",
            Code.EXCLUSIVE,
        )
    return Cores(cpus, False, f"shared: cpuset {names}, while the limit is {quota:g} CPUs", Code.SHARED_POOL)


def _whole(env: Mapping[str, str]) -> int:
    text = env.get("SWARM_WHOLE_CPUS") or "0"
    if not text.isdecimal():
        raise ValueError(f"SWARM_WHOLE_CPUS={text!r}: expected a number of CPUs")
    return int(text)


def _read_cpus(path: Path) -> frozenset[int]:
    try:
        return parse_cpus(path.read_text())
    except (OSError, ValueError):
        return frozenset()
