"""The first thing that runs in a container's process: it takes on the container's limits and becomes its program.

Run as a script of its own, with `python -I -S`, because what it does must happen between fork and exec, in the child,
and the daemon has threads. It asks the kernel to be killed when the daemon dies, so a daemon that is killed leaves no
pods.

    launch.py PARENT_PID CORES -- PROGRAM ARGUMENT...
"""

import ctypes
import os
import shutil
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns: execs, or ends with 127 (not found) or 126 (not executable)."""
    parent, cores, _, program, *arguments = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the line above
        sys.exit(1)
    if cores:
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    found = shutil.which(program)
    if found is None:
        print(f'exec: "{program}": executable file not found in $PATH', file=sys.stderr)
        sys.exit(127)
    try:
        os.execv(found, [program, *arguments])
    except OSError as error:
        print(f"exec: {program}: {error.strerror}", file=sys.stderr)
        sys.exit(126)


if __name__ == "__main__":
    main()
