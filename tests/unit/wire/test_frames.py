"""Messages survive the way through frames, and no bytes whatsoever get past `unpack` but messages and its errors."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.codec import decode, encode
from swarm_agents.errors import PayloadError, PayloadTooLarge, SwarmError, VersionMismatch
from swarm_agents.wire import schema
from swarm_agents.wire.frames import GREETING, FrameError, flatten, pack, unpack

LIMIT = 1 << 24
U64 = st.integers(0, 2**64 - 1)
TASKS = st.tuples(U64, U64)
NAMES = st.text(max_size=60)
SPANS = st.floats(0, 1e9)
LOADS = st.builds(
    schema.Load,
    workers=st.integers(0, 1 << 20),
    idle=st.integers(0, 1 << 20),
    depth=st.tuples(*[st.integers(0, 1 << 30)] * 4),
    room=st.integers(0, 1 << 30),
    run_mean=SPANS,
)
MESSAGES = st.one_of(
    st.builds(schema.Hello, st.sampled_from(["client", "hub"]), NAMES, U64, NAMES, NAMES),
    st.builds(schema.Welcome, NAMES, NAMES, NAMES, U64, st.integers(0, 1 << 20), st.integers(0, 1 << 40), SPANS),
    st.builds(
        schema.Submit,
        TASKS,
        st.text(min_size=1, max_size=60),
        st.integers(0, 3),
        st.none() | st.floats(-1e9, 1e9),
        st.integers(0, 255),
    ),
    st.builds(schema.Accepted, st.lists(TASKS, max_size=5).map(tuple)),
    st.builds(
        schema.Answer,
        TASKS,
        st.none() | st.dictionaries(NAMES, NAMES, max_size=4),
        NAMES,
        st.integers(0, 100),
        SPANS,
        SPANS,
        st.integers(0, 255),
    ),
    st.builds(schema.Ack, st.lists(TASKS, max_size=5).map(tuple)),
    st.builds(schema.Cancel, TASKS),
    st.builds(schema.Heartbeat, SPANS, st.booleans(), st.none() | LOADS),
    st.builds(schema.Credit, st.integers(0, 1 << 20)),
    st.builds(schema.Refusal, NAMES, NAMES, st.none() | TASKS, SPANS),
    st.builds(schema.Query, U64),
    st.builds(schema.Report, U64),
    st.builds(schema.Bye),
    *(
        st.builds(message, NAMES, st.integers(0, 1 << 48), st.integers(0, 1 << 48))
        for message in (schema.Mirrored, schema.Confirmed)
    ),
    st.builds(schema.Withdrawn, NAMES, st.integers(0, 1 << 48)),
    st.builds(schema.Wanted, NAMES),
    st.builds(schema.Recall, st.lists(st.tuples(U64, U64), max_size=5).map(tuple)),
)
PAYLOADS = st.lists(st.binary(min_size=1, max_size=100), max_size=4)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(MESSAGES, PAYLOADS)
def test_every_message_and_its_payload_come_back_as_they_were(message, payload):
    got, rest = unpack(pack(message, payload), limit=LIMIT)
    assert got == message
    assert type(got) is type(message)
    assert [bytes(part) for part in rest] == payload


@given(VALUES, st.lists(st.integers(0, 50), max_size=3))
def test_a_value_travels_through_frames_without_a_change(value, lengths):
    arrays = [np.arange(n, dtype=np.float64) for n in lengths]
    _, payload = unpack(pack(schema.Submit((1, 2), "k", 0), flatten(*encode([value, *arrays]))), limit=LIMIT)
    got, *back = decode(payload[0], payload[1:])
    assert got == value
    for array, other in zip(arrays, back, strict=True):
        np.testing.assert_array_equal(array, other)


def test_arrays_are_passed_on_and_not_copied():
    array = np.arange(1000.0)
    frames = pack(schema.Submit((1, 2), "k", 0), flatten(*encode(array)))
    assert len(frames) == 2
    assert np.shares_memory(frames[1], array)
    _, payload = unpack(frames, limit=LIMIT)
    assert np.shares_memory(payload[1], array)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["2026-01-01", "NaT"], "M8[D]"),
        np.array([("a", 1.5)], [("name", "U3"), ("x", "<f8")]),
        np.array(3.5),
        np.empty((0, 3), np.float16),
        np.array([1 + 2j], np.complex64),
    ],
)
def test_arrays_of_every_kind_travel_as_their_bytes(array):
    frames = [bytes(frame) for frame in pack(schema.Submit((1, 2), "k", 0), flatten(*encode(array)))]
    back = decode(*(lambda payload: (payload[0], payload[1:]))(unpack(frames, limit=LIMIT)[1]))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused_by_its_number(version):
    with pytest.raises(VersionMismatch, match=f"version {version} of the wire schema"):
        unpack([schema.MAGIC + bytes([version]), b"whatever that version says"], limit=LIMIT)


def test_a_field_that_a_later_release_adds_is_skipped():
    added = msgspec.msgpack.encode([*msgspec.to_builtins(schema.Query(7)), "new", 1])
    assert unpack([framed(added)], limit=LIMIT)[0] == schema.Query(7)


def framed(header: bytes) -> bytes:
    return GREETING + len(header).to_bytes(4, "little") + header


def header_of(*fields) -> bytes:
    return framed(msgspec.msgpack.encode(fields))


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [GREETING],
        [GREETING + b"\x05\x00\x00\x00"],
        [GREETING + b"\xff\xff\xff\xff" + b"x" * 100],
        [b"GET / HTTP/1.1\r\n"],
        [framed(b"")],
        [framed(b"\xc1")],
        [header_of("submit", [-1, 2], "k", 0)],
        [header_of("submit", [1, 2], "k", 4)],
        [header_of("submit", [1, 2], "", 0)],
        [header_of("shutdown")],
        [header_of("ack", [[1, 2]] * 4097)],
        [framed(b"\x91" * 100_000)],
        [framed(b"x" * (schema.MAX_HEADER_BYTES + 1))],
        [header_of("bye"), *[b""] * schema.MAX_FRAMES],
    ],
)
def test_what_is_no_message_is_malformed(frames):
    with pytest.raises(FrameError):
        unpack(frames, limit=LIMIT)


def test_a_message_is_too_large_however_its_bytes_are_spread():
    with pytest.raises(PayloadTooLarge, match="limit is 1000"):
        unpack(pack(schema.Submit((1, 2), "k", 0), [bytes(100)] * 10), limit=1000)


def seeds() -> list[bytes]:
    return [
        pack(message, [b"payload"])[0]
        for message in (
            schema.Hello("client", "uid", 1, "me"),
            schema.Submit((1, 2), "core.echo", 1, 3.0, 1),
            schema.Answer((1, 2), {"code": "KernelError", "message": "x"}, "a", 1, 0.1, 0.2),
            schema.Ack(((1, 2), (3, 4))),
            schema.Heartbeat(1.0, False, schema.Load(1, 2, (1, 2, 3, 4), 5, 0.1)),
            schema.Refusal("SwarmFull", "later", (1, 2), 0.5),
        )
    ]


def mutate(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        match rng.randrange(4):
            case 0 if out:
                out[rng.randrange(len(out))] = rng.randrange(256)
            case 1 if out:
                del out[rng.randrange(len(out)) :]
            case 2:
                out.insert(rng.randint(0, len(out)), rng.randrange(256))
            case _:
                at = rng.randint(0, len(out))
                out[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(out)


def test_a_hundred_thousand_mutated_frames_are_messages_or_refused():
    rng, originals = random.Random(20260101), seeds()
    refused = 0
    for _ in range(100_000):
        original = rng.choice(originals)
        # The header alone in most cases: what is wrong with the first bytes is soon said.
        kept = 0 if rng.random() < 0.1 else 8
        frames = [original[:kept] + mutate(original[kept:], rng)]
        try:
            message, _ = unpack(frames, limit=LIMIT)
        except (FrameError, VersionMismatch):
            refused += 1
        else:
            assert isinstance(message, schema.Message)
    assert 20_000 < refused < 100_000


def test_ten_thousand_mutated_payloads_are_values_or_payload_errors():
    rng = random.Random(7)
    header, arrays = encode({"a": np.arange(6.0).reshape(2, 3), "b": [1, "x", 2j, np.float32(3)]})
    refused = 0
    for _ in range(10_000):
        buffers = [bytes(array.tobytes()) for array in arrays]
        if rng.random() < 0.3:
            buffers = buffers[:-1] if rng.random() < 0.3 else [mutate(buffers[0], rng)]
        try:
            decode(mutate(header, rng), buffers)
        except PayloadError:
            refused += 1
        except SwarmError as other:
            raise AssertionError(f"{other!r} is no PayloadError") from other
    assert refused > 3000
