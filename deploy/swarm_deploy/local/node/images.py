"""Which images this cluster can run: none is pulled, each is something that this machine has.

- the project's own (`…agentswarm/agent`, `…agentswarm/operator`, any registry, any tag): the Python environment that
  the cluster itself runs in, so that what is tested is what is checked out;
- `localhost/host`: any program of this machine, for tests and for trying things.

Everything else is refused the way a kubelet refuses an image that can't be pulled.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Image", "find_image"]


@dataclass(frozen=True)
class Image:
    """What an image stands for."""

    name: str
    #: What runs when the container names no command.
    command: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


def find_image(name: str) -> Image | None:
    """The image of this name, or None."""
    repository = name.partition("@")[0]
    head, _, last = repository.rpartition("/")
    repository = f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]
    here = str(Path(sys.executable).parent)
    path = f"{here}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    env = {"PATH": path, "HOME": str(Path.home()), "LANG": "C.UTF-8"}
    if repository == "localhost/host":
        return Image(name, (), env)
    for own, command in (("agentswarm/agent", "swarm-agent"), ("agentswarm/operator", "swarm-operator")):
        if repository == own or repository.endswith("/" + own):
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            seed = cache / "agentswarm" / "jit"
            return Image(name, (command,), env | {"SWARM_CACHE_SEED": str(seed), "PYTHONUNBUFFERED": "1"})
    return None
