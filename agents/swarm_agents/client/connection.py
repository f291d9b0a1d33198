"""How a program finds its swarm: a `Connection`, and the ways to one.

In order: what the caller names (a URL, the path of a connection file, a kubeconfig's context and a swarm's name), the
environment variable `SWARM_ENDPOINT`, the pod that the program runs in, and the resolvers that other packages install
under the entry point `agentswarm.connect` (`swarm_deploy` reads a kubeconfig). So this package needs no Kubernetes
client, and a pod that only submits work needs none either.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from swarm_agents.client.hubs import keys_in_use
from swarm_agents.config import SETTINGS_FILE, Hub, board_directory, decode_settings
from swarm_agents.errors import SwarmError, Unreachable

__all__ = ["ENDPOINT_VARIABLE", "RESOLVERS", "Connection", "read_connection", "resolve", "write_connection"]

#: A URL, or the path of a connection file.
ENDPOINT_VARIABLE = "SWARM_ENDPOINT"
#: Entry points that turn a target (or None) into a `Connection`, or into None when they know of no such swarm.
RESOLVERS = "agentswarm.connect"


class Connection(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Where a swarm is and what proves that one may use it. Tried in order: its board, its hubs."""

    swarm: str = ""
    namespace: str = ""
    #: The Swarm's UID: a hub of another one refuses.
    uid: str = ""
    #: Directory of the board, if one may be on this machine.
    board: str | None = None
    hubs: tuple[Hub, ...] = ()
    #: The hubs' CURVE public key, and the pair that proves this client (Z85); empty: no encryption.
    server_key: str = ""
    public_key: str = ""
    secret_key: str = ""
    #: Bearer token of the REST interface.
    token: str = ""

    def __repr__(self) -> str:
        """Without the secrets."""
        where = [f"shm://{self.board}"] if self.board else []
        where += [hub.address or hub.rest for hub in self.hubs]
        return f"Connection({self.namespace}/{self.swarm} at {', '.join(where) or 'nowhere'})"


def resolve(
    target: str | os.PathLike[str] | Connection | None = None,
    *,
    server_key: str | None = None,
    public_key: str | None = None,
    secret_key: str | None = None,
    token: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Connection:
    """The connection that a target means; the keywords replace what it says.

    Raises:
        Unreachable: nothing says where a swarm is; the message lists the ways to say it.
        ValueError: the target can't be understood.
    """
    env = os.environ if env is None else env
    if target is None:
        target = env.get(ENDPOINT_VARIABLE) or None
    connection = target if isinstance(target, Connection) else _resolve(target, env)
    keys = {"server_key": server_key, "public_key": public_key, "secret_key": secret_key, "token": token}
    return msgspec.structs.replace(connection, **{k: v for k, v in keys.items() if v is not None})


def _resolve(target: str | os.PathLike[str] | None, env: Mapping[str, str]) -> Connection:
    if target is None:
        found = _from_pod(env) or _from_resolvers(None)
        if found is None:
            raise Unreachable(
                f"no swarm is named: pass a URL or a connection file to Swarm.connect, set {ENDPOINT_VARIABLE}, "
                "or start a local one by `swarm up`"
            )
        return found
    text = os.fspath(target)
    if "://" in text:
        return _from_url(text)
    path = Path(text).expanduser()
    if path.is_file():
        return read_connection(path)
    found = _from_resolvers(text)
    if found is None:
        raise Unreachable(
            f"{text!r} is no URL (shm://, tcp://, http://, https://), no connection file, and no swarm that a "
            "kubeconfig leads to; `swarm status` shows the local one"
        )
    return found


def _from_url(url: str) -> Connection:
    parts = urlsplit(url)
    if parts.scheme == "shm":
        if parts.netloc or not parts.path:
            raise ValueError(f"{url!r}: a board's URL has three slashes and an absolute path, shm:///dev/shm/...")
        return Connection(board=parts.path)
    if parts.scheme == "tcp":
        if parts.port is None:
            raise ValueError(f"{url!r}: a hub's URL has a port, tcp://host:7400")
        return Connection(hubs=(Hub(node="", address=url),))
    if parts.scheme in ("http", "https"):
        return Connection(hubs=(Hub(node="", address="", rest=url.rstrip("/")),))
    raise ValueError(f"{url!r}: expected shm://, tcp://, http:// or https://")


def _from_pod(env: Mapping[str, str]) -> Connection | None:
    """What a pod of the swarm itself knows: its node's board, and the hubs of its settings."""
    uid, shm_dir = env.get("SWARM_UID"), env.get("SWARM_SHM_DIR")
    if not (uid and shm_dir):
        return None
    connection = Connection(
        swarm=env.get("SWARM_NAME", ""),
        namespace=env.get("SWARM_NAMESPACE", ""),
        uid=uid,
        board=str(board_directory(Path(shm_dir), uid)),
    )
    config, keys = env.get("SWARM_CONFIG_DIR"), env.get("SWARM_KEYS_DIR")
    if not (config and keys):
        return connection
    from swarm_agents.wire.keys import load_keys

    own = load_keys(Path(keys))
    hubs: tuple[Hub, ...]
    try:
        own, hubs = keys_in_use(decode_settings((Path(config) / SETTINGS_FILE).read_bytes()), own)
    except (OSError, ValueError):  # the board alone will do
        hubs = ()
    return msgspec.structs.replace(
        connection,
        hubs=hubs,
        server_key=own.hub_public,
        public_key=own.client_public,
        secret_key=own.client_secret,
        token=own.token,
    )


def _from_resolvers(target: str | None) -> Connection | None:
    problems: list[str] = []
    for point in entry_points(group=RESOLVERS):
        try:
            found: Any = point.load()(target)
        except ImportError as error:  # its extra is not installed
            problems.append(f"{point.value}: {error}")
            continue
        if found is not None:
            return msgspec.convert(found, Connection, from_attributes=True)
    if problems and target is not None:
        raise Unreachable(
            f"{target!r} can't be looked up ({'; '.join(problems)}): pip install 'agentswarm[deploy]', or pass a URL"
        )
    return None


def read_connection(path: Path) -> Connection:
    """Reads a connection file (JSON).

    Raises:
        SwarmError: it can't be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Connection)
    except (OSError, msgspec.DecodeError) as error:
        raise SwarmError(f"{path} is no connection file ({error}): `swarm connection` writes one") from error


def write_connection(connection: Connection, path: Path) -> None:
    """Writes a connection file that its owner alone can read: it holds secrets."""
    data = msgspec.json.format(msgspec.json.encode(connection), indent=2)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)
