"""Forking an agent out of the supervisor's event loop, so that the child has nothing of that loop.

The supervisor has a single thread, so a fork copies no lock that somebody holds. The child runs below the frame that
forked and ends by `os._exit`: no `finally` of the supervisor runs twice. What it must not share is made harmless first:

- signals are blocked across the fork, and unblocked when the child has its own handlers; else a SIGTERM in between
  would write into the pipe by which the supervisor's loop learns of signals;
- every descriptor that is not asked to be kept is replaced by /dev/null, not closed: an epoll instance is shared by
  both, and a number that was free again would be closed under its next owner when the old object is collected;
- the child dies with its supervisor (PR_SET_PDEATHSIG), also if that died while the child was being made.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable

__all__ = ["fork"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def fork(child: Callable[[], int], *, keep: Iterable[int], name: str) -> int:
    """Runs `child` in a new process and returns its pid; its value is the exit status. `keep` are its descriptors.

    Raises:
        OSError: no process can be made.
    """
    parent = os.getpid()
    kept = {0, 1, 2, *keep}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        gc.freeze()  # the parent's objects are never looked at by the child's collector, so their pages stay shared
        pid = os.fork()
        if pid:
            gc.unfreeze()
            return pid
        status = 70
        try:
            _become_agent(parent, kept, name)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            status = child()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    raise AssertionError("not reached: the child has ended")


def _become_agent(parent: int, kept: set[int], name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)
    signal.set_wakeup_fd(-1)
    for interrupt in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A terminal's Ctrl-C and a kubelet's SIGTERM to the group are the supervisor's to hear; it tells the agent.
        signal.signal(interrupt, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for entry in os.listdir("/proc/self/fd"):
        number = int(entry)
        if number not in kept and number != null:
            try:
                os.fstat(number)  # the listing's own descriptor is gone again
                os.dup2(null, number, inheritable=False)
            except OSError:
                continue
    os.close(null)
