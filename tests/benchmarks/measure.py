"""Runs one measurement in a process of its own, and prints what it returned as one line of JSON.

    python measure.py LIMIT FILE FUNCTION [ARGUMENTS]

`FILE` is a module beside which its helpers lie, `ARGUMENTS` a JSON map of keywords. Two layers: the inner process
measures; the outer one gives it `LIMIT` seconds, and ends whatever it leaves behind (agents, partners, a peer's
daemons), which come to it because it has declared itself the reaper of its descendants.

What is printed has one of the keys `value`, `missing` (a peer that is not installed, or a program that it needs) and
`error`.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["main"]

_PR_SET_CHILD_SUBREAPER = 36
#: The environment variable that names the descriptor of the inner process's result.
_RESULT = "BENCH_RESULT_FD"
#: The inner process shows where it hangs this long before the outer one kills it (seconds).
_LAST_WORDS = 2.0
#: Of the standard error of a measurement that failed (characters).
_MOST = 2000


def main() -> int:
    limit, file, function, *rest = sys.argv[1:]
    if file == "--inner":
        return _inner(float(limit), Path(function), *rest)
    print(json.dumps(_outer(float(limit), [file, function, *rest])), flush=True)
    return 0


def _outer(limit: float, words: list[str]) -> dict[str, Any]:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    read, write = os.pipe()
    command = [sys.executable, __file__, str(limit), "--inner", *words]
    # A file rather than a pipe: what is left behind may hold it open, and nobody waits for its end.
    with tempfile.TemporaryFile() as output:
        inner = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[write],
            env=os.environ | {_RESULT: str(write)},
        )
        os.close(write)
        try:
            how = f"ended with status {inner.wait(limit + _LAST_WORDS)}"
        except subprocess.TimeoutExpired:
            how = f"took longer than {limit:g} s"
        _sweep()
        with os.fdopen(read) as pipe:
            result = pipe.read()
        if result:
            return dict(json.loads(result))
        output.seek(0)
        said = output.read().decode(errors="replace")
    return {"error": f"{how}\n{said[-_MOST:]}".strip()}


def _inner(limit: float, file: Path, function: str, arguments: str = "{}") -> int:
    faulthandler.dump_traceback_later(limit, exit=True)
    # No partner inherits it: a pipe that its one writer has closed holds the whole result.
    pipe = os.fdopen(int(os.environ.pop(_RESULT)), "w")
    os.set_inheritable(pipe.fileno(), False)
    sys.path.insert(0, str(file.parent))
    try:
        measure = getattr(importlib.import_module(file.stem), function)
        result = {"value": measure(**json.loads(arguments))}
    except ModuleNotFoundError as error:
        result = {"missing": f"the package {error.name} is not installed"}
    except FileNotFoundError as error:
        result = {"missing" if error.filename == "gcc" else "error": f"{error.filename} is not there"}
    with pipe:
        json.dump(result, pipe)
    return 0


def _sweep() -> None:
    """Kills what is left of the measurement, to the last descendant."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while pids := [int(pid) for pid in children.read_text().split()]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.exit(main())
