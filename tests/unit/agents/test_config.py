"""The settings contract between operator and agents."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from swarm_agents.config import (
    Hub,
    Identity,
    Priority,
    Role,
    Settings,
    Transport,
    board_directory,
    decode_settings,
    encode_settings,
    settings_revision,
)

ENVIRONMENT = {
    "SWARM_NAME": "risk", "SWARM_NAMESPACE": "default", "SWARM_UID": "u-1",
    "SWARM_ROLE": "compute", "SWARM_ORDINAL": "3",
    "POD_NAME": "risk-compute-3-0", "POD_UID": "p-1", "POD_IP": "127.9.0.1", "NODE_NAME": "node-1",
    "SWARM_CONFIG_DIR": "/c", "SWARM_KEYS_DIR": "/k", "SWARM_SHM_DIR": "/s", "SWARM_CACHE_DIR": "/j",
}  # fmt: skip


def make_settings(**changes: object) -> Settings:
    return Settings(**({"swarm": "risk", "namespace": "default", "uid": "u-1"} | changes))  # type: ignore[arg-type]


def test_settings_come_back_equal_and_equal_settings_are_equal_bytes() -> None:
    settings = make_settings(hubs=(Hub(node="n", address="tcp://127.0.0.1:7400"),), transport=Transport(task_slots=128))
    assert decode_settings(encode_settings(settings)) == settings
    assert encode_settings(decode_settings(encode_settings(settings))) == encode_settings(settings)


def test_the_revision_follows_the_content() -> None:
    assert settings_revision(make_settings()) == settings_revision(make_settings())
    assert settings_revision(make_settings()) != settings_revision(make_settings(generation=2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hubz": []}, "hubz"),
        ({"transport": {"taskSlots": 1}}, "taskSlots|transport"),
        ({"uid": 3}, "uid"),
        ({"version": 9}, "version 9"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_the_field(change: dict[str, object], says: str) -> None:
    text = json.dumps(json.loads(encode_settings(make_settings())) | change)
    with pytest.raises(ValueError, match=says):
        decode_settings(text)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_settings_document_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="settings"):
        decode_settings(text)


def test_an_identity_is_read_from_the_environment() -> None:
    identity = Identity.from_environment(ENVIRONMENT)
    assert identity.role is Role.COMPUTE
    assert identity.ordinal == 3
    assert identity.cache_seed is None
    assert board_directory(identity.shm_dir, identity.uid) == Path("/s/agentswarm-u-1")


def test_an_agent_that_shares_its_pod_has_a_name_a_node_and_a_port_of_its_own() -> None:
    more = {"SWARM_AGENT": "risk-hub-3-0", "SWARM_NODE": "risk-compute-3-0", "SWARM_HTTP_PORT": "9403"}
    identity = Identity.from_environment(ENVIRONMENT | more)
    assert (identity.pod, identity.node, identity.http_port) == ("risk-hub-3-0", "risk-compute-3-0", 9403)
    assert Identity.from_environment(ENVIRONMENT).http_port is None


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1"])
def test_a_port_that_is_none_is_named(port: str) -> None:
    with pytest.raises(ValueError, match="SWARM_HTTP_PORT"):
        Identity.from_environment(ENVIRONMENT | {"SWARM_HTTP_PORT": port})


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Identity.from_environment({k: v for k, v in ENVIRONMENT.items() if k != name})


@pytest.mark.parametrize(("name", "value"), [("SWARM_ROLE", "boss"), ("SWARM_ORDINAL", "-1"), ("SWARM_ORDINAL", "x")])
def test_a_variable_that_does_not_parse_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        Identity.from_environment(ENVIRONMENT | {name: value})


def test_lanes_follow_the_order_of_priorities() -> None:
    assert [p.lane for p in (Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.BULK)] == [0, 1, 2, 3]


def test_reading_settings_imports_none_of_the_heavy_libraries() -> None:
    program = (
        "import sys, swarm_agents.config; "
        "print(*sorted({'numpy', 'numba', 'zmq', 'kubernetes', 'kopf', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
