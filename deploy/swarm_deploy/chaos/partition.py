"""Cuts the network between the hubs of two nodes of a local cluster: packets are dropped, connections stay open.

Nodes of a local cluster are processes that share the machine's loopback, so there is no cable to pull. What there is
are the hubs' sockets: a descriptor of a socket of another process can be had from the kernel (`pidfd_getfd`), and a
socket filter attached to it drops what comes in before TCP sees it. So neither side is told anything: what was sent is
sent again and again by TCP and never arrives, as with a cut cable, until the filters are taken away.

- Sockets of connections between the two hubs drop every packet, on both sides.
- The listening sockets of both hubs, and with them every connection that is accepted meanwhile, drop packets with data:
  a new connection comes about and stays silent. It is looked at within a few hundredths of a second: one from the other
  hub is left so, one from anybody else (a client, a third hub) is let through, and TCP sends again what was dropped.

Rejected: iptables (needs root and an address of its own for each node's outgoing connections), network namespaces (the
same, and another cluster than users run), a relay between the hubs (they would have to be told of it), `tcp` sockets
shut down (both sides are told at once, and connect again before a heartbeat is missed).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

__all__ = ["Cut", "possible"]

_PIDFD_GETFD = 438  # the same on all architectures
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
#: How often new connections are looked for, and who the hubs are (seconds).
_LOOK, _ASK = 0.01, 0.2
_libc = ctypes.CDLL(None, use_errno=True)


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


#: Drops everything: `ret 0`.
_NOTHING = ((0x06, 0, 0, 0),)
#: Drops segments with data. The filter sees a packet from its TCP header on: byte 12 has the header's length in words
#: in its upper half. ldb [12]; rsh 4; lsh 2; tax; ld len; jeq x ? accept : drop.
_NO_DATA = (
    (0x30, 0, 0, 12),
    (0x74, 0, 0, 4),
    (0x64, 0, 0, 2),
    (0x07, 0, 0, 0),
    (0x80, 0, 0, 0),
    (0x1D, 0, 1, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0),
)

Address = tuple[str, int]
Pair = tuple[Address, Address]


def _attach(sock: socket.socket, instructions: tuple[tuple[int, int, int, int], ...]) -> None:
    array = (_Instruction * len(instructions))(*(_Instruction(*words) for words in instructions))
    program = _Program(len(instructions), ctypes.addressof(array))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))


def _detach(sock: socket.socket) -> None:
    with suppress(OSError):  # it has none, or is closed
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _borrow(pid: int) -> list[socket.socket]:
    """Descriptors of our own for the TCP sockets of a process; none when it is gone.

    Raises:
        PermissionError: this process may not look into that one.
    """
    found: list[socket.socket] = []
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return found
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
            except OSError:
                continue
            number = _libc.syscall(_PIDFD_GETFD, handle, int(name), 0)
            if number < 0:
                code = ctypes.get_errno()
                if code in (errno.EPERM, errno.ENOSYS):
                    raise PermissionError(code, os.strerror(code))
                continue
            sock = socket.socket(fileno=number)
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
                found.append(sock)
            else:
                sock.close()
    except FileNotFoundError:
        pass  # it has ended
    finally:
        os.close(handle)
    return found


def possible() -> str:
    """Why the network can't be cut by this process; empty when it can."""
    child = os.fork()
    if child == 0:
        try:
            with socket.create_server(("127.0.0.1", 0)):
                threading.Event().wait(10)
        finally:
            os._exit(0)
    try:
        for _ in range(100):
            sockets = _borrow(child)
            for sock in sockets:
                _attach(sock, _NO_DATA)
                sock.close()
            if sockets:
                return ""
            threading.Event().wait(0.01)
        return "the kernel does not lend a process's sockets (pidfd_getfd)"
    except OSError as error:
        return (
            f"the kernel does not let this process at another's sockets ({error.strerror}): be root, or set "
            "kernel.yama.ptrace_scope to 0"
        )
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


class Cut:
    """No packet passes between the processes of two hubs, from `__init__` to `heal`.

    The processes that are the hubs are asked for again and again, since a hub may be replaced meanwhile, and the new
    one is to be cut off as well. No socket is kept: one that is closed by its owner must be closed, and free its port.

    Args:
        here: gives the processes that are the hub of one node; there: of the other.
        port: that hubs listen on.

    Raises:
        PermissionError: this process may not look into those.
    """

    def __init__(self, here: Callable[[], Iterable[int]], there: Callable[[], Iterable[int]], port: int) -> None:
        self._sides = (here, there)
        self._port = port
        #: Connections (own end, far end) with a filter.
        self._filtered: set[Pair] = set()
        #: Accepted from somebody who was not seen to be the other hub; when that is so twice, it is let through.
        self._strangers: set[Pair] = set()
        self._passed: set[Pair] = set()
        self._healed = threading.Event()
        #: What ended the watch over new connections early.
        self.problem: BaseException | None = None
        #: The most connections between the two that had a filter at once.
        self.connections = 0
        self._pids: list[list[int]] = [[], []]
        self._next_ask = 0.0
        self._look()
        self._thread = threading.Thread(target=self._keep, name="chaos-cut", daemon=True)
        self._thread.start()

    def heal(self) -> None:
        """Takes all filters away."""
        self._healed.set()
        self._thread.join()
        for side in self._sides:
            for pid in side():
                for sock in _borrow(pid):
                    _detach(sock)
                    sock.close()

    def _keep(self) -> None:
        while not self._healed.wait(_LOOK):
            try:
                self._look()
            except BaseException as error:
                self.problem = error
                return

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._next_ask:
            self._next_ask = now + _ASK
            self._pids = [list(side()) for side in self._sides]
        sides = [[(sock, _ends(sock)) for pid in side for sock in _borrow(pid)] for side in self._pids]
        try:
            # A connection is between the two when both hubs have an end of it, in opposite order.
            ends = [{pair for _, pair in side if pair is not None} for side in sides]
            cut = {pair for pair in ends[0] if (pair[1], pair[0]) in ends[1]}
            for side, others in zip(sides, reversed(ends), strict=True):
                for sock, pair in side:
                    with suppress(OSError):  # closed by its owner at this moment
                        self._treat(sock, pair, others)
            self._filtered &= ends[0] | ends[1]
            self.connections = max(self.connections, len(cut))
        finally:
            for side in sides:
                for sock, _ in side:
                    sock.close()

    def _treat(self, sock: socket.socket, pair: Pair | None, others: set[Pair]) -> None:
        """Gives a socket the filter that it should have."""
        if pair is None:
            if _listens(sock, self._port):
                _attach(sock, _NO_DATA)  # a new hub's listener has none yet; to be given it again is harmless
            return
        if pair in self._filtered or pair in self._passed or self._port not in (pair[0][1], pair[1][1]):
            return
        if (pair[1], pair[0]) in others:
            _attach(sock, _NOTHING)
            self._filtered.add(pair)
        elif pair[0][1] == self._port:
            if pair not in self._strangers:
                self._strangers.add(pair)  # the far end may have been made after its process was looked at
            else:
                _detach(sock)
                self._passed.add(pair)


def _listens(sock: socket.socket, port: int) -> bool:
    try:
        listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        return listens and bool(sock.getsockname()[1] == port)
    except OSError:
        return False


def _ends(sock: socket.socket) -> Pair | None:
    """Both ends of a connection; None for a socket without one."""
    try:
        own, far = sock.getsockname()[:2], sock.getpeername()[:2]
    except OSError:
        return None
    return (own[0], own[1]), (far[0], far[1])
