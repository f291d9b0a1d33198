"""A board that a program can't reach, as one that is private to a pod: it goes by a hub, or is told what is wrong."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from support.wirekit import connection, connection_to, free_port
from swarm_agents.client import Swarm, Unreachable


def test_a_program_that_can_not_reach_the_board_goes_by_a_hub_by_itself(make_hub, tmp_path: Path) -> None:
    hub = make_hub()
    both = msgspec.structs.replace(connection(hub), board=str(tmp_path / "agentswarm-in-another-pod"))
    with Swarm.connect(both) as swarm:
        assert swarm.endpoint == hub.url
        assert swarm.run("core.echo", 7, timeout=10) == 7


def test_a_program_that_can_reach_neither_is_told_of_both(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    both = msgspec.structs.replace(connection_to(address), board=str(tmp_path / "agentswarm-in-another-pod"))
    with pytest.raises(Unreachable) as told:
        Swarm.connect(both, timeout=1.0)
    for text in ("no board at", "agentswarm-in-another-pod", address):
        assert text in str(told.value)


def test_a_swarm_without_hubs_yet_says_so() -> None:
    with pytest.raises(Unreachable, match="neither a board nor a hub: is the swarm running"):
        Swarm.connect(connection_to(), timeout=1.0)
