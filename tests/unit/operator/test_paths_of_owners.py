"""What the owner of a Swarm may name on a node and in the agent's container: nothing that leads elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from support.operatorkit import make_spec


def mounted(path: str) -> dict[str, Any]:
    template = {"volumes": [{"name": "more", "emptyDir": "1Mi"}], "volumeMounts": [{"name": "more", "mountPath": path}]}
    return {"compute": {"podTemplate": template}}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/etc",
        "/proc",
        "/var/lib/kubelet",
        "/dev/shm/../../etc",
        "/dev/shm/..",
        "/dev/shm/.",
        "/dev/shm/",
        "/dev/shm//a",
        "//dev/shm",
        "/./dev/shm",
        "/dev/shmall",
        "dev/shm",
        "/dev/shm/a\n",
    ],
)
def test_shared_memory_lies_in_the_nodes_tmpfs_and_nowhere_else(path: str) -> None:
    with pytest.raises(ValidationError, match="path"):
        make_spec(transport={"sharedMemory": {"path": path}})


@pytest.mark.parametrize("path", ["/dev/shm", "/dev/shm/team-a", "/dev/shm/a/b.c", "/dev/shm/.hidden"])
def test_directories_below_it_may_be_chosen(path: str) -> None:
    assert make_spec(transport={"sharedMemory": {"path": path}}).transport.shared_memory.path == path


@pytest.mark.parametrize(
    "path",
    [
        "//etc/swarm/keys",
        "/etc//swarm/keys",
        "/etc/./swarm/keys",
        "/x/../etc/swarm/keys",
        "/etc/swarm",
        "/etc/swarm/keys",
        "/etc",
        "/run",
        "/var",
        "/var/lib",
        "/tmp",
        "/tmp/x",
        "/",
        "/a/",
        "a",
    ],
)
def test_no_volume_hides_what_is_the_agents_own(path: str) -> None:
    with pytest.raises(ValidationError, match=r"mountPath|mount_path"):
        make_spec(**mounted(path))


@pytest.mark.parametrize("path", ["/data", "/home/me/.config/app", "/opt/x-1/y_2", "/etc/swarming", "/srv/@a"])
def test_other_paths_are_free(path: str) -> None:
    (mount,) = make_spec(**mounted(path)).compute.pod_template.volume_mounts
    assert mount.mount_path == path
