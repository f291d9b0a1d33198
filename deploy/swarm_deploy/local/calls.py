"""Calls to a local cluster's API server, for commands that must not wait for a Kubernetes client to be imported."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from swarm_agents.errors import Unreachable

__all__ = ["call"]

Object = dict[str, Any]


def call(
    kubeconfig: Path, method: str, path: str, body: Any = None, *, kind: str = "application/json", seconds: float = 10.0
) -> Object:
    """One request; the answer's JSON.

    Args:
        kubeconfig: as the local cluster writes it: one server, its certificate, a token.

    Raises:
        Unreachable: nothing answers, or it refuses; the message has the server's words.
    """
    import yaml

    try:
        config = yaml.safe_load(kubeconfig.read_text())
        server = config["clusters"][0]["cluster"]
        token = config["users"][0]["user"]["token"]
        url = urlsplit(server["server"])
        authority = base64.b64decode(server["certificate-authority-data"]).decode()
    except (OSError, KeyError, IndexError, TypeError, ValueError, yaml.YAMLError) as error:
        raise Unreachable(f"{kubeconfig} can't be read ({error}): `swarm up` writes it") from error
    context = ssl.create_default_context(cadata=authority)
    connection = http.client.HTTPSConnection(str(url.hostname), url.port, context=context, timeout=seconds)
    try:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = kind
            data = json.dumps(body)
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(
            f"the API server of {kubeconfig} does not answer ({error}): `swarm status`, `swarm up`"
        ) from error
    finally:
        connection.close()
    try:
        answer: Object = json.loads(text)
    except ValueError:
        answer = {"message": text.decode(errors="replace")[:200]}
    if response.status >= 400:
        raise Unreachable(f"the API server refused: {answer.get('message', response.reason)}")
    return answer
