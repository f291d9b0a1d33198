"""What a container's image stands for, on a machine without images: an environment and a place to find programs in.

Three kinds of names are known. `agentswarm/agent` and `agentswarm/operator`, whatever their tag, are the programs of
the Python environment that the cluster itself runs in, so that a working tree is tried at once, without building
anything. `localhost/host` is this machine, any program of it, for tests. Everything else is refused as a registry
would refuse it: a pod that is believed to run some image must not run something else.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["HOST_IMAGE", "Image", "find_image"]

HOST_IMAGE = "localhost/host"
_OURS = re.compile(r"(?:[a-z0-9.-]+(?::\d+)?/)?agentswarm/(agent|operator)(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?")
_HOST = re.compile(r"localhost/host(?::[\w.-]+)?")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Without these a program of this machine may not find its libraries or its certificates.
_INHERITED = ("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ")


@dataclass(frozen=True, slots=True)
class Image:
    """What a container starts from."""

    name: str
    env: Mapping[str, str]
    #: What is run when the container names no command.
    command: tuple[str, ...] = ()
    #: One of this project's own: run as the current user even where the pod names another one.
    ours: bool = False
    id: str = field(default="")


def _environment(directory: str, environ: Mapping[str, str]) -> dict[str, str]:
    path = f"{directory}:{_SYSTEM_PATH}" if directory else environ.get("PATH", _SYSTEM_PATH)
    env = {name: environ[name] for name in _INHERITED if name in environ}
    return {**env, "PATH": path, "LANG": "C.UTF-8"}


def _jit_cache(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "agentswarm" / "jit"


def find_image(name: str, environ: Mapping[str, str] | None = None) -> Image | None:
    """The image of that name, or None when there is no such image here."""
    environ = os.environ if environ is None else environ
    if _HOST.fullmatch(name):
        return Image(name, _environment("", environ), id=HOST_IMAGE)
    match = _OURS.fullmatch(name)
    if match is None:
        return None
    # The environment's programs, and not where its interpreter comes from: do not follow the link.
    env = _environment(str(Path(sys.executable).parent), environ)
    env["SWARM_CACHE_SEED"] = str(_jit_cache(environ))
    which = match[1]
    return Image(name, env, command=(f"swarm-{which}",), ours=True, id=f"agentswarm/{which}@{sys.prefix}")
