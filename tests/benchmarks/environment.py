"""Makes the environment that benchmarks run in: `python environment.py DIRECTORY`.

It holds agentswarm as it is in the tree, and the peers of the extra `bench` at their pinned versions. All are
installed together; if that fails, each peer by itself, and one that can't be had for this machine or Python is named
and left out.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def install(environment: Path, *what: str) -> bool:
    command = [sys.executable, "-m", "uv", "pip", "install", "--python", str(environment / "bin" / "python"), *what]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def main() -> int:
    environment = Path(sys.argv[1]).absolute()
    if not (environment / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "uv", "venv", "--python", sys.executable, str(environment)], check=True)
    if install(environment, "--editable", ".[bench]"):
        return 0
    print("Not all peers can be installed together; trying one after the other", file=sys.stderr)
    if not install(environment, "--editable", ".[agents]"):
        return 1
    peers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["bench"]
    for peer in peers:
        if not peer.startswith("agentswarm") and not install(environment, peer):
            print(f"{peer} can't be installed here: its rows will say that it is not available", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
