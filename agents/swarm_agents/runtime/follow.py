"""What may change under a running pod without anybody telling it: its cores, and its ConfigMap's file."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from swarm_agents.config import SETTINGS_FILE, decode_settings
from swarm_agents.cpulist import format_cpus
from swarm_agents.runtime import cores
from swarm_agents.runtime.control import RefusedError
from swarm_agents.runtime.corebalance import CoreBalance
from swarm_agents.runtime.corefigures import CoreFigures

if TYPE_CHECKING:
    from swarm_agents.runtime.supervisor import Supervisor

__all__ = ["CoreBalance", "follow_cores", "follow_file"]

#: How often it is looked which cores there are: half of what pinning again may take (0.2 s). A look costs 50 us.
_CORES_INTERVAL = 0.1
#: How often it is looked what the cores are like; a tick of the kernel's counters is 0.01 s.
_BALANCE_INTERVAL = 0.5
_FILE_INTERVAL = 2.0


async def follow_cores(supervisor: Supervisor, root: Path = Path("/")) -> None:
    """Pins the pod's processes again when the kubelet has given them other cores, and the agent when a core is bad."""
    figures, due = CoreFigures(root), 0.0
    while True:
        await asyncio.sleep(_CORES_INTERVAL)
        now = cores.observe(root=root)
        if now != supervisor.cores:
            pinned = supervisor.wishes.pins and cores.pin(now, root=root) and _pin_agent(supervisor, now)
            supervisor.events.record("CoresChanged", cpus=format_cpus(now.cpus), reason=now.reason, pinned=pinned)
            await supervisor.moved(now)
        elif supervisor.wishes.pins and time.monotonic() >= due:
            due = time.monotonic() + _BALANCE_INTERVAL
            balance(supervisor, figures, time.monotonic())


def balance(supervisor: Supervisor, figures: CoreFigures, now: float) -> None:
    """Has the agent leave cores that are bad, and use them again; `now` in monotonic seconds."""
    plan, cpus = supervisor.core_balance, supervisor.cores.cpus
    if len(cpus) < 2 or supervisor.agent is None:
        return
    for move in plan.plan(now, cpus, *figures.read(cpus, supervisor.agent.pid)):
        supervisor.events.record("CoreLeft" if move.leave else "CoreTakenAgain", cpu=move.core, reason=move.reason)
    if plan.moves:  # else it was never anywhere but where it was pinned at first
        _pin_agent(supervisor, supervisor.cores)


def _pin_agent(supervisor: Supervisor, now: cores.Cores) -> bool:
    """Keeps the agent on those of its cores that are well."""
    agent = supervisor.agent
    there = dataclasses.replace(now, cpus=supervisor.core_balance.allowed(now.cpus))
    return agent is None or cores.pin(there, agent.pid)


async def follow_file(supervisor: Supervisor) -> None:
    """Takes newer settings from the ConfigMap's file, should a push have been missed."""
    path = supervisor.identity.config_dir / SETTINGS_FILE
    seen = _stamp(path)
    while True:
        await asyncio.sleep(_FILE_INTERVAL)
        stamp = _stamp(path)
        if stamp == seen:
            continue
        seen = stamp
        try:
            data = _read(path)
            if decode_settings(data).generation > supervisor.settings.generation:
                await supervisor.apply(data)
        except (OSError, ValueError, RefusedError) as error:  # TimeoutError and ConnectionError are OSErrors
            supervisor.log.warning("the settings file changed but can't be used", path=str(path), reason=str(error))


def _read(path: Path) -> bytes:
    # Blocking, on purpose: a small file in memory, and a process that forks has no threads to read it on.
    return path.read_bytes()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
