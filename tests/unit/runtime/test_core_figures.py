"""What the kernel's files say of an agent's cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm_agents.runtime.corefigures import CoreFigures

PID = 7


def write(root: Path, path: str, text: str | int) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")


def write_stat(root: Path, *cores: tuple[int, ...]) -> None:
    lines = ["cpu 0 0 0 0 0 0 0 0 0 0"]
    lines += [f"cpu{n} {' '.join(map(str, times))} 0 0" for n, times in enumerate(cores)]
    write(root, "proc/stat", "\n".join([*lines, "intr 1 2", "ctxt 5"]))


def stat_line(number: int, used: int, core: int) -> str:
    fields = ["R", *["0"] * 10, str(used), "0", *["0"] * 23, str(core), "0", "0"]
    return f"{number} (a) name (x) {' '.join(fields)}"


def write_thread(root: Path, thread: int, used: int, core: int) -> None:
    write(root, f"proc/{PID}/task/{thread}/stat", stat_line(thread, used, core))


#                user nice sys idle iowait irq soft steal
IDLE = (100, 0, 0, 100, 0, 0, 0, 0)


def test_steal_is_a_share_of_the_cores_time_and_threads_that_work_are_counted(tmp_path: Path) -> None:
    figures = CoreFigures(tmp_path)
    write_stat(tmp_path, IDLE, IDLE)
    write_thread(tmp_path, 8, 0, 0)
    assert figures.read([0, 1], PID) == ({}, 0)
    write_stat(tmp_path, (180, 0, 0, 100, 0, 0, 0, 20), (160, 0, 0, 140, 0, 0, 0, 0))
    write_thread(tmp_path, 8, 80, 0)
    cores, busy = figures.read([0, 1], PID)
    assert cores[0].steal == pytest.approx(0.2)
    assert cores[1].steal == 0.0
    assert busy == 1


def test_many_threads_that_share_the_cores_that_are_left_want_one_each(tmp_path: Path) -> None:
    figures = CoreFigures(tmp_path)
    write_stat(tmp_path, IDLE)
    for thread in range(10, 26):
        write_thread(tmp_path, thread, 0, 0)
    write_thread(tmp_path, 9, 0, 0)
    figures.read([0], PID)
    write_stat(tmp_path, (260, 0, 0, 100, 0, 0, 0, 0))
    for thread in range(10, 26):
        write_thread(tmp_path, thread, 10, 0)
    write_thread(tmp_path, 9, 1, 0)
    assert figures.read([0], PID)[1] == 16


def test_throttling_is_counted_from_one_look_to_the_next(tmp_path: Path) -> None:
    figures = CoreFigures(tmp_path)
    count = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    seen = []
    for step, value in enumerate((1000, 1003, 5)):  # the last: it went backwards
        write_stat(tmp_path, (100, 0, 0, 100 + step, 0, 0, 0, 0))
        write(tmp_path, count, value)
        cores, _ = figures.read([0], PID)
        seen += [core.throttles for core in cores.values()]
    assert seen == [3.0, 0.0]


def test_each_core_has_its_own_temperature_and_limit_also_on_a_second_package(tmp_path: Path) -> None:
    for package in (0, 1):
        chip = f"sys/class/hwmon/hwmon{package + 3}"
        write(tmp_path, f"{chip}/name", "coretemp")
        write(tmp_path, f"{chip}/temp1_label", f"Package id {package}")
        write(tmp_path, f"{chip}/temp2_label", "Core 4")
        write(tmp_path, f"{chip}/temp2_input", 60_000 + 1000 * package)
        write(tmp_path, f"{chip}/temp2_crit", 100_000)
        write(tmp_path, f"sys/devices/system/cpu/cpu{package}/topology/core_id", 4)
        write(tmp_path, f"sys/devices/system/cpu/cpu{package}/topology/physical_package_id", package)
    figures = CoreFigures(tmp_path)
    write_stat(tmp_path, IDLE, IDLE)
    figures.read([0, 1], PID)
    write_stat(tmp_path, *[(100, 0, 0, 110, 0, 0, 0, 0)] * 2)
    cores, _ = figures.read([0, 1], PID)
    assert [(core.celsius, core.limit) for core in cores.values()] == [(60.0, 100.0), (61.0, 100.0)]
    write(tmp_path, "sys/class/hwmon/hwmon3/temp2_input", 999_000)
    (tmp_path / "sys/class/hwmon/hwmon4/temp2_input").unlink()
    write_stat(tmp_path, *[(100, 0, 0, 120, 0, 0, 0, 0)] * 2)
    cores, _ = figures.read([0, 1], PID)
    assert [core.celsius for core in cores.values()] == [None, None]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cpu",
        "cpu0",
        "cpu0 1 2",
        "cpu0 1 2 3 4 5 6 7 8",
        "cpu0 a b c d e f g h\n",
        "cpu0 -1 2 3 4 5 6 7 8\n",
        "\0\n",
    ],
)
def test_a_file_that_is_cut_off_or_absurd_says_nothing(tmp_path: Path, text: str) -> None:
    figures = CoreFigures(tmp_path)
    for _ in range(2):
        write(tmp_path, "proc/stat", "")
        (tmp_path / "proc/stat").write_text(text)
        assert figures.read([0], PID) == ({}, 0)


def test_a_core_that_is_switched_off_and_comes_back_begins_anew(tmp_path: Path) -> None:
    figures = CoreFigures(tmp_path)
    for cores in ([IDLE, IDLE], [IDLE], [IDLE, (0, 0, 0, 9, 0, 0, 0, 0)]):
        write_stat(tmp_path, *cores)
        assert list(figures.read([0, 1], PID)[0]) == []
    write_stat(tmp_path, IDLE, (0, 0, 0, 19, 0, 0, 0, 0))
    assert list(figures.read([0, 1], PID)[0]) == [1]


def test_this_machine_can_be_looked_at() -> None:
    figures = CoreFigures()
    figures.read(os.sched_getaffinity(0), os.getpid())
    cores, busy = figures.read(os.sched_getaffinity(0), os.getpid())
    assert set(cores) <= os.sched_getaffinity(0)
    assert busy >= 0
