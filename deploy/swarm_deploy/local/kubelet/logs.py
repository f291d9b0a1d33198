"""Containers' logs: files in the form of container runtimes, and a reader with all that `kubectl logs` asks for.

    2026-01-02T03:04:05.678901234Z stdout F the line

`P` in place of `F` marks a line that goes on in the next entry. A container's directory holds one file for each of
its runs, `<restart>.log`, of which the last two are kept; a file that grows beyond its limit is renamed to `….1` and
begun anew, so that a talkative pod cannot fill the disk.

The writer takes whatever comes from the container's pipes and never blocks the container longer than a write to a file
takes. A reader that follows is woken by the writer; it reads the files and shares nothing else with it.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

from swarm_deploy.local.api.meta import parse_time

__all__ = ["ContainerLog", "LogOptions", "exact", "read_log", "stamp"]

_CHUNK = 1 << 16
#: A longer line is split, as container runtimes do.
_LINE = 16 * 1024
_LARGEST = 10 << 20


def stamp(now_ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 with nine digits."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def exact(text: str) -> str:
    """A time in RFC 3339 as `stamp` writes it: to the nanosecond, which a float can't hold.

    Raises:
        ValueError: it is no time.
    """
    fraction = re.search(r"\.(\d{1,9})", text)
    seconds = round(parse_time(text.replace(fraction[0], "") if fraction else text))
    return stamp(seconds * 1_000_000_000 + (int(fraction[1].ljust(9, "0")) if fraction else 0))


class _Pump:
    """One pipe of a container, read as it comes."""

    def __init__(self, log: ContainerLog, stream: str, fd: int) -> None:
        self.log, self.stream, self.fd = log, stream, fd
        self.rest = b""
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self.read)

    def read(self) -> None:
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        entries: list[tuple[bytes, bytes]] = []
        for line in lines:
            self._split(line, entries)
            entries.append((line[len(line) // _LINE * _LINE :], b"F"))
        self._split(self.rest, entries)
        self.rest = self.rest[len(self.rest) // _LINE * _LINE :]
        self.log.write(self.stream, entries)

    @staticmethod
    def _split(line: bytes, entries: list[tuple[bytes, bytes]]) -> None:
        """The whole parts of a line that is too long for one entry."""
        for start in range(0, len(line) // _LINE * _LINE, _LINE):
            entries.append((line[start : start + _LINE], b"P"))

    def close(self) -> None:
        if self.fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self.fd)
        os.close(self.fd)
        self.fd = -1
        if self.rest:
            self.log.write(self.stream, [(self.rest, b"F")])
            self.rest = b""
        self.log.ended()


class ContainerLog:
    """The log of one run of a container, while it runs."""

    def __init__(self, directory: Path, restart: int, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.path = directory / f"{restart}.log"
        self._clock_ns = clock_ns
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("*.log*"):
            number = old.name.split(".")[0]
            if number.isdigit() and int(number) < restart - 1:
                old.unlink(missing_ok=True)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by `discard`
        self._size = self._file.tell()
        self._pumps: list[_Pump] = []
        self._changed: asyncio.Event = asyncio.Event()
        self._open = 0
        self.closed = False

    def pipes(self) -> tuple[int, int]:
        """Descriptors to write stdout and stderr to; the caller closes its copies once the container has them."""
        out = []
        for stream in ("stdout", "stderr"):
            reading, writing = os.pipe()
            self._open += 1
            self._pumps.append(_Pump(self, stream, reading))
            out.append(writing)
        return out[0], out[1]

    def write(self, stream: str, entries: list[tuple[bytes, bytes]]) -> None:
        """Add lines, each with its tag."""
        if not entries or self._file.closed:
            return
        prefix = f"{stamp(self._clock_ns())} {stream} ".encode()
        data = b"".join(prefix + tag + b" " + line + b"\n" for line, tag in entries)
        try:
            self._file.write(data)
        except OSError:
            return  # a full disk: the container goes on, its log has a gap
        self._size += len(data)
        if self._size > _LARGEST:
            self._file.close()
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by `discard`
            self._size = 0
        self._wake()

    def ended(self) -> None:
        """One of the pipes has no writer any more."""
        self._open -= 1

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self) -> None:
        """Returns when something was written, or the log was closed."""
        if not self.closed:
            await self._changed.wait()

    async def close(self, patience: float = 1.0) -> None:
        """Take in what is still in the pipes, then close. A process that escaped and holds one is not waited for."""
        deadline = time.monotonic() + patience
        while self._open and time.monotonic() < deadline:
            for pump in self._pumps:
                if pump.fd >= 0:
                    pump.read()
            if self._open:
                await asyncio.sleep(0.005)
        self.discard()

    def discard(self) -> None:
        """Close at once."""
        for pump in self._pumps:
            pump.close()
        self._file.close()
        self.closed = True
        self._wake()

    def tail(self, lines: int = 80, most: int = 2048) -> str:
        """The end of what was said, for a termination message."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 64 * 1024))
                entries = file.read().splitlines()[-lines:]
        except OSError:
            return ""
        text = b"\n".join(entry.split(b" ", 3)[-1] for entry in entries)
        return text[-most:].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What `kubectl logs` asks for. `since` is a time as `stamp` writes it; `tail` None means from the beginning."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: str | None = None
    limit_bytes: int | None = None


