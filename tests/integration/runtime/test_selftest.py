"""`swarm-agent selftest`, by which an image is checked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)  # alone, on a cold cache, it compiles
def test_an_installation_tests_itself_with_a_real_task(warm_cache: Path) -> None:
    environment = os.environ | {"SWARM_CACHE_SEED": str(warm_cache)}
    done = subprocess.run(
        [sys.executable, "-m", "swarm_agents.runtime", "selftest"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answered hash.sha256_tree rightly" in done.stdout
    found = re.search(r"compiled functions: (\d+) in use, (\d+) of them compiled here", done.stdout)
    assert found is not None
    assert int(found[1]) > 100
    refused = subprocess.run(
        [sys.executable, "-m", "swarm_agents.runtime", "selftset"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "selftset" in refused.stderr
