"""Log files: what is written can be read back, by every option, whatever it was."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_deploy.local.kubelet import logs
from swarm_deploy.local.kubelet.logs import ContainerLog, LogOptions, exact, read_log, stamp


async def read(path: Path, **options: object) -> bytes:
    return b"".join([chunk async for chunk in read_log(path, LogOptions(**options))])  # type: ignore[arg-type]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def written(directory: Path, *chunks: bytes, restart: int = 0) -> Path:
    ticks = itertools.count(1_000_000_000)
    log = ContainerLog(directory, restart, clock_ns=lambda: next(ticks))
    stdout, stderr = log.pipes()
    os.close(stderr)
    for chunk in chunks:
        os.write(stdout, chunk)
    os.close(stdout)
    await log.close()
    return log.path


@settings(deadline=None, max_examples=40)
@given(
    lines=st.lists(st.binary(max_size=40).filter(lambda b: b"\n" not in b), max_size=30),
    tail=st.none() | st.integers(0, 35),
    limit=st.none() | st.integers(0, 200),
)
async def test_lines_tail_and_limit(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], tail: int | None, limit: int | None
) -> None:
    path = await written(tmp_path_factory.mktemp("log"), *[line + b"\n" for line in lines])
    kept = lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]
    expected = b"".join(line + b"\n" for line in kept)
    assert await read(path, tail=tail, limit_bytes=limit) == (expected if limit is None else expected[:limit])


async def test_a_long_line_is_one_line_again_and_counts_once(tmp_path: Path) -> None:
    long = b"x" * 50_000
    path = await written(tmp_path, b"first\n", long, b"\nlast\n")
    assert path.read_bytes().count(b" P ") == 3
    assert await read(path, tail=2) == long + b"\nlast\n"
    assert (await read(path, tail=2, timestamps=True)).count(b"Z ") == 2


async def test_a_log_that_grows_too_large_is_begun_anew_and_its_past_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_LARGEST", 1000)
    path = await written(tmp_path, *[f"line {n}\n".encode() for n in range(200)])
    assert names(tmp_path) == ["0.log", "0.log.1"]
    assert path.stat().st_size <= 1100


async def test_only_two_runs_are_kept(tmp_path: Path) -> None:
    for restart in range(4):
        await written(tmp_path, b"x\n", restart=restart)
    assert names(tmp_path) == ["2.log", "3.log"]


async def test_a_process_that_holds_the_pipe_open_does_not_hold_up_the_end(tmp_path: Path) -> None:
    log = ContainerLog(tmp_path, 0)
    stdout, stderr = log.pipes()
    os.write(stdout, b"said\n")
    await log.close(patience=0.05)
    assert await read(log.path) == b"said\n"
    os.close(stdout)
    os.close(stderr)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000000Z"),
        ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456789Z"),
        ("2026-01-02T05:04:05.5+02:00", "2026-01-02T03:04:05.500000000Z"),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, expected: str) -> None:
    assert exact(text) == expected


def test_a_stamp_has_nine_digits() -> None:
    assert stamp(1_000_000_001) == "1970-01-01T00:00:01.000000001Z"
