"""Puts a pod's volumes into directories, and keeps those that follow an object up to date.

Content from ConfigMaps, Secrets and the downward API is written the way a kubelet does it: into a directory of its own,
to which the link `..data` is then turned in one rename. A reader sees the old files or the new ones, never a mixture.

`hostPath` is the simulated node's: each node has a root directory, and `/dev/shm` on it is a directory in the machine's
own `/dev/shm`, because shared memory must be memory.
"""

from __future__ import annotations

import base64
import itertools
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarm_deploy.local.node.environment import field_value

__all__ = ["MountError", "NodePaths", "Volumes", "unsupported_volume"]

Object = dict[str, Any]
Lookup = Callable[[str, str], Object | None]
_SOURCES = ("configMap", "secret", "emptyDir", "hostPath", "downwardAPI", "projected")
_numbers = itertools.count(1)


class MountError(Exception):
    """A volume can't be made; the text is the event's."""


@dataclass(frozen=True)
class NodePaths:
    """Where a simulated node keeps things."""

    #: Everything of its pods but memory.
    root: Path
    #: Its `/dev/shm`.
    shm: Path

    def host(self, path: str) -> Path:
        """Where a path of the node's own file system really is."""
        clean = os.path.normpath("/" + path.lstrip("/"))
        if clean == "/dev/shm" or clean.startswith("/dev/shm/"):
            return self.shm / clean.removeprefix("/dev/shm").lstrip("/")
        return self.root / "rootfs" / clean.lstrip("/")


def unsupported_volume(volume: Object) -> str | None:
    """Why this cluster can't give the volume, or None."""
    kinds = [k for k in volume if k != "name"]
    for kind in kinds:
        if kind not in _SOURCES:
            return (
                f'volume "{volume["name"]}": the embedded cluster has no {kind} volumes (it has {", ".join(_SOURCES)})'
            )
    for source in volume.get("projected", {}).get("sources", ()):
        for kind in source:
            if kind not in ("configMap", "secret", "downwardAPI", "serviceAccountToken"):
                return f'volume "{volume["name"]}": the embedded cluster can\'t project {kind}'
    return None


