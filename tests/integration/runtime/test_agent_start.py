"""A pod that can't run says why in one line, and ends with status 2: restarting would not help."""

from __future__ import annotations

import os
import socket

import msgspec
import pytest

from swarm_agents.config import AGENT_PORT


def last_words(pod) -> str:
    lines = pod.log()
    assert lines[-1]["level"] == "error"
    assert "traceback" not in lines[-1]
    return lines[-1]["event"]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("SWARM_NAME", None, "SWARM_NAME"),
        ("POD_IP", None, "POD_IP"),
        ("SWARM_ROLE", "king", "SWARM_ROLE='king'"),
        ("SWARM_ORDINAL", "-1", "SWARM_ORDINAL"),
        ("SWARM_CPUS", "all", "SWARM_CPUS"),
        ("SWARM_UID", "of-another-swarm", "another swarm's ConfigMap"),
        ("SWARM_CONFIG_DIR", "/nonexistent", "settings.json can't be read"),
        ("SWARM_CACHE_DIR", "/proc/nothing", "emptyDir"),
        ("POD_IP", "192.0.2.1", "can't listen on 192.0.2.1"),
    ],
)
def test_a_pod_that_is_set_up_wrongly_says_what_to_change(node, variable: str, value: str | None, words: str) -> None:
    pod = node.start(0, **{variable: value})
    assert pod.ended() == 2
    assert words in last_words(pod)


def test_settings_that_can_not_be_read_are_named_with_their_file(node) -> None:
    (node.root / "config/settings.json").write_text('{"version": 1, "swarm": 3}')
    pod = node.start()
    assert pod.ended() == 2
    assert "settings.json" in last_words(pod)


def test_a_port_in_use_is_an_error_that_says_what_to_do(node) -> None:
    address = node.environ()["POD_IP"]
    with socket.create_server((address, AGENT_PORT)):
        pod = node.start()
        assert pod.ended() == 2
    assert f"{address} port {AGENT_PORT}" in last_words(pod)
    assert "ss -ltnp" in last_words(pod)


def test_a_board_of_another_geometry_is_refused_and_the_one_in_use_goes_on(node) -> None:
    first = node.start().ready()
    transport = msgspec.structs.replace(node.settings.transport, task_slots=512)
    node.write(msgspec.structs.replace(node.settings, transport=transport))
    pod = node.start(1)
    assert pod.ended() == 2
    assert "board" in last_words(pod)
    assert first.http("GET", "/readyz")[0] == 200


def test_nothing_of_a_pod_that_could_not_start_is_left_on_the_node(node) -> None:
    node.start(0, POD_IP="192.0.2.1").ended()
    assert list((node.root / "shm").iterdir()) == []


def test_a_pod_whose_board_was_cut_short_says_so_and_ends(node) -> None:
    pods = [node.start(0).ready(), node.start(1).ready()]
    os.truncate(node.board / "board", 4096)
    # No agent and no supervisor is left to be killed by the kernel without a word of theirs.
    assert [pod.ended() for pod in pods] == [1, 1]
    for pod in pods:
        [lost] = pod.log("BoardLost")
        assert "truncated by somebody" in lost["reason"]
        assert lost["level"] == "error"
    node.start(0).ready()  # it makes a new board


def test_a_pod_whose_agents_always_die_gives_up_with_status_1(node) -> None:
    program = """
import sys
from swarm_agents.runtime import restarts
restarts.GIVE_UP = 4  # the policy has a test of its own, which need not wait
from swarm_agents.compute.agent import ComputeAgent
def start(self):
    raise ValueError("cannot start")
ComputeAgent.start = start
from swarm_agents.runtime.main import main
sys.exit(main())
"""
    pod = node.start(program=program)
    assert pod.ended(60) == 1
    assert len(pod.log("AgentDied")) == 4
    assert pod.log("AgentHopeless")
    assert "cannot start" in pod.log("the agent failed")[0]["traceback"]
