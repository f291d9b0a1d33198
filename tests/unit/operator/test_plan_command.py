"""`swarm plan` prints the operator's plan offline, and refuses what the API server would refuse."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
import yaml

from support.clusters import ROOT
from swarm_deploy.commands.plan import BadManifest, plan

EXAMPLE = ROOT / "deploy" / "examples" / "risk.yaml"


def manifest(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "swarm.yaml"
    path.write_text(text)
    return path


def test_the_example_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    plan(EXAMPLE)
    out = capsys.readouterr().out
    for line in ("Swarm default/risk", "Create Pod/risk-compute-3-0", "Create Pod/risk-standby-0-0", "on node-1)"):
        assert line in out
    assert "compute-4" not in out


def test_a_pod_with_a_board_of_its_own_is_shown_with_its_hub(capsys: pytest.CaptureFixture[str]) -> None:
    plan(EXAMPLE.with_name("restricted.yaml"))
    out = capsys.readouterr().out
    assert "Create Pod/risk-compute-3-0 (cpu 1, memory 512Mi; its hub cpu 100m, memory 512Mi)" in out
    assert "resource" not in out


def test_the_objects_can_be_printed_as_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    plan(EXAMPLE, nodes=1, manifests=True)
    kinds = [document["kind"] for document in yaml.safe_load_all(capsys.readouterr().out)]
    assert kinds.count("Pod") == 6
    assert "Secret" not in kinds, "keys are made by the operator alone"


def test_a_field_that_is_not_done_yet_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "apiVersion: agentswarm.dev/v1alpha1\nkind: Swarm\nmetadata: {name: a}\nspec: {security: {allowPickle: true}}\n"
    )
    with pytest.raises(typer.Exit) as stop:
        plan(manifest(tmp_path, text))
    assert stop.value.exit_code == 1
    assert "not accepted: spec.security.allowPickle" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "is no YAML"),
        ("apiVersion: v1\nkind: Pod\n", "holds no Swarm of agentswarm.dev/v1alpha1, but v1 Pod"),
        ("apiVersion: agentswarm.dev/v1alpha1\nkind: Swarm\nspec: {}\n", "without metadata.name"),
        (
            "apiVersion: agentswarm.dev/v1alpha1\nkind: Swarm\nmetadata: {name: a}\nspec: {compute: {replicas: -1}}\n",
            "spec.compute.replicas",
        ),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadManifest, match=says):
        plan(manifest(tmp_path, text))


def test_a_file_that_is_not_there_says_so() -> None:
    with pytest.raises(BadManifest, match="can't be read"):
        plan(Path("/nonexistent.yaml"))


def test_planning_needs_neither_kubernetes_nor_kopf() -> None:
    """In a process of its own: this one may have imported anything."""
    import subprocess

    code = (
        "import sys, pathlib; from swarm_deploy.commands.plan import plan; "
        f"plan(pathlib.Path({str(EXAMPLE)!r})); "
        "bad = {'kubernetes', 'kopf', 'zmq', 'prometheus_client', 'numpy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
