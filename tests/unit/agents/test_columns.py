"""Figures picked out of a file by compiled code: the same as the parser's, whatever comes, at whatever length."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agents.resource.sensing.columns import Columns
from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.scan import NUMBER


def everything(data: bytes) -> tuple[bytes, list[int]]:
    """All numbers, in order."""
    return data, [int(found[0]) for found in NUMBER.finditer(data)]


def columns(root: Path, text: str) -> Columns[bytes]:
    (root / "file").write_text(text)
    return Columns(Files(root), "file", everything)


def test_the_numbers_are_read_and_learnt_anew_only_when_a_word_changes(tmp_path: Path) -> None:
    learnt: list[bytes] = []

    def learn(data: bytes) -> tuple[None, list[int]]:
        learnt.append(data)
        return None, [2, 0, 99, 1]

    (tmp_path / "file").write_text("cpu0 10 some=0.25 total:7/9\n")
    file = Columns(Files(tmp_path), "file", learn)
    assert file.read()
    assert learnt == [b"cpu0 1 some=2 total:3/4\n"]
    for _ in range(2):
        assert file.values[0] == 0.25
        assert file.values[3] == 10.0
        assert all(map(math.isnan, file.values[1:3])), "none, and none such"
        assert not file.read()
    (tmp_path / "file").write_text("cpu0     123456 some=12.50 total:7/9\n")
    assert not file.read(), "wider numbers are the same words"
    assert file.values[0] == 12.5
    for other in ("cpu1 10 some=0.25 total:7/9\n", "cpu1 10 some=0.25 total:7/9", "cpu1 10 some=-1 total:7/9"):
        (tmp_path / "file").write_text(other)
        assert file.read(), "what was not to be had is a word"


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="019.:=/ -+\tab\n\0é", max_size=200) | st.text(max_size=60))
def test_compiled_code_and_the_pattern_agree_on_what_a_number_is(tmp_path_factory, text: str) -> None:
    root = tmp_path_factory.mktemp("numbers")
    (root / "file").write_bytes(text.encode())
    file = Columns(Files(root), "file", everything)
    file.read()
    file.read()
    expected = [float(found[0]) for found in NUMBER.finditer(text.encode())]
    assert file.values.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("lines", [1, 100, 5000])
def test_files_of_any_length_are_read_whole(tmp_path: Path, lines: int) -> None:
    file = columns(tmp_path, "".join(f"name{at} {at}\n" for at in range(lines)))
    assert file.read()
    assert file.values.tolist() == list(map(float, range(lines)))
    (tmp_path / "file").write_text("".join(f"name{at} {at + 1}\n" for at in range(lines)))
    assert not file.read()
    assert file.values[-1] == lines


def test_a_parser_that_refuses_is_asked_again_and_an_absurd_file_is_an_error(tmp_path: Path) -> None:
    def learn(data: bytes) -> tuple[None, list[int]]:
        if not re.match(rb"good", data):
            raise ValueError("no good")
        return None, [1]

    (tmp_path / "file").write_text("bad 1\n")
    file = Columns(Files(tmp_path), "file", learn)
    for _ in range(2):
        with pytest.raises(ValueError, match="no good"):
            file.read()
    (tmp_path / "file").write_text("good 3\n")
    assert file.read()
    assert file.values.tolist() == [3.0]
    (tmp_path / "file").write_bytes(b"good 3 " * (1 << 20))
    with pytest.raises(OSError, match="longer than"):
        file.read()
    (tmp_path / "file").unlink()
    with pytest.raises(FileNotFoundError):
        file.read()
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        file.read()
