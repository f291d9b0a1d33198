"""The arena lies near the cores that use it, where there is more than one place for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.shm import make_board, make_port, make_worker
from swarm_agents.config import Priority
from swarm_agents.shm import numa
from swarm_agents.shm.arena import Arena
from swarm_agents.shm.board import Board
from swarm_agents.shm.layout import H_PAGE_BYTES, H_PAGES, H_PAGES_AT
from swarm_agents.shm.numa import Segment


def write_nodes(root: Path, *cpulists: str) -> Path:
    for number, cpus in enumerate(cpulists):
        folder = root / f"sys/devices/system/node/node{number}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(cpus + "\n")
    return root


def page_of(array: np.ndarray[Any, Any], board: Board) -> int:
    """Which page of the arena an array begins in."""
    words = board.words
    offset = array.ctypes.data - board.mapping.base
    return int((offset - words[H_PAGES_AT]) // words[H_PAGE_BYTES])


def test_nodes_and_their_cpus_are_read_below_the_root(tmp_path: Path) -> None:
    write_nodes(tmp_path, "0-3,8", "4-7", "")
    assert numa.nodes(tmp_path) == {0: {0, 1, 2, 3, 8}, 1: {4, 5, 6, 7}, 2: frozenset()}
    (tmp_path / "sys/devices/system/node/has_memory").write_text("0,2\n")
    assert list(numa.nodes(tmp_path)) == [0, 2]
    assert numa.nodes(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("text", ["x", "3-1", "-4", "0-99999999", "1,,b"])
def test_a_node_whose_cpus_make_no_sense_is_left_out(tmp_path: Path, text: str) -> None:
    assert list(numa.nodes(write_nodes(tmp_path, "0-1", text))) == [0]


def test_home_is_the_one_node_that_has_all_the_cpus() -> None:
    two = {0: frozenset({0, 1}), 1: frozenset({2, 3})}
    assert numa.home({2, 3}, two) == 1
    assert numa.home({0}, two) == 0
    for cpus in ({1, 2}, {0, 9}, {9}, set[int]()):
        assert numa.home(cpus, two) is None


@pytest.mark.parametrize(("pages", "count"), [(2, 2), (7, 2), (1000, 3), (64, 8)])
def test_segments_cover_the_arena_once(pages: int, count: int) -> None:
    found = numa.segments(pages, range(count))
    assert [page for one in found for page in range(one.begin, one.end)] == list(range(pages))
    assert [one.node for one in found] == list(range(count))


def test_with_one_node_or_none_nothing_is_divided(tmp_path: Path) -> None:
    assert numa.segments(100, [0]) == numa.segments(100, []) == numa.segments(1, [0, 1]) == []
    assert numa.begin_at_home(100, write_nodes(tmp_path, "0-65535")) is None


def test_an_array_begins_in_its_makers_segment_and_elsewhere_when_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    monkeypatch.setenv(numa.ROOT, str(write_nodes(tmp_path / "root", "60000-60001", mine)))
    board = make_board(tmp_path)  # the kernel knows no node 1, perhaps, and the board is made all the same
    pages = board.words[H_PAGES]
    assert numa.begin_at_home(pages) == Segment(1, pages // 2, pages)
    member, _ = make_port(board)
    arena = Arena(board, member, share=256)
    kept: list[np.ndarray[Any, Any]] = []
    while len(kept) < pages // 2:
        kept.append(arena.empty(board.words[H_PAGE_BYTES], np.uint8))
    at = sorted(page_of(array, board) for array in kept)
    assert at == list(range(pages // 2, pages))
    abroad = arena.empty(board.words[H_PAGE_BYTES], np.uint8)
    assert page_of(abroad, board) < pages // 2
    kept.pop()
    again = [arena.empty(board.words[H_PAGE_BYTES], np.uint8) for _ in range(16)]
    assert sum(page_of(array, board) >= pages // 2 for array in again) == 1, "it is looked for now and then"
    del kept, abroad, again
    board.leave(member)


def test_a_file_of_two_nodes_takes_what_the_kernel_allows_and_is_whole(tmp_path: Path) -> None:
    from swarm_agents.shm.layout import H_SIZE

    words = {H_SIZE: 1 << 20, H_PAGES: 15, H_PAGE_BYTES: 1 << 16, H_PAGES_AT: 1 << 16}
    with (tmp_path / "file").open("w+b") as file:
        assert 0 <= numa.bind(file.fileno(), words, [0, 1023]) <= 2
        assert os.fstat(file.fileno()).st_size == 1 << 20
    with (tmp_path / "other").open("w+b") as file:
        assert numa.bind(file.fileno(), words, [0]) == 0
        assert os.fstat(file.fileno()).st_size == 0


def test_a_worker_prefers_what_lies_near_and_every_fourth_time_serves_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, others = ",".join(map(str, sorted(os.sched_getaffinity(0)))), "60000-60001"
    board = make_board(tmp_path)
    ports = {}
    for name, order in (("far", (mine, others)), ("near", (others, mine))):
        # Where the submitter says that it is: this process's CPUs belong to the first node, and then to the second.
        monkeypatch.setenv(numa.ROOT, str(write_nodes(tmp_path / name, *order)))
        ports[name] = make_port(board, name)[1]
    worker = make_worker(board)[1]  # on the second, too
    payload = np.zeros(2 * board.words[H_PAGE_BYTES], np.uint8)
    for _ in range(4):
        for name in ("far", "near"):
            ports[name].submit(name, (payload,))
    served = []
    while (claim := worker.claim()) is not None:
        served.append(claim.kernel)
        worker.commit(claim, None)
    assert served == ["near", "near", "near", "far", "near", "far", "far", "far"]
    ports["far"].submit("far", (payload,))
    ports["near"].submit("near", (payload,), priority=Priority.BULK)
    claim = worker.claim()
    assert claim is not None
    assert claim.kernel == "far", "what is more urgent goes first, wherever it lies"


def test_far_submitters_take_turns_while_near_ones_never_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, others = ",".join(map(str, sorted(os.sched_getaffinity(0)))), "60000-60001"
    board = make_board(tmp_path)
    ports = {}
    for name, order in (("far", (mine, others)), ("near", (others, mine))):
        monkeypatch.setenv(numa.ROOT, str(write_nodes(tmp_path / name, *order)))
        for number in range(2):
            ports[f"{name}{number}"] = make_port(board, f"{name}{number}")[1]
    worker = make_worker(board)[1]
    payload = np.zeros(2 * board.words[H_PAGE_BYTES], np.uint8)
    for name, port in ports.items():
        port.submit(name, (payload,))
    served = []
    for _ in range(40):
        claim = worker.claim()
        assert claim is not None
        served.append(claim.kernel)
        worker.commit(claim, None)
        ports[claim.kernel].poll()
        ports[claim.kernel].submit(claim.kernel, (payload,))
    assert all(served.count(name) >= 3 for name in ports), served
    assert served.count("near0") + served.count("near1") >= 30
