"""The channel between a supervisor and its agent."""

import asyncio
import socket
import threading
from collections.abc import Callable

import pytest

from swarm_agents.runtime import control


def agent(sock: socket.socket, answer: Callable[[control.Request], control.Reply | None]) -> threading.Thread:
    end = control.AgentEnd(sock)

    def serve() -> None:
        end.send(control.Joined(3, 7))
        try:
            while (request := end.receive(None)) is not None:
                reply = answer(request)
                if reply is None:
                    return
                end.send(reply)
        except EOFError:
            pass
        finally:
            sock.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


async def test_orders_are_answered_by_number_and_announcements_heard(pair) -> None:
    heard: list[object] = []
    thread = agent(pair[1], lambda r: control.Reply(r.number, data=r.order.settings))
    end = control.SupervisorEnd(pair[0], heard.append)
    big = b"x" * 3_000_000  # larger than any socket buffer
    answers = await asyncio.gather(*(end.ask(control.Apply(bytes([n]) + big), 20) for n in range(4)))
    assert [answer[0] for answer in answers] == [0, 1, 2, 3]
    assert heard == [control.Joined(3, 7)]
    await end.close()
    thread.join(10)
    assert not thread.is_alive(), "the end of the stream is heard"


async def test_a_refusal_carries_its_reason(pair) -> None:
    thread = agent(pair[1], lambda r: control.Reply(r.number, error="no such module"))
    end = control.SupervisorEnd(pair[0], lambda _: None)
    with pytest.raises(control.RefusedError, match="no such module"):
        await end.ask(control.Drain(), 10)
    await end.close()
    thread.join(10)


async def test_who_waits_for_an_agent_that_dies_is_told(pair) -> None:
    thread = agent(pair[1], lambda _: None)
    end = control.SupervisorEnd(pair[0], lambda _: None)
    with pytest.raises(ConnectionError):
        await end.ask(control.Drain(), 10)
    with pytest.raises(ConnectionError):
        await end.ask(control.Drain(), 10)
    await end.close()
    thread.join(10)


async def test_an_agent_that_does_not_answer_is_not_waited_for_longer_than_asked(pair) -> None:
    end = control.SupervisorEnd(pair[0], lambda _: None)
    with pytest.raises(TimeoutError):
        await end.ask(control.Drain(), 0.01)
    await end.close()


def test_an_agent_can_wait_for_an_order_for_a_while(pair) -> None:
    assert control.AgentEnd(pair[1]).receive(0.01) is None


def test_a_message_that_nobody_can_receive_is_no_error(pair) -> None:
    pair[0].close()
    end = control.AgentEnd(pair[1])
    end.send(control.Ready())
    with pytest.raises(EOFError):
        end.receive(None)
