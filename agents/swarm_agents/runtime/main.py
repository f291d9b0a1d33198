"""`swarm-agent`: what the pod's container runs. Reads who it is, gets warm, and hands over to the supervisor.

The order matters: what can't be mended by a restart (environment, settings, port) is found first and ends with status 2
and one line that says what to do; then the environment that NumPy and Numba read when they are imported is set; then
they and the kernels are imported, once for all agents of this pod; then the board is opened and the loop begins.

Threads: agents run parallel kernels on Numba's `workqueue` layer. It is the one layer of Numba's wheels that survives a
fork (OpenMP does not, TBB is not in the wheel), and its rule, one launching thread at a time, is met because only an
agent's main thread runs kernels. BLAS has a single thread, unless the pod's environment says otherwise: its threads
would be the supervisor's, which forks, and what a kernel answers would depend on how many CPUs an agent has.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING

from swarm_agents.config import SETTINGS_FILE, Identity, Role, Settings, board_directory, decode_settings
from swarm_agents.cpulist import format_cpus
from swarm_agents.runtime import cores, logs
from swarm_agents.runtime.fitness import Wishes

if TYPE_CHECKING:
    from swarm_agents.runtime.agent import AgentBase

__all__ = ["SetupError", "agent_class", "load_settings", "main", "prepare_environment"]

#: Read by NumPy's and SciPy's BLAS and by Numba's OpenMP when they are loaded.
_SINGLE = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


class SetupError(RuntimeError):
    """The pod can't run as it is, and a restart would not help; the message says what to do."""


def main() -> int:
    """The console script; returns the exit status. `--version` and `selftest` need nothing of a pod."""
    began = time.monotonic()
    match sys.argv[1:]:
        case []:
            pass
        case ["--version"]:
            from swarm_agents import __version__

            print(f"swarm-agent {__version__}")
            return 0
        case ["selftest"]:
            from swarm_agents.runtime.selftest import selftest

            return selftest()
        case other:
            print(f"swarm-agent takes --version, selftest, or nothing, not {' '.join(other)}", file=sys.stderr)
            return 2
    logs.configure()
    try:
        return _run(began)
    except SetupError as error:
        logs.get_logger().error(str(error), exit_status=2)
        return 2
    except Exception:
        logs.get_logger().exception("the supervisor failed")
        return 1


def _run(began: float) -> int:
    try:
        identity = Identity.from_environment()
        cores_ = cores.observe()
        wishes = Wishes.from_environment()
    except ValueError as error:
        raise SetupError(str(error)) from error
    logs.bind(swarm=identity.swarm, agent=identity.pod, role=str(identity.role))
    log = logs.get_logger()
    settings = load_settings(identity)
    logs.set_level(settings.runtime.log_level)
    if wishes.pins and not cores.pin(cores_):
        log.warning("the kernel refused to pin this process", cpus=format_cpus(cores_.cpus))

    from swarm_agents.runtime import http

    try:
        listener = http.bind(identity.pod_ip, identity.http_port or settings.transport.agent_port)
    except http.PortError as error:
        raise SetupError(str(error)) from error
    seeded = prepare_environment(identity, settings, cores_)

    from swarm_agents.runtime.warmup import use_a_board_once

    cls = agent_class(identity.role)
    cls.prepare(identity, settings)
    use_a_board_once()

    from swarm_agents.errors import BoardMismatch, SharedMemoryFull
    from swarm_agents.shm.board import Board, Geometry

    transport = settings.transport
    try:
        board = Board.open(
            board_directory(identity.shm_dir, identity.uid),
            Geometry(transport.task_slots, transport.arena_bytes, transport.max_members),
            swarm_uid=identity.uid,
        )
    except SharedMemoryFull:
        raise  # room may come: let the kubelet try again
    except (BoardMismatch, OSError) as error:
        raise SetupError(f"the node's board can't be used: {error}") from error

    from swarm_agents.runtime.supervisor import Supervisor

    inherited = frozenset(map(int, os.listdir("/proc/self/fd"))) - {listener.fileno()}
    log.info(
        "the supervisor is warm",
        seconds=round(time.monotonic() - began, 3),
        cache_files_seeded=seeded,
        cpus=format_cpus(cores_.cpus),
        cores_exclusive=cores_.exclusive,
        cores_reason=cores_.reason,
        node=identity.node,
    )

    async def supervise() -> int:
        return await Supervisor(cls, identity, settings, board, cores_, listener, inherited, wishes).run()

    return asyncio.run(supervise())


def load_settings(identity: Identity) -> Settings:
    """The settings in the pod's ConfigMap.

    Raises:
        SetupError: the file is missing, unreadable, or another swarm's.
    """
    path = identity.config_dir / SETTINGS_FILE
    try:
        settings = decode_settings(path.read_bytes())
    except OSError as error:
        raise SetupError(
            f"{path} can't be read ({error.strerror}): the operator writes it into the swarm's ConfigMap, which is "
            "mounted at SWARM_CONFIG_DIR"
        ) from error
    except ValueError as error:
        raise SetupError(f"{path}: {error}") from error
    if settings.uid != identity.uid:
        raise SetupError(
            f"{path} is for the swarm with UID {settings.uid}, but SWARM_UID is {identity.uid}: "
            "the pod mounts another swarm's ConfigMap, or that of a swarm which was deleted and made again"
        )
    return settings


def prepare_environment(identity: Identity, settings: Settings, cores_: cores.Cores) -> int:
    """Sets what NumPy and Numba read when they are imported; returns how many files the JIT cache was seeded with.

    Raises:
        SetupError: the JIT cache's home can't be written.
    """
    from swarm_agents.runtime import jitcache

    os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")
    os.environ["NUMBA_NUM_THREADS"] = str(settings.runtime.threads or cores_.threads)
    for name in _SINGLE:
        os.environ.setdefault(name, "1")
    jitcache.fit(identity.cache_seed)
    try:
        jitcache.use(identity.cache_dir)
    except OSError as error:
        raise SetupError(
            f"the JIT cache's home SWARM_CACHE_DIR={identity.cache_dir} can't be written ({error}): "
            "mount an emptyDir there"
        ) from error
    return jitcache.seed(identity.cache_dir, identity.cache_seed)


def agent_class(role: Role) -> type[AgentBase]:
    """The class that serves a role; importing it imports what it needs."""
    if role is Role.RESOURCE:
        from swarm_agents.resource.agent import ResourceAgent

        return ResourceAgent
    from swarm_agents.compute.agent import ComputeAgent

    return ComputeAgent


if __name__ == "__main__":
    sys.exit(main())
