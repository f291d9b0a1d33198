"""What a test run left on the machine: processes, and files in shared memory.

Both outlive a forgotten clean-up silently, then fail (or slow down) some other test, later. Processes are recognised
by a variable that every descendant inherits, also one that was orphaned, and by the run's temporary directory, which
stands in the command line or environment of whatever the embedded cluster starts with an environment of its own.

Rejected: making pytest the reaper of orphans (`PR_SET_CHILD_SUBREAPER`). They would stay as zombies, and code under
test that waits for a process to be gone would wait in vain.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["SESSION_VARIABLE", "SharedMemoryWatch", "processes", "shared_memory", "stays_empty_within"]

#: Set for the whole run, to a value of its own: whoever carries it was started by the run.
SESSION_VARIABLE = "AGENTSWARM_TEST_SESSION"

_SHM = Path("/dev/shm")
# Python's own helper of a process that used multiprocessing; it lives as long as the process that started it.
_HARMLESS = (b"multiprocessing.resource_tracker",)


def _read(pid: str, what: str) -> bytes:
    try:
        return Path("/proc", pid, what).read_bytes()
    except OSError:  # gone meanwhile, or not ours
        return b""


def _pids() -> Iterator[str]:
    own = str(os.getpid())
    return (entry for entry in os.listdir("/proc") if entry.isdigit() and entry != own)


def processes(*marks: str) -> list[str]:
    """The living processes other than this one that carry any of the marks in their command line or environment."""
    found = []
    for pid in _pids():
        command = _read(pid, "cmdline")
        if not command or any(harmless in command for harmless in _HARMLESS):  # empty: a zombie or a kernel thread
            continue
        text = command + b"\0" + _read(pid, "environ")
        if any(mark.encode() in text for mark in marks):
            found.append(f"{pid}: {command.replace(bytes(1), b' ').decode(errors='replace').strip()[:200]}")
    return found


def shared_memory() -> set[str]:
    """The names in /dev/shm that are Agent Swarm's, one level deep, less those that some living process still uses."""
    names = {entry.name for entry in _SHM.iterdir() if entry.name.startswith("agentswarm")} if _SHM.is_dir() else set()
    if not names:
        return names
    mapped = b"".join(_read(pid, "maps") for pid in _pids())
    return {name for name in names if f"{_SHM}/{name}".encode() not in mapped} - _of_running_clusters()


def _of_running_clusters() -> set[str]:
    """The shared memory of embedded clusters that run, whoever started them, also when they have no pod yet."""
    found = set()
    for pid in _pids():
        words = _read(pid, "cmdline").split(b"\0")
        if b"swarm_deploy.local" in words and b"--state" in words[:-1]:
            state = Path(os.fsdecode(words[words.index(b"--state") + 1]))
            try:
                found.add(f"agentswarm-local-{(state / 'cluster-id').read_text().strip()}")
            except OSError:  # it has only begun, and has no shared memory yet
                continue
    return found


class SharedMemoryWatch:
    """Tells, at the end of a run, what the run left in /dev/shm.

    Other runs on the machine make such files too. Every run therefore holds a shared lock on the directory itself;
    while another one does, only what can be traced to a cluster of this run is held against it.
    """

    def __init__(self) -> None:
        self._before = shared_memory()
        self._directory = os.open(_SHM, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._directory, fcntl.LOCK_SH)

    def left(self, scratch: Path | None) -> list[str]:
        """The names that are there now and were not; `scratch` is where this run's clusters had their state."""
        new = shared_memory() - self._before
        if new and not self._alone():
            mine = scratch.rglob("cluster-id") if scratch else ()
            new &= {f"agentswarm-local-{file.read_text().strip()}" for file in mine}
        return sorted(new)

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._directory)

    def _alone(self) -> bool:
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # a failed conversion may have dropped the shared lock
            fcntl.flock(self._directory, fcntl.LOCK_SH)
            return False
        return True


def stays_empty_within(seconds: float, look: Callable[[], list[str]]) -> list[str]:
    """What `look` still finds when it has been given so long to become empty."""
    deadline = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
