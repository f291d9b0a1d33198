"""Finding a swarm: what is named wins, then the environment, then the pod, then what other packages know."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from swarm_agents.client import Connection, Swarm, SwarmError, Unreachable, read_connection, resolve, write_connection
from swarm_agents.config import Hub, Settings, board_directory, encode_settings

HUB = Hub(node="n1", address="tcp://10.0.0.1:7400", public_key="k" * 40, rest="http://10.0.0.1:7480")
FULL = Connection(
    swarm="risk",
    namespace="team",
    uid="u-1",
    board="/dev/shm/agentswarm-u-1",
    hubs=(HUB,),
    server_key="s" * 40,
    public_key="p" * 40,
    secret_key="x" * 40,
    token="t",
)


@pytest.fixture(autouse=True)
def no_resolvers(monkeypatch):
    """Nothing that happens to be installed here, and no kubeconfig of whoever runs the tests."""
    monkeypatch.setattr("swarm_agents.client.connection.entry_points", lambda group: ())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("shm:///dev/shm/agentswarm-1", Connection(board="/dev/shm/agentswarm-1")),
        ("tcp://10.0.0.1:7400", Connection(hubs=(Hub(node="", address="tcp://10.0.0.1:7400"),))),
        ("https://swarm.example/", Connection(hubs=(Hub(node="", address="", rest="https://swarm.example"),))),
    ],
)
def test_a_url_is_a_connection_to_what_it_names(url, expected):
    assert resolve(url, env={}) == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("tcp://10.0.0.1", "has a port"),
        ("shm://dev/shm/x", "three slashes"),
        ("ftp://10.0.0.1", "expected shm://"),
    ],
)
def test_a_url_that_can_not_be_meant_is_refused_with_the_right_form(url, says):
    with pytest.raises(ValueError, match=says):
        resolve(url, env={})


def test_keywords_replace_what_the_target_says():
    got = resolve("tcp://10.0.0.1:7400", server_key="S", public_key="P", secret_key="X", token="T", env={})
    assert (got.server_key, got.public_key, got.secret_key, got.token) == ("S", "P", "X", "T")


def test_a_connection_file_is_its_owners_alone_and_reads_back(tmp_path):
    path = tmp_path / "risk.json"
    write_connection(FULL, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_connection(path) == FULL
    assert resolve(path, env={}) == FULL
    assert resolve(None, env={"SWARM_ENDPOINT": str(path)}) == FULL
    assert [entry.name for entry in tmp_path.iterdir()] == ["risk.json"]


def test_a_file_that_is_none_says_what_writes_one(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('{"hubs": 3}')
    with pytest.raises(SwarmError, match=r"no connection file.*swarm connection"):
        resolve(path, env={})


def test_a_pod_of_the_swarm_finds_its_board_its_hubs_and_its_keys(tmp_path: Path):
    keys, config = tmp_path / "keys", tmp_path / "config"
    keys.mkdir()
    config.mkdir()
    for name, value in {
        "hub.public": "h" * 40,
        "client.public": "p" * 40,
        "client.secret": "x" * 40,
        "token": "t",
    }.items():
        (keys / name).write_text(value + "\n")
    settings = Settings(swarm="risk", namespace="team", uid="u-1", hubs=(HUB,))
    (config / "settings.json").write_bytes(encode_settings(settings))
    env = {
        "SWARM_NAME": "risk",
        "SWARM_NAMESPACE": "team",
        "SWARM_UID": "u-1",
        "SWARM_SHM_DIR": "/run/swarm/shm",
        "SWARM_CONFIG_DIR": str(config),
        "SWARM_KEYS_DIR": str(keys),
    }
    assert resolve(None, env=env) == Connection(
        swarm="risk",
        namespace="team",
        uid="u-1",
        board=str(board_directory(Path("/run/swarm/shm"), "u-1")),
        hubs=(HUB,),
        server_key="h" * 40,
        public_key="p" * 40,
        secret_key="x" * 40,
        token="t",
    )
    (config / "settings.json").unlink()
    assert resolve(None, env=env).hubs == ()
    (keys / "hub.public").write_text("short")
    with pytest.raises(SwarmError, match="CURVE key has 40"):
        resolve(None, env=env)


def from_kubeconfig(target):
    return FULL if target in (None, "context/risk") else None


def test_what_is_no_url_and_no_file_is_asked_of_the_resolvers(monkeypatch):

    class Found:
        value = "swarm_deploy.connect:resolve"

        @staticmethod
        def load():
            return from_kubeconfig

    monkeypatch.setattr("swarm_agents.client.connection.entry_points", lambda group: (Found,))
    assert resolve("context/risk", env={}) == FULL
    assert resolve(None, env={}) == FULL
    with pytest.raises(Unreachable, match="'other' is no URL"):
        resolve("other", env={})


def test_a_resolver_whose_packages_are_missing_is_named_when_it_was_needed(monkeypatch):
    class Missing:
        value = "swarm_deploy.connect:resolve"

        @staticmethod
        def load():
            raise ImportError("No module named 'kubernetes'")

    monkeypatch.setattr("swarm_agents.client.connection.entry_points", lambda group: (Missing,))
    with pytest.raises(Unreachable, match=r"agentswarm\[deploy\]"):
        resolve("context/risk", env={})
    with pytest.raises(Unreachable, match="swarm up"):
        resolve(None, env={})


def test_nothing_at_all_says_all_the_ways_to_name_a_swarm(monkeypatch):
    for name in ("SWARM_ENDPOINT", "SWARM_UID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Unreachable, match=r"pass a URL.*SWARM_ENDPOINT.*swarm up"):
        Swarm.connect()


def test_no_text_of_a_connection_holds_a_secret():
    assert FULL.secret_key not in repr(FULL)
    assert "token" not in repr(FULL)
