"""Finds a swarm through a kubeconfig: the resolver that the agents' client asks by its entry point.

A client needs no Kubernetes library of its own; this package has one. What it reads is the Swarm (for its UID), its
Secret with the keys, and its ConfigMap with the addresses of the hubs. When the API server is the embedded cluster of
this machine, a node's board is within reach too, and shared memory is tried before TCP.

The kubeconfig is found as kubectl finds it, and where kubectl would find none, the running local cluster's is taken.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from swarm_agents.client.connection import Connection
from swarm_agents.client.hubs import keys_in_use
from swarm_agents.config import SETTINGS_FILE, board_directory, decode_settings
from swarm_agents.errors import Unreachable
from swarm_agents.wire.keys import keys_from

__all__ = ["Target", "open_swarm", "parse_target", "resolve"]

Object = dict[str, Any]

_FORMS = "NAME, NAMESPACE/NAME, CONTEXT/NAME or CONTEXT/NAMESPACE/NAME"


class Target(NamedTuple):
    """Which swarm; None stands for what the kubeconfig says, or for the only one there is."""

    context: str | None
    namespace: str | None
    name: str | None


def resolve(target: str | None) -> Connection | None:
    """The connection to a swarm: see `parse_target`; without a target, to the only one of the namespace.

    Returns None where no kubeconfig is found.

    Raises:
        Unreachable: the API server, the Swarm, its Secret or its ConfigMap can't be read; the message says what to do.
    """
    path = _kubeconfig()
    if path is None:
        return None
    return _run(_read(path, parse_target(target, _contexts(path))))


def parse_target(target: str | None, contexts: frozenset[str] = frozenset()) -> Target:
    """What a target names. Of two parts the first is a context if the kubeconfig has one of that name.

    Raises:
        Unreachable: it has another form.
    """
    if not target:
        return Target(None, None, None)
    # Names of contexts may hold slashes themselves (those of EKS do), names of objects may not.
    context = next((c for c in sorted(contexts, key=len, reverse=True) if target.startswith(f"{c}/")), None)
    parts = (target.removeprefix(f"{context}/") if context else target).split("/")
    if not all(parts) or len(parts) > (2 if context else 3):
        raise Unreachable(f"{target!r}: expected {_FORMS}")
    if context or len(parts) < 3:
        return Target(context, parts[0] if len(parts) == 2 else None, parts[-1])
    return Target(parts[0], parts[1], parts[2])


def _kubeconfig() -> str | None:
    """`KUBECONFIG`, else the user's own, else the running local cluster's."""
    given = os.environ.get("KUBECONFIG")
    if given:
        return given
    home = Path.home() / ".kube" / "config"
    if home.is_file():
        return str(home)
    from swarm_deploy.local.manager import Cluster

    local = Cluster()
    return str(local.kubeconfig) if local.record() is not None else None


def _contexts(path: str) -> frozenset[str]:
    import yaml

    found: set[str] = set()
    for part in filter(None, path.split(os.pathsep)):
        try:
            document = yaml.safe_load(Path(part).expanduser().read_text())
            found.update(str(entry["name"]) for entry in document.get("contexts") or ())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
            continue  # the library that reads it in earnest says what is wrong
    return frozenset(found)


def _run(work: Coroutine[Any, Any, Connection]) -> Connection:
    """Run to the end, also for a caller who is inside an event loop: then in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    outcome: list[Connection | BaseException] = []

    def body() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=body, name="swarm_deploy.connect")
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


@asynccontextmanager
async def open_swarm(target: str | None, *, missing: bool = False) -> AsyncIterator[tuple[Any, str, Object]]:
    """The API server, the namespace and the Swarm that a target names, for commands that read what is beside it.

    `missing`: a Swarm that is not there any more is only its name.

    Raises:
        Unreachable: there is no kubeconfig, the API server does not answer, or there is no such Swarm.
    """
    path = _kubeconfig()
    if path is None:
        raise Unreachable("no kubeconfig: set KUBECONFIG, or `swarm up` for a local cluster")
    from swarm_operator.kube import ApiError, connect

    wanted = parse_target(target, _contexts(path))
    try:
        api = await connect(path, wanted.context)
    except Exception as error:  # whatever the library makes of a bad file
        raise Unreachable(f"the kubeconfig {path} can't be used: {error}") from error
    try:
        namespace = wanted.namespace or api.namespace
        try:
            swarm = await _swarm(api, namespace, wanted.name)
        except Unreachable:
            if not missing or wanted.name is None:
                raise
            swarm = {"metadata": {"name": wanted.name, "namespace": namespace}}
        yield api, namespace, swarm
    except ApiError as error:
        verb = "refused" if error.status else "does not answer"
        raise Unreachable(f"the API server of {path} {verb}: {error}") from error
    finally:
        await api.close()


