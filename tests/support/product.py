"""A running product, as a user's shell sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support.kubectl import Kubectl

__all__ = ["Running"]


@dataclass(frozen=True)
class Running:
    """A running product. `env` is what a user's shell would have."""

    state: Path
    kubectl: Kubectl
    env: dict[str, str]

    def swarm(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs the `swarm` command as a user does."""
        program = Path(sys.executable).with_name("swarm")
        return subprocess.run(
            [str(program), *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=os.environ | self.env,
            check=False,
        )
