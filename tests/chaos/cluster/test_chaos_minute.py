"""A minute of faults on a small cluster: nothing is lost, nothing is doubled, it heals, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm_deploy.chaos import main
from swarm_deploy.chaos.faults import KINDS

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(420)]


def test_a_minute_of_faults_loses_and_doubles_no_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # it remembers the one before
    lines: list[str] = []
    code = main.chaos(
        swarm=None,
        seconds=45.0,
        seed=12,  # a network cut, a node lost, a disk full and the API server killed come first
        only=[],
        weight=[],
        every=1.5,
        clients=2,
        nodes=2,
        replicas=2,
        standby=1,
        report=tmp_path / "chaos.json",
        say=lines.append,
    )
    said = "\n".join(lines)
    document = json.loads((tmp_path / "chaos.json").read_text())
    assert code == 0, said
    assert document["lost"] == document["doubled"] == 0
    assert document["wrong"] == document["left"] == []
    assert document["healedSeconds"] is not None
    assert document["answered"] > 300, said
    assert document["answered"] + sum(document["failed"].values()) == document["sent"]
    assert document["ledger"]["accepted"] >= document["answered"] - len(document["faults"])
    # The minute is short, and a machine may be slow; but all strands of the schedule have been at work.
    assert sum(document["done"].values()) >= 10, said
    for wide in (False, True):
        assert sum(document["done"][name] for name, kind in KINDS.items() if kind.wide == wide) >= 2, said
    assert "lost 0, doubled 0, wrong 0" in said