def _tail_offset(path: Path, lines: int) -> int:
    """Where the last `lines` entries begin; entries that are parts of one line count once."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        if lines <= 0:
            return position
        data = b""
        while position > 0:
            step = min(_CHUNK, position)
            position -= step
            file.seek(position)
            data = file.read(step) + data
            entries = data.split(b"\n")
            complete = entries[:-1] if position == 0 else entries[1:-1]
            whole = [i for i, entry in enumerate(complete) if entry.split(b" ", 3)[2:3] == [b"F"]]
            if len(whole) > lines:
                first = whole[-lines - 1] + 1
                return position + len(data) - sum(len(e) + 1 for e in complete[first:]) - len(entries[-1])
        return 0


async def read_log(path: Path, options: LogOptions, live: ContainerLog | None = None) -> AsyncGenerator[bytes, None]:
    """The log's lines, as bytes to send on. With `follow` it goes on for as long as `live` does."""
    left = options.limit_bytes
    held = b""
    wanted = None if options.since is None else options.since.encode()
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    try:
        if options.tail is not None:
            file.seek(_tail_offset(path, options.tail))
        inside = False  # whether the last entry was a part of a line that goes on
        while True:
            data = file.read(_CHUNK)
            if not data:
                if not options.follow or live is None:
                    return
                if live.closed:
                    options = LogOptions(timestamps=options.timestamps)  # read what came between the two looks
                    live = None
                    if os.fstat(file.fileno()).st_size > file.tell():
                        continue
                    return
                if os.fstat(file.fileno()).st_ino != _inode(path):
                    file.close()
                    file = path.open("rb")
                    continue
                if os.fstat(file.fileno()).st_size == file.tell():
                    await live.changed()
                continue
            entries = (held + data).split(b"\n")
            held = entries.pop()
            out = bytearray()
            for entry in entries:
                when, _, rest = entry.partition(b" ")
                _, _, rest = rest.partition(b" ")
                tag, _, line = rest.partition(b" ")
                if wanted is not None and when < wanted:
                    continue
                if options.timestamps and not inside:
                    out += when + b" "
                out += line
                inside = tag == b"P"
                if not inside:
                    out += b"\n"
            if left is not None:
                out = out[:left]
                left -= len(out)
            if out:
                yield bytes(out)
            if left is not None and left <= 0:
                return
            await asyncio.sleep(0)  # a long log must not hold up everybody else
    finally:
        file.close()


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
