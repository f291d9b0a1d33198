"""Who is on a board, how its file comes and goes, and what may have happened to either."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from support.shm import UID, eventually, forked, make_board, make_port, make_worker, small
from swarm_agents.config import Priority
from swarm_agents.errors import BoardMismatch, Fenced, SharedMemoryFull, SwarmError, SwarmFull, Unreachable
from swarm_agents.shm.board import Board, MemberState
from swarm_agents.shm.layout import H_MAGIC, H_VERSION, VERSION, Geometry, board_bytes


def board_file(board: Board) -> Path:
    return board.directory / "board"


def write_word(board: Board, index: int, value: int) -> None:
    """Overwrites a word of the header, as another program's or release's board would have it."""
    with board_file(board).open("r+b") as file:
        file.seek(index * 8)
        file.write(struct.pack("<q", value))


def test_only_its_owner_can_look_into_a_board(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    assert stat.S_IMODE(board.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(board_file(board).stat().st_mode) == 0o600
    assert board_file(board).stat().st_size == board_bytes(board.geometry)


def test_the_blocks_of_the_file_are_allocated_when_it_is_made(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    assert board_file(board).stat().st_blocks * 512 >= board_bytes(board.geometry)


def test_the_last_member_to_leave_removes_everything(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    client, agent = board.join("client", "client"), board.join("agent", "compute")
    board.leave(agent)
    assert board_file(board).exists()
    assert [info.name for info in board.members()] == ["client"]
    board.leave(client)
    assert not board.directory.exists()
    board.leave(client)  # a second time is harmless


def test_who_was_there_when_the_board_was_removed_makes_a_new_one_when_it_joins(tmp_path: Path) -> None:
    geometry = small()
    first, second = make_board(tmp_path, geometry), make_board(tmp_path, geometry)
    first.leave(first.join("a", "compute"))
    assert not first.directory.exists()
    member = second.join("b", "compute")
    assert [info.name for info in first.members()] == ["b"]
    second.leave(member)


def test_a_client_that_finds_no_board_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no board"):
        Board.attach(tmp_path / "nowhere")
    board = make_board(tmp_path)
    attached = Board.attach(board.directory)
    board.leave(board.join("a", "compute"))
    with pytest.raises(Unreachable):
        attached.join("client", "client")
    assert not board.directory.exists()


def test_an_attached_client_learns_the_geometry_and_the_swarm(tmp_path: Path) -> None:
    board = make_board(tmp_path, small(max_members=9))
    attached = Board.attach(board.directory)
    assert attached.geometry == board.geometry
    assert attached.swarm_uid == UID


def test_another_geometry_or_swarm_is_refused_while_somebody_lives_there(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    member = board.join("a", "compute")
    with pytest.raises(BoardMismatch, match="same transport settings"):
        Board.open(board.directory, small(arena_bytes=2 << 20), swarm_uid=UID)
    with pytest.raises(BoardMismatch, match="other-swarm"):
        Board.open(board.directory, small(), swarm_uid="other-swarm")
    board.leave(member)
    assert (
        Board.open(board.directory, small(arena_bytes=2 << 20), swarm_uid="other-swarm").geometry.arena_bytes == 2 << 20
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda board: write_word(board, H_MAGIC, 0x1234), "no board"),
        (lambda board: write_word(board, H_VERSION, VERSION + 1), f"version {VERSION + 1}"),
        (lambda board: os.truncate(board_file(board), 100), "truncated"),
        (lambda board: os.truncate(board_file(board), 8192), "truncated"),
    ],
    ids=["magic", "version", "cut short", "cut"],
)
def test_a_board_that_cannot_be_used_is_refused_with_advice_and_replaced_when_nobody_needs_it(
    tmp_path: Path, spoil: object, message: str
) -> None:
    board = make_board(tmp_path)
    with forked(lambda: (board.join("living", "compute"), signal.pause())) as child:
        eventually(board.members)
        spoil(board)  # type: ignore[operator]
        with pytest.raises(BoardMismatch, match=message) as refusal:
            Board.open(board.directory, small(), swarm_uid=UID)
        assert "remove the directory" in str(refusal.value)
        with pytest.raises(BoardMismatch, match=message):
            Board.attach(board.directory)
        child.kill()
    fresh = Board.open(board.directory, small(), swarm_uid=UID)
    assert fresh.members() == []


def test_a_directory_of_others_or_open_to_others_is_refused(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    board.directory.chmod(0o755)
    with pytest.raises(BoardMismatch, match="chmod 700"):
        Board.attach(board.directory)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "board-of-test").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="board-of-test"):
        make_board(tmp_path)


def test_too_little_shared_memory_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    with pytest.raises(SharedMemoryFull, match="smaller arena"):
        make_board(tmp_path, small(arena_bytes=room.f_blocks * room.f_frsize * 2))
    assert not (tmp_path / "board-of-test").exists()


def test_a_file_system_that_runs_full_while_the_board_is_made_leaves_nothing(tmp_path: Path) -> None:
    def within_a_limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))
        with pytest.raises(SharedMemoryFull):
            make_board(tmp_path)

    with forked(within_a_limit) as child:
        assert child.wait() == 0
    assert not (tmp_path / "board-of-test").exists()


def test_a_creator_that_was_killed_half_way_leaves_a_board_that_can_be_made(tmp_path: Path) -> None:
    directory = tmp_path / "board-of-test"
    directory.mkdir(mode=0o700)
    (directory / "board.new4711").write_bytes(b"half a board")
    board = make_board(tmp_path)
    assert sorted(path.name for path in board.directory.iterdir()) == ["board"]


def test_many_creators_at_once_agree_on_one_board(tmp_path: Path) -> None:
    barrier_read, barrier_write = os.pipe()

    def create(number: int) -> None:
        os.read(barrier_read, 1)
        board = make_board(tmp_path)
        board.join(f"agent-{number}", "compute")
        eventually(lambda: len(board.members()) == 6, what="all six on one board")

    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(forked(lambda n=n: create(n))) for n in range(6)]
        os.write(barrier_write, b"go" * 6)
        assert [child.wait() for child in children] == [0] * 6
    os.close(barrier_read)
    os.close(barrier_write)


def test_members_that_come_and_go_at_once_never_lose_each_other(tmp_path: Path) -> None:
    def come_and_go(number: int) -> None:
        for _ in range(25):
            board = make_board(tmp_path)
            member = board.join(f"agent-{number}", "compute")
            port = board.port(member)
            port.submit("k", (number,))
            assert board.current, "the board was removed under a member"
            board.leave(member)

    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(forked(lambda n=n: come_and_go(n))) for n in range(3)]
        assert [child.wait() for child in children] == [0] * 3
    assert not (tmp_path / "board-of-test").exists()


def test_a_killed_swarms_board_is_made_anew(tmp_path: Path) -> None:
    board = make_board(tmp_path)

    def leave_work_behind() -> None:
        make_port(board, "client")[1].submit("k")
        make_worker(board, "agent")[1].claim()
        os.kill(os.getpid(), signal.SIGKILL)

    with forked(leave_work_behind) as child:
        assert child.wait() == -signal.SIGKILL
    assert len(board.members()) == 2
    fresh = make_board(tmp_path)
    assert fresh.members() == []
    assert sum(fresh.depths().values()) == 0
    assert not board.current
    assert board.members() == []  # it follows


def test_a_name_is_one_living_agents_and_a_new_epoch_is_a_later_one(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    keeper = board.join("keeper", "client")
    with forked(lambda: (board.join("twin", "compute"), signal.pause())) as child:
        first = eventually(lambda: next((i for i in board.members() if i.name == "twin"), None))
        with pytest.raises(SwarmError, match="one identity"):
            board.join("twin", "compute")
        child.kill()
    second = board.join("twin", "compute")  # the kernel says that the first is gone
    assert second.epoch > first.epoch
    third = second
    for _ in range(3):
        board.leave(third)
        third = board.join("twin", "compute")
    assert [i.name for i in board.members() if i.alive] == ["twin", "keeper"] or len(board.members()) == 2
    board.leave(third)
    board.leave(keeper)


def test_a_death_is_seen_at_once_and_without_the_pid(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    _, port = make_port(board)

    def claim_and_wait() -> None:
        # A pid that lives, but is another process: as after its reuse, or from another PID namespace.
        member = board.join("agent", "compute", pid=os.getppid())
        assert board.worker(member).claim(10) is not None
        signal.pause()

    port.submit("k")
    with forked(claim_and_wait) as child:
        eventually(lambda: board.stats().depth["normal"]["claimed"])
        assert board.reap() == []
        child.kill()
        [dead] = board.reap()
    assert dead.name == "agent"
    assert board.reap() == []
    assert board.depths()["normal"] == 1
    [info] = [info for info in board.members() if info.name == "agent"]
    assert info.state is MemberState.GONE
    assert info.epoch == dead.epoch


def test_the_dead_of_a_fork_do_not_live_on_in_their_children(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    read, write = os.pipe()

    def join_and_fork() -> None:
        board.join("parent", "compute")
        pid = os.fork()
        if pid == 0:
            board.leave(board._own[0])  # not the member: nothing happens
            os.write(write, b"x")
            signal.pause()
        os.write(write, str(pid).encode())
        signal.pause()

    with forked(join_and_fork) as child:
        eventually(board.members)
        said = b""
        while b"x" not in said or len(said) < 2:
            said += os.read(read, 32)
        grandchild = int(said.replace(b"x", b""))
        try:
            assert board.reap() == []
            child.kill()
            assert [info.name for info in board.reap()] == ["parent"]
        finally:
            os.kill(grandchild, signal.SIGKILL)
    os.close(read)
    os.close(write)


def test_a_stopped_agent_is_fenced_and_finds_out_when_it_goes_on(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    _, port = make_port(board)

    def work_late() -> None:
        member, worker = make_worker(board, "sleeper")
        claim = worker.claim(10)
        assert claim is not None
        os.kill(os.getpid(), signal.SIGSTOP)
        assert claim.cancelled()
        assert not worker.commit(claim, "late")
        for operation in (worker.claim, lambda: board.heartbeat(member), lambda: board.port(member).submit("k")):
            with pytest.raises(Fenced):
                operation()
        again = board.join("sleeper", "compute")
        assert again.epoch > member.epoch
        board.leave(again)

    port.submit("k")
    with forked(work_late) as child:
        eventually(child.stopped)
        assert board.reap() == []  # stopped is not gone
        [info] = [info for info in board.members() if info.name == "sleeper"]
        assert board.declare_dead(info.index, info.epoch) == 1
        [info] = [info for info in board.members() if info.name == "sleeper"]
        assert info.state is MemberState.FENCED
        _, sibling = make_worker(board, "sibling")
        claim = sibling.claim()
        assert claim is not None
        child.signal(signal.SIGCONT)
        assert child.wait() == 0
        assert sibling.commit(claim, "right")
    assert [answer.value for answer in port.poll()] == ["right"]


def test_a_heartbeat_is_measured_on_a_clock_that_nobody_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = make_board(tmp_path)
    member = board.join("agent", "compute")
    board.heartbeat(member, cpu=0.25, rss=1 << 20)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    [info] = board.members()
    assert 0 <= info.heartbeat_age < 60
    assert (info.cpu, info.rss) == (0.25, 1 << 20)


def test_a_deadline_is_not_moved_by_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = make_board(tmp_path)
    _, port = make_port(board)
    _, worker = make_worker(board)
    port.submit("k", deadline=time.time() + 3600)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    assert worker.claim() is not None


def test_a_full_board_of_members_says_so_and_gives_the_places_of_the_dead_away(tmp_path: Path) -> None:
    board = make_board(tmp_path, small(max_members=3))
    members = [board.join(f"agent-{n}", "compute") for n in range(3)]
    with pytest.raises(SwarmFull, match="room for 3 members"):
        board.join("agent-3", "compute")
    board.leave(members[1])
    assert board.join("agent-3", "compute").index == members[1].index


def test_names_and_roles_are_checked(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    with pytest.raises(ValueError, match="bytes"):
        board.join("x" * 300, "compute")
    with pytest.raises(ValueError, match="expected one of"):
        board.join("x", "director")
    with pytest.raises(ValueError, match="arena_bytes"):
        Geometry(arena_bytes=1)
    with pytest.raises(ValueError, match="max_attempts"):
        board.max_attempts = 0


def test_a_member_that_leaves_hands_its_work_back(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    _, port = make_port(board)
    member, worker = make_worker(board, "leaving")
    _, sibling = make_worker(board, "staying")
    port.submit("k")
    assert worker.claim() is not None
    board.leave(member)
    assert sibling.claim() is not None
    assert board.stats().failovers == []


@pytest.mark.parametrize(
    "geometry", [Geometry(1, 64 << 10, 2), Geometry(4096, 8 << 20, 256), Geometry(100_000, 4 << 20, 300)], ids=str
)
def test_boards_of_any_size_work_in_every_lane(tmp_path: Path, geometry: Geometry) -> None:
    board = make_board(tmp_path, geometry)
    member = board.join("both", "compute")
    port, worker = board.port(member), board.worker(member)
    for priority in Priority:
        for number in range(40):
            port.submit("k", (number,), priority=priority)
            claim = worker.claim()
            assert claim is not None
            assert claim.args == (number,)
            assert worker.commit(claim, None)
            assert len(port.poll()) == 1
    board.leave(member)


def test_lent_results_stay_valid_after_their_member_has_left(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    member, port = make_port(board)
    keeper, worker = make_worker(board)
    port.submit("k")
    claim = worker.claim()
    assert claim is not None
    worker.commit(claim, np.full(5000, 7))
    [answer] = port.poll(copy=False)
    board.leave(member)
    board.reap()
    board.sweep()
    other_member, other = make_port(board, "another")
    for _ in range(15):
        other.submit("k", (np.zeros(5000),))
    assert (answer.value == 7).all()
    del answer
    board.leave(other_member)
    board.reap()
    assert board.stats().arena_used == 0
    board.leave(keeper)
    assert not board.directory.exists()
