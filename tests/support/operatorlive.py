"""The operator as a process against the cluster under test, and the API by way of the operator's own client.

By default Swarms use an image that no node can pull: what the operator makes is looked at, and nothing runs. Tests that
need running agents are marked `embedded`; SWARM_TEST_IMAGE names an image for a real cluster that has agents.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from swarm_operator.kube import RESOURCES, Api, ApiError

__all__ = ["UNPULLABLE", "Client", "Operator", "swarm"]

UNPULLABLE = "agentswarm.invalid/nothing:1"
DEADLINE = 30.0


class Operator:
    """`swarm-operator`, serving some namespaces; every one when none is named."""

    def __init__(self, kubeconfig: Path, scratch: Path, namespaces: list[str], *options: str) -> None:
        self._words = [str(Path(sys.executable).with_name("swarm-operator")), "--kubeconfig", str(kubeconfig)]
        for namespace in namespaces:
            self._words += ["--namespace", namespace]
        home = ["--lease-namespace", namespaces[0]] if namespaces else []
        self._words += ["--http-bind", "127.0.0.1:0", *home, *options]
        self.log = scratch / f"operator-{uuid.uuid4().hex[:6]}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Operator:
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | {"NO_PROXY": "*"}
            )
        return self

    def kill(self) -> None:
        """As a crash would end it."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As Kubernetes ends it."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def said(self, message: str) -> bool:
        return any(line.get("message") == message for line in self.lines())

    def http(self, path: str) -> str:
        """Its own HTTP port."""
        port = next(line["http_port"] for line in self.lines() if line.get("message") == "started")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def writes(self) -> float:
        """Requests that wrote something other than the Lease."""
        total = 0.0
        for line in self.http("/metrics").splitlines():
            if not line.startswith("swarm_operator_api_requests_total"):
                continue
            if 'kind="Lease"' not in line and 'method="GET"' not in line:
                total += float(line.rsplit(" ", 1)[1])
        return total


class Client:
    """The API server, as a test wants it: manifests in, plain data out."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    async def create(self, manifest: dict[str, Any], **query: str) -> dict[str, Any]:
        resource = RESOURCES[manifest["kind"]]
        data = await self.api.request("POST", resource.path(self.namespace), query=query or None, body=manifest)
        return dict(msgspec.json.decode(data))

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        return dict(msgspec.json.decode(await self.api.get(kind, self.namespace, name)))

    async def find(self, kind: str, name: str) -> dict[str, Any] | None:
        try:
            return await self.get(kind, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: str, selector: str = "agentswarm.dev/swarm") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page = await self.api.list_page(kind, self.namespace, selector=selector)
        found += [msgspec.json.decode(item) for item in page.items]
        while page.metadata.continue_:
            page = await self.api.list_page(kind, self.namespace, selector=selector, token=page.metadata.continue_)
            found += [msgspec.json.decode(item) for item in page.items]
        return found

    async def names(self, kind: str) -> set[str]:
        return {item["metadata"]["name"] for item in await self.list(kind)}

    async def merge(self, kind: str, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        return dict(msgspec.json.decode(await self.api.merge(kind, self.namespace, name, patch)))

    async def delete(self, kind: str, name: str) -> None:
        body = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
        await self.api.request("DELETE", RESOURCES[kind].path(self.namespace, name), body=body)

    async def condition(self, name: str, kind: str) -> dict[str, Any]:
        status = (await self.get("Swarm", name)).get("status") or {}
        return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})

    async def until(self, check: Callable[[], Any], what: str = "", deadline: float = DEADLINE) -> Any:
        """Polls until `check` gives something true."""
        end = time.monotonic() + deadline
        while True:
            found = await check()
            if found:
                return found
            assert time.monotonic() < end, f"in vain for {deadline:g} s: {what or check}"
            await asyncio.sleep(0.05)


def swarm(name: str = "risk", **spec: Any) -> dict[str, Any]:
    """A Swarm whose pods are made and never run."""
    image = spec.pop("image", UNPULLABLE)
    meta = {"name": name}
    return {
        "apiVersion": "agentswarm.dev/v1alpha1",
        "kind": "Swarm",
        "metadata": meta,
        "spec": {"image": image, "imagePullPolicy": "Never", **spec},
    }