async def _read(path: str, target: Target) -> Connection:
    from swarm_operator.kube import ApiError, connect
    from swarm_operator.names import config_map, secret

    try:
        api = await connect(path, target.context)
    except Exception as error:  # whatever the library makes of a bad file
        raise Unreachable(f"the kubeconfig {path} can't be used: {error}") from error
    namespace = target.namespace or api.namespace
    try:
        swarm = await _swarm(api, namespace, target.name)
        name, uid = swarm["metadata"]["name"], swarm["metadata"]["uid"]
        keys = json.loads(await _part(api, "Secret", namespace, name, secret(name)))
        config = json.loads(await _part(api, "ConfigMap", namespace, name, config_map(name)))
    except ApiError as error:
        if error.status:
            raise Unreachable(f"the API server of {path} refused: {error}") from error
        raise Unreachable(f"the API server of {path} does not answer ({error}): `swarm status`, `swarm up`") from error
    except OSError as error:
        raise Unreachable(f"the API server of {path} does not answer ({error}): `swarm status`, `swarm up`") from error
    finally:
        await api.close()
    try:
        found = {k: base64.b64decode(v).decode() for k, v in keys["data"].items()}
        settings = decode_settings(config["data"][SETTINGS_FILE])
        use, hubs = keys_in_use(settings, keys_from(found))
        return Connection(
            swarm=name,
            namespace=namespace,
            uid=uid,
            board=_board(path, uid),
            hubs=hubs,
            server_key=use.hub_public,
            public_key=use.client_public,
            secret_key=use.client_secret,
            token=found["token"],
        )
    except (KeyError, ValueError, binascii.Error) as error:
        raise Unreachable(
            f"what the operator keeps for swarm {namespace}/{name} can't be used ({error}): it repairs that by itself "
            "when it runs, and it has to be of the same release as this client"
        ) from error


async def _swarm(api: Any, namespace: str, name: str | None) -> Object:
    from swarm_operator.kube import ApiError

    if name is not None:
        try:
            found: Object = json.loads(await api.get("Swarm", namespace, name))
        except ApiError as error:
            if error.status != 404:
                raise
            raise Unreachable(
                f"there is no swarm {name} in namespace {namespace}: `kubectl get swarms -A` lists them"
            ) from error
        return found
    page = await api.list_page("Swarm", namespace)
    swarms: list[Object] = [json.loads(bytes(item)) for item in page.items]
    if len(swarms) == 1:
        return swarms[0]
    names = ", ".join(sorted(s["metadata"]["name"] for s in swarms))
    advice = f" ({names}): name one" if names else ": `kubectl apply` one first"
    raise Unreachable(f"namespace {namespace} has {len(swarms)} swarms{advice}")


async def _part(api: Any, kind: str, namespace: str, swarm: str, name: str) -> bytes:
    """An object that the operator makes for the swarm."""
    from swarm_operator.kube import ApiError

    try:
        found: bytes = await api.get(kind, namespace, name)
        return found
    except ApiError as error:
        if error.status != 404:
            raise
        raise Unreachable(
            f"swarm {namespace}/{swarm} has no {kind} {name} yet: is the operator running? "
            f"`kubectl describe swarm -n {namespace} {swarm}` says what it waits for"
        ) from error


def _board(path: str, uid: str) -> str | None:
    """A node's board, if the kubeconfig is the embedded cluster's: the first node that has one."""
    from swarm_deploy.local.manager import Cluster
    from swarm_deploy.local.record import shared_memory

    record = Cluster(Path(path).parent).record()
    if record is None:
        return None
    boards = sorted(board_directory(node, uid) for node in shared_memory(record.cluster).glob("*"))
    return next((str(board) for board in boards if board.is_dir()), None)
