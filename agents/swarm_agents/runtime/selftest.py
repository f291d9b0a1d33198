"""`swarm-agent selftest`: whether this installation can do what a pod does, without a cluster.

A swarm of one compute agent is started in a temporary directory, as the operator would start it: settings, keys, board,
a supervisor with its forked agent. A task goes to it by the board and comes back. Nothing is left.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["selftest"]

_UID = "00000000-0000-0000-0000-000000000001"
_ADDRESS = "127.0.0.1"
#: A cold JIT cache compiles for a while (seconds).
_PATIENCE = 300.0


def selftest() -> int:
    """Prints what was found; 0 when the task was answered rightly."""
    from swarm_agents import __version__
    from swarm_agents.runtime import jitcache

    seed = os.environ.get("SWARM_CACHE_SEED")
    jitcache.settle()
    level = os.environ.get("NUMBA_CPU_NAME")
    print(f"swarm-agent {__version__}, Python {sys.version.split()[0]}, for {jitcache.target()}")
    if seed:
        print(f"JIT cache of {seed}: {f'the level {level}' if level else 'that of this CPU, or none'}")
    # Below /dev/shm as in a pod: a read-only root may have no other place to write to.
    parent = next(
        (place for place in (os.environ.get("TMPDIR"), "/dev/shm", "/tmp") if place and os.access(place, os.W_OK)), None
    )
    if parent is None:
        print("neither /dev/shm nor /tmp can be written: mount one", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="agentswarm-selftest-", dir=parent) as directory:
        return _run(Path(directory))


def _run(root: Path) -> int:
    from swarm_agents.config import SETTINGS_FILE, Settings, Transport, board_directory, encode_settings

    for name in ("config", "keys", "shm", "cache"):
        (root / name).mkdir()
    transport = Transport(task_slots=256, arena_bytes=4 << 20, max_members=8, agent_port=_free_port())
    settings = Settings(swarm="selftest", namespace="none", uid=_UID, generation=1, transport=transport)
    (root / "config" / SETTINGS_FILE).write_bytes(encode_settings(settings))
    _write_keys(root / "keys")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SWARM_", "NUMBA_"))} | {
        "SWARM_NAME": "selftest",
        "SWARM_NAMESPACE": "none",
        "SWARM_UID": _UID,
        "SWARM_ROLE": "compute",
        "SWARM_ORDINAL": "0",
        "SWARM_REVISION": "selftest",
        "POD_NAME": "selftest-compute-0-0",
        "POD_UID": _UID,
        "POD_IP": _ADDRESS,
        "NODE_NAME": "here",
        "SWARM_CONFIG_DIR": str(root / "config"),
        "SWARM_KEYS_DIR": str(root / "keys"),
        "SWARM_SHM_DIR": str(root / "shm"),
        "SWARM_CACHE_DIR": str(root / "cache"),
    }
    if seed := os.environ.get("SWARM_CACHE_SEED"):
        environment["SWARM_CACHE_SEED"] = seed
    began = time.monotonic()
    log = root / "log"
    with log.open("wb") as file:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "swarm_agents.runtime"], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        return _ask(board_directory(root / "shm", _UID), root / "cache", supervisor, began)
    except Exception as error:
        print(f"{error}\n{log.read_text(errors='replace')[-4000:]}", file=sys.stderr)
        return 1
    finally:
        supervisor.terminate()
        try:
            supervisor.wait(30)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.wait()


def _ask(directory: Path, cache: Path, supervisor: subprocess.Popen[bytes], began: float) -> int:
    import numpy as np

    from swarm_agents.client import Swarm
    from swarm_agents.errors import Unreachable

    while True:
        if supervisor.poll() is not None:
            raise RuntimeError(f"the supervisor ended with {supervisor.returncode}")
        try:
            swarm = Swarm.connect(f"shm://{directory}", timeout=1.0)
            break
        except Unreachable:
            if time.monotonic() - began > _PATIENCE:
                raise
            time.sleep(0.05)
    with swarm:
        data = np.arange(1024, dtype=np.uint8)
        future = swarm.submit("hash.sha256_tree", data)
        answer = bytes(future.result(timeout=_PATIENCE))
        ready = time.monotonic() - began
        right = answer == hashlib.sha256(b"\x00" + data.tobytes()).digest()
        again = time.perf_counter()
        swarm.run("core.noop")
        trip = time.perf_counter() - again
        agent = future.info.agent if future.info is not None else "?"
    print(f"{agent} answered hash.sha256_tree {'rightly' if right else 'WRONGLY'}, {ready:.1f} s after it was started")
    print(f"a task there and back: {trip * 1e6:.0f} us")
    print("compiled functions: {} in use, {} of them compiled here".format(*_compiled(cache)))
    return 0 if right else 1


def _compiled(cache: Path) -> tuple[int, int]:
    """How many compiled functions a cache's root holds, and how many of them no seed has brought."""
    seed = os.environ.get("SWARM_CACHE_SEED")
    found = [path.relative_to(cache) for path in cache.rglob("*.nbc")]
    return len(found), sum(seed is None or not Path(seed, path).exists() for path in found)


def _write_keys(directory: Path) -> None:
    import secrets

    import zmq

    (directory / "token").write_text(secrets.token_urlsafe(16))
    for name in ("hub", "client"):
        for half, key in zip(("public", "secret"), zmq.curve_keypair(), strict=True):
            (directory / f"{name}.{half}").write_bytes(key)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        return int(probe.getsockname()[1])
