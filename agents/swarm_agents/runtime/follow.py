"""What may change under a running pod without anybody telling it: its cores, and its ConfigMap's file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from swarm_agents.config import SETTINGS_FILE, decode_settings
from swarm_agents.runtime import cores
from swarm_agents.runtime.control import RefusedError

if TYPE_CHECKING:
    from swarm_agents.runtime.supervisor import Supervisor

__all__ = ["follow_cores", "follow_file"]

_CORES_INTERVAL = 1.0
_FILE_INTERVAL = 2.0


async def follow_cores(supervisor: Supervisor) -> None:
    """Pins the pod's processes again when the kubelet has given them other cores."""
    while True:
        await asyncio.sleep(_CORES_INTERVAL)
        now = cores.observe()
        if now == supervisor.cores:
            continue
        agent = supervisor.agent
        pinned = supervisor.wishes.pins and cores.pin(now) and (agent is None or cores.pin(now, agent.pid))
        supervisor.events.record("CoresChanged", cpus=cores.format_cpus(now.cpus), reason=now.reason, pinned=pinned)
        await supervisor.moved(now)


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
