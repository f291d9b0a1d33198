"""Answers of a real agent pod that their client does not take wait on the resource pod's disk and come back whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from swarm_agents.codec import decode, encode
from swarm_agents.config import Role
from swarm_agents.resource.spillfiles import in_memory
from swarm_agents.wire import frames, schema
from swarm_agents.wire.reactor import receive

COUNT, WORDS = 14, 32 << 10
SIZE = 8 * WORDS


class Client:
    """One that says how much it takes, and acknowledges when the test says so."""

    def __init__(self, keys: Path, url: str, room: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        for option, name in (
            (zmq.CURVE_SERVERKEY, "hub.public"),
            (zmq.CURVE_PUBLICKEY, "client.public"),
            (zmq.CURVE_SECRETKEY, "client.secret"),
        ):
            self._socket.setsockopt(option, (keys / name).read_bytes())
        self._socket.connect(url)
        self._send(schema.Hello("client", "", 4711, room=room))
        #: By task, what came.
        self.answers: dict[int, Any] = {}
        self._asked: dict[int, Any] = {}

    def _send(self, message: schema.Message, payload: Any = ()) -> None:
        self._socket.send_multipart(frames.pack(message, payload))

    def submit(self, number: int, value: Any) -> None:
        self._asked[number] = value
        submit = schema.Submit((4711, number), "core.echo", 2)
        self._send(submit, frames.flatten(*encode(((value,), {}))))

    def look(self) -> None:
        """Takes what has come; what was refused for want of room is submitted again."""
        while self._socket.poll(20):
            message, payload = frames.unpack(receive(self._socket), limit=1 << 30)
            if isinstance(message, schema.Refusal):
                assert message.code == "SwarmFull", message
                assert message.task is not None
                time.sleep(0.01)
                self.submit(message.task[1], self._asked[message.task[1]])
            elif isinstance(message, schema.Answer):
                assert message.error is None, message.error
                self.answers[message.task[1]] = decode(bytes(payload[0]), [memoryview(part) for part in payload[1:]])

    def acknowledge(self, number: int) -> None:
        self._send(schema.Ack(((4711, number),)))

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()


@pytest.fixture
def client_over_tcp() -> Iterator[Callable[..., Client]]:
    made: list[Client] = []
    yield lambda *args: made.append(Client(*args)) or made[-1]
    for client in made:
        client.close()


def test_a_pods_answers_wait_on_the_disk_and_come_back_whole(
    node: Any, client_over_tcp: Callable[..., Client], eventually: Callable[..., Any]
) -> None:
    if in_memory(node.cache):
        pytest.skip("the cache lies in memory: nothing is put aside there")
    transport = msgspec.structs.replace(node.settings.transport, arena_bytes=6 << 20)
    node.write(msgspec.structs.replace(node.settings, transport=transport))
    resource, compute = node.start(0, Role.RESOURCE), node.start(0)
    resource.ready()
    compute.ready()
    client = client_over_tcp(node.root / "keys", f"tcp://{resource.address}:{node.settings.transport.hub_port}", SIZE)
    arrays = [np.full(WORDS, float(number)) for number in range(COUNT)]
    for number, array in enumerate(arrays):
        client.submit(number, array)

    def aside() -> float:
        client.look()
        return float(resource.metric('swarm_hub_events_total{event="put_aside"}'))

    eventually("answers on the disk", aside)
    assert resource.metric("swarm_hub_aside_bytes") >= SIZE
    assert len(client.answers) == 1, "it takes one at a time"

    taken: set[int] = set()

    def all_taken() -> bool:
        for number in client.answers.keys() - taken:
            taken.add(number)
            client.acknowledge(number)
        client.look()
        return len(taken) == COUNT

    eventually("all answers", all_taken)
    for number, array in enumerate(arrays):
        np.testing.assert_array_equal(client.answers[number], array)
    put, back = (
        resource.metric(f'swarm_hub_events_total{{event="{event}"}}') for event in ("put_aside", "brought_back")
    )
    assert put == back >= 1
    eventually("an empty disk", lambda: resource.metric("swarm_hub_aside_bytes") == 0)
