"""The kernel's files, kept open: opening one costs more than reading it.

A file of /proc that is made of records gives at most a page a read, so it is read on until there is no more; what is
well short of a page is whole. A file that can't be read any more (its device or cgroup has gone) is closed, and opened
again at the next read, for the name may be somebody else's by then. All paths lie below one root, so that a node's
trees can be mounted elsewhere and recorded ones be replayed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Files", "too_long"]

#: No file that is read here is as large on any machine (bytes).
_MOST = 1 << 22
_CHUNK = 1 << 16
#: A read that is shorter was the last: no record is as long as the rest of a page.
_WHOLE = 3072


class Files:
    """Reads files below `root` by their path without the leading slash."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._recorded = root != Path("/")
        self._open: dict[str, int] = {}

    def handle(self, path: str) -> int:
        """The file's descriptor, opened if it is not yet.

        Raises:
            OSError: it is not there.
        """
        handle = self._open.get(path)
        # In a recorded tree what is deleted or replaced can still be read where it was opened; the kernel says ENODEV.
        if handle is not None and self._recorded and not os.fstat(handle).st_nlink:
            self.drop(path)
            handle = None
        if handle is None:
            # Not to wait for a writer, should the path be a pipe.
            handle = os.open(self.root / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            self._open[path] = handle
        return handle

    def drop(self, path: str) -> None:
        """Closes it: it is opened anew at the next read."""
        handle = self._open.pop(path, None)
        if handle is not None:
            os.close(handle)

    def read(self, path: str) -> bytes:
        """What the file holds now.

        Raises:
            OSError: it is not there, can't be read, or is absurdly long.
        """
        handle = self.handle(path)
        try:
            data = os.pread(handle, _CHUNK, 0)
            size = len(data)
            if size < _WHOLE:
                return data
            parts = [data]
            while more := os.pread(handle, _CHUNK, size):
                parts.append(more)
                size += len(more)
                too_long(path, size)
            return b"".join(parts)
        except OSError:
            self.drop(path)
            raise

    def number(self, path: str) -> int | None:
        """The whole number that the file holds; None: there is none to be had."""
        try:
            return int(self.read(path))
        except (OSError, ValueError):
            return None

    def text(self, path: str) -> str:
        """What the file says, stripped; empty where it says nothing."""
        try:
            return self.read(path).decode(errors="replace").strip()
        except OSError:
            return ""

    def find(self, *patterns: str) -> list[str]:
        """The paths that there are, in order."""
        found = (path for pattern in patterns for path in sorted(self.root.glob(pattern)))
        return [str(path.relative_to(self.root)) for path in found]

    def keep(self, paths: Iterable[str]) -> None:
        """Closes all but these."""
        for path in self._open.keys() - set(paths):
            self.drop(path)

    def close(self) -> None:
        self.keep(())


def too_long(path: str, size: int) -> None:
    """Refuses a file of so many bytes and more.

    Raises:
        OSError: no file that is read here is as long on any machine.
    """
    if size > _MOST:
        raise OSError(f"/{path} is longer than {_MOST} bytes")
