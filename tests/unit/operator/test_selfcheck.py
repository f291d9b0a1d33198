"""`swarm-operator check --offline`, by which an image is checked."""

from __future__ import annotations

import pytest

from swarm_operator import keys
from swarm_operator.main import main


def test_an_installation_checks_itself_without_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--offline"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("ok ") for line in lines)


def test_what_is_broken_is_named_and_the_rest_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keys, "make_pair", lambda: ("public", "secret"))
    assert main(["check", "--offline"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 1
    assert "keys" in failed[0]
    assert "hub.secret" in failed[0]


def test_offline_says_that_it_belongs_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--offline"])
    assert "--offline belongs to check" in capsys.readouterr().err
