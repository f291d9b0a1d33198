"""The real Prometheus: promtool, and a server on loopback with a configuration of the test's.

Both are found in PATH, or in `build/prometheus`, into which `.ci/run` unpacks Debian's package (unpacked and not
installed: that would start a server of the machine's own). Without them tests are skipped and say so, but for where
SWARM_NEEDS_PROMETHEUS is set, as CI does: there they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

__all__ = ["Prometheus", "program", "promtool", "serving"]

_REPOSITORY: Final = Path(__file__).parents[2]
_UNPACKED: Final = _REPOSITORY / "build" / "prometheus" / "usr" / "bin"
NEEDED: Final = "SWARM_NEEDS_PROMETHEUS"


def program(name: str) -> str:
    """Where `prometheus` or `promtool` is; skips the test where it is not."""
    found = shutil.which(name) or shutil.which(name, path=str(_UNPACKED))
    if found is None:
        why = f"no {name}: install the package prometheus, or unpack it into build/prometheus as .ci/run does"
        if os.environ.get(NEEDED):
            pytest.fail(f"{why}; {NEEDED} is set")
        pytest.skip(why)
    return found


def promtool(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs promtool."""
    return subprocess.run(
        [program("promtool"), *words], input=stdin, capture_output=True, text=True, timeout=110, check=False
    )


class Prometheus:
    """A running server's API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        """What `/api/v1/PATH` answers.

        Raises:
            ValueError: it refuses the query; the message is its own.
        """
        request = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(f"{query}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def serving(config: Path, data: Path, seconds: float = 30) -> Iterator[Prometheus]:
    """A Prometheus with this configuration, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    log = data.with_suffix(".log")
    words = [
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    kept = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=kept)
    server = Prometheus(f"http://{address}")
    try:
        end = time.monotonic() + seconds
        while not server.ready():
            assert process.poll() is None, f"it ended:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < end, f"it did not start in {seconds:g} s:\n{log.read_text()[-3000:]}"
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()
