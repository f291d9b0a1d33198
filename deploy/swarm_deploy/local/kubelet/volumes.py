"""A pod's volumes as directories: made before its containers start, kept up to date, removed after they have ended.

Files that come from the API (ConfigMaps, Secrets, fields of the pod) appear all at once, as a real kubelet writes
them: into a new directory, to which the symbolic link `..data` is then moved; each file is a link through `..data`.
So a reader sees the old files or the new ones and never a mixture.

Everything belongs to the user who runs the cluster, and so do the containers' processes: the modes that a manifest
asks for are applied to the owner, and a Secret's files are kept from everybody else whatever mode they ask for.

A `hostPath` is looked for below the node's own root directory, since a simulated node is not this machine. The one
exception is `/dev/shm`, which has to be memory: each node has a directory of its own below the machine's.
"""

from __future__ import annotations

import base64
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from swarm_deploy.local.kubelet.environment import ConfigError, Sources, field_value, resource_value

__all__ = ["MountError", "NodePaths", "Volumes", "unsupported_volume"]

Object = dict[str, Any]

_SUPPORTED = ("configMap", "secret", "emptyDir", "downwardAPI", "projected", "hostPath")


class MountError(Exception):
    """A volume can't be had (yet)."""


def unsupported_volume(volume: Object) -> str:
    """Why a volume can never be had here; empty when it can."""
    kinds = sorted(volume.keys() - {"name"})
    kind = kinds[0] if kinds else "emptyDir"
    if kind == "persistentVolumeClaim":
        return f'volume "{volume["name"]}": the embedded cluster provides no storage: use emptyDir or hostPath'
    if kind not in _SUPPORTED:
        return f'volume "{volume["name"]}": the embedded cluster has no volumes of type {kind}'
    if kind == "emptyDir" and volume["emptyDir"].get("medium") not in (None, "", "Memory"):
        return f'volume "{volume["name"]}": the embedded cluster has no medium {volume["emptyDir"]["medium"]}'
    for source in (volume.get("projected") or {}).get("sources") or ():
        for name in source:
            if name not in ("configMap", "secret", "downwardAPI", "serviceAccountToken"):
                return f'volume "{volume["name"]}": the embedded cluster can\'t project a {name}'
    return ""


@dataclass(frozen=True, slots=True)
class NodePaths:
    """Where a simulated node keeps things."""

    #: Root of the node's own file system, for `hostPath`.
    root: Path
    #: Its pods' directories.
    pods: Path
    #: Its containers' logs.
    logs: Path
    #: What `/dev/shm` is on it.
    shm: Path
    #: Memory for `emptyDir` volumes of medium Memory.
    memory: Path

    def make(self) -> None:
        """Make them, with what every Linux machine has."""
        for path in (
            self.root / "tmp",
            self.root / "var/lib",
            self.root / "var/log",
            self.pods,
            self.logs,
            self.memory,
        ):
            path.mkdir(parents=True, exist_ok=True)
        self.shm.mkdir(parents=True, exist_ok=True)
        self.shm.chmod(0o1777)
        (self.root / "tmp").chmod(0o1777)

    def host(self, path: str) -> Path:
        """Where an absolute path of the node lies on this machine. `..` does not lead out."""
        pure = PurePosixPath(os.path.normpath("/" + path.lstrip("/")))
        if pure.is_relative_to("/dev/shm"):
            return self.shm / pure.relative_to("/dev/shm")
        return self.root / pure.relative_to("/")


