"""The policy's file is read strictly: what is wrong with it is said with its place, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from support.clusters import ROOT
from support.operatorkit import make_spec
from swarm_deploy.commands.plan import plan
from swarm_operator.accept import refusals
from swarm_operator.main import main
from swarm_operator.policy import OPEN, Policy
from swarm_operator.policy_file import BadPolicy, load, parse


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "---\n"])
def test_an_empty_file_restricts_nothing(text: str) -> None:
    assert parse(text) == OPEN


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image: [x]", "image: there is no such key; did you mean images?"),
        ("min_user_id: 5", "min_user_id: there is no such key; did you mean minUserId?"),
        ("zzz: 1", "zzz: there is no such key; known: images, imagePullPolicies"),
        ("images: [a]\nimages: [b]", "images stands there twice"),
        ("images: x", "images: Input should be a valid list"),
        ("images: [1]", "images[0]: Input should be a valid string"),
        ('images: [""]', "images[0]: String should have at least 1 character"),
        ("volumes: [hostPath]", "volumes[0]: Input should be 'configMap', 'secret'"),
        ("minUserId: 0", "minUserId: Input should be greater than or equal to 1"),
        ('minUserId: "1000"', "minUserId: Input should be a valid integer"),
        ("minUserId: 1.5", "minUserId: Input should be a valid integer"),
        ("egress: 1", "egress: Input should be a valid boolean"),
        ("networkPolicy: yes", "networkPolicy: Input should be 'Optional' or 'Required'"),
        ("images:", "images: nothing stands there; leave it out, or write [] to allow nothing"),
        ("- images", "must be a mapping"),
        ("images: [", "no YAML"),
        ("a: 1\n---\nb: 2", "no YAML"),
        ("images: !!python/object/apply:os.system [x]", "no YAML"),
        ("? [a]\n: b", "no YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(BadPolicy) as caught:
        parse(text, "FILE")
    assert str(caught.value).startswith("FILE: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_can_not_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadPolicy, match="can't be read: No such file"):
        load(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"images: [\xff]")
    with pytest.raises(BadPolicy, match="no UTF-8 text"):
        load(tmp_path / "latin")
    (tmp_path / "large").write_text("#" * (1 << 21))
    with pytest.raises(BadPolicy, match="more than 1 MiB"):
        load(tmp_path / "large")


def test_the_operator_does_not_start_with_a_policy_that_it_can_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("image: [x]")
    with pytest.raises(SystemExit) as caught:
        main(["--policy", str(path)])
    assert caught.value.code == 2
    assert f"{path}: image: there is no such key; did you mean images?" in capsys.readouterr().err


def test_the_example_names_every_key_and_lets_the_default_swarm_be() -> None:
    text = (ROOT / "deploy" / "examples" / "policy.yaml").read_text()
    policy = parse(text)
    assert [line.partition(":")[0] for line in text.splitlines() if line[:1].isalpha()] == [
        info.alias for info in Policy.model_fields.values()
    ]
    assert refusals(make_spec(), policy, "risk") == ()
    assert refusals(make_spec(image="elsewhere.example/x"), policy, "risk")


def test_a_plan_is_made_by_the_policy_that_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, manifest = tmp_path / "policy.yaml", tmp_path / "swarm.yaml"
    policy.write_text("images: [registry.example/*]")
    manifest.write_text("{apiVersion: agentswarm.dev/v1alpha1, kind: Swarm, metadata: {name: risk}, spec: {}}")
    with pytest.raises(typer.Exit):
        plan(manifest, policy=policy)
    assert "not accepted: spec.image: agentswarm/agent:0.1.0 is not among the images" in capsys.readouterr().out
    plan(manifest)
    assert "not accepted" not in capsys.readouterr().out
