"""Peers that send nonsense, hold no key, or take nothing: the hub stays as it is, and loses nothing."""

from __future__ import annotations

import os
import random
import socket
import time

import numpy as np
import zmq

from support.wirekit import KEYS, UID, FakeDesk, connection, eventually
from swarm_agents.client import Swarm
from swarm_agents.codec import decode, encode
from swarm_agents.wire import frames, schema
from swarm_agents.wire.keys import Keys, make_keys
from swarm_agents.wire.reactor import receive, send_frames

FRAMES = 100_000


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Dealer:
    def __init__(self, url: str, keys: Keys = KEYS) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.sndhwm = self.socket.rcvhwm = 0
        self.socket.curve_serverkey = KEYS.hub_public.encode()
        self.socket.curve_publickey = keys.client_public.encode()
        self.socket.curve_secretkey = keys.client_secret.encode()
        self.socket.connect(url)

    def send(self, message, payload=()) -> None:
        self.socket.send_multipart(frames.pack(message, payload))

    def receive(self, within: float = 10.0):
        assert self.socket.poll(within * 1000), "nothing came"
        return frames.unpack(receive(self.socket), limit=1 << 30)

    def drain(self) -> None:
        while self.socket.poll(0):
            self.socket.recv_multipart()

    def __enter__(self) -> Dealer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close(0)
        self.context.term()


def arguments(*args):
    return frames.flatten(*encode((args, {})))


def nonsense(rng: random.Random, valid: list[bytes]) -> list[bytes]:
    """Random frames, and messages with a damaged header. A kernel's name that survives damage is no kernel."""
    if rng.random() < 0.2:
        return [rng.randbytes(rng.randrange(40)) for _ in range(rng.randrange(1, 4))]
    data = bytearray(rng.choice(valid))
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(4 if rng.random() < 0.05 else 8, len(data))] = rng.randrange(256)
    return [bytes(data), *[rng.randbytes(9) for _ in range(rng.randrange(2))]]


