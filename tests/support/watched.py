"""A swarm at work with a Prometheus that watches it, by the configuration that is shipped."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import numpy as np
import yaml

from support.prometheus import Prometheus, serving
from swarm_agents.client import Connection, Swarm
from swarm_agents.config import Priority

__all__ = ["Work", "configured", "watching"]

_SHIPPED: Final = Path(__file__).parents[2] / "deploy" / "prometheus"


def configured(folder: Path, operator_url: str, interval: str = "2s") -> Path:
    """The shipped configuration with its rules, in a folder of the test's.

    Changed are the operator's address, where a cluster has a name for it, and how often is looked.
    """
    for name in os.listdir(_SHIPPED):
        shutil.copy(_SHIPPED / name, folder)
    file = folder / "prometheus.yml"
    config = yaml.safe_load(file.read_text())
    config["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    agents, operator = config["scrape_configs"]
    agents["http_sd_configs"] = [{"url": f"{operator_url}/targets", "refresh_interval": "5s"}]
    del operator["dns_sd_configs"]
    operator["static_configs"] = [{"targets": [urlsplit(operator_url).netloc]}]
    file.write_text(yaml.safe_dump(config))
    return file


@contextmanager
def watching(folder: Path, operator_url: str) -> Iterator[Prometheus]:
    """A Prometheus over it, until the block ends."""
    with serving(configured(folder, operator_url), folder / "data") as server:
        yield server


class Work:
    """Tasks of all priorities from inside and outside the nodes, in threads, until `stop`."""

    def __init__(self, connection: Connection, name: str, pause: float = 0.02) -> None:
        self._name = name
        self._pause = pause
        self._over = threading.Event()
        self.errors: list[Exception] = []
        self.answered = 0
        outside = msgspec.structs.replace(connection, board=None)
        self._clients = [Swarm.connect(connection), Swarm.connect(outside)]
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in self._clients]

    def start(self) -> Work:
        for thread in self._threads:
            thread.start()
        return self

    def _run(self, client: Swarm) -> None:
        block, round_ = np.zeros(4096, np.uint8), 0
        while not self._over.is_set():
            round_ += 1
            try:
                futures = [client.submit("core.echo", round_, priority=priority) for priority in map(str, Priority)]
                futures += [client.submit("hash.sha256_tree", block), client.submit("core.sleep", 0.01)]
                for future in futures:
                    future.result(timeout=60)
                    self.answered += 1
            except Exception as error:
                self.errors.append(error)
                return
            self._over.wait(self._pause)

    def kill_one(self, seconds: float = 30.0) -> str:
        """Kills a compute agent that has a task in hand, and returns its name. The task is answered by another."""
        client = self._clients[0]
        futures = [client.submit("core.sleep", 0.3) for _ in range(8)]
        end = time.monotonic() + seconds
        while not (busy := [m for m in self._members() if m["running"] and self._ours(m["pid"])]):
            assert time.monotonic() < end, "no agent has a task in hand"
            time.sleep(0.01)
        os.kill(busy[0]["pid"], signal.SIGKILL)
        for future in futures:
            future.result(timeout=60)
        return str(busy[0]["name"])

    def _members(self) -> list[dict[str, Any]]:
        return [m for m in self._clients[0].info()["members"] if m["role"] == "compute"]

    def _ours(self, pid: int) -> bool:
        """Whether this is an agent of this very swarm, so that nothing else is ever killed."""
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return f"SWARM_NAME={self._name}\0".encode() in file.read()
        except OSError:
            return False

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()
