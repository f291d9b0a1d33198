"""Containers' logs: one file a run, each line with its time, as `kubectl logs` wants to read them.

A run is one start of the container; `--previous` shows the run before the last. Files are kept until the pod is
removed, and a run's file is cut at its start when it grows past a bound, so that a chatty container can't fill the
disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["LogWriter", "log_path", "read_log"]

_MOST_BYTES = 32 << 20
_KEEP_RUNS = 3
#: How often a follower looks for more (seconds).
_LOOK = 0.1


def log_path(directory: Path, container: str, run: int) -> Path:
    """The file of a container's run; runs count from 0."""
    return directory / "logs" / container / f"{run}.log"


class LogWriter:
    """Takes what a process prints."""

    def __init__(self, directory: Path, container: str, run: int) -> None:
        self._path = log_path(directory, container, run)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for old in self._path.parent.glob("*.log"):
            if int(old.stem) <= run - _KEEP_RUNS:
                old.unlink()
        self._file = self._path.open("ab", buffering=0)
        self._size = 0

    async def copy(self, stream: asyncio.StreamReader) -> None:
        """Copies until the process closes its end."""
        try:
            while True:
                try:
                    line = await stream.readuntil(b"\n")
                except asyncio.IncompleteReadError as error:
                    line = error.partial
                    if not line:
                        return
                except asyncio.LimitOverrunError as error:
                    line = await stream.readexactly(error.consumed)
                self._write(line)
        finally:
            self._file.close()

    def _write(self, line: bytes) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()
        text = stamp + b" " + line.rstrip(b"\n") + b"\n"
        if self._size + len(text) > _MOST_BYTES:
            self._file.truncate(0)
            self._size = 0
        self._size += self._file.write(text) or 0


async def read_log(
    path: Path,
    *,
    follow: bool = False,
    tail: int | None = None,
    timestamps: bool = False,
    since: datetime | None = None,
    limit_bytes: int | None = None,
    running: object = None,
) -> AsyncIterator[bytes]:
    """The lines of a run, then, with `follow`, those that come, until `running()` is false.

    Raises:
        FileNotFoundError: there was no such run.
    """
    left = limit_bytes if limit_bytes is not None else 1 << 62
    with path.open("rb") as file:
        lines = file.readlines()
        if since is not None:
            lines = [line for line in lines if _time(line) >= since]
        if tail is not None:
            lines = lines[max(len(lines) - tail, 0) :] if tail else []
        partial = b""
        while True:
            for line in lines:
                if not line.endswith(b"\n"):
                    partial = line
                    continue
                shown = line if timestamps else line.partition(b" ")[2]
                yield shown[:left]
                left -= len(shown)
                if left <= 0:
                    return
            if not follow:
                return
            alive = running() if callable(running) else False
            more = file.read()
            if not more:
                if not alive:
                    return
                await asyncio.sleep(_LOOK)
            lines = (partial + more).splitlines(keepends=True) if more else []
            if more:
                partial = b""


def _time(line: bytes) -> datetime:
    try:
        return datetime.fromisoformat(line.partition(b" ")[0].decode())
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
