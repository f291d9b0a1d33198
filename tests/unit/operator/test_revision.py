"""The revision changes with what has to restart agents, and with nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from support.operatorkit import make_spec, make_swarm
from swarm_agents.config import settings_revision
from swarm_operator.revision import revision_of, rolling_part
from swarm_operator.settings import settings_of

PLAIN = revision_of(make_spec())

ROLLING: list[dict[str, Any]] = [
    {"image": "agentswarm/agent:2"},
    {"imagePullPolicy": "Always"},
    {"imagePullSecrets": [{"name": "pull"}]},
    {"compute": {"cpus": 2}},
    {"compute": {"memory": "1Gi"}},
    {"compute": {"gpus": {}}},
    {"compute": {"env": [{"name": "A", "value": "b"}]}},
    {"compute": {"podTemplate": {"labels": {"team": "x"}}}},
    {"resource": {"cpus": "200m"}},
    {"transport": {"zeromq": {"port": 7401}}},
    {"transport": {"sharedMemory": {"size": "128Mi"}}},
    {"scheduling": {"nodeSelector": {"pool": "fast"}}},
    {"scheduling": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}},
    {"scheduling": {"topology": {"placement": "Pack"}}},
    {"runtime": {"threads": 2}},
    {"runtime": {"kernelModules": ["mine"]}},
    {"state": {}},
    {"security": {"runAsUser": 1000}},
]
LIVE: list[dict[str, Any]] = [
    {"compute": {"replicas": 7}},
    {"compute": {"standby": 2}},
    {"compute": {"kernels": ["risk.*"]}},
    {"resource": {"interval": "200ms"}},
    {"resource": {"balance": False}},
    {"resource": {"sensors": {"disabled": ["gpu"]}}},
    {"failover": {"deadAfter": "2s"}},
    {"failover": {"prediction": {}}},
    {"failover": {"stragglers": {"factor": 3}}},
    {"failover": {"stragglers": {"percent": 0}}},
    {"failover": {"stragglers": {"minRuntime": "1s"}}},
    {"runtime": {"spin": "10us"}},
    {"runtime": {"logLevel": "debug"}},
    {"rollout": {"maxSurge": 1}},
    {"suspend": True},
]


@pytest.mark.parametrize("spec", ROLLING, ids=str)
def test_a_rolling_field_makes_a_new_revision(spec: dict[str, Any]) -> None:
    assert revision_of(make_spec(**spec)) != PLAIN


@pytest.mark.parametrize("spec", LIVE, ids=str)
def test_a_live_field_rolls_nothing(spec: dict[str, Any]) -> None:
    assert revision_of(make_spec(**spec)) == PLAIN


def test_how_often_tasks_are_checkpointed_reaches_the_agents_and_rolls_nothing() -> None:
    volume, often = make_spec(state={}), make_spec(state={"checkpointInterval": "10s"})
    assert revision_of(often) == revision_of(volume) != PLAIN
    before, after = (settings_of(make_swarm(), spec, "r", ()) for spec in (volume, often))
    assert (before.checkpoints.interval, after.checkpoints.interval) == (0.25, 10.0)


def test_agents_keep_less_on_a_volume_than_it_may_hold() -> None:
    spec = make_spec(state={"sizeLimit": "100Mi"})
    assert settings_of(make_swarm(), spec, "r", ()).checkpoints.volume_bytes < 100 << 20


def test_defaults_written_out_and_other_notations_are_the_same_revision() -> None:
    long = make_spec(
        image="agentswarm/agent:0.1.0", compute={"cpus": "1000m", "memory": "524288Ki", "env": []}, scheduling={}
    )
    assert rolling_part(long) == {}
    assert revision_of(long) == PLAIN


def test_the_revision_is_a_promise_to_running_swarms() -> None:
    """Another hash of the same spec would roll every swarm when the operator is upgraded: never change these."""
    assert PLAIN == "f43abb3290"
    spec = make_spec(image="registry.example/agent:3", compute={"cpus": 4, "memory": "8Gi", "gpus": {"count": 2}})
    assert revision_of(spec) == "8b87ff3567"


NOT_FOR_AGENTS = ("suspend", "rollout", "replicas", "standby", "prediction")


@pytest.mark.parametrize("spec", [s for s in LIVE if not any(word in str(s) for word in NOT_FOR_AGENTS)], ids=str)
def test_a_live_field_that_agents_read_changes_the_settings(spec: dict[str, Any]) -> None:
    before = settings_revision(settings_of(make_swarm(), make_spec(), "r", ()))
    assert settings_revision(settings_of(make_swarm(), make_spec(**spec), "r", ())) != before


def test_scaling_does_not_change_the_settings() -> None:
    before = settings_of(make_swarm(), make_spec(), "r", ())
    scaled = settings_of(make_swarm(generation=9), make_spec(compute={"replicas": 50, "standby": 3}), "r", ())
    assert scaled == before
