"""What a node's resource agent foresees reaches those who ask: the agents' supervisors, metrics, the node's report."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import structlog
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from support.shm import make_board
from swarm_agents.config import Settings
from swarm_agents.resource import metrics
from swarm_agents.resource.agent import ResourceAgent
from swarm_agents.resource.exported import FORESIGHT
from swarm_agents.resource.foresight.forecast import HORIZONS
from swarm_agents.resource.foresight.watcher import Foresight
from swarm_agents.resource.sensing import Availability, Reading, Sensors
from swarm_agents.runtime.events import Events
from swarm_agents.runtime.foreseen import FRESH, Foreseen, read_foreseen, write_foreseen
from swarm_agents.runtime.outlook import Outlook


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def reading(**values: float) -> dict[str, Reading]:
    return {"some": Reading(Availability.AVAILABLE, values)}


def test_an_agent_that_dies_again_and_again_is_foretold_to_its_supervisor(tmp_path: Path) -> None:
    board, clock = make_board(tmp_path), Clock()
    foresight = Foresight(board, lambda: 0.8, own="hub", clock=clock)
    other = board.join("well", "compute")
    for _ in range(4):
        member = board.join("ill", "compute")
        for _ in range(12):
            clock.now += 1.0
            board.heartbeat(member)
            board.heartbeat(other)
            foresight.look(clock.now, reading(cpu_busy_ratio=0.5))
        last = (member.index, member.epoch)
        board.leave(member)
    said = read_foreseen(board.directory, clock.now, *last)
    assert said is not None
    assert said.probability > 0.8
    assert "died 3 times" in said.reasons[0]
    assert read_foreseen(board.directory, clock.now, other.index, other.epoch) is None

    settings = Settings(swarm="risk", namespace="default", uid="u")
    agent = SimpleNamespace(index=last[0], epoch=last[1], ready=SimpleNamespace(is_set=lambda: False))
    owner: Any = SimpleNamespace(
        restarts=SimpleNamespace(total=0),
        settings=settings,
        events=Events(structlog.get_logger()),
        agent=agent,
        board=board,
    )
    outlook = Outlook(owner)
    outlook.look(clock.now)
    assert outlook.report()["failing"] == {"probability": said.probability, "reasons": [*said.reasons]}
    assert [event["event"] for event in owner.events.recent()] == ["FailurePredicted"]
    outlook.look(clock.now + FRESH + 1.0)
    assert outlook.report()["failing"]["probability"] == 0.0


def test_what_the_node_suffers_from_counts_for_its_agents(tmp_path: Path) -> None:
    board, clock = make_board(tmp_path), Clock()
    foresight = Foresight(board, lambda: 0.8, clock=clock)
    member = board.join("one", "compute")
    for at in range(90):
        clock.now += 1.0
        board.heartbeat(member)
        worse = max(0, at - 50)
        foresight.look(
            clock.now,
            reading(
                cpu_steal_ratio=min(0.02 * worse, 1.0),
                disk_wait_seconds=0.004 * 1.15**worse,
                temperature_celsius=50.0 + 1.2 * worse,
                temperature_critical_celsius=105.0,
            ),
        )
    by_sign = foresight.verdicts["one"].by_sign
    assert {sign for sign, probability in by_sign.items() if probability > 0.3} == {"contention", "disk", "heat"}


def test_a_verdict_that_is_over_is_taken_back(tmp_path: Path) -> None:
    board, clock = make_board(tmp_path), Clock()
    foresight = Foresight(board, lambda: 0.8, clock=clock)
    for _ in range(3):
        member = board.join("ill", "compute")
        clock.now += 5.0
        foresight.look(clock.now, {})
        board.leave(member)
    member = board.join("ill", "compute")
    clock.now += 300.0
    foresight.look(clock.now, {})
    board.heartbeat(member)
    assert foresight.verdicts["ill"].probability < 0.4
    clock.now += 300.0
    foresight.look(clock.now, {})
    assert read_foreseen(board.directory, clock.now, member.index, member.epoch) is None


def test_a_verdict_is_of_one_epoch_and_of_this_moment(tmp_path: Path) -> None:
    write_foreseen(tmp_path, 50.0, {(3, 7): Foreseen(0.9, ("it is hot",))})
    assert read_foreseen(tmp_path, 51.0, 3, 7) == Foreseen(0.9, ("it is hot",))
    assert read_foreseen(tmp_path, 51.0, 3, 8) is None
    assert read_foreseen(tmp_path, 51.0, 2, 7) is None
    assert read_foreseen(tmp_path, 50.0 + FRESH + 0.1, 3, 7) is None
    assert read_foreseen(tmp_path, 30.0, 3, 7) is None
    assert os.listdir(tmp_path) == ["board.foreseen"]


def test_a_file_that_is_no_sense_says_nothing(tmp_path: Path) -> None:
    for text in (b"", b"{", b"[1]", b'{"at": "x", "agents": {}}', b'{"at": 1, "agents": {"1:1": {"probability": 7}}}'):
        (tmp_path / "board.foreseen").write_bytes(text)
        assert read_foreseen(tmp_path, 1.0, 1, 1) is None
    assert read_foreseen(tmp_path / "nowhere", 1.0, 1, 1) is None
    write_foreseen(tmp_path / "nowhere", 1.0, {})


def test_the_node_s_forecasts_are_reported_and_exported_as_they_are_declared(tmp_path: Path) -> None:
    board, clock = make_board(tmp_path), Clock()
    member = board.join("one", "compute")
    foresight = Foresight(board, lambda: 0.8, clock=clock)
    for at in range(40):
        clock.now = 1000.0 + at
        board.heartbeat(member, cpu=0.4, rss=1 << 20)
        foresight.look(clock.now, reading(cpu_busy_ratio=0.25, memory_available_bytes=1e9, steam=math.nan))
    found = foresight.report()
    assert found["node"]["cpu"]["10s"]["value"] == 0.25
    assert found["node"]["cpu"]["60s"]["error"] is None
    assert found["agents"]["one"]["memory"]["1s"] == {
        "value": 2.0**20, "low": 2.0**20, "high": 2.0**20, "error": 0.0, "errorOfLastValue": 0.0,
        "method": "last value",
    }  # fmt: skip
    assert "temperature" not in found["node"]
    text = metrics.text(board, "n", None, Sensors({}), foresight).decode()
    families = {f.name: f for f in text_string_to_metric_families(text)}
    for one in FORESIGHT:
        family = families[one.name]
        assert all(set(sample.labels) == set(one.labels) for sample in family.samples)
        assert len(family.samples) == (len(HORIZONS) * (4 if "series" in one.labels else 1) if one.labels else 1)
    heat = families["swarm_node_forecast_temperature_celsius"].samples
    assert all(math.isnan(sample.value) for sample in heat)


def test_agents_that_have_gone_make_room_for_others(tmp_path: Path) -> None:
    board, clock = make_board(tmp_path), Clock()
    foresight = Foresight(board, lambda: 0.8, clock=clock)
    for number in range(40):
        member = board.join(f"agent-{number}", "compute")
        foresight.look(clock.now, {})
        board.leave(member)
        clock.now += 130.0
    foresight.look(clock.now, {})
    member = board.join("last", "compute")
    for at in range(5):
        clock.now += 1.0
        board.heartbeat(member, cpu=0.1 * at, rss=5)
        foresight.look(clock.now, {})
    assert foresight.report()["agents"]["last"]["memory"]["1s"]["value"] == 5.0
    assert set(foresight.report()["agents"]) == {"last"}


def test_a_looker_that_fails_is_told_of_once_and_takes_nobody_with_it() -> None:
    class Failing:
        def look(self, now: float, readings: Any) -> None:
            raise RuntimeError("no")

    seen: list[float] = []
    agent = object.__new__(ResourceAgent)
    agent.context = SimpleNamespace(log=structlog.get_logger())  # type: ignore[assignment]
    agent.lookers, agent.unwell = [Failing(), SimpleNamespace(look=lambda now, _: seen.append(now))], set()
    with capture_logs() as logs:
        agent.look(1.0, {})
        agent.look(2.0, {})
    assert seen == [1.0, 2.0]
    assert [entry["looker"] for entry in logs] == ["Failing"]
