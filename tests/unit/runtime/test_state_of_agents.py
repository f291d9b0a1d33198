"""`self.state`: typed, versioned, there again in the next life; and the ledger of who died over what."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import pytest

from swarm_agents.config import Checkpoints
from swarm_agents.runtime.ledger import Death, SetAside, _append, note_end, note_set_aside, read, set_aside
from swarm_agents.runtime.state import LIMIT, Durable
from swarm_agents.runtime.store import Store


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, **fields: Any) -> None:
        self.lines.append(f"{text} {fields}")

    error = warning


class First(msgspec.Struct):
    version: ClassVar[int] = 1
    mean: float = 0.0
    seen: int = 0


class Second(msgspec.Struct):
    version: ClassVar[int] = 2
    level: float = 0.0
    names: list[str] = []

    @classmethod
    def upgrade(cls, version: int, fields: dict[str, Any]) -> Second | None:
        return cls(level=fields["mean"]) if version == 1 else None


class Third(msgspec.Struct):
    version: ClassVar[int] = 1
    mean: str = "none"


def context(directory: Path, pod: str = "risk-compute-0-a") -> Any:
    log = Log()
    store = Store(directory, Checkpoints(), owner=pod, place=(1, 1), log=log)
    return SimpleNamespace(store=store, identity=SimpleNamespace(pod=pod), holds_place=True, log=log)


def test_a_state_is_there_again_in_the_next_incarnation_and_in_no_other_place(tmp_path: Path) -> None:
    durable = Durable(context(tmp_path), First)
    state = durable.load()
    assert state == First()
    state.mean, state.seen = 0.5, 3
    assert durable.save(state)
    assert Durable(context(tmp_path, "risk-compute-0-b"), First).load() == First(0.5, 3)
    assert Durable(context(tmp_path, "risk-compute-1-a"), First).load() == First()


def test_what_has_not_changed_is_not_written(tmp_path: Path) -> None:
    here = context(tmp_path)
    durable = Durable(here, First)
    state = durable.load()
    assert [durable.save(state), durable.save(state)] == [True, True]
    assert here.store.counts["kept"] == 1


def test_a_state_of_an_older_version_is_upgraded_and_one_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    durable = Durable(context(tmp_path), First)
    durable.load()
    durable.save(First(0.25, 9))
    assert Durable(context(tmp_path), Second).load() == Second(0.25)
    other = context(tmp_path)
    assert Durable(other, Third).load() == Third()
    assert "can't be read" in other.log.lines[0]
    newest = Durable(context(tmp_path), Second)
    newest.save(newest.load())
    back = context(tmp_path)
    assert Durable(back, First).load() == First(), "a release that was rolled back does not know the new form"
    assert "of version 2" in back.log.lines[-1]


def test_a_fenced_agent_keeps_nothing_and_takes_its_successors_state_when_it_joins_again(tmp_path: Path) -> None:
    here = context(tmp_path)
    durable = Durable(here, First)
    durable.load()
    durable.save(First(1.0))
    successor = Durable(context(tmp_path), First)
    successor.load()
    successor.save(First(2.0))
    here.holds_place = False
    assert durable.save(First(1.5)) is False
    here.holds_place = True
    assert durable.load() == First(2.0)


def test_a_state_that_is_too_large_or_has_no_encoding_is_refused_and_logged(tmp_path: Path) -> None:
    here = context(tmp_path)
    durable = Durable(here, Second)
    state = durable.load()
    state.names = ["x" * LIMIT]
    assert [durable.save(state), durable.save(state)] == [False, False]
    state.names = [object()]
    assert durable.save(state) is False
    assert len(here.log.lines) == 2
    durable.close()


def test_the_ledger_joins_deaths_to_the_tasks_that_were_set_aside(tmp_path: Path) -> None:
    one = Death(1.0, "0a", "a.b", 1, "risk-compute-0-a", 4, "killed by SIGKILL")
    two = Death(2.0, "0a", "a.b", 2, "risk-compute-1-a", 7, "heartbeat")
    three = Death(2.0, "0a", "a.b", 3, "risk-compute-0-a", 9, "process")
    lost = SetAside(2.0, "0a", "a.b", 2, "too many", "float64[3]")
    _append(tmp_path, [one])
    _append(tmp_path, [two, lost])
    _append(tmp_path, [two, three, lost])  # another watcher was as fast
    note_end(tmp_path, "risk-compute-1-a", 7, "killed by SIGKILL")  # as a fenced agent is
    note_end(tmp_path, "risk-compute-0-a", 9, "killed by SIGALRM")
    _append(tmp_path, [Death(3.0, "0b", "a.b", 1, "risk-compute-1-a", 8, "process")])
    with (tmp_path / "board.ledger").open("ab") as file:
        file.write(b'{"what":"dea')
    (listed,) = set_aside(tmp_path)
    assert (listed["task"], listed["attempts"], listed["reason"]) == ("0a", 2, "too many")
    assert listed["inputs"] == "float64[3]"
    assert [(death["agent"], death["how"]) for death in listed["died"]] == [
        ("risk-compute-0-a", "killed by SIGKILL"),
        ("risk-compute-1-a", "heartbeat"),
        ("risk-compute-0-a", "killed by SIGALRM"),
    ]


def test_the_ledger_is_bounded_and_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm_agents.runtime.ledger._FULL", 2000)
    for number in range(200):
        note_set_aside(tmp_path, f"{number:02x}", "a.b", 3, "why")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4500
    assert [note.task for note in read(tmp_path) if isinstance(note, SetAside)][-1] == "c7"
    assert set_aside(tmp_path / "nowhere") == []
    assert len(set_aside(tmp_path, most=5)) == 5