@dataclass(slots=True)
class Volumes:
    """The volumes of one pod."""

    paths: NodePaths
    pod: Object
    sources: Sources
    allocatable: Mapping[str, str]
    #: Gives a token for the pod's service account that is good for so many seconds.
    token: Callable[[int], str] | None = None
    _held: dict[str, Path] = field(default_factory=dict)
    #: File -> its token, and when (monotonic) it is signed anew. Not kept over a restart: the key is another one then.
    _tokens: dict[str, tuple[bytes, float]] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """The pod's own directory."""
        return self.paths.pods / str(self.pod["metadata"]["uid"])

    def mount(self) -> dict[str, Path]:
        """Make all volumes; returns their directories by name. To be called again is harmless.

        Raises:
            MountError: something is missing; whoever calls tries again later.
        """
        for volume in self.pod["spec"].get("volumes") or ():
            name = volume["name"]
            try:
                self._held[name] = self._mount(name, volume)
            except (ConfigError, OSError) as error:
                text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
                raise MountError(f'MountVolume.SetUp failed for volume "{name}" : {text}') from error
        return dict(self._held)

    def refresh(self) -> None:
        """Bring what came from the API up to date; what is missing now stays as it is."""
        for volume in self.pod["spec"].get("volumes") or ():
            if volume.keys() & {"configMap", "secret", "downwardAPI", "projected"} and volume["name"] in self._held:
                try:
                    self._mount(volume["name"], volume)
                except (ConfigError, OSError):
                    pass

    def uses(self, kind: str, name: str) -> bool:
        """Whether a volume shows this ConfigMap or Secret (`configMap`, `secret`)."""
        key = "name" if kind == "configMap" else "secretName"
        for volume in self.pod["spec"].get("volumes") or ():
            if (volume.get(kind) or {}).get(key) == name:
                return True
            for source in (volume.get("projected") or {}).get("sources") or ():
                if (source.get(kind) or {}).get("name") == name:
                    return True
        return False

    def remove(self) -> None:
        """Remove the pod's directory, and its memory."""
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.paths.memory / str(self.pod["metadata"]["uid"]), ignore_errors=True)

    # -- one volume -----------------------------------------------------------------------------------------------

    def _mount(self, name: str, volume: Object) -> Path:
        if "hostPath" in volume:
            return self._host_path(volume["hostPath"])
        if (volume.get("emptyDir") or {}).get("medium") == "Memory":
            path = self.paths.memory / str(self.pod["metadata"]["uid"]) / name
        else:
            path = self.directory / "volumes" / name
        path.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume or not volume.keys() - {"name"}:
            path.chmod(0o777)
            return path
        files: dict[str, tuple[bytes, int]] = {}
        private = False
        if "configMap" in volume or "secret" in volume:
            kind = "configMap" if "configMap" in volume else "secret"
            private = kind == "secret"
            files = self._from_object(kind, volume[kind], volume[kind].get("defaultMode", 0o644))
        elif "downwardAPI" in volume:
            source = volume["downwardAPI"]
            files = self._from_fields(source.get("items") or (), source.get("defaultMode", 0o644))
        else:
            projected = volume["projected"]
            mode = projected.get("defaultMode", 0o644)
            for source in projected.get("sources") or ():
                for kind in ("configMap", "secret"):
                    if kind in source:
                        private |= kind == "secret"
                        files |= self._from_object(kind, source[kind], mode)
                if "downwardAPI" in source:
                    files |= self._from_fields(source["downwardAPI"].get("items") or (), mode)
                if "serviceAccountToken" in source:
                    private = True
                    files |= self._token(source["serviceAccountToken"], mode)
        if private:
            path.chmod(0o700)
            files = {name: (content, mode & 0o700) for name, (content, mode) in files.items()}
        _write_at_once(path, files)
        return path

    def _host_path(self, source: Object) -> Path:
        path, kind = self.paths.host(source["path"]), source.get("type") or ""
        shown = source["path"]
        if kind == "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True, mode=0o755)
        elif kind == "FileOrCreate":
            if not path.exists():
                path.touch(0o644)
        elif kind == "" and not path.exists():
            path.mkdir(parents=True, exist_ok=True)  # a container runtime makes a directory of what is not there
        checks = {
            "Directory": stat.S_ISDIR,
            "DirectoryOrCreate": stat.S_ISDIR,
            "File": stat.S_ISREG,
            "FileOrCreate": stat.S_ISREG,
            "Socket": stat.S_ISSOCK,
            "CharDevice": stat.S_ISCHR,
            "BlockDevice": stat.S_ISBLK,
        }
        if kind in checks and not (path.exists() and checks[kind](path.stat().st_mode)):
            noun = {"Directory": "a directory", "File": "a file"}.get(kind.removesuffix("OrCreate"), f"a {kind}")
            raise ConfigError(f"hostPath type check failed: {shown} is not {noun}")
        return path

    def _from_object(self, kind: str, source: Object, mode: int) -> dict[str, tuple[bytes, int]]:
        namespace = self.pod["metadata"]["namespace"]
        name = source.get("secretName") or source.get("name", "")
        found = self.sources.secret(namespace, name) if kind == "secret" else self.sources.config_map(namespace, name)
        if found is None:
            if source.get("optional"):
                return {}
            raise ConfigError(f'{kind.lower()} "{name}" not found')
        if kind == "secret":
            data = {k: base64.b64decode(v) for k, v in (found.get("data") or {}).items()}
        else:
            data = {k: str(v).encode() for k, v in (found.get("data") or {}).items()}
            data |= {k: base64.b64decode(v) for k, v in (found.get("binaryData") or {}).items()}
        items = source.get("items")
        if not items:
            return {key: (content, mode) for key, content in data.items()}
        out = {}
        for item in items:
            if item["key"] in data:
                out[item["path"]] = (data[item["key"]], item.get("mode", mode))
            elif not source.get("optional"):
                raise ConfigError(f"references non-existent {kind.lower()} key: {item['key']}")
        return out

    def _from_fields(self, items: Any, mode: int) -> dict[str, tuple[bytes, int]]:
        out = {}
        for item in items:
            if "fieldRef" in item:
                text = field_value(self.pod, item["fieldRef"]["fieldPath"])
            else:
                text = resource_value(self.pod, {}, item["resourceFieldRef"], self.allocatable)
            out[item["path"]] = (text.encode(), item.get("mode", mode))
        return out

    def _token(self, source: Object, mode: int) -> dict[str, tuple[bytes, int]]:
        if self.token is None:
            raise ConfigError("no service account tokens are issued here")
        path, seconds = source["path"], int(source.get("expirationSeconds") or 3600)
        value, due = self._tokens.get(path, (b"", 0.0))
        if time.monotonic() >= due:
            value = self.token(seconds).encode()
            self._tokens[path] = value, time.monotonic() + 0.8 * seconds
        return {path: (value, mode)}


def _write_at_once(directory: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
    """Make a directory hold exactly these files, in one step for whoever reads them."""
    link = directory / "..data"
    if link.is_symlink() and _holds(link.resolve(), files):
        return
    old = os.readlink(link) if link.is_symlink() else None
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    fresh.chmod(0o755 if any(mode & 0o077 for _, mode in files.values()) or not files else 0o700)
    for name, (content, mode) in files.items():
        path = fresh / name
        if not path.resolve().is_relative_to(fresh.resolve()):
            raise ConfigError(f"path {name} leads out of the volume")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    temporary = directory / "..data_tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(fresh.name)
    temporary.replace(link)
    first = {PurePosixPath(name).parts[0] for name in files}
    for name in first:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in first:
            entry.unlink(missing_ok=True)
    if old is not None:
        shutil.rmtree(directory / old, ignore_errors=True)


def _holds(directory: Path, files: Mapping[str, tuple[bytes, int]]) -> bool:
    held = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
    if held != set(files):
        return False
    for name, (content, mode) in files.items():
        path = directory / name
        if path.read_bytes() != content or stat.S_IMODE(path.stat().st_mode) != mode:
            return False
    return True
