"""Mount paths are replaced by the directories behind them, where they stand for themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_deploy.local.kubelet.paths import Translation

MOUNTS = Translation({"/tmp": "/real/t", "/etc/swarm/config": "/real/c", "/etc/swarm": "/real/s"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/tmp", "/real/t"),
        ("/tmp/", "/real/t/"),
        ("/tmp/x/y", "/real/t/x/y"),
        ("/etc/swarm/config/settings.json", "/real/c/settings.json"),
        ("/etc/swarm/other", "/real/s/other"),
        ("a:/tmp:/etc/swarm", "a:/real/t:/real/s"),
        ("--dir=/tmp/x", "--dir=/real/t/x"),
        ("cat '/tmp/x' > /tmp/y;", "cat '/real/t/x' > /real/t/y;"),
        ("shm:///tmp/board", "shm:///real/t/board"),
        ("in /tmp.", "in /real/t."),
    ],
)
def test_a_mount_path_that_stands_for_itself_is_replaced(text: str, expected: str) -> None:
    assert MOUNTS(text) == expected


@pytest.mark.parametrize(
    "text",
    ["/tmpfile", "/tmp-x", "/tmp.d/x", "/var/tmp", "x/tmp", "http://host/tmp", "./tmp", "tmp", "/etc/swarms", ""],
)
def test_what_only_looks_like_one_is_left_alone(text: str) -> None:
    assert MOUNTS(text) == text


@given(st.text(alphabet="/abc.:= -", max_size=40))
def test_without_mounts_nothing_changes(text: str) -> None:
    assert Translation({})(text) == text


@given(st.lists(st.sampled_from(["a", "b", "tmp", "etc"]), min_size=1, max_size=5))
def test_a_path_is_replaced_exactly_when_a_mount_is_above_it(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    expected = "/real" + path.removeprefix("/tmp") if parts[0] == "tmp" else path
    assert Translation({"/tmp": "/real"})(path) == expected
