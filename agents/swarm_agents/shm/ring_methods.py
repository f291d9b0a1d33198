"""The methods of a ring's ends that enter no Python while all goes well; see `cpython` for how they come to be methods.

Each tries once (a receiver that may wait spins first) and leaves whatever else there is to the method in Python that it
stands before, with the same arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm_agents.shm.atomics import peek
from swarm_agents.shm.cpython import (
    B_DATA,
    B_LENGTH,
    READABLE,
    WRITABLE,
    call_python,
    compile_method,
    get_buffer,
    hand_of,
    new_bytes,
    new_int,
    new_reference,
    release_buffer,
    stack_words,
)
from swarm_agents.shm.jit import jit
from swarm_agents.shm.ring_hot import put_object, receive, receive_into, receive_now
from swarm_agents.shm.ring_layout import (
    A_NONE,
    A_OUT,
    A_OUT_BYTES,
    A_SLOW,
    A_SLOW_INTO,
    A_SLOW_TRY,
    A_TRUE,
    OTHER,
)
from swarm_agents.shm.ring_words import put

if TYPE_CHECKING:
    from swarm_agents.shm.ring_ends import Receiver, Sender

__all__ = ["compile_methods"]


@jit
def _put_any(hand: int, thing: int, view: int) -> int:
    """Sends a bytes object, a bytearray, or what has contiguous memory without references: 1, or why not."""
    done = put_object(hand, thing)
    if done == OTHER and get_buffer(thing, view, READABLE):
        done = put(hand, peek(view + B_DATA), peek(view + B_LENGTH))
        release_buffer(view)
    return done


def _send(me: int, arguments: int, count: int, names: int) -> int:
    hand, words = hand_of(me), stack_words()
    if hand != 0 and count == 1 and names == 0 and _put_any(hand, peek(arguments), words) == 1:
        return new_reference(peek(hand + A_NONE))
    return call_python(peek(hand + A_SLOW) if hand != 0 else 0, words, me, arguments, count, names)


def _try_send(me: int, arguments: int, count: int, names: int) -> int:
    hand, words = hand_of(me), stack_words()
    if hand != 0 and count == 1 and names == 0 and _put_any(hand, peek(arguments), words) == 1:
        return new_reference(peek(hand + A_TRUE))
    return call_python(peek(hand + A_SLOW_TRY) if hand != 0 else 0, words, me, arguments, count, names)


def _receive(me: int, arguments: int, count: int, names: int) -> int:
    hand, words = hand_of(me), stack_words()
    if hand != 0 and count == 0 and names == 0:
        got = receive(hand, peek(hand + A_OUT_BYTES))
        if got >= 0:
            return new_bytes(peek(hand + A_OUT), got)
    return call_python(peek(hand + A_SLOW) if hand != 0 else 0, words, me, arguments, count, names)


def _try_receive(me: int, arguments: int, count: int, names: int) -> int:
    hand, words = hand_of(me), stack_words()
    if hand != 0 and count == 0 and names == 0:
        got = receive_now(hand, peek(hand + A_OUT_BYTES))
        if got >= 0:
            return new_bytes(peek(hand + A_OUT), got)
    return call_python(peek(hand + A_SLOW_TRY) if hand != 0 else 0, words, me, arguments, count, names)


def _receive_into(me: int, arguments: int, count: int, names: int) -> int:
    hand, words = hand_of(me), stack_words()
    if hand != 0 and count == 1 and names == 0 and get_buffer(peek(arguments), words, WRITABLE):
        got = receive_into(hand, peek(words + B_DATA), peek(words + B_LENGTH))
        release_buffer(words)
        if got >= 0:
            return new_int(got)
    return call_python(peek(hand + A_SLOW_INTO) if hand != 0 else 0, words, me, arguments, count, names)


def compile_methods(sender: type[Sender], receiver: type[Receiver]) -> None:
    """Puts these before the methods of the two classes."""
    for owner, name, function in (
        (sender, "send", _send),
        (sender, "try_send", _try_send),
        (receiver, "receive", _receive),
        (receiver, "try_receive", _try_receive),
        (receiver, "receive_into", _receive_into),
    ):
        compile_method(owner, getattr(owner, name), function)
