"""What a board must survive besides kills: a full file system, a cut file, a name twice, stops, clocks, the last exit.

`test_shm_life` has the plain forms of some of these; here they meet in real processes and file systems.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from support.shm import UID, eventually, forked, make_board, make_port, make_worker, small
from swarm_agents.errors import BoardMismatch, Fenced, SwarmError, SwarmFull
from swarm_agents.shm.board import Board, MemberState


def _own_tmpfs(megabytes: int, program: str) -> subprocess.CompletedProcess[str]:
    """Runs a Python program in a mount namespace with a tmpfs of its own at /mnt."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare here")
    flags = [unshare, "-m"] if os.geteuid() == 0 else [unshare, "-Urm"]
    mount = f"mount -t tmpfs -o size={megabytes}m none /mnt"
    if subprocess.run([*flags, "sh", "-c", mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system may be mounted here")
    line = f'{mount} && exec "$0" -c "$1"'
    return subprocess.run(
        [*flags, "sh", "-c", line, sys.executable, textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_board_on_a_file_system_that_others_fill_up_goes_on_to_its_last_byte() -> None:
    done = _own_tmpfs(
        8,
        """
        import errno, numpy as np
        from pathlib import Path
        from swarm_agents.errors import SharedMemoryFull, SwarmFull
        from swarm_agents.shm.board import Board, Geometry
        board = Board.open(Path("/mnt/board"), Geometry(256, 2 << 20, 8), swarm_uid="u")
        agent, client = board.join("agent", "compute"), board.join("client", "client")
        worker, port = board.worker(agent), board.port(client)
        with open("/mnt/others", "wb") as others:
            try:
                while True:
                    others.write(bytes(1 << 16)); others.flush()
            except OSError as error:
                assert error.errno == errno.ENOSPC
            try:
                others.close()
            except OSError:
                pass
        try:
            Board.open(Path("/mnt/second"), Geometry(256, 2 << 20, 8), swarm_uid="u")
            raise AssertionError("a board without memory")
        except SharedMemoryFull:
            assert not Path("/mnt/second").exists()
        for _ in range(3):
            sent = 0
            try:
                while True:
                    port.submit("k", (np.full(60_000, sent, np.uint8),)); sent += 1
            except SwarmFull:
                pass
            assert sent > 10
            for number in range(sent):
                claim = worker.claim()
                assert (claim.args[0] == number).all()
                assert worker.commit(claim, claim.args[0][:400])
            assert len(port.poll()) == sent
        board.leave(agent); board.leave(client)
        assert not Path("/mnt/board").exists()
        print("went on")
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["went", "on"]


def test_who_touches_a_board_that_was_cut_ends_and_the_next_one_makes_it_anew(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    path = board.directory / "board"

    def work_on() -> None:
        faulthandler.disable()  # it is expected
        _, worker = make_worker(board, "agent")
        (tmp_path / "ready").touch()
        while True:
            worker.claim(0.01)

    with forked(work_on) as child:
        eventually((tmp_path / "ready").exists)
        os.truncate(path, 4096)
        assert child.wait() == -signal.SIGBUS  # the kernel's: nobody else is touched
    with pytest.raises(BoardMismatch, match="truncated by somebody"):
        board.sweep()  # whoever looks first is told, and lives
    with pytest.raises(BoardMismatch, match="truncated by somebody"):
        board.reap()
    fresh = make_board(tmp_path)
    _, port = make_port(fresh)
    port.submit("k")
    assert fresh.depths()["normal"] == 1


def test_while_anybody_lives_on_a_cut_board_it_is_refused_and_not_replaced_under_him(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    with forked(lambda: (board.join("idle", "client"), signal.pause())) as child:
        eventually(board.members)
        os.truncate(board.directory / "board", 8192)
        with pytest.raises(BoardMismatch, match="truncated"):
            Board.open(board.directory, small(), swarm_uid=UID)
        child.kill()
    assert Board.open(board.directory, small(), swarm_uid=UID).members() == []


def test_of_many_that_claim_one_name_at_once_one_gets_it(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    keeper = board.join("keeper", "client")
    read, write = os.pipe()
    said_read, said_write = os.pipe()

    def claim_the_name() -> None:
        os.read(read, 1)
        try:
            board.join("twin", "compute")
        except SwarmError:
            os.write(said_write, b"n")
        else:
            os.write(said_write, b"y")
        signal.pause()

    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(forked(claim_the_name))
        os.write(write, b"go" * 5)
        said = b""
        while len(said) < 5:
            said += os.read(said_read, 5)
    assert sorted(said) == sorted(b"ynnnn")
    for end in (read, write, said_read, said_write):
        os.close(end)
    board.leave(keeper)


def test_a_stopped_clients_port_is_kept_from_others_until_its_process_is_gone(tmp_path: Path) -> None:
    board = make_board(tmp_path, small(max_members=64))

    def submit_and_stop() -> None:
        _, port = make_port(board, "sleeper")
        port.submit("old")
        os.kill(os.getpid(), signal.SIGSTOP)
        with pytest.raises(Fenced):
            port.submit("late")
        with pytest.raises(Fenced):
            port.wait(1)

    with forked(submit_and_stop) as child:
        eventually(child.stopped)
        [info] = [info for info in board.members() if info.name == "sleeper"]
        board.declare_dead(info.index, info.epoch)
        assert board.depths()["normal"] == 0  # nobody waits for it any more
        _, port = make_port(board, "next")
        assert port._number != 0
        port.submit("new")
        child.signal(signal.SIGCONT)
        assert child.wait() == 0
        _, worker = make_worker(board)
        claim = worker.claim(5)
        assert claim is not None
        assert claim.kernel == "new"
        worker.commit(claim, 1)
        assert port.wait(5)
        assert [answer.value for answer in port.poll()] == [1]
    board.reap()
    assert make_port(board, "after")[1]._number == 0


def test_a_fenced_agent_comes_back_under_a_new_epoch_and_works(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    _, port = make_port(board)
    member, worker = make_worker(board, "agent")
    port.submit("k")
    claim = worker.claim()
    assert claim is not None
    board.declare_dead(member.index, member.epoch)
    assert not worker.commit(claim, "old")
    again, second = make_worker(board, "agent")
    assert again.epoch > member.epoch
    claim = second.claim()
    assert claim is not None
    assert second.commit(claim, "new")
    assert [answer.value for answer in port.poll()] == ["new"]
    assert not worker.commit(claim, "old again")


def test_a_late_declaration_does_not_touch_the_next_life(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    _, port = make_port(board)
    member, _ = make_worker(board, "agent")
    board.declare_dead(member.index, member.epoch)
    again, worker = make_worker(board, "agent")
    port.submit("k")
    claim = worker.claim()
    assert claim is not None
    assert board.declare_dead(member.index, member.epoch) == 0
    assert worker.commit(claim, 1)
    assert {info.name: info.state for info in board.members()}["agent"] is MemberState.ALIVE
    assert again.epoch > member.epoch


@pytest.mark.parametrize("jump", [-1e9, -3600.0, 3600.0, 1e9])
def test_a_clock_that_jumps_ends_no_life_and_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    board = make_board(tmp_path)
    _, port = make_port(board)
    member, worker = make_worker(board)
    port.submit("k", deadline=time.time() + 3600)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    board.heartbeat(member)
    assert board.reap() == []
    assert board.sweep() == 0
    assert all(0 <= info.heartbeat_age < 60 for info in board.members())
    claim = worker.claim()
    assert claim is not None
    assert worker.commit(claim, 1)
    [answer] = port.poll()
    assert answer.error is None
    assert 0 <= answer.queued_s < 60
    assert 0 <= answer.run_s < 60


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_the_modes_are_the_boards_own_whatever_the_umask_says(tmp_path: Path, mask: int) -> None:
    if mask == 0o777 and os.geteuid() != 0:
        pytest.skip("a directory without any mode can't be used by its owner")

    def make() -> None:
        os.umask(mask)
        board = make_board(tmp_path)
        member = board.join("agent", "compute")
        assert stat.S_IMODE(board.directory.stat().st_mode) & 0o077 == 0
        assert stat.S_IMODE((board.directory / "board").stat().st_mode) & 0o177 == 0
        board.leave(member)

    with forked(make) as child:
        assert child.wait() == 0


def test_when_all_were_killed_at_once_the_next_to_come_and_go_leaves_nothing(tmp_path: Path) -> None:
    board = make_board(tmp_path)

    def live(number: int) -> None:
        member = board.join(f"agent-{number}", "compute")
        board.port(member).submit("k", (b"x" * 5000,))
        board.worker(member).claim()
        (tmp_path / f"ready-{number}").touch()
        signal.pause()

    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(forked(lambda n=n: live(n))) for n in range(4)]
        eventually(lambda: all((tmp_path / f"ready-{n}").exists() for n in range(4)))
        for child in children:
            child.kill()
    assert (board.directory / "board").exists()
    fresh = make_board(tmp_path)
    member = fresh.join("next", "compute")
    assert sum(fresh.depths().values()) == 0
    assert fresh.stats().arena_used == 0
    fresh.leave(member)
    assert not board.directory.exists()


def test_the_last_to_leave_removes_the_files_although_others_were_killed(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    last = board.join("last", "compute")
    with forked(lambda: (board.join("killed", "compute"), signal.pause())) as child:
        eventually(lambda: len(board.members()) == 2)
        child.kill()
    board.leave(last)
    assert not board.directory.exists()


def test_a_full_board_refuses_and_takes_again_when_answers_are_read(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    _, port = make_port(board)
    _, worker = make_worker(board)
    for _ in range(3):
        with contextlib.suppress(SwarmFull):
            while True:
                port.submit("k")
        with pytest.raises(SwarmFull, match="take results"):
            port.submit("k")
        while (claim := worker.claim()) is not None:
            worker.commit(claim, None)
        assert all(answer.error is None for answer in port.poll(1000))
        assert port.pending == 0
