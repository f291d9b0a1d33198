"""The process that pods are children of: starts them, waits for them, ends them when nobody is left to want them.

It stands where containerd's shim and a PID namespace stand on a real node. Containers are not children of the
cluster's daemon for three reasons: the daemon may be killed, and its pods must not run on for ever; forking a small
process with one thread takes a millisecond and is safe, forking the daemon is neither; and only a parent of
everything (a subreaper) learns of processes whose own parents have ended.

What always holds:

- a container's first process leads a session of its own, is killed by the kernel when this process dies, and every
  process that it leaves behind is killed when it ends, as those of a PID namespace are;
- when the daemon's end of the socket closes, for whatever reason, everything is killed, the directories named on the
  command line are removed, and this process ends;
- signals are sent here, where a number can't have passed to another process, since only this process waits for it.

This file is run by itself (`python -I -S shim.py`), so that it starts in a few milliseconds and stays small: it imports
nothing but the standard library's core.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
from typing import Any, NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
#: Every process of a container carries it, also one that has left the session.
MARK = "SWARM_CONTAINER_ID"

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl


def _stat(pid: int | str) -> list[bytes] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    return text[text.rindex(b")") + 2 :].split()


class Shim:
    """One cluster's containers, by the number that the daemon gave each."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.running: dict[int, int] = {}  # id -> pid
        self.names: dict[int, int] = {}  # pid -> id
        self.marks: dict[int, str] = {}  # id -> the container's own identity, as its environment carries it

    # -- messages -------------------------------------------------------------------------------------------------

    def say(self, **message: object) -> None:
        try:
            self.sock.send(json.dumps(message).encode())
        except OSError:
            pass  # the daemon is gone; the next read says so

    def hear(self) -> bool:
        """Handle one message; False when the daemon is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, 1 << 16, 8, socket.MSG_CMSG_CLOEXEC)
        except InterruptedError:
            return True
        except OSError:
            return False
        if not data:
            return False
        message = json.loads(data)
        if message["op"] == "spawn":
            try:
                self.spawn(message["id"], *fds)
            finally:
                for fd in fds:
                    os.close(fd)
        elif message["op"] == "signal":
            self.send(message["id"], message["signal"], message["whole"])
        elif message["op"] == "affinity":
            self.affinity(message["id"], message["cpus"])
        return True

    # -- starting -------------------------------------------------------------------------------------------------

    def spawn(self, number: int, spec_fd: int, stdin: int, stdout: int, stderr: int) -> None:
        with os.fdopen(os.dup(spec_fd), "rb") as file:
            file.seek(0)
            spec = json.loads(file.read())
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.become(spec, stdin, stdout, stderr, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            problem = file.read()  # ends when the program has been executed, for the pipe closes with that
        if problem:
            os.waitpid(pid, 0)
            code, _, text = problem.decode(errors="replace").partition(" ")
            self.say(id=number, failed=text, errno=int(code))
            return
        fields = _stat(pid)
        self.running[number] = pid
        self.names[pid] = number
        self.marks[number] = spec["env"].get(MARK, "")
        self.say(id=number, pid=pid, start=int(fields[19]) if fields else 0)

    def become(self, spec: dict[str, Any], stdin: int, stdout: int, stderr: int, writing: int) -> NoReturn:
        """In the child: turn into the container's first process. Never returns."""
        try:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self_pid:
                os._exit(127)  # the parent died before it could be asked for
            os.setsid()
            for number in (
                signal.SIGPIPE,
                signal.SIGXFSZ,
                signal.SIGTERM,
                signal.SIGINT,
                signal.SIGCHLD,
                signal.SIGHUP,
            ):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            os.umask(0o022)
            if spec.get("cpus"):
                try:
                    os.sched_setaffinity(0, spec["cpus"])
                except OSError:
                    pass  # a CPU was taken from this machine meanwhile; the container's own report says where it runs
            for name, value in (spec.get("limits") or {}).items():
                which = getattr(resource, name)
                _, hard = resource.getrlimit(which)
                value = value if hard == resource.RLIM_INFINITY else min(value, hard)
                resource.setrlimit(which, (value, hard))
            if spec.get("no_new_privileges"):
                _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            try:
                os.chdir(spec["cwd"])
            except OSError as error:
                raise OSError(
                    error.errno, f'chdir to cwd ("{spec["cwd"]}"): {(error.strerror or "").lower()}'
                ) from None
            execute(spec["argv"], spec["env"])
        except OSError as error:
            os.write(writing, f"{error.errno or 0} {error.strerror or error}".encode())
        except BaseException as error:
            os.write(writing, f"0 {type(error).__name__}: {error}".encode())
        finally:
            os._exit(127)

    # -- ending ---------------------------------------------------------------------------------------------------

    def send(self, number: int, which: int, whole: bool) -> None:
        pid = self.running.get(number)
        if pid is None:
            return
        if whole:
            self.kill_members(number, pid, which)
        try:
            os.kill(pid, which)
        except OSError:
            pass

    def members(self, number: int, main: int) -> list[int]:
        """The other processes of a container: of its session, below its first process, or carrying its mark."""
        mark = f"{MARK}={self.marks.get(number, '')}".encode()
        parents: dict[int, int] = {}
        sessions: dict[int, int] = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and (fields := _stat(name)) is not None and fields[0] not in (b"Z", b"X"):
                parents[int(name)], sessions[int(name)] = int(fields[1]), int(fields[3])
        found = []
        for pid in parents:
            if pid == main or pid in self.names:
                continue
            if sessions[pid] == main:
                found.append(pid)
                continue
            above, chain = pid, 0
            while above in parents and above not in (self_pid, main) and above not in self.names and chain < 64:
                above, chain = parents[above], chain + 1
            if above == main or (above == self_pid and self.carries(pid, mark)):
                found.append(pid)
        return found

    @staticmethod
    def carries(pid: int, mark: bytes) -> bool:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return mark in file.read().split(b"\0")
        except OSError:
            return False

    def kill_members(self, number: int, main: int, which: int = signal.SIGKILL) -> None:
        for _ in range(8):  # again, since one that was just forking is seen the next time only
            found = self.members(number, main)
            for pid in found:
                try:
                    os.kill(pid, which)
                except OSError:
                    pass
            if not found or which != signal.SIGKILL:
                return

    def affinity(self, number: int, cpus: list[int]) -> None:
        pid = self.running.get(number)
        if pid is None:
            return
        for process in [pid, *self.members(number, pid)]:
            try:
                threads = os.listdir(f"/proc/{process}/task")
            except OSError:
                continue
            for thread in threads:
                try:
                    os.sched_setaffinity(int(thread), cpus)
                except OSError:
                    pass

    def reap(self) -> bool:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            number = self.names.pop(pid, None)
            if number is None:
                continue  # an orphan: nobody else waits for it
            del self.running[number]
            at = time.time()
            self.kill_members(number, pid)
            del self.marks[number]
            self.say(id=number, status=status, at=at)

    def end(self, directories: list[str]) -> None:
        """Kill everything, and wait until it is gone."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for number, pid in list(self.running.items()):
                self.send(number, signal.SIGKILL, True)
                del pid
            for name in os.listdir("/proc"):
                if name.isdigit() and (fields := _stat(name)) is not None and int(fields[1]) == self_pid:
                    try:
                        os.kill(int(name), signal.SIGKILL)
                    except OSError:
                        pass
            if not self.reap():
                break
            time.sleep(0.01)
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)


def execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Replace this process, looking for the program in the container's own PATH."""
    program = argv[0]
    if "/" in program:
        try:
            os.execve(program, argv, env)
        except OSError as error:
            raise OSError(error.errno, f'exec: "{program}": {(error.strerror or "").lower()}') from None
    refused = False
    for directory in env.get("PATH", "").split(":"):
        try:
            os.execve(os.path.join(directory or ".", program), argv, env)
        except PermissionError:
            refused = True
        except (FileNotFoundError, NotADirectoryError):
            pass
    if refused:
        raise OSError(errno.EACCES, f'exec: "{program}": permission denied')
    raise OSError(errno.ENOENT, f'exec: "{program}": executable file not found in $PATH')


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)  # a container that held it would hide this process's death from the daemon
    directories = sys.argv[2:]
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shim = Shim(sock)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    stop: list[bool] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGHUP, lambda *_: None)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(reading, select.POLLIN)
    alive = True
    while alive and not stop:
        for fd, _ in poll.poll():
            if fd == reading:
                try:
                    os.read(reading, 4096)
                except BlockingIOError:
                    pass
                shim.reap()
            elif not shim.hear():
                alive = False
    shim.end(directories)


self_pid = os.getpid()

if __name__ == "__main__":
    main()
