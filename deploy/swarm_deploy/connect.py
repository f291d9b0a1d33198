"""Finds a swarm through a kubeconfig: the resolver that the agents' client asks by its entry point.

A client needs no Kubernetes library of its own; this package has one. What it reads is the Swarm (for its UID), its
Secret with the keys, and its ConfigMap with the addresses of the hubs. When the API server is the embedded cluster of
this machine, a node's board is within reach too, and shared memory is tried before TCP.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

from swarm_agents.client.connection import Connection
from swarm_agents.config import SETTINGS_FILE, board_directory, decode_settings
from swarm_agents.errors import Unreachable

__all__ = ["resolve"]

Object = dict[str, Any]


def resolve(target: str | None) -> Connection | None:
    """The connection to NAME, NAMESPACE/NAME or CONTEXT/NAMESPACE/NAME; without a target, the only swarm there is.

    Returns None where no kubeconfig is found.

    Raises:
        Unreachable: the API server, the Swarm or its Secret can't be read; the message says what to do.
    """
    path = _kubeconfig()
    if path is None:
        return None
    context, namespace, name = _parts(target)
    return asyncio.run(_read(path, context, namespace, name))


def _parts(target: str | None) -> tuple[str | None, str | None, str | None]:
    parts = (target or "").split("/")
    if len(parts) > 3 or (target and not all(parts)):
        raise Unreachable(f"{target!r}: expected NAME, NAMESPACE/NAME or CONTEXT/NAMESPACE/NAME")
    padded = [None] * (3 - len(parts)) + [part or None for part in parts]
    return padded[0], padded[1], padded[2]


def _kubeconfig() -> str | None:
    """`KUBECONFIG`, else the running local cluster's, else the user's."""
    given = os.environ.get("KUBECONFIG")
    if given:
        return given
    from swarm_deploy.local.manager import Cluster

    local = Cluster()
    if local.record() is not None:
        return str(local.kubeconfig)
    home = Path.home() / ".kube" / "config"
    return str(home) if home.is_file() else None


async def _read(path: str, context: str | None, namespace: str | None, name: str | None) -> Connection:
    from swarm_operator.kube import ApiError, connect

    try:
        api = await connect(path, context)
    except Exception as error:  # whatever the library makes of a bad file
        raise Unreachable(f"the kubeconfig {path} can't be used: {error}") from error
    try:
        namespace = namespace or api.namespace
        swarm = await _swarm(api, namespace, name)
        meta = swarm["metadata"]
        secret = json.loads(await api.get("Secret", meta["namespace"], f"{meta['name']}-keys"))
        config = json.loads(await api.get("ConfigMap", meta["namespace"], f"{meta['name']}-settings"))
    except ApiError as error:
        if error.status == 404:
            raise Unreachable(
                f"swarm {namespace}/{name or ''} has no keys or settings yet ({error}): is the operator running? "
                f"`kubectl describe swarm -n {namespace}` says what it waits for"
            ) from error
        raise Unreachable(f"the API server of {path} refused: {error}") from error
    except OSError as error:
        raise Unreachable(f"the API server of {path} does not answer ({error}): `swarm status`, `swarm up`") from error
    finally:
        await api.close()
    keys = {k: base64.b64decode(v).decode() for k, v in secret["data"].items()}
    settings = decode_settings(config["data"][SETTINGS_FILE])
    return Connection(
        swarm=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        board=_board(path, meta["uid"]),
        hubs=settings.hubs,
        server_key=keys["hub.public"],
        public_key=keys["client.public"],
        secret_key=keys["client.secret"],
        token=keys["token"],
    )


async def _swarm(api: Any, namespace: str, name: str | None) -> Object:
    if name is not None:
        found: Object = json.loads(await api.get("Swarm", namespace, name))
        return found
    page = await api.list_page("Swarm", namespace)
    swarms: list[Object] = [json.loads(bytes(item)) for item in page.items]
    if len(swarms) == 1:
        return swarms[0]
    names = ", ".join(sorted(s["metadata"]["name"] for s in swarms))
    advice = f" ({names}): name one" if names else ": kubectl apply one first"
    raise Unreachable(f"namespace {namespace} has {len(swarms)} swarms{advice}")


def _board(path: str, uid: str) -> str | None:
    """A node's board, if the kubeconfig is the embedded cluster's: the first node that has one."""
    from swarm_deploy.local.manager import Cluster
    from swarm_deploy.local.record import shared_memory

    cluster = Cluster(Path(path).parent)
    record = cluster.record()
    if record is None:
        return None
    boards = sorted(board_directory(node, uid) for node in shared_memory(record.cluster).glob("*"))
    return next((str(board) for board in boards if board.is_dir()), None)