def test_a_hundred_thousand_bad_messages_of_an_authenticated_peer_reach_no_kernel_and_leak_nothing(make_hub):
    desk = FakeDesk(auto=False)
    submitted: list[schema.Submit] = []
    desk.submit = lambda submit, payload, *path: submitted.append(submit)  # a board that nobody works on
    hub, rng = make_hub(desk), random.Random(20260101)
    valid = [
        frames.pack(message)[0]
        for message in (
            schema.Ack(((1, 2), (3, 4))),
            schema.Cancel((1, 2)),
            schema.Credit(4, 1 << 20),
            schema.Answer((1, 2), {"code": "KernelError", "message": "x"}, "a", 1, 0.1, 0.2),
            schema.Refusal("SwarmFull", "later", (1, 2), 0.5),
        )
    ]
    with Dealer(hub.url) as peer:
        peer.send(schema.Hello("client", UID, 5))
        assert isinstance(peer.receive()[0], schema.Welcome)
        sizes = []
        for number in range(FRAMES):
            peer.socket.send_multipart(nonsense(rng, valid))
            if number % 500 == 499:
                peer.drain()
                # The answer to this says that everything before it has been handled.
                peer.send(schema.Hello("client", UID, 5))
                until = time.monotonic() + 20
                while not (peer.socket.poll(1000) and is_welcome(receive(peer.socket))):
                    assert time.monotonic() < until
            if number in (FRAMES // 5, FRAMES - 1):
                sizes.append(rss())
    assert hub.hub.counts["refused_FrameError"] > FRAMES // 10
    assert submitted == []
    assert desk.begun == []
    assert sizes[1] - sizes[0] < 16 << 20, "80 000 messages, less than 200 bytes each"
    del desk.submit
    desk.auto = True
    with Swarm.connect(connection(hub)) as swarm:
        assert swarm.run("core.echo", "well", timeout=10) == "well"


def is_welcome(message: list) -> bool:
    return isinstance(frames.unpack(message, limit=1 << 30)[0], schema.Welcome)


def test_a_peer_without_the_key_gets_no_message_back(make_hub):
    desk = FakeDesk()
    hub = make_hub(desk)
    with Dealer(hub.url, make_keys()) as stranger:
        for _ in range(100):
            stranger.send(schema.Hello("client", UID, 5))
            stranger.send(schema.Submit((5, 1), "core.echo", 2), arguments(1))
        eventually(lambda: hub.hub._authenticator.refused > 0)
        assert not stranger.socket.poll(300)
    with socket.create_connection(("127.0.0.1", hub.settings.transport.hub_port)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
        plain.settimeout(10)
        got = b""
        try:
            while data := plain.recv(4096):
                got += data
        except ConnectionResetError:
            pass
    assert len(got) <= 64, "ZMTP's own greeting, which says no more than that this is ZMTP"
    assert desk.begun == []


def test_a_receiver_that_does_not_drain_makes_the_hub_wait_and_loses_nothing(make_hub):
    hub, count, size = make_hub(), 40, 1 << 20
    with Dealer(hub.url) as peer:
        peer.send(schema.Hello("client", UID, 9, room=3 * size))
        assert isinstance(peer.receive()[0], schema.Welcome)
        array, submitted, got = np.zeros(size, np.uint8), 0, set()
        for _ in range(8):  # under its first grant, of which it takes no answer
            submitted += 1
            peer.send(schema.Submit((9, submitted), "core.echo", 2), arguments(array))
        eventually(lambda: hub.call(lambda: hub.hub.sessions.by_route is not None) and hub.hub.counts["submitted"] >= 3)
        session = next(s for s in hub.hub.sessions if s.number == 9)
        eventually(lambda: session.waiting)
        assert session.flying <= 3 * size + 3000, "no more is on its way than it has room for"
        until = time.monotonic() + 30
        while len(got) < count:
            assert time.monotonic() < until
            message, _ = peer.receive()
            if isinstance(message, schema.Refusal):
                peer.send(schema.Submit(message.task, "core.echo", 2), arguments(array))
            elif isinstance(message, schema.Answer):
                assert message.task not in got
                got.add(message.task)
                peer.send(schema.Ack((message.task,)))
                if submitted < count:
                    submitted += 1
                    peer.send(schema.Submit((9, submitted), "core.echo", 2), arguments(array))
            assert hub.hub.sessions.kept_bytes <= 2 * hub.settings.transport.arena_bytes + 2 * size
    assert got == {(9, n) for n in range(1, count + 1)}


def test_a_copy_of_a_task_that_was_answered_and_acknowledged_is_dropped(make_hub):
    desk = FakeDesk()
    hub = make_hub(desk)
    with Dealer(hub.url) as peer:
        peer.send(schema.Hello("client", UID, 6))
        peer.receive()
        submit = schema.Submit((6, 1), "core.echo", 2)
        peer.send(submit, arguments(1))
        assert peer.receive()[0].task == (6, 1)
        peer.send(schema.Ack(((6, 1),)))
        peer.send(submit, arguments(1))
        eventually(lambda: hub.hub.counts["repeated_late"] == 1)
        assert not peer.socket.poll(100)
    assert desk.begun == [(6, 1)]


def test_an_array_shows_the_very_memory_that_its_frame_was_received_in():
    context = zmq.Context()
    with context.socket(zmq.DEALER) as left, context.socket(zmq.DEALER) as right:
        port = left.bind_to_random_port("tcp://127.0.0.1")
        right.connect(f"tcp://127.0.0.1:{port}")
        array, holds = np.arange(100_000.0), []
        send_frames(right, frames.pack(schema.Submit((1, 2), "k", 0), frames.flatten(*encode(array))), holds)
        assert len(holds) == 1, "it was sent from where it lies"
        assert left.poll(10_000)
        message = receive(left)
        _, payload = frames.unpack(message, limit=1 << 30)
        back = decode(payload[0], payload[1:])
        assert back.ctypes.data == np.frombuffer(message[1].buffer, np.uint8).ctypes.data
        np.testing.assert_array_equal(back, array)
        eventually(lambda: holds[0].done)
    context.term()
