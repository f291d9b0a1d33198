"""The demo as a user runs it, ended by Ctrl-C in the middle of its job: nothing of it may stay."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.leftovers import processes, shared_memory, stays_empty_within

pytestmark = [pytest.mark.embedded, pytest.mark.slow]


def read_until(process: subprocess.Popen[bytes], words: str, seconds: float) -> str:
    """The output up to the line that holds the words."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    deadline, text = time.monotonic() + seconds, ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while words not in text:
            assert time.monotonic() < deadline, f"{words!r} did not come within {seconds} s:\n{text}"
            if selector.select(0.5):
                text += (process.stdout.read() or b"").decode()
            assert process.poll() is None or words in text, f"the demo ended by itself:\n{text}"
    return text


@pytest.mark.timeout(240)
def test_ctrl_c_in_the_middle_of_the_job_leaves_nothing(tmp_path: Path) -> None:
    before = shared_memory()
    scratch = tmp_path / "scratch"  # the cluster's state goes here, and marks every process of the demo
    scratch.mkdir()
    command = [
        str(Path(sys.executable).with_name("swarm")),
        "demo",
        "--seconds",
        "60",
        "--report",
        str(tmp_path / "r.html"),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TMPDIR": str(scratch)},
        start_new_session=True,
    )
    try:
        text = read_until(process, "tasks for about", 150)
        assert "is Ready" in text
        read_until(process, "tasks/s", 30)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert b"nothing is left behind" in out
    assert not stays_empty_within(5, lambda: processes(str(scratch)))
    assert not stays_empty_within(2, lambda: sorted(shared_memory() - before))
    assert list(scratch.iterdir()) == []
