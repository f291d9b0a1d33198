"""The agents' own record of commits finds a submission that was committed twice, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarm_deploy.chaos import ledger


def claim(*, task: int = 1, slot: int = 3, generation: int = 5, attempt: int = 1, board: int = 9) -> Any:
    mapping = SimpleNamespace(inode=board)
    return SimpleNamespace(
        _mine=generation << 42 | attempt << 3 | 3,
        _board=SimpleNamespace(mapping=mapping),
        slot=slot,
        task_id=(77, task),
        attempt=attempt,
    )


@pytest.fixture
def worker(tmp_path: Path) -> Any:
    class Fake:
        accepts = True

        def commit(self, claim: Any, value: Any) -> bool:
            return self.accepts

        def fail(self, claim: Any, error: BaseException, traceback: str | None = None) -> bool:
            return self.accepts

    environment = {ledger.VARIABLE: ledger.value_of(tmp_path), "NODE_NAME": "node-1", "POD_NAME": "a-compute-0-0"}
    assert ledger.install(Fake, environment)  # type: ignore[arg-type]
    assert ledger.install(Fake, environment)  # type: ignore[arg-type]  # once more changes nothing
    return Fake()


def test_a_process_that_is_not_asked_to_notes_nothing() -> None:
    class Fake:
        def commit(self) -> None: ...

    before = Fake.commit
    assert not ledger.install(Fake, {})  # type: ignore[arg-type]
    assert Fake.commit is before


def test_commits_are_counted_by_what_the_board_said(worker: Any, tmp_path: Path) -> None:
    assert worker.commit(claim(task=1), 1)
    assert worker.fail(claim(task=2), ValueError())
    worker.accepts = False
    assert not worker.commit(claim(task=3), 1)
    tally = ledger.read(tmp_path)
    assert (tally.accepted, tally.refused, tally.open_, tally.doubled) == (2, 1, 0, [])


def test_two_accepted_commits_of_one_submission_are_a_double_commit(worker: Any, tmp_path: Path) -> None:
    worker.commit(claim(attempt=1), 1)
    worker.commit(claim(attempt=2), 1)
    tally = ledger.read(tmp_path)
    assert len(tally.doubled) == 1
    assert "4d-1" in tally.doubled[0]
    assert tally.computed_again == 1


@pytest.mark.parametrize("other", [{"generation": 6}, {"slot": 4}, {"board": 10}])
def test_a_task_that_is_submitted_again_is_another_submission(
    worker: Any, tmp_path: Path, other: dict[str, int]
) -> None:
    worker.commit(claim(), 1)
    worker.commit(claim(**other), 1)
    assert ledger.read(tmp_path).doubled == []


def test_an_agent_that_died_at_its_commit_leaves_an_open_line(worker: Any, tmp_path: Path) -> None:
    def raising(self: Any, claim: Any, value: Any) -> bool:
        raise SystemExit

    class Dying:
        commit = fail = raising

    environment = {ledger.VARIABLE: ledger.value_of(tmp_path), "NODE_NAME": "node-2"}
    ledger.install(Dying, environment)  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        Dying().commit(claim(), 1)  # type: ignore[call-arg]
    worker.commit(claim(attempt=2), 1)
    tally = ledger.read(tmp_path)
    assert (tally.open_, tally.accepted, tally.doubled) == (1, 1, [])


def test_a_line_that_is_none_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "node-1").write_text("a node-1 9 3\n")
    with pytest.raises(ValueError, match="is no line of a ledger"):
        ledger.read(tmp_path)


def test_a_ledger_whose_run_is_over_stops_nobody(worker: Any, tmp_path: Path) -> None:
    os.rmdir(tmp_path)
    assert worker.commit(claim(), 1)
