"""Mounts without mount namespaces: a container's paths, replaced by the directories they stand for.

A user without root cannot mount anything, so a path such as `/etc/swarm/config` does not exist for the process.
Instead, every place where the pod's manifest can hand a path to the process (values of variables, arguments, the
working directory, commands of probes and hooks) is searched for the container's mount paths, and each is replaced by
the real directory behind it. A path counts only where it stands for itself: whole components, not the middle of
another path or word. Programs that have a mount path built in do not see the volume; those of this project take every
path from their environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["Translation"]

_BEFORE = r"(?:(?<=://)|(?<![\w./-]))"
_AFTER = r"(?=/|[^\w./-]|\.?$|\.[^\w])"


class Translation:
    """The mounts of one container: its paths -> real ones."""

    def __init__(self, mounts: Mapping[str, str]) -> None:
        self.mounts = {path.rstrip("/") or "/": real for path, real in mounts.items() if path.rstrip("/")}
        # The longest first, so that a mount below another one wins.
        paths = sorted(self.mounts, key=len, reverse=True)
        self._pattern = (
            re.compile(_BEFORE + "(" + "|".join(re.escape(path) for path in paths) + ")" + _AFTER) if paths else None
        )

    def __call__(self, text: str) -> str:
        """The text with every mount path replaced."""
        if self._pattern is None or "/" not in text:
            return text
        return self._pattern.sub(lambda match: self.mounts[match[1]], text)
