"""Files of volumes appear at once, and stay inside."""

from __future__ import annotations

import base64
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from swarm_deploy.local.kubelet.volumes import MountError, NodePaths, Volumes, unsupported_volume

Object = dict[str, Any]


class Held:
    def __init__(self) -> None:
        self.config: dict[str, Object] = {}
        self.secrets: dict[str, Object] = {}

    def config_map(self, namespace: str, name: str) -> Object | None:
        return self.config.get(name)

    def secret(self, namespace: str, name: str) -> Object | None:
        return self.secrets.get(name)


@pytest.fixture
def held() -> Held:
    return Held()


def make_volumes(tmp_path: Path, held: Held, *volumes: Object, **more: Any) -> Volumes:
    paths = NodePaths(tmp_path / "root", tmp_path / "pods", tmp_path / "logs", tmp_path / "shm", tmp_path / "memory")
    paths.make()
    pod = {
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"volumes": list(volumes), "containers": []},
    }
    return Volumes(paths, pod, held, {}, **more)


def test_a_reader_sees_all_files_of_one_moment(tmp_path: Path, held: Held) -> None:
    held.config["cm"] = {"data": {"a": "0", "b": "0"}}
    volumes = make_volumes(tmp_path, held, {"name": "v", "configMap": {"name": "cm"}})
    directory = volumes.mount()["v"]
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            try:
                here = os.open(directory / "..data", os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue
            try:
                texts = []
                for name in ("a", "b"):
                    file = os.open(name, os.O_RDONLY, dir_fd=here)
                    texts.append(os.read(file, 99))
                    os.close(file)
                seen.add(tuple(texts))
            except FileNotFoundError:
                pass  # a directory that was replaced is removed: what was read of it is not mixed with another
            finally:
                os.close(here)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 200):
        held.config["cm"] = {"data": {"a": str(number), "b": str(number)}}
        volumes.refresh()
    stop.set()
    reader.join()
    assert (directory / "a").read_text() == "199"
    assert all(a == b for a, b in seen), "a mixture of two moments was seen"
    assert len([p for p in directory.iterdir() if p.name.startswith("..")]) == 2


def test_nothing_is_written_again_when_nothing_changed(tmp_path: Path, held: Held) -> None:
    held.config["cm"] = {"data": {"a": "1"}, "binaryData": {"b": base64.b64encode(b"\x00").decode()}}
    volumes = make_volumes(tmp_path, held, {"name": "v", "configMap": {"name": "cm"}})
    directory = volumes.mount()["v"]
    before = os.readlink(directory / "..data")
    volumes.refresh()
    assert os.readlink(directory / "..data") == before
    assert (directory / "b").read_bytes() == b"\x00"


def test_items_choose_keys_paths_and_modes(tmp_path: Path, held: Held) -> None:
    held.config["cm"] = {"data": {"a": "1", "b": "2"}}
    items = [{"key": "a", "path": "deep/er/x", "mode": 0o600}]
    volumes = make_volumes(tmp_path, held, {"name": "v", "configMap": {"name": "cm", "items": items}})
    directory = volumes.mount()["v"]
    assert (directory / "deep/er/x").read_text() == "1"
    assert (directory / "deep/er/x").stat().st_mode & 0o777 == 0o600
    assert not (directory / "b").exists()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        ({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}, "non-existent configmap key: z"),
        ({"configMap": {"name": "cm", "items": [{"key": "a", "path": "../../out"}]}}, "leads out of the volume"),
        ({"hostPath": {"path": "/nope", "type": "File"}}, "hostPath type check failed: /nope is not a file"),
    ],
)
def test_what_can_not_be_mounted_is_said_with_the_volume_s_name(
    tmp_path: Path, held: Held, source: Object, says: str
) -> None:
    held.config["cm"] = {"data": {"a": "1"}}
    with pytest.raises(MountError, match=f'volume "v" : .*{says}'):
        make_volumes(tmp_path, held, {"name": "v", **source}).mount()
    assert not (tmp_path / "out").exists()


def test_what_is_optional_is_an_empty_directory(tmp_path: Path, held: Held) -> None:
    volumes = make_volumes(tmp_path, held, {"name": "v", "secret": {"secretName": "no", "optional": True}})
    assert [p.name for p in volumes.mount()["v"].iterdir() if not p.name.startswith("..")] == []


def test_paths_of_a_node_stay_inside_and_its_shared_memory_is_apart(tmp_path: Path) -> None:
    paths = NodePaths(tmp_path / "root", tmp_path / "pods", tmp_path / "logs", tmp_path / "shm", tmp_path / "memory")
    assert paths.host("/etc/x") == tmp_path / "root/etc/x"
    assert paths.host("/../../x") == tmp_path / "root/x"
    assert paths.host("/dev/shm") == tmp_path / "shm"
    assert paths.host("/dev/shm/a/../b") == tmp_path / "shm/b"
    assert paths.host("/dev/shm/../null") == tmp_path / "root/dev/null"


def test_a_token_is_signed_anew_only_when_most_of_its_life_is_over(tmp_path: Path, held: Held) -> None:
    issued: list[int] = []

    def issue(seconds: int) -> str:
        issued.append(seconds)
        return f"token {len(issued)}"

    sources = [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]
    volumes = make_volumes(tmp_path, held, {"name": "v", "projected": {"sources": sources}}, token=issue)
    directory = volumes.mount()["v"]
    volumes.refresh()
    assert issued == [3600]
    assert (directory / "token").read_text() == "token 1"
    assert (directory / "token").stat().st_mode & 0o077 == 0


def test_memory_volumes_are_in_memory_and_all_is_removed_together(tmp_path: Path, held: Held) -> None:
    volumes = make_volumes(
        tmp_path, held, {"name": "m", "emptyDir": {"medium": "Memory"}}, {"name": "d", "emptyDir": {}}
    )
    made = volumes.mount()
    assert made["m"].is_relative_to(tmp_path / "memory")
    volumes.remove()
    assert not any(path.exists() for path in made.values())


@pytest.mark.parametrize("kind", ["persistentVolumeClaim", "nfs", "csi", "ephemeral", "image", "iscsi"])
def test_volumes_that_can_not_be_had_are_named(kind: str) -> None:
    assert "v" in unsupported_volume({"name": "v", kind: {}})
