"""The demo's smaller parts: plots, views, whom it kills, what it finds left behind, and how signals end it."""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.config import Role
from swarm_agents.shm.members import MemberInfo, MemberState
from swarm_deploy.demo import chaos, main
from swarm_deploy.demo.ground import Ground
from swarm_deploy.demo.job import Item, Job
from swarm_deploy.demo.plots import Bar, Mark, Plot, ticks
from swarm_deploy.demo.runner import Record, Runner
from swarm_deploy.demo.view import Live, Plain, Status, duration, make_view, sparkline
from swarm_deploy.demo.watch import Audit, Sample, Seat


def seat(name: str = "risk-compute-0-a", role: str = Role.COMPUTE, **more: Any) -> Seat:
    fields: dict[str, Any] = {
        "index": 3, "name": name, "role": role, "epoch": 1, "pid": os.getpid(), "state": MemberState.ALIVE,
        "heartbeat_age": 0.0, "running": 1, "done": 5, "cpu": 0.9, "rss": 1, "joined": 0.0, "claimed": 0.0,
    }  # fmt: skip
    return Seat("node-0", MemberInfo(**(fields | more)))


# -- whom it kills


def test_the_victim_is_a_compute_agent_in_the_middle_of_a_long_task() -> None:
    now = 100.0
    long = seat("long", claimed=99.96)
    others = [
        seat("idle", running=0, claimed=99.9),
        seat("just begun", claimed=99.999),
        seat("older", claimed=99.5),
        seat("hub", Role.RESOURCE, claimed=99.9),
        seat("spare", Role.STANDBY, claimed=99.9),
        seat("me", "client", claimed=99.9),
        seat("dead", claimed=99.96, state=MemberState.GONE),
    ]
    assert chaos.pick([*others, long], now) is long
    assert chaos.pick([s for s in others if s.member.name != "older"], now) is None


def test_only_a_process_of_this_swarm_and_pod_is_killed() -> None:
    environment = b"A=1\0SWARM_UID=abc\0POD_NAME=risk-compute-0-a\0"
    assert chaos.verified(1, uid="abc", pod="risk-compute-0-a", environment=lambda _: environment)
    assert not chaos.verified(1, uid="ab", pod="risk-compute-0-a", environment=lambda _: environment)
    assert not chaos.verified(1, uid="abc", pod="risk-compute-0", environment=lambda _: environment)
    assert not chaos.verified(os.getpid(), uid="abc", pod="x")


def test_a_process_that_is_not_the_agent_survives() -> None:
    class Board:
        def sample(self) -> Sample:
            return Sample(0.0, (seat(claimed=time.monotonic() - 1),), {}, 0, 0)

    assert chaos.kill(Board(), uid="some-uid", timeout=0.05) is None  # type: ignore[arg-type]


@pytest.fixture
def agent() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose environment is an agent's."""
    env = os.environ | {"SWARM_UID": "some-uid", "POD_NAME": "risk-compute-0-a"}
    with subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()"], stdin=-1, stdout=-1, env=env
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


class Seats:
    """A watch that sees these seats, one sample after the other; the last one again and again."""

    def __init__(self, *seats: Seat) -> None:
        self.seats = list(seats)

    def sample(self) -> Sample:
        seen = self.seats.pop(0) if len(self.seats) > 1 else self.seats[0]
        return Sample(0.0, (seen,), {}, 0, 0)


def test_the_verified_agent_is_killed(agent: subprocess.Popen[bytes]) -> None:
    busy = seat(pid=agent.pid, claimed=time.monotonic() - 1)
    assert chaos.kill(Seats(busy), uid="some-uid", node="node-1", timeout=0.05) is None  # type: ignore[arg-type]
    victim = chaos.kill(Seats(busy), uid="some-uid", node="node-0")  # type: ignore[arg-type]
    assert victim is not None
    assert (victim.pid, victim.agent) == (agent.pid, "risk-compute-0-a")
    assert agent.wait(10) == -signal.SIGKILL


def test_an_agent_that_has_just_finished_its_task_goes_on(agent: subprocess.Popen[bytes]) -> None:
    began = time.monotonic() - 1
    busy, idle = seat(pid=agent.pid, claimed=began), seat(pid=agent.pid, claimed=began, running=0)
    assert chaos.kill(Seats(busy, idle), uid="some-uid", timeout=0.1) is None  # type: ignore[arg-type]
    out, _ = agent.communicate(b"\n", timeout=10)  # it was stopped for a moment, and runs again
    assert agent.returncode == 0
    assert out == b""


def test_more_commits_than_submissions_are_double_commits() -> None:
    assert Audit(10, 10).twice == 0
    assert Audit(10, 12).twice == 2
    assert Audit(10, 9, lost=1).twice == 0


# -- plots


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(3, 10))
def test_ticks_are_round_inside_and_about_as_many_as_asked(low: float, width: float, count: int) -> None:
    found = ticks(low, low + width, count)
    assert all(low - 1e-6 * width <= t <= low + width * (1 + 1e-6) for t in found)
    assert count // 3 <= len(found) <= count + 1