@dataclass
class Volumes:
    """The volumes of one pod."""

    pod: Object
    paths: NodePaths
    #: Gives an object of the pod's namespace: `lookup("configmaps", name)`.
    lookup: Lookup
    pod_ip: str
    host_ip: str
    #: Issues a token for a service account of the pod's namespace, good for some seconds.
    issue: Callable[[str, int], str]
    _tokens: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    _written: dict[str, Mapping[str, bytes]] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """The pod's own directory."""
        return self.paths.root / "pods" / str(self.pod["metadata"]["uid"])

    @property
    def _memory(self) -> Path:
        return self.paths.shm / f".emptydir-{self.pod['metadata']['uid']}"

    def make(self) -> dict[str, Path]:
        """Makes all volumes; returns their directories by name.

        Raises:
            MountError: an object is missing, or a host path is not of the type asked for.
        """
        return {volume["name"]: self._make(volume) for volume in self.pod["spec"].get("volumes", ())}

    def mounts(self, container: Object, made: Mapping[str, Path]) -> dict[str, Path]:
        """A container's mountPaths, and the directories behind them."""
        found = {}
        for mount in container.get("volumeMounts", ()):
            where = made[mount["name"]]
            if sub := mount.get("subPath"):
                where = where / sub
                if not where.exists():
                    where.mkdir(parents=True)
            found[mount["mountPath"]] = where
        return found

    def refresh(self) -> bool:
        """Writes again what has changed in the API; True if anything had. A missing object changes nothing."""
        changed = False
        for volume in self.pod["spec"].get("volumes", ()):
            if volume["name"] in self._written:
                try:
                    content = self._content(volume)
                except MountError:
                    continue
                if content != self._written[volume["name"]]:
                    self._write(volume["name"], content, _mode(volume))
                    changed = True
        return changed

    def remove(self) -> None:
        """Removes what the pod had; host paths stay, as on a node."""
        shutil.rmtree(self._memory, ignore_errors=True)
        shutil.rmtree(self.directory / "volumes", ignore_errors=True)

    def _make(self, volume: Object) -> Path:
        name = str(volume["name"])
        if "emptyDir" in volume:
            memory = (volume["emptyDir"] or {}).get("medium") == "Memory"
            where = (self._memory if memory else self.directory / "volumes") / name
            where.mkdir(parents=True, exist_ok=True)
            where.chmod(0o777)
            return where
        if "hostPath" in volume:
            return self._host_path(volume["hostPath"])
        self._write(name, self._content(volume), _mode(volume))
        return self.directory / "volumes" / name

    def _host_path(self, source: Object) -> Path:
        where, kind = self.paths.host(source["path"]), source.get("type", "")
        if kind == "DirectoryOrCreate":
            where.mkdir(parents=True, exist_ok=True, mode=0o755)
        elif kind == "FileOrCreate":
            where.parent.mkdir(parents=True, exist_ok=True)
            where.touch(mode=0o644)
        elif kind == "" and not where.exists():
            where.mkdir(parents=True)
        wrong = {"Directory": not where.is_dir(), "File": not where.is_file()}.get(kind, False)
        if wrong or kind not in ("", "Directory", "DirectoryOrCreate", "File", "FileOrCreate"):
            raise MountError(f"hostPath type check failed: {source['path']} is not a {kind.lower()}")
        return where

    def _content(self, volume: Object) -> dict[str, bytes]:
        if "projected" in volume:
            content: dict[str, bytes] = {}
            for source in volume["projected"].get("sources", ()):
                content |= self._one(source)
            return content
        return self._one(volume)

    def _service_token(self, source: Object) -> dict[str, bytes]:
        """A service account's token, issued again when most of its time is over, as a kubelet does."""
        path, seconds = source["path"], int(source.get("expirationSeconds", 3600))
        value, due = self._tokens.get(path, (b"", 0.0))
        if time.monotonic() >= due:
            account = self.pod["spec"].get("serviceAccountName", "default")
            value = self.issue(account, seconds).encode()
            self._tokens[path] = (value, time.monotonic() + 0.8 * seconds)
        return {path: value}

    def _one(self, source: Object) -> dict[str, bytes]:
        if "serviceAccountToken" in source:
            return self._service_token(source["serviceAccountToken"])
        if "downwardAPI" in source:
            return {
                item["path"]: field_value(
                    self.pod, item["fieldRef"]["fieldPath"], pod_ip=self.pod_ip, host_ip=self.host_ip
                ).encode()
                for item in source["downwardAPI"].get("items", ())
                if "fieldRef" in item
            }
        if "configMap" in source:
            kind, resource, given = "configmap", "configmaps", source["configMap"]
        else:
            kind, resource, given = "secret", "secrets", source["secret"]
        name = given.get("name") or given.get("secretName")
        found = self.lookup(resource, name)
        if found is None:
            if given.get("optional"):
                return {}
            raise MountError(f'{kind} "{name}" not found')
        data = _bytes(found)
        if not given.get("items"):
            return data
        missing = [item["key"] for item in given["items"] if item["key"] not in data]
        if missing and not given.get("optional"):
            raise MountError(f"references non-existent {kind} key: {missing[0]}")
        return {item["path"]: data[item["key"]] for item in given["items"] if item["key"] in data}

    def _write(self, name: str, content: Mapping[str, bytes], mode: int) -> None:
        """The kubelet's atomic writer: a fresh directory, and `..data` turned to it."""
        home = self.directory / "volumes" / name
        home.mkdir(parents=True, exist_ok=True)
        fresh = home / f"..{os.getpid()}-{next(_numbers)}"
        fresh.mkdir()
        for path, data in content.items():
            file = fresh / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(mode)
        old = os.readlink(home / "..data") if (home / "..data").is_symlink() else None
        link = home / "..data_tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(fresh.name)
        link.replace(home / "..data")
        tops = {Path(path).parts[0] for path in content}
        for entry in home.iterdir():
            if not entry.name.startswith("..") and entry.name not in tops:
                entry.unlink()
        for top in tops:
            if not (home / top).is_symlink():
                (home / top).symlink_to(Path("..data") / top)
        if old:
            shutil.rmtree(home / old, ignore_errors=True)
        self._written[name] = dict(content)


def _mode(volume: Object) -> int:
    """Owner-only whatever is asked for: one user runs all pods here, and nobody else on the machine should read."""
    for kind in ("configMap", "secret", "projected", "downwardAPI"):
        if kind in volume:
            return int(volume[kind].get("defaultMode", 0o644)) & 0o700
    return 0o600


def _bytes(obj: Object) -> dict[str, bytes]:
    if obj.get("kind") == "Secret":
        return {k: base64.b64decode(v) for k, v in (obj.get("data") or {}).items()}
    plain = {k: v.encode() for k, v in (obj.get("data") or {}).items()}
    return plain | {k: base64.b64decode(v) for k, v in (obj.get("binaryData") or {}).items()}
