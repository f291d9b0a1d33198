"""A client and a hub over real ZeroMQ with CURVE: answers, errors, keys, back-pressure, and another hub's help."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import CancelledError, wait
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
import zmq

from support.wirekit import KEYS, UID, FakeDesk, HubThread, connection, eventually, free_port, make_settings
from swarm_agents.client import (
    AsyncSwarm,
    ConnectionLost,
    KernelError,
    PayloadError,
    PayloadTooLarge,
    Swarm,
    SwarmFull,
    UnknownKernel,
    Unreachable,
    VersionMismatch,
    WrongKey,
    as_completed,
)
from swarm_agents.errors import PortInUse
from swarm_agents.wire import frames, schema
from swarm_agents.wire.keys import Keys, make_keys


def test_an_array_goes_to_the_swarm_and_its_double_comes_back(make_hub):
    with Swarm.connect(connection(make_hub())) as swarm:
        array = np.arange(300_000.0)
        future = swarm.submit("core.double", array)
        np.testing.assert_array_equal(future.result(10), array * 2)
        assert future.info.agent == "risk-compute-0-1"


def test_an_error_in_a_kernel_comes_back_with_its_traceback(make_hub):
    with Swarm.connect(connection(make_hub())) as swarm:
        with pytest.raises(KernelError, match="boo") as caught:
            swarm.run("core.fail", "boo", timeout=10)
        assert caught.value.remote_type == "RuntimeError"
        assert "Traceback of the agent" in str(caught.value)
        with pytest.raises(UnknownKernel):
            swarm.run("core.nothing", timeout=10)


def test_a_map_keeps_the_order_and_reads_only_as_far_as_its_window(make_hub):
    read = []

    def endless():
        n = 0
        while True:
            read.append(n)
            yield n
            n += 1

    with Swarm.connect(connection(make_hub())) as swarm:
        values = swarm.map("core.echo", endless(), window=5)
        assert [next(values) for _ in range(20)] == list(range(20))
        assert len(read) <= 26
        values.close()
        assert swarm.pending == 0


def test_the_base_functions_of_an_executor_work(make_hub):
    with Swarm.connect(connection(make_hub())) as swarm:
        futures = swarm.submit_many("core.double", range(50))
        assert sorted(future.result() for future in as_completed(futures, timeout=10)) == [2 * n for n in range(50)]
        pairs = swarm.submit_many("core.echo", [(1, "a"), (2, "b")])
        assert wait(pairs, timeout=10).not_done == set()
        assert [future.result() for future in pairs] == [[1, "a"], [2, "b"]]
        seen = threading.Event()
        swarm.submit("core.echo", 1).add_done_callback(lambda future: seen.set())
        assert seen.wait(10)
        with pytest.raises(TypeError, match="functions do not travel"):
            swarm.submit(len, "abc")
        with pytest.raises(ValueError, match="expected one of critical"):
            swarm.submit("core.echo", 1, priority="urgent")
        with pytest.raises(ValueError, match="seconds from now"):
            swarm.submit("core.echo", 1, deadline=1.7e9)
        with pytest.raises(ValueError, match="time zone"):
            swarm.submit("core.echo", 1, deadline=datetime(2030, 1, 1))  # noqa: DTZ001  # the point of it
        assert swarm.submit("core.echo", 1, deadline=timedelta(minutes=1)).result(10) == 1
        assert swarm.submit("core.echo", 1, deadline=datetime.now(UTC) + timedelta(minutes=1)).result(10) == 1


def test_arguments_that_can_not_travel_are_refused_before_they_are_sent(make_hub):
    settings = make_settings(transport={"max_message_bytes": 4 << 20})
    with Swarm.connect(connection(make_hub(settings=settings))) as swarm:
        with pytest.raises(PayloadError, match="dtype object"):
            swarm.submit("core.echo", np.array([object()]))
        with pytest.raises(PayloadTooLarge, match="at most 3145728 in one message"):
            swarm.submit("core.echo", np.zeros(1 << 20))
        assert swarm.pending == 0
        assert swarm.run("core.echo", 1, timeout=10) == 1


def test_a_cancelled_task_is_cancelled_in_the_swarm(make_hub):
    desk = FakeDesk(auto=False)
    with Swarm.connect(connection(make_hub(desk))) as swarm:
        future = swarm.submit("core.echo", 1)
        eventually(lambda: desk.waiting)
        assert future.cancel()
        assert future.cancel(), "a second time as well"
        assert future.cancelled()
        with pytest.raises(CancelledError):
            future.result(1)
        assert list(as_completed([future], timeout=1)) == [future]
        eventually(lambda: desk.cancelled == [future.task])
        done = swarm.submit("core.echo", 2)
        eventually(lambda: len(desk.waiting) == 2)
        desk.work()
        assert done.result(10) == 2
        assert not done.cancel()


def test_a_wrong_key_is_told_from_an_endpoint_that_is_not_there(make_hub):
    hub, other = make_hub(), make_keys()
    with pytest.raises(WrongKey, match="does not accept these CURVE keys"):
        Swarm.connect(hub.url, server_key=KEYS.hub_public, public_key=other.client_public,
                      secret_key=other.client_secret, timeout=10)  # fmt: skip
    with pytest.raises(WrongKey, match="does not accept these CURVE keys"):
        Swarm.connect(hub.url, server_key=other.hub_public, public_key=KEYS.client_public,
                      secret_key=KEYS.client_secret, timeout=10)  # fmt: skip
    with pytest.raises(WrongKey, match="pass server_key"):
        Swarm.connect(hub.url, timeout=10)
    with pytest.raises(Unreachable, match=r"nothing answers.*swarm status"):
        Swarm.connect(f"tcp://127.0.0.1:{free_port()}", timeout=0.3)
    assert hub.call(lambda: len(hub.hub.sessions)) == 1, "none of them has a session beside REST"
    assert hub.hub._authenticator.refused >= 1


def test_a_swarm_without_encryption_takes_a_client_without_keys(make_hub):
    settings = msgspec.structs.replace(
        make_settings(), transport=msgspec.structs.replace(make_settings().transport, encryption=False)
    )
    hub = make_hub(settings=settings, keys=Keys())
    with Swarm.connect(hub.url, timeout=10) as swarm:
        assert swarm.run("core.echo", 1, timeout=10) == 1
    with pytest.raises(WrongKey, match="none of them if it does not"):
        Swarm.connect(connection(hub), timeout=10)


def test_a_hub_that_should_encrypt_and_has_no_keys_does_not_start():
    with pytest.raises(WrongKey, match=r"hub.secret.* missing"):
        HubThread(FakeDesk(), make_settings(), keys=Keys())


def test_another_swarms_hub_is_not_taken_for_ours(make_hub):
    where = msgspec.structs.replace(connection(make_hub()), uid="another")
    with pytest.raises(WrongKey, match=f"UID {UID}, not another"):
        Swarm.connect(where, timeout=10)


def test_a_clients_key_can_not_speak_for_a_hub(make_hub):
    peer = Peer(make_hub())
    peer.send(schema.Hello("hub", UID, 1, "x", "node-x"))
    assert peer.receive() == schema.Refusal("WrongKey", "a client's key can't speak for a hub")
    peer.close()


def test_a_port_in_use_is_an_error_that_names_it(make_hub):
    first = make_hub()
    with pytest.raises(PortInUse, match=f"{first.url} is in use"):
        HubThread(FakeDesk(), first.settings)
    rest_only = msgspec.structs.replace(
        make_settings(), transport=msgspec.structs.replace(first.settings.transport, hub_port=free_port())
    )
    with pytest.raises(PortInUse, match=f"{first.settings.transport.rest_port} can't be served"):
        HubThread(FakeDesk(), rest_only)


class Peer:
    """A peer that says what a test wants it to."""

    def __init__(self, hub: HubThread, keys: Keys = KEYS) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.curve_serverkey = keys.hub_public.encode()
        self.socket.curve_publickey = keys.client_public.encode()
        self.socket.curve_secretkey = keys.client_secret.encode()
        self.socket.connect(hub.url)

    def send(self, message: schema.Message, payload=()) -> None:
        self.socket.send_multipart(frames.pack(message, payload))

    def receive(self, within: float = 10.0) -> schema.Message:
        assert self.socket.poll(within * 1000), "no answer"
        return frames.unpack(self.socket.recv_multipart(), limit=1 << 30)[0]

    def close(self) -> None:
        self.socket.close(0)
        self._context.term()


def test_an_unknown_version_is_refused_by_both_sides(make_hub, monkeypatch):
    hub = make_hub()
    peer = Peer(hub)
    peer.socket.send_multipart([schema.MAGIC + b"\x63?"])
    refusal = peer.receive()
    assert refusal.code == "VersionMismatch"
    assert "version 99" in refusal.message
    peer.close()

    monkeypatch.setattr("swarm_agents.client.tcp.pack", lambda *args: [schema.MAGIC + b"\x02?"])
    with pytest.raises(VersionMismatch, match="version 2 of the wire schema"):
        Swarm.connect(connection(hub), timeout=10)


def test_a_stranger_must_say_hello_first(make_hub):
    peer = Peer(make_hub())
    peer.send(schema.Submit((1, 1), "core.echo", 2), [b""])
    assert peer.receive().code == "ConnectionLost"
    peer.close()


def test_a_repeated_submission_runs_once_and_an_answer_is_kept_until_it_is_acknowledged(make_hub):
    desk = FakeDesk()
    hub = make_hub(desk)
    for time_ in ("first", "come back"):
        peer = Peer(hub)
        peer.send(schema.Hello("client", UID, 77))
        assert isinstance(peer.receive(), schema.Welcome)
        if time_ == "first":
            peer.send(schema.Submit((77, 1), "core.echo", 2), frames_of(3))
        assert peer.receive().task == (77, 1), "sent again by itself to who has come back"
        peer.send(schema.Submit((77, 1), "core.echo", 2), frames_of(3))
        assert peer.receive().task == (77, 1), "and to who asks again"
        if time_ == "come back":
            peer.send(schema.Ack(((77, 1),)))
            eventually(lambda: hub.call(lambda: hub.hub.sessions.kept_bytes) == 0)
        peer.close()
    assert desk.begun == [(77, 1)]


def test_a_task_that_takes_its_time_is_accepted_first(make_hub):
    desk = FakeDesk(auto=False)
    peer = Peer(make_hub(desk))
    peer.send(schema.Hello("client", UID, 78))
    assert isinstance(peer.receive(), schema.Welcome)
    peer.send(schema.Submit((78, 1), "core.echo", 2), frames_of(3))
    assert peer.receive() == schema.Accepted(((78, 1),))
    peer.close()


def frames_of(*args):
    from swarm_agents.codec import encode

    header, arrays = encode((args, {}))
    return [header, *arrays]


def test_a_full_swarm_pushes_back(make_hub, monkeypatch):
    monkeypatch.setattr("swarm_agents.resource.hub.WINDOW", 8)
    desk = FakeDesk(auto=False)
    with Swarm.connect(connection(make_hub(desk))) as swarm:
        futures = [swarm.submit("core.echo", n, timeout=5) for n in range(8)]
        with pytest.raises(SwarmFull, match="wait for results"):
            swarm.submit("core.echo", 9, timeout=0.05)
        eventually(lambda: len(desk.waiting) == 8)
        desk.work(3)
        more = swarm.submit("core.echo", 10, timeout=10)
        eventually(lambda: len(desk.waiting) == 6)
        desk.work()
        assert [future.result(10) for future in futures] == list(range(8))
        assert more.result(10) == 10


def test_what_a_full_board_refuses_is_submitted_again_by_itself(make_hub):
    """Credit is reckoned from what the board showed; somebody else may have filled it since."""
    desk = FakeDesk(auto=False, room=2)
    desk.shown = schema.Load(1, 0, room=1000)
    hub = make_hub(desk)
    with Swarm.connect(connection(hub)) as swarm:
        futures = [swarm.submit("core.echo", n) for n in range(10)]
        eventually(lambda: hub.hub.counts["refused_full"] >= 8)
        while not all(future.done() for future in futures):
            desk.work()
        assert [future.result(10) for future in futures] == list(range(10))
    assert sorted(desk.begun) == sorted(future.task for future in futures)


def test_a_hub_that_is_killed_while_a_client_waits_is_replaced_by_another_under_the_same_id(make_hub):
    first, second = FakeDesk(auto=False), FakeDesk()
    dying, helping = make_hub(first), make_hub(second, node="node-b")
    with Swarm.connect(connection(dying, helping)) as swarm:
        futures = [swarm.submit("core.echo", n) for n in range(5)]
        eventually(lambda: len(first.waiting) == 5)
        dying.sever()
        assert [future.result(15) for future in futures] == list(range(5))
        assert swarm.endpoint == helping.url
        assert sorted(second.begun) == [future.task for future in futures]
        assert swarm.run("core.echo", "after", timeout=10) == "after"


def test_a_hub_that_leaves_says_so_and_the_client_moves_on(make_hub):
    desk = FakeDesk(auto=False)
    leaving, other = make_hub(desk), make_hub(node="node-b")
    with Swarm.connect(connection(leaving, other)) as swarm:
        future = swarm.submit("core.echo", 1)
        eventually(lambda: desk.waiting)
        leaving.call(leaving.hub.drain)
        assert future.result(10) == 1
        assert swarm.endpoint == other.url


def test_a_hub_that_comes_back_at_the_same_address_gets_the_tasks_again(make_hub):
    settings, desk = make_settings(), FakeDesk(auto=False)
    hub = make_hub(desk, settings)
    with Swarm.connect(connection(hub)) as swarm:
        future = swarm.submit("core.echo", 1)
        eventually(lambda: desk.waiting)
        hub.sever()
        hub.close()
        eventually(lambda: not swarm.endpoint)
        again = FakeDesk()
        make_hub(again, settings)
        assert future.result(15) == 1
        assert again.begun == [future.task]


def test_a_connection_that_does_not_come_back_fails_what_is_pending(make_hub):
    hub = make_hub(FakeDesk(auto=False))
    swarm = Swarm.connect(connection(hub), retry_window=0.3)
    future = swarm.submit("core.echo", 1)
    hub.sever()
    with pytest.raises(ConnectionLost, match=r"did not come back within 0.3 s.*nothing answers"):
        future.result(10)
    swarm.close()


def test_closing_fails_what_is_pending_and_says_why(make_hub):
    desk = FakeDesk(auto=False)
    swarm = Swarm.connect(connection(make_hub(desk)))
    future = swarm.submit("core.echo", 1)
    eventually(lambda: desk.waiting)
    swarm.close()
    with pytest.raises(ConnectionLost, match="closed before the answer"):
        future.result(1)
    with pytest.raises(ConnectionLost, match="client is closed"):
        swarm.submit("core.echo", 2)
    eventually(lambda: desk.cancelled == [future.task])
    swarm.close()


def test_leaving_the_block_by_an_exception_gives_up_what_is_pending(make_hub):
    desk = FakeDesk(auto=False)

    class MineError(Exception):
        pass

    with pytest.raises(MineError), Swarm.connect(connection(make_hub(desk))) as swarm:  # noqa: PT012  # the block is the point
        future = swarm.submit("core.echo", 1)
        raise MineError
    assert future.cancelled()


def test_threads_share_a_connection(make_hub):
    with Swarm.connect(connection(make_hub())) as swarm:
        sums = []

        def use(base):
            sums.append(sum(swarm.map("core.echo", range(base, base + 200))))

        threads = [threading.Thread(target=use, args=(n * 1000,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(sums) == [sum(range(n * 1000, n * 1000 + 200)) for n in range(4)]


def test_an_answers_frames_are_freed_with_the_value(make_hub):
    with Swarm.connect(connection(make_hub())) as swarm:
        future = swarm.submit("core.double", np.arange(100_000.0))
        value = future.result(10)
        gone = weakref.ref(future)
        del future
        gc.collect()
        assert gone() is None, "the session keeps no future that is done"
        assert value[-1] == 199_998.0


async def test_the_asyncio_face_awaits_maps_and_cancels(make_hub):
    desk = FakeDesk()
    hub = await asyncio.to_thread(make_hub, desk)
    async with await AsyncSwarm.connect(connection(hub)) as swarm:
        assert await swarm.submit("core.double", 4) == 8
        assert await asyncio.gather(*[swarm.submit("core.echo", n) for n in range(20)]) == list(range(20))

        async def numbers():
            for n in range(30):
                yield n

        assert [value async for value in swarm.map("core.double", numbers(), window=4)] == [2 * n for n in range(30)]
        with pytest.raises(KernelError):
            await swarm.submit("core.fail", "x")
        assert (await swarm.info())["uid"] == UID
        desk.auto = False
        waiting = asyncio.ensure_future(swarm.submit("core.echo", 1))
        await asyncio.to_thread(eventually, lambda: desk.waiting)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.to_thread(eventually, lambda: desk.cancelled)


async def test_the_asyncio_face_waits_for_room_without_blocking_the_loop(make_hub, monkeypatch):
    monkeypatch.setattr("swarm_agents.resource.hub.WINDOW", 2)
    desk = FakeDesk(auto=False)
    hub = await asyncio.to_thread(make_hub, desk)
    async with await AsyncSwarm.connect(connection(hub)) as swarm:
        waiting = [asyncio.ensure_future(swarm.submit("core.echo", n)) for n in range(6)]
        await asyncio.to_thread(eventually, lambda: len(desk.waiting) == 2)
        with pytest.raises(SwarmFull):
            await swarm.submit("core.echo", 99, timeout=0.02)
        while not all(task.done() for task in waiting):
            await asyncio.to_thread(desk.work)
        assert sorted(task.result() for task in waiting) == list(range(6))


def test_a_hub_survives_ten_thousand_mutated_messages_and_serves_on(make_hub):
    import random

    from unit.wire.test_frames import mutate, seeds

    desk = FakeDesk()
    hub = make_hub(desk)
    rng, originals = random.Random(3), seeds()
    peer = Peer(hub)
    peer.send(schema.Hello("client", UID, 5))
    assert isinstance(peer.receive(), schema.Welcome)
    for _ in range(10_000):
        original = rng.choice(originals)
        message = [original[:8] + mutate(original[8:], rng), *[rng.randbytes(9)] * rng.randrange(3)]
        if rng.random() < 0.05:
            message = [rng.randbytes(rng.randrange(8)) for _ in range(rng.randrange(1, 4))]
        peer.socket.send_multipart(message)
        while peer.socket.poll(0):
            peer.socket.recv_multipart()
    with Swarm.connect(connection(hub)) as swarm:
        assert swarm.run("core.echo", "well", timeout=10) == "well"
    assert hub.hub.counts["refused_FrameError"] > 100
    peer.close()


def test_a_silent_hub_is_given_up(make_hub, monkeypatch):
    monkeypatch.setattr("swarm_agents.resource.greeting.CLIENT_HEARTBEAT", 0.1)
    desk = FakeDesk(auto=False)
    mute, other = make_hub(desk), make_hub(node="node-b")
    with Swarm.connect(connection(mute, other)) as swarm:
        future = swarm.submit("core.echo", 1)
        eventually(lambda: desk.waiting)
        mute.call(lambda: setattr(mute.hub._router, "send", lambda frames: True))
        assert future.result(15) == 1
        assert swarm.endpoint == other.url
