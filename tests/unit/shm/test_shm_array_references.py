"""References to shared arrays: descriptors, what is stale, torn or wrong, and arrays of any dtype and shape."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from support.arraykit import MIB, answer, claim, filled, lies_in
from support.shm import make_board, make_port, small
from swarm_agents import codec
from swarm_agents.errors import PayloadError, StaleReference
from swarm_agents.shm import frame
from swarm_agents.shm.board import Board, Descriptor


def test_a_descriptor_is_opened_by_another_member_who_then_keeps_the_array(node):
    array = filled(node)
    described = node.port.arena.describe(array[::3, 5:])
    descriptor = msgspec.msgpack.decode(msgspec.msgpack.encode(described), type=Descriptor)
    assert descriptor == described
    opened = node.worker.arena.open(descriptor)
    assert lies_in(opened, array)
    expected = array[::3, 5:].copy()
    del array
    np.testing.assert_array_equal(opened, expected)
    with pytest.raises(ValueError, match="read-only"):
        opened[0, 0] = 1


def test_a_stale_descriptor_is_an_error_and_never_somebody_elses_data(node):
    arena = node.port.arena
    array = filled(node, (1000,), np.int64)
    descriptor = arena.describe(array)
    del array
    with pytest.raises(StaleReference, match="not there any more"):
        arena.open(descriptor)
    seen = 0
    for _ in range(3 * 8 * MIB // 8192):  # until the block has been used again, many times
        other = filled(node, (1000,), np.int64)
        seen += arena.describe(other).name & 0xFFFFFF == descriptor.name & 0xFFFFFF
        with pytest.raises(StaleReference):
            node.worker.arena.open(descriptor)
        del other
    assert seen > 1


def test_a_stale_reference_in_a_task_is_refused_where_it_is_used(node):
    array = filled(node)
    reference = frame.Reference(node.board.arrays.share(array))
    header, _ = codec.encode(((array,), {}), lambda _: reference)
    del array
    with pytest.raises(StaleReference):
        node.port.submit_raw("core.echo", header, [reference])
    assert node.board.stats().depth["normal"] == {"ready": 0, "claimed": 0, "done": 0, "writing": 0}


def test_a_result_whose_array_is_gone_is_refused_and_the_claim_stands(node):
    node.port.submit("core.make")
    task = claim(node)
    made = node.worker.array((100,), np.int64)
    view = np.frombuffer(node.board.mapping.view, np.int64, 100, made.ctypes.data - node.board.mapping.base)
    header, buffers = codec.encode(made, node.board.arrays.sharing)
    del made
    with pytest.raises(StaleReference, match="did not keep"):
        node.worker.commit_raw(task, header, buffers)
    assert node.worker.commit(task, view.tolist())  # what lies there is nobody's: it is copied like all other memory
    assert len(answer(node)) == 100


def test_descriptors_that_reach_too_far_or_make_no_sense_are_refused(node, tmp_path):
    arena = node.port.arena
    array = filled(node, (1024, 128), np.float64)  # 1 MiB, in whole pages
    good = arena.describe(array)
    room = 8 * MIB
    for wrong in (
        {"offset": 8},
        {"offset": -8},
        {"shape": (1025, 128)},
        {"shape": (1 << 40, 128)},
        {"shape": (-1, 128)},
        {"shape": (1 << 62, 1 << 62)},
        {"shape": (0, 128)},
        {"shape": (1,) * 65},
        {"strides": (1024, 16)},
        {"strides": (-1024, 8)},
        {"strides": (1024,)},
        {"strides": (1 << 62, 1 << 62)},
        {"dtype": "<c32"},
        {"dtype": "|O"},
        {"dtype": [["a", "|O"]]},
        {"offset": room},
        {"offset": (1 << 62)},
        {"name": -1},
        {"name": 1 << 60},
    ):
        with pytest.raises(PayloadError):
            arena.open(msgspec.structs.replace(good, **wrong))
    for stale in ({"name": good.name + (1 << 24)}, {"name": good.name + 1}, {"name": 3}, {"board": good.board + 1}):
        with pytest.raises(StaleReference):
            arena.open(msgspec.structs.replace(good, **stale))
    with pytest.raises(PayloadError, match="put"):
        arena.describe(np.zeros(4))


def test_a_descriptor_of_another_board_is_refused(node, tmp_path):
    other = make_board(tmp_path / "other", small(arena_bytes=8 * MIB))
    member, port = make_port(other)
    array = port.put(np.ones(1000))
    with pytest.raises(StaleReference, match="another board"):
        node.port.arena.open(port.arena.describe(array))
    node.port.submit("core.echo", (array,))  # to this board it is memory like all other: it is copied
    task = claim(node)
    assert not lies_in(task.args[0], array)
    node.worker.commit(task, float(task.args[0].sum()))
    assert answer(node) == 1000
    del array
    other.leave(member)


def test_a_board_that_was_made_anew_does_not_know_the_old_ones_descriptors(tmp_path):
    def use() -> tuple[Board, Any, np.ndarray, Descriptor]:
        board = make_board(tmp_path)
        member, port = make_port(board)
        array = port.put(np.arange(1000))
        return board, member, array, port.arena.describe(array)

    board, member, array, descriptor = use()
    board.leave(member)
    assert not board.directory.exists()
    np.testing.assert_array_equal(array, np.arange(1000))  # valid until it is let go, although the board is gone
    again, other, fresh, newer = use()
    assert newer.name == descriptor.name
    with pytest.raises(StaleReference, match="another board"):
        again.arena(other).open(descriptor)
    del array, fresh
    again.leave(other)


@given(st.binary(min_size=0, max_size=120), st.integers(0, 2**63))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_the_place_of_a_reference_are_refused_or_an_array_in_bounds(node, raw, name):
    array = node.port.put(np.arange(512, dtype=np.uint8))
    arrays = node.board.arrays
    own = node.port.arena.describe(array)
    for data in (raw, struct.pack("<q", own.name) + raw, struct.pack("<5q", own.name, 0, 512, 1, 0)[: len(raw)]):
        try:
            shared = arrays.locate(data[: len(data) // 8 * 8])
            found = shared.array(np.dtype(np.uint8), (512,))
        except (PayloadError, ValueError):
            continue
        assert found.shape == (512,)
        assert lies_in(found, array) or found.size == 0


DTYPES = st.one_of(
    hnp.scalar_dtypes(),
    hnp.byte_string_dtypes(min_len=1, max_len=9),
    hnp.unicode_string_dtypes(min_len=1, max_len=5),
    hnp.array_dtypes(max_size=3, allow_subarrays=True),
)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arrays_of_any_dtype_shape_and_strides_arrive_as_they_are(node, data):
    dtype = data.draw(DTYPES)
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    copy, seed = data.draw(st.booleans()), data.draw(st.integers(0, 9))
    array = node.port.array(shape, dtype)
    raw = np.random.default_rng(seed).integers(0, 100, array.nbytes, np.uint8)
    if dtype.kind == "U" or any(np.dtype(f[0]).base.kind == "U" for f in (dtype.fields or {}).values()):
        raw[:] = 0
    array.view()[...] = np.frombuffer(raw.tobytes(), dtype).reshape(shape) if array.size else array
    view = array
    if array.ndim:
        view = array[data.draw(hnp.basic_indices(shape, allow_ellipsis=True))]
        if isinstance(view, np.ndarray) and view.ndim > 1 and data.draw(st.booleans()):
            view = view.T
    if not isinstance(view, np.ndarray):
        view = array
    node.port.submit("core.echo", (view,))
    task = claim(node)
    (got,) = task.args
    assert (got.dtype, got.shape, got.tobytes()) == (view.dtype, view.shape, view.tobytes())
    if view.size and view.dtype.itemsize:
        assert lies_in(got, array)
        assert got.strides == view.strides or view.flags.c_contiguous
    node.worker.commit(task, got)
    back = answer(node, copy=copy)
    assert (back.dtype, back.shape, back.tobytes()) == (view.dtype, view.shape, view.tobytes())


def test_arrays_of_objects_are_refused(node):
    for refused in (object, [("a", object)]):
        with pytest.raises(PayloadError, match="Python objects"):
            node.port.array((3,), refused)
    with pytest.raises(PayloadError, match="Python objects"):
        node.port.put(np.array([None, 1]))
    with pytest.raises(ValueError, match="negative"):
        node.port.array((-1, 3))
    filled(node)
    with pytest.raises(PayloadError, match="Python objects"):
        node.port.submit("core.echo", (np.array([None, 1]),))


def test_empty_arrays_need_no_room(node):
    array = node.port.array((0, 5), np.int8)
    assert array.shape == (0, 5)
    node.port.submit("core.echo", (array,))
    task = claim(node)
    assert task.args[0].shape == (0, 5)
    node.worker.commit(task, task.args[0])
    assert answer(node).shape == (0, 5)
