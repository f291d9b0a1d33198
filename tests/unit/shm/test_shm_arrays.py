"""Shared arrays through the public API: what is handed over, to whom it belongs, when it is freed, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from support.arraykit import MIB, answer, claim, filled, lies_in
from support.shm import eventually, make_port, make_worker
from swarm_agents import codec
from swarm_agents.config import Priority
from swarm_agents.errors import Fenced, PayloadError, PayloadTooLarge, SwarmFull
from swarm_agents.shm import frame
from swarm_agents.shm.layout import MOST_REFS
from swarm_agents.shm.references import REFERENCE_BYTES

# -- handing over


def test_an_array_is_lent_to_write_to_and_handed_over_without_copying(node):
    array = filled(node)
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert array.ctypes.data % 64 == 0
    used = node.board.stats().arena_used
    for _ in range(3):  # the first goes the long way, the others the short one
        node.port.submit("core.echo", (array,))
        assert node.board.stats().arena_used == used
        task = claim(node)
        (got,) = task.args
        assert lies_in(got, array)
        assert not got.flags.writeable
        node.worker.commit(task, got)
        back = answer(node, copy=False)
        assert lies_in(back, array)
        assert not back.flags.writeable
        np.testing.assert_array_equal(back, array)
        del got, task, back


def test_what_was_passed_on_is_read_only_for_its_writer(node):
    array = filled(node)
    part = array[10:20]
    node.port.submit("core.echo", (part, 1))
    for each in (array, part):
        with pytest.raises(ValueError, match="read-only"):
            each[0] = 1
    node.worker.commit(claim(node), None)
    answer(node)


def test_put_copies_once_and_the_copy_goes_to_any_number_of_tasks(node):
    own = np.arange(100_000)
    array = node.port.put(own)
    own[:] = 0
    assert not array.flags.writeable
    tickets = [node.port.submit("core.sum", (array, n), priority=Priority.BULK) for n in range(30)]
    stats = node.board.stats()
    assert (stats.arrays, stats.leases) == (1, 1 + len(tickets))
    assert stats.arena_used < 2 * array.nbytes
    for _ in tickets:
        task = claim(node)
        node.worker.commit(task, int(task.args[0].sum()) + task.args[1])
    del task
    assert eventually(lambda: len(node.port.poll_raw()) or node.port.pending == 0)
    while node.port.pending:
        node.port.poll()
    assert node.board.stats().leases == 1


def test_put_of_an_array_that_is_shared_already_copies_nothing(node):
    array = filled(node)
    again = node.port.put(array.T)
    assert lies_in(again, array)
    assert not array.flags.writeable
    del array
    assert node.board.stats().arrays == 1


def test_views_travel_as_views_and_copies_as_copies(node):
    array = filled(node, (64, 32, 4), np.int32)
    views = [
        array,
        array[::2, ::-3],
        array.T,
        array[5],
        array[..., 1],
        array[3, 4, 1:2],
        array.reshape(-1)[7:],
        array[:0],
    ]
    own = np.arange(10.0)
    node.port.submit("core.many", (views,), {"own": own, "number": 3})
    task = claim(node)
    got = task.args[0]
    for one, other in zip(got, views, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
        assert other.size == 0 or (lies_in(one, array) and one.strides == other.strides)
    np.testing.assert_array_equal(task.kwargs["own"], own)
    node.worker.commit(task, {"views": got, "own": own})
    shown = answer(node, copy=False)
    assert all(lies_in(one, array) for one in shown["views"] if one.size)
    np.testing.assert_array_equal(shown["own"], own)
    del got, task, one


def test_a_result_is_written_in_place_and_committed_as_it_lies(node):
    node.port.submit("core.make")
    task = claim(node)
    made = node.worker.array((1000, 100), np.float32)
    made[:] = 5
    address = made.ctypes.data
    node.worker.commit(task, made)
    del made
    kept = answer(node, copy=False)
    assert kept.ctypes.data == address
    assert float(kept.sum()) == 500_000
    part = kept[1:]
    del kept
    assert node.board.stats().arrays == 1  # the view of a view still keeps it
    del part
    assert node.board.stats().arrays == 0


def test_a_result_is_copied_by_default_and_its_room_is_free_at_once(node):
    node.port.submit("core.make")
    task = claim(node)
    made = node.worker.array((1000, 100), np.int16)
    made[:] = np.arange(100)
    node.worker.commit(task, [made, made[:, ::2]])
    del made
    whole, part = answer(node)
    assert node.board.stats().arrays == 0
    np.testing.assert_array_equal(part, whole[:, ::2])
    np.testing.assert_array_equal(whole[3], np.arange(100))


def test_an_array_lasts_as_long_as_a_task_refers_to_it(node):
    node.port.submit("core.sum", (node.port.put(np.full(50_000, 2.0)),))
    assert node.board.stats().arrays == 1
    task = claim(node)
    assert float(task.args[0].sum()) == 100_000
    assert node.worker.hand_back(task)
    task = claim(node)
    assert float(task.args[0].sum()) == 100_000
    node.worker.commit(task, None)
    assert answer(node) is None
    assert node.board.stats().arrays == 0


def test_a_cancelled_task_lets_its_arrays_go(node):
    ticket = node.port.submit("core.sum", (node.port.put(np.ones(50_000)), 1))
    assert node.port.cancel(ticket)
    assert node.port.poll()[0].error is not None
    assert node.board.stats().arrays == 0


def test_a_kernel_that_keeps_its_argument_says_so(node):
    array = filled(node)
    node.port.submit("core.keep", (array,))
    task = claim(node)
    kept = node.worker.arena.keep(task.args[0])
    assert lies_in(kept, array)
    node.worker.commit(task, None)
    answer(node)
    expected = array.copy()
    del array, task
    np.testing.assert_array_equal(kept, expected)
    own = np.arange(5)
    assert not lies_in(node.worker.arena.keep(own), own)


def test_a_sub_task_passes_its_argument_on(node):
    array = filled(node)
    node.port.submit("core.outer", (array,))
    outer = claim(node)
    port = node.board.port(node.agent)
    port.submit("core.inner", (outer.args[0][::2],))
    inner = claim(node)
    assert lies_in(inner.args[0], array)
    node.worker.commit(inner, inner.args[0][1])
    assert port.wait(5)
    (found,) = port.poll()
    node.worker.commit(outer, found.value)
    np.testing.assert_array_equal(answer(node), array[2])


def test_a_retried_task_finds_its_arrays_after_its_agent_died(node):
    array = filled(node)
    node.port.submit("core.sum", (array,))
    dying, worker = make_worker(node.board, "swarm-compute-1-a")
    assert worker.claim(5) is not None
    node.board.declare_dead(dying.index, dying.epoch)
    task = claim(node)
    assert task.attempt == 2
    assert lies_in(task.args[0], array)
    node.worker.commit(task, None)
    answer(node)
    node.board.leave(dying)


# -- what a hub sees


def test_the_bytes_of_shared_arrays_can_be_sent_on(node):
    array = filled(node)
    node.port.submit("core.echo", (array, array[::2, ::-1]))
    task = claim(node)
    first, second = task.buffers
    assert bytes(first) == array.tobytes()
    assert bytes(second) == array[::2, ::-1].tobytes()
    args, _ = codec.decode(bytes(task.header), [bytes(first), bytes(second)])  # as another node decodes it
    np.testing.assert_array_equal(args[1], array[::2, ::-1])
    node.worker.commit_raw(task, *codec.encode(args))
    np.testing.assert_array_equal(answer(node)[0], array)


def test_a_raw_answer_holds_the_bytes_of_a_shared_result(node):
    array = filled(node)
    for copy in (True, False, False):
        node.port.submit("core.echo", (array,))
        task = claim(node)
        node.worker.commit(task, task.args[0])
        assert node.port.wait(5)
        (raw,) = node.port.poll_raw(copy=copy)
        np.testing.assert_array_equal(codec.decode(raw.header, raw.buffers), array)
    del raw, task


# -- room


def test_a_full_arena_pushes_back_and_leaves_room_for_tasks_and_results(node):
    held = []
    with pytest.raises(SwarmFull, match="no room for a shared array"):  # noqa: PT012  # which one, is the arena's affair
        while True:
            held.append(node.port.array((MIB // 4,), np.uint8, timeout=0.001))
    assert 15 <= len(held) <= 21  # of 32: 160/256 of the arena
    node.port.submit("core.sum", (np.ones(MIB // 64),), priority=Priority.BULK)
    task = claim(node)
    results = [node.worker.array((MIB // 4,), np.uint8) for _ in range(4)]
    node.worker.commit(task, results)
    assert len(answer(node)) == 4
    del held, results, task
    assert node.board.stats().arena_used == 0


def test_an_array_larger_than_the_arena_is_an_error_that_says_so(node):
    with pytest.raises(PayloadTooLarge, match="larger arena"):
        node.port.array((9 * MIB,), np.uint8)


def test_who_waits_for_room_gets_it(node):
    import threading

    held = [node.port.array((MIB,), np.uint8) for _ in range(5)]
    timer = threading.Timer(0.05, held.clear)
    timer.start()
    assert node.port.array((4 * MIB,), np.uint8, timeout=20).nbytes == 4 * MIB
    timer.join()


def test_when_all_leases_are_taken_tasks_are_pushed_back_and_results_copied(node):
    array = filled(node, (100,), np.int64)
    node.port.submit("core.echo")
    task = claim(node)
    made = node.worker.array((100,), np.int64)
    made[:] = 9
    most = node.board.stats().most_leases
    taken = []
    others = [node.board.arena(node.member) for _ in range(most - node.board.stats().leases)]
    for arena in others:
        taken.append(arena.keep(array))
    assert node.board.stats().leases == most
    with pytest.raises(SwarmFull):
        node.port.submit("core.echo", (array,))
    with pytest.raises(SwarmFull, match="references"):
        node.worker.arena.keep(array)
    assert node.worker.commit(task, made)
    np.testing.assert_array_equal(answer(node), np.full(100, 9))
    taken.clear()


def test_a_task_may_name_so_many_arrays_and_no_more(node):
    arrays = [node.port.put(np.full(4, n)) for n in range(MOST_REFS + 1)]
    with pytest.raises(PayloadError, match="there may be"):
        node.port.submit("core.sum", (arrays,))
    node.port.submit("core.sum", (arrays[1:] * 2,))
    task = claim(node)
    assert sum(int(a[0]) for a in task.args[0]) == MOST_REFS * (MOST_REFS + 1)
    node.worker.commit(task, task.args[0])
    shown = answer(node, copy=False)
    del arrays, task
    assert [int(a[0]) for a in shown[:MOST_REFS]] == list(range(1, MOST_REFS + 1))


# -- those who leave, fork, or are taken for dead


def test_who_leaves_takes_the_last_reference_along_but_not_what_others_hold(node):
    member, port = make_port(node.board, "client-1")
    lone, common = port.put(np.ones(10_000)), port.put(np.full(10_000, 3.0))
    kept = node.port.arena.open(port.arena.describe(common))
    del lone, common
    node.board.leave(member)
    assert node.board.stats().arrays == 1
    assert float(kept.sum()) == 30_000


def test_arrays_stay_valid_for_who_has_left_until_they_are_let_go(node):
    member, port = make_port(node.board, "client-1")
    array = port.put(np.full(10_000, 3.0))
    node.board.leave(member)
    node.board.sweep()
    others = [node.port.put(np.zeros(10_000)) for _ in range(50)]
    assert float(array.sum()) == 30_000
    del array, others
    assert node.board.stats().arrays == 0


def test_a_member_that_was_taken_for_dead_keeps_what_it_shows_and_makes_nothing_more(node):
    member, port = make_port(node.board, "client-1")
    array = port.put(np.full(10_000, 3.0))
    node.board.declare_dead(member.index, member.epoch)
    node.board.sweep()
    others = [node.port.put(np.zeros(10_000)) for _ in range(50)]
    assert float(array.sum()) == 30_000
    with pytest.raises(Fenced):
        port.put(np.ones(10))
    with pytest.raises(Fenced):
        port.submit("core.echo", (array,))
    del array, others
    node.board.leave(member)


def test_a_form_is_the_frame_that_codec_and_frame_make(node):
    from swarm_agents.shm.handover import form_of

    array = filled(node, (7, 9), np.float32)
    header, buffers = codec.encode(((array,), {}), node.board.arrays.sharing)
    whole = frame.lay_out(b"core.echo", header, buffers).as_bytes()
    form = form_of(b"core.echo", ((np.zeros((7, 9), np.float32),), {}))
    assert form[:-REFERENCE_BYTES] == whole[:-REFERENCE_BYTES]
    assert whole[-REFERENCE_BYTES:] == buffers[0]
