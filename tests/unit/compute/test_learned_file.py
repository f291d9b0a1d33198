"""The node's record of costs: what is shared arrives, and what is no record reads as nothing."""

import zlib

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm_agents.compute.learnedfile import LARGEST, read, share
from swarm_agents.compute.learner import Figure

ONE = {("a.b", 10, "simd"): Figure(-18.0, 0.1, 8)}
TWO = {("a.b", 11, "numpy"): Figure(-17.0, 0.2, 3)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "learned"


def _write(path, record):
    body = msgspec.msgpack.encode(record)
    path.write_bytes(b"SWLEARN\x01" + zlib.crc32(body).to_bytes(4, "little") + body)


def test_what_two_agents_share_is_read_by_a_third(path):
    share(path, "cpu-1", ONE)
    assert share(path, "cpu-1", TWO) == ONE | TWO
    assert read(path, "cpu-1") == ONE | TWO
    assert [each.name for each in path.parent.iterdir()] == ["learned"]


def test_a_record_of_other_hardware_is_not_used(path):
    share(path, "cpu-1", ONE)
    assert read(path, "cpu-2") == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_a_torn_or_altered_record_reads_as_nothing(path, data):
    path.unlink(missing_ok=True)
    share(path, "cpu-1", ONE)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    for bad in (whole[:at], flipped):
        path.write_bytes(bad)
        assert read(path, "cpu-1") == {}
    assert share(path, "cpu-1", TWO) == TWO


@pytest.mark.parametrize(
    "row",
    [
        ["a.b", 1, "x", float("nan"), 0.1, 1],
        ["a.b", 1, "x", float("inf"), 0.1, 1],
        ["a.b", 1, "x", -9.0, -0.1, 1],
        ["a.b", 1, "x", -9.0, 0.1, 0],
        ["a.b", 1, "x", -9.0, 0.1, 10**9],
        ["a.b", 10**6, "x", -9.0, 0.1, 1],
        ["a.b", "1", "x", -9.0, 0.1, 1],
        [],
    ],
    ids=str,
)
def test_a_sealed_record_with_absurd_rows_reads_as_nothing(path, row):
    _write(path, ["cpu-1", [row]])
    assert read(path, "cpu-1") == {}


def test_a_file_beyond_any_records_size_is_not_read(path):
    _write(path, ["cpu-1", [["a" * LARGEST, 1, "x", -9.0, 0.1, 1]]])
    assert read(path, "cpu-1") == {}


def test_a_missing_file_and_a_directory_in_its_place_read_as_nothing(path):
    assert read(path, "cpu-1") == {}
    path.mkdir()
    assert read(path, "cpu-1") == {}
    with pytest.raises(OSError, match="learned"):
        share(path, "cpu-1", ONE)
    assert [each.name for each in path.parent.iterdir()] == ["learned"]
