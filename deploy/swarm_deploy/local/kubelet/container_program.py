"""What a container of a pod runs: its image's command with the pod's arguments, environment, paths and limits.

A container here is a process of this machine. It finds its volumes where they really are: in its arguments and its
environment, each path at which the pod's spec mounts one is replaced by the volume's own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm_deploy.local.kubelet.admission import container_refusal
from swarm_deploy.local.kubelet.environment import ConfigError, expand, make_environment
from swarm_deploy.local.kubelet.images import Image, find_image
from swarm_deploy.local.kubelet.paths import Translation
from swarm_deploy.local.kubelet.runtime import CONTAINER_MARK, Program

if TYPE_CHECKING:
    from swarm_deploy.local.kubelet.container import Home

__all__ = ["NoImageError", "make_program", "real_paths"]

Object = dict[str, Any]

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class NoImageError(Exception):
    """This cluster has no such image, and pulls none."""


def make_program(home: Home, spec: Object, name: str) -> tuple[Program, Image]:
    """The program of a container, by its part of the pod's spec, and the image that it is from.

    Raises:
        ConfigError: the pod has to be changed, or something that it refers to.
        NoImageError: this cluster has no such image.
    """
    pod = home.object
    image = find_image(spec["image"])
    if image is None:
        raise NoImageError(
            f"{spec['image']} is not here: the embedded cluster pulls no images, it runs agentswarm/agent and"
            " agentswarm/operator from its own Python environment (and localhost/host, programs of this machine)"
        )
    if refusal := container_refusal(pod, spec, image):
        raise ConfigError(refusal)
    own = home.directory / "containers" / name
    (own / "home").mkdir(parents=True, exist_ok=True)
    translate = Translation(real_paths(home, spec, own))
    cpus = home.assign(name)
    base = {
        **image.env,
        "HOME": str(own / "home"),
        "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
        CONTAINER_MARK: f"{pod['metadata']['uid']}/{name}",
    }
    if account := _account_mount(spec):
        # Clients look for them at a path that is not there; all of them know the way by a kubeconfig as well.
        base["KUBECONFIG"] = str(_write_kubeconfig(own / "kubeconfig", home.node.server, home.mounts[account]))
    if cpus.simulated:
        base |= cpus.environment()
    env = make_environment(pod, spec, base, home.node.sources, home.node.allocatable)
    words = [*(spec.get("command") or image.command), *(spec.get("args") or ())]
    if not words:
        raise ConfigError(f"no command specified: the image {spec['image']} has none of its own")
    argv = [translate(expand(word, env)) for word in words]
    env = {key: translate(value) if base.get(key) != value else value for key, value in env.items()}
    directory = translate(expand(spec["workingDir"], env)) if spec.get("workingDir") else str(own / "home")
    security = spec.get("securityContext") or {}
    program = Program(
        argv=argv,
        env=env,
        cwd=Path(directory),
        cpus=cpus.real,
        limits={"RLIMIT_CORE": 0},
        no_new_privileges=security.get("allowPrivilegeEscalation") is False,
    )
    return program, image


def _account_mount(spec: Object) -> str:
    """The volume with the credentials of the pod's service account; empty when it has none."""
    mounts = spec.get("volumeMounts") or ()
    return next((str(mount["name"]) for mount in mounts if mount["mountPath"] == _ACCOUNT), "")


def real_paths(home: Home, spec: Object, own: Path) -> dict[str, str]:
    """Where the paths at which a container sees its volumes really are."""
    out = {}
    for mount in spec.get("volumeMounts") or ():
        real = home.mounts[mount["name"]]
        below = mount.get("subPath") or ""
        if mount.get("subPathExpr"):
            env = make_environment(home.object, spec, {}, home.node.sources, {})
            below = expand(mount["subPathExpr"], env)
        if below:
            inside = Path(os.path.normpath(real / below))
            if not inside.is_relative_to(real):
                raise ConfigError(f"subPath {below} leads out of volume {mount['name']}")
            if not inside.exists():
                inside.mkdir(parents=True)
            real = inside
        out[mount["mountPath"]] = str(real)
    message = spec.get("terminationMessagePath") or "/dev/termination-log"
    out.setdefault(message, str(own / "termination-log"))
    return out


def _write_kubeconfig(path: Path, server: str, account: Path) -> Path:
    """A kubeconfig with a pod's own credentials; its token stays a file of its own, which is renewed."""
    namespace = account / "namespace"
    context = {"cluster": "local", "user": "pod"}
    if namespace.is_file():
        context["namespace"] = namespace.read_text()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "local", "cluster": {"server": server, "certificate-authority": str(account / "ca.crt")}}
        ],
        "users": [{"name": "pod", "user": {"tokenFile": str(account / "token")}}],
        "contexts": [{"name": "local", "context": context}],
        "current-context": "local",
    }
    path.write_text(json.dumps(document))
    return path
