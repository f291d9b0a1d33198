"""The session's table: every task is settled exactly once, over any sequence of broken channels."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import wait

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.wirekit import eventually
from swarm_agents.client import Connection, ConnectionLost, PayloadTooLarge, SwarmFull, Unreachable, WrongKey
from swarm_agents.client.channel import Channel
from swarm_agents.client.session import Session
from swarm_agents.client.swarm import Swarm
from swarm_agents.config import Hub, Priority


class FakeChannel(Channel):
    """A channel whose far side is the test."""

    def __init__(self, sink, endpoint: str, *, capacity: int = 1000) -> None:
        self.endpoint = endpoint
        self.sink = sink
        self.window = capacity
        self.submitted = []
        self.cancelled = []
        self.too_large = set()
        self.broken = False
        self.closed = False

    def submit(self, request, timeout):
        if self.broken or self.closed:
            raise ConnectionLost("broken")
        if request.task in [task for task, _ in self.submitted]:
            return
        if request.args in self.too_large:
            raise PayloadTooLarge("too large for this one")
        if len(self.submitted) >= self.window:
            raise SwarmFull("full")
        self.submitted.append((request.task, request))

    def answer(self, task) -> None:
        request = dict(self.submitted)[task]
        self.sink.answered(task, request.args, None, None)

    def cancel(self, task):
        self.cancelled.append(task)

    def info(self, timeout):
        return {"uid": "u"}

    def close(self):
        self.closed = True

    def break_down(self) -> None:
        self.broken = True
        self.sink.lost(self, ConnectionLost("the cable was cut"))


def at(*hosts: str, uid: str = "") -> Connection:
    return Connection(uid=uid, hubs=tuple(Hub(node=f"n{host}", address=f"tcp://{host}:1") for host in hosts))


class World:
    """Opens fake channels, or refuses to."""

    def __init__(self, *refusals: Exception | None, **options) -> None:
        self.channels: list[FakeChannel] = []
        self.refusals = list(refusals)
        self.options = options
        self.opened = threading.Semaphore(0)

    def open(self, sink, connection, endpoint, number, timeout):
        refusal = self.refusals.pop(0) if self.refusals else None
        if refusal is not None:
            raise refusal
        self.channels.append(FakeChannel(sink, endpoint, **self.options))
        self.opened.release()
        return self.channels[-1]

    def session(
        self, *, retry_window: float = 5.0, hubs: int = 2, timeout: float = 1.0, uid: str = "", find_again=None
    ) -> Session:
        return Session(
            at(*(f"h{n}" for n in range(hubs)), uid=uid),
            timeout=timeout,
            retry_window=retry_window,
            opener=self.open,
            find_again=find_again,
        )

    @property
    def last(self) -> FakeChannel:
        return self.channels[-1]


def submit(session: Session, *args, timeout: float | None = 5.0):
    return session.submit("k", args, {}, Priority.NORMAL, None, timeout)


def test_what_is_pending_moves_to_the_next_endpoint_under_the_same_ids():
    world = World()
    session = world.session()
    futures = [submit(session, n) for n in range(3)]
    world.last.answer(futures[1].task)
    world.last.break_down()
    after = submit(session, 9)
    assert [channel.endpoint for channel in world.channels] == ["tcp://h0:1", "tcp://h1:1"]
    assert [task for task, _ in world.last.submitted] == [futures[0].task, futures[2].task, after.task]
    for future in (futures[0], futures[2], after):
        world.last.answer(future.task)
    assert [future.result(1) for future in (*futures, after)] == [(0,), (1,), (2,), (9,)]
    session.close()


def test_a_late_answer_over_the_old_channel_counts_and_the_second_one_is_ignored():
    world = World()
    session = world.session()
    future = submit(session, 1)
    old = world.last
    old.break_down()
    submit(session, 2)
    old.answer(future.task)
    assert future.result(1) == (1,)
    world.last.answer(future.task)
    assert session.pending == 1
    session.close()


def test_the_first_connection_says_what_was_wrong_with_each_endpoint():
    world = World(*[Unreachable(f"nothing at {n}") for n in range(1000)])
    with pytest.raises(Unreachable, match=r"none of the swarm's endpoints(.|\n)*- nothing at \d+\n- nothing at \d+"):
        world.session(timeout=0.3)


def test_a_wrong_key_at_the_first_connection_is_not_tried_for_long():
    world = World(WrongKey("no"), WrongKey("no"), WrongKey("no"))
    with pytest.raises(WrongKey):
        world.session(timeout=60)
    assert len(world.refusals) == 1


def test_a_connection_that_stays_broken_fails_what_is_pending_and_the_next_task_tries_again():
    world = World()
    session = world.session(retry_window=0.2)
    future = submit(session, 1)
    world.refusals = [Unreachable("gone")] * 1000
    world.last.break_down()
    with pytest.raises(ConnectionLost, match=r"did not come back within 0.2 s"):
        future.result(10)
    with pytest.raises(ConnectionLost, match=r"can't be reached|not come back"):
        submit(session, 2)
    world.refusals = []
    again = submit(session, 3)
    world.last.answer(again.task)
    assert again.result(1) == (3,)
    session.close()


def test_a_full_channel_refuses_and_leaves_no_trace():
    world = World(capacity=1)
    session = world.session()
    submit(session, 1)
    with pytest.raises(SwarmFull):
        submit(session, 2)
    assert session.pending == 1
    session.close()


def test_what_is_too_large_for_the_new_endpoint_fails_alone():
    world = World()
    session = world.session()
    small, large = submit(session, "small"), submit(session, "large")
    before = world.open

    def narrower(*args):
        channel = before(*args)
        channel.too_large = {("large",)}
        return channel

    session._opener = narrower
    world.last.break_down()
    with pytest.raises(PayloadTooLarge):
        large.result(5)
    assert world.opened.acquire(timeout=5)
    assert world.opened.acquire(timeout=5)
    eventually(lambda: world.last.submitted)
    world.last.answer(small.task)
    assert small.result(1) == ("small",)
    session.close()


def test_closing_during_a_recovery_ends_it():
    world = World()
    session = world.session(retry_window=60)
    future = submit(session, 1)
    world.refusals = [Unreachable("gone")] * 100_000
    world.last.break_down()
    session.close()
    with pytest.raises(ConnectionLost, match="closed before"):
        future.result(5)
    with pytest.raises(ConnectionLost, match="client is closed"):
        submit(session, 2)
    assert threading.active_count() < 50


def test_a_forked_child_is_told_to_connect_anew_and_the_parent_goes_on():
    from swarm_agents.client import SwarmError

    world = World()
    session = world.session()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, of forks in a process with threads
        child = os.fork()
    if child == 0:
        try:
            submit(session, 1)
        except SwarmError as error:
            os._exit(0 if "after a fork" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert submit(session, 1).task
    session.close()


STEPS = st.lists(st.sampled_from(["submit", "answer", "late", "break", "cancel"]), max_size=40)


@given(STEPS, st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_every_task_is_settled_exactly_once_whatever_breaks(steps, hubs):
    world = World()
    session = world.session(hubs=hubs)
    futures, settled = [], []
    for step in steps:
        if step == "submit":
            future = submit(session, len(futures))
            future.add_done_callback(lambda done: settled.append(done.task))
            futures.append(future)
        elif step == "break":
            world.last.break_down()
        elif step == "cancel" and futures:
            futures[len(steps) % len(futures)].cancel()
        elif step in ("answer", "late"):
            channel = world.last if step == "answer" else world.channels[0]
            if channel.submitted:
                channel.answer(channel.submitted[0][0])
    last = submit(session, "last")
    eventually(lambda: not session._recovering and last.task in dict(world.last.submitted))
    for future in [*futures, last]:
        if not future.done():
            world.last.answer(future.task)
    assert not wait(futures, timeout=5).not_done
    assert sorted(settled) == sorted(future.task for future in futures)
    for index, future in enumerate(futures):
        assert future.cancelled() or future.result() == (index,)
    assert session.pending == 0
    session.close()


def test_leaving_the_block_waits_for_what_is_pending():
    world = World()
    session = world.session()
    with Swarm(session) as swarm:
        future = swarm.submit("k", 1)
        threading.Timer(0.05, lambda: world.last.answer(future.task)).start()
    assert future.result(0) == (1,)
    assert world.last.closed


class Moved(World):
    """Hubs answer only where the swarm is now."""

    def __init__(self, *hosts: str) -> None:
        super().__init__()
        self.hosts = hosts

    def open(self, sink, connection, endpoint, number, timeout):
        if not any(f"//{host}:" in endpoint for host in self.hosts):
            raise Unreachable(f"nothing answers at {endpoint}")
        return super().open(sink, connection, endpoint, number, timeout)


def test_when_all_hubs_were_replaced_the_swarm_is_looked_up_again_and_what_is_pending_moves_there():
    world = Moved("h0")
    session = world.session(find_again=lambda: at("h7", "h8"))
    future = submit(session, 1)
    world.hosts = ("h8",)
    world.last.break_down()
    eventually(lambda: world.last.endpoint == "tcp://h8:1")
    world.last.answer(future.task)
    assert future.result(1) == (1,)
    session.close()


def test_another_swarm_of_the_same_name_is_not_taken_for_the_one_that_is_gone():
    world = Moved("h0")
    session = world.session(uid="old", retry_window=1.5, find_again=lambda: at("h7", uid="new"))
    future = submit(session, 1)
    world.hosts = ("h7",)
    world.last.break_down()
    with pytest.raises(ConnectionLost):
        future.result(20)
    assert len(world.channels) == 1
    session.close()


def test_a_lookup_that_fails_or_hangs_does_not_keep_the_known_hubs_from_being_tried():
    world, hung, calls = Moved("h0"), threading.Event(), []

    def find_again() -> Connection:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("no kubeconfig any more")
        hung.wait(20)
        return at("h0")

    session = world.session(retry_window=20.0, find_again=find_again)
    future = submit(session, 1)
    world.hosts = ()
    world.last.break_down()
    eventually(lambda: len(calls) == 2)
    world.hosts = ("h1",)
    eventually(lambda: world.last.endpoint == "tcp://h1:1")
    world.last.answer(future.task)
    assert future.result(1) == (1,)
    hung.set()
    session.close()