def test_a_plot_of_everything_is_well_formed() -> None:
    plot = Plot((0, 10), (-5, 5), "x & y", "<label>")
    plot.line([0, 1, 2, 3], [1, math.nan, 2, 3], "c1")
    plot.area([0, 5, 10], [0, 1, 2], "c1")
    plot.area([], [], "c1")
    plot.sticks([1, 2], [1, -1], "c0")
    plot.bars(np.linspace(0, 10, 11), list(range(10)), "c1", "{:.1f}".format)
    plot.points([3], [3], ["<a & b>"], "c3")
    plot.mark(Mark(9.0, "late & right"))
    text = plot.svg("all <of> it")
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == "all <of> it"
    assert "<a & b>" in "".join(root.itertext())
    lanes = Plot((0, 1), (0, 1), lanes=["a<", "b"])
    lanes.spans([Bar(0, 0.1, 0.2, "again", "x<"), Bar(1, -5, -4, "again")])
    assert ElementTree.fromstring(lanes.svg("lanes")).tag == "svg"


# -- views


def status(runner: Runner) -> Status:
    made = Status(runner, 2)
    item = Item(0, "what-if", "core.noop", (), {}, "critical")
    seats = (seat(), seat("risk-compute-1-a", state=MemberState.GONE), seat("x", "client"))
    made.update([Record(item, 0.0, 0.003)], Sample(0.0, seats, {"bulk": 7, "high": 0}, 1, 0), 0.1)
    made.rates.extend([10.0, 30.0])
    return made


class Nothing:
    def submit(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is to be submitted")


@pytest.fixture
def runner() -> Runner:
    return Runner(Nothing(), Job((), (), 1, 1), seconds=1.0)


def test_without_a_terminal_progress_is_lines_of_text(runner: Runner) -> None:
    out = io.StringIO()
    view = Plain(out)
    view.say("an event")
    view.show(status(runner))
    view.show(status(runner))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("an event")
    assert "what-if p50 3.0 ms" in lines[1]
    assert "7 waiting" in lines[1]
    assert "\x1b" not in out.getvalue()


def test_in_a_terminal_the_picture_shows_agents_load_and_latency(runner: Runner) -> None:
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=150, height=50)
    view = make_view(console)
    assert isinstance(view, Live)
    try:
        view.step("waiting for something")
        view.say("an event [not markup]")
        view.show(status(runner))
        console.print(view._render())
    finally:
        view.rest()
        view.close()
    text = out.getvalue()
    for words in ("waiting for something", "an event [not markup]", "risk-compute-0-a", "gone", "3.0 ms", "bulk 7"):
        assert words in text, words


def test_spans_and_sparklines_are_for_people() -> None:
    assert [duration(s) for s in (0.0000123, 0.0042, 2.5, math.nan)] == ["12 µs", "4.2 ms", "2.5 s", "–"]
    assert sparkline([0, 1, 2, 4], 3) == "▂▄█"
    assert sparkline([], 5) == ""


# -- beginning and end


def test_what_is_left_behind_is_found() -> None:
    ground = Ground()
    try:
        assert ground.leftovers(0.0) == [str(ground.state)]
        command = [sys.executable, "-c", "print(1, flush=True); input()"]
        with subprocess.Popen(command, stdin=-1, stdout=-1, env=os.environ | {"X": str(ground.state)}) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert f"process {child.pid}" in ground.leftovers(0.0)
            child.communicate(b"\n")
    finally:
        ground.stop()
    assert ground.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_at_any_moment_ends_in_the_clean_up(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states: list[Path] = []

    def interrupted(ground: Ground, *_: Any) -> Any:
        states.append(ground.state)
        os.kill(os.getpid(), number)
        time.sleep(10)
        raise AssertionError("the signal did not arrive")

    monkeypatch.setattr(main, "_demo", interrupted)
    before = signal.getsignal(number)
    assert main.run(report=tmp_path / "report.html", view=Plain(io.StringIO())) == 128 + number
    assert signal.getsignal(number) is before
    assert not states[0].exists()
    assert not (tmp_path / "report.html").exists()
    assert "nothing is left behind" in capsys.readouterr().out


def test_a_second_signal_does_not_cut_the_clean_up_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stopped: list[bool] = []

    def impatient(ground: Ground) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        stopped.append(True)

    def interrupted(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr(main, "_demo", interrupted)
    monkeypatch.setattr(Ground, "stop", lambda self: (impatient(self), os.rmdir(self.state)))
    assert main.run(report=tmp_path / "r.html", view=Plain(io.StringIO())) == 130
    assert stopped == [True]


def test_a_swarm_that_cannot_be_had_is_exit_code_1_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(ground: Ground, *_: Any) -> Any:
        (ground.state / "log").mkdir()
        (ground.state / "log" / "operator.log").write_text("it was like this")
        raise main.DemoError("no room on this machine")

    monkeypatch.setattr(main, "_demo", fails)
    assert main.run(report=tmp_path / "demo" / "report.html", view=Plain(io.StringIO())) == 1
    kept = tmp_path / "demo" / "operator.log"
    assert kept.read_text() == "it was like this"
    said = capsys.readouterr().err
    assert "no room on this machine" in said
    assert str(kept) in said
