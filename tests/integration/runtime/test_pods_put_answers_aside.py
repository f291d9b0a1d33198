"""What a real resource pod does while memory is short: answers that nobody takes wait on its disk and come back whole,
and work is refused before there is nothing left."""

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
        #: Tasks that are on the board, and why others were not taken.
        self.accepted: set[int] = set()
        self.refusals: list[str] = []
        self._asked: dict[int, Any] = {}

    def _send(self, message: schema.Message, payload: Any = ()) -> None:
        self._socket.send_multipart(frames.pack(message, payload))

    def submit(self, number: int, value: Any) -> None:
        self._asked[number] = value
        submit = schema.Submit((4711, number), "core.echo", 2)
        self._send(submit, frames.flatten(*encode(((value,), {}))))

    def look(self) -> None:
        """Takes what has come; what was refused for want of room is submitted again."""
        for _ in range(2 * COUNT):
            if not self._socket.poll(20):
                return
            message, payload = frames.unpack(receive(self._socket), limit=1 << 30)
            if isinstance(message, schema.Refusal):
                assert message.code == "SwarmFull", message
                assert message.task is not None
                self.refusals.append(message.message)
                time.sleep(0.01)
                self.submit(message.task[1], self._asked[message.task[1]])
            elif isinstance(message, schema.Accepted):
                self.accepted |= {number for _, number in message.tasks}
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

    def make(*args: Any) -> Client:
        made.append(Client(*args))
        return made[-1]

    yield make
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


def test_a_pod_takes_no_work_while_the_node_has_no_memory_left_and_takes_it_again(
    node: Any, tmp_path: Path, client_over_tcp: Callable[..., Client], eventually: Callable[..., Any]
) -> None:
    meminfo = tmp_path / "recorded" / "proc" / "meminfo"
    meminfo.parent.mkdir(parents=True)

    def leave(free: int) -> None:
        meminfo.write_text(f"MemTotal: 8000000 kB\nMemFree: {free} kB\nMemAvailable: {free} kB\n")

    leave(100_000)
    pod = node.start(0, Role.RESOURCE, SWARM_SENSORS_ROOT=str(tmp_path / "recorded")).ready()
    client = client_over_tcp(node.root / "keys", f"tcp://{pod.address}:{node.settings.transport.hub_port}", SIZE)
    asked: set[int] = set()

    def refused() -> bool:  # one that came before the first look at the memory was taken
        asked.add(len(asked))
        client.submit(len(asked) - 1, 0)
        client.look()
        return bool(client.refusals)

    eventually("a refusal", refused)
    assert "left of the node's memory of 7812 MiB" in client.refusals[0]
    assert client.accepted < asked
    leave(4_000_000)

    def accepted() -> bool:
        client.look()
        return client.accepted == asked

    eventually("all tasks on the board", accepted)
