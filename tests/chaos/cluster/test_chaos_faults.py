"""The faults themselves: what is said to be cut is cut, what is said to be full is full, and then is as before."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm_agents.errors import SwarmFull
from swarm_agents.shm.board import Board, Geometry
from swarm_deploy.chaos import fill, partition

_ANSWERS = """
import os, selectors, socket, sys
# Answers each byte that comes by a connection to its port, and passes on by its own connection what is read from stdin.
port, far = int(sys.argv[1]), sys.argv[3]
server = socket.create_server((sys.argv[2], port))
os.set_blocking(0, False)
chosen = selectors.DefaultSelector()
chosen.register(server, selectors.EVENT_READ)
chosen.register(0, selectors.EVENT_READ)
print("up", flush=True)
link = None
while True:
    for key, _ in chosen.select():
        if key.fileobj is server:
            accepted, _ = server.accept()
            chosen.register(accepted, selectors.EVENT_READ)
        elif key.fileobj == 0:
            word = os.read(0, 1)
            if not word:
                sys.exit()
            if link is None:
                link = socket.create_connection((far, port))
                chosen.register(link, selectors.EVENT_READ)
            link.sendall(word)
        elif key.fileobj is link:
            print("back", link.recv(1).decode(), flush=True)
        else:
            data = key.fileobj.recv(1)
            if data:
                key.fileobj.sendall(data)
            else:
                chosen.unregister(key.fileobj)
"""


def eventually(what: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, f"waited {seconds:g} s in vain"
        time.sleep(0.01)


class Node:
    """A process that listens on an address of its own, and speaks to another one's."""

    def __init__(self, own: str, far: str, port: int) -> None:
        self.address = own
        words = [sys.executable, "-c", _ANSWERS, str(port), own, far]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"
        os.set_blocking(self.process.stdout.fileno(), False)
        self.heard = b""

    def say(self, word: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word)
        self.process.stdin.flush()

    def hears(self, word: bytes) -> bool:
        assert self.process.stdout is not None
        self.heard += self.process.stdout.read() or b""
        return b"back " + word in self.heard

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def nodes(port: int) -> Iterator[tuple[Node, Node]]:
    if why := partition.possible():
        pytest.skip(why)
    made: list[Node] = []
    try:
        for own, far in (("127.1.0.91", "127.1.0.92"), ("127.1.0.92", "127.1.0.91")):
            made.append(Node(own, far, port))
        yield made[0], made[1]
    finally:
        for node in made:
            node.end()


def cut(nodes: tuple[Node, Node], port: int) -> partition.Cut:
    return partition.Cut(lambda: [nodes[0].process.pid], lambda: [nodes[1].process.pid], port)


def test_a_cut_drops_what_is_sent_both_ways_and_healed_lets_it_arrive(nodes: tuple[Node, Node], port: int) -> None:
    for node in nodes:
        node.say(b"a")
        eventually(lambda node=node: node.hears(b"a"))
    between = cut(nodes, port)
    assert between.connections == 2
    for node in nodes:
        node.say(b"b")
    time.sleep(0.5)
    assert not any(node.hears(b"b") for node in nodes)
    between.heal()
    assert between.problem is None
    for node in nodes:
        eventually(lambda node=node: node.hears(b"b"))


def test_a_connection_made_during_a_cut_is_cut_too_and_strangers_pass(nodes: tuple[Node, Node], port: int) -> None:
    between = cut(nodes, port)
    try:
        nodes[0].say(b"c")  # its first word: the connection is made now
        with socket.create_connection((nodes[1].address, port), timeout=20) as stranger:
            stranger.sendall(b"s")
            assert stranger.recv(1) == b"s"
        assert not nodes[0].hears(b"c")
    finally:
        between.heal()
    eventually(lambda: nodes[0].hears(b"c"))


def test_a_process_that_dies_during_a_cut_frees_its_port_and_its_successor_is_cut_off(
    nodes: tuple[Node, Node], port: int
) -> None:
    nodes[0].say(b"a")
    eventually(lambda: nodes[0].hears(b"a"))
    current = [nodes[1]]
    between = partition.Cut(lambda: [nodes[0].process.pid], lambda: [current[0].process.pid], port)
    try:
        current[0].end()
        current[0] = Node(nodes[1].address, nodes[0].address, port)
        time.sleep(0.5)  # until it is known who the process is now
        current[0].say(b"d")
        time.sleep(0.5)
        assert not current[0].hears(b"d")
    finally:
        between.heal()
        try:
            eventually(lambda: current[0].hears(b"d"))
        finally:
            current[0].end()


def test_a_full_file_system_has_no_room_for_a_byte_and_afterwards_has(tmp_path: Path) -> None:
    if why := fill.mountable(tmp_path):
        pytest.skip(why)
    where = tmp_path / "disk"
    fill.mount(where, 8 << 20)
    try:
        (where / "before").write_bytes(b"kept")
        with fill.disk_full(where) as filler:
            assert filler.bytes > 7 << 20
            assert filler.free() == 0
            with pytest.raises(OSError, match="No space left") as refused:
                (where / "new").write_bytes(bytes(8192))
            assert refused.value.errno == errno.ENOSPC
        (where / "new").write_bytes(bytes(1 << 20))
        assert (where / "before").read_bytes() == b"kept"
    finally:
        fill.unmount(where)
    assert not where.exists()


def test_a_full_arena_has_no_room_for_anybody_and_afterwards_has(shm_scratch: Path) -> None:
    board = Board.open(shm_scratch / "board", Geometry(256, 4 << 20, 16), swarm_uid="u")
    member = board.join("a-compute-0-0", "compute")
    try:
        arena = board.arena(member)
        with fill.arena_full(shm_scratch / "board") as filler:
            assert filler.bytes >= 0.99 * (4 << 20)
            with pytest.raises(SwarmFull):
                arena.empty(1 << 16, "u1")
        assert arena.empty(1 << 20, "u1").size == 1 << 20
    finally:
        board.leave(member)
