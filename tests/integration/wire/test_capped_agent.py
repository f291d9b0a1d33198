"""A compute agent on a node that has reached a cap of power or heat: it rests, but not from critical work."""

from __future__ import annotations

import threading
import time

import structlog

from support.boardkit import Node
from support.wirekit import UID, make_settings
from swarm_agents.client import Swarm
from swarm_agents.compute.agent import ComputeAgent
from swarm_agents.compute.registry import kernel
from swarm_agents.config import Identity, Role
from swarm_agents.runtime.context import AgentContext
from swarm_agents.runtime.scoreboard import Scoreboard
from swarm_agents.shm.pace import set_pace

order: list[str] = []


@kernel("capped.note")
def note(name: str, seconds: float = 0.0) -> str:
    """Notes that it was begun."""
    order.append(name)
    time.sleep(seconds)
    return name


def test_it_rests_after_a_task_takes_critical_work_meanwhile_and_everything_is_answered(tmp_path):
    node = Node(tmp_path / "a")
    identity = Identity(
        swarm="risk", namespace="test", uid=UID, role=Role.COMPUTE, ordinal=0, pod="risk-compute-0-1", pod_uid="x",
        pod_ip="127.0.0.1", node="a", revision="", config_dir=tmp_path, keys_dir=tmp_path, shm_dir=tmp_path,
        cache_dir=tmp_path,
    )  # fmt: skip
    context = AgentContext(identity, make_settings(), node.board, Scoreboard(), None, structlog.get_logger())
    context.member = node.join(identity.pod, "compute")
    context.active = True
    agent = ComputeAgent(context)
    thread = threading.Thread(target=agent.run, daemon=True)
    order.clear()
    set_pace(node.board.mapping, 0.1, 60.0)
    try:
        with Swarm.connect(node.url) as swarm:
            futures = [swarm.submit("capped.note", "first", 0.1)]
            futures += [swarm.submit("capped.note", f"normal {n}") for n in range(3)]
            thread.start()
            assert futures[0].result(20) == "first"
            # it owes 0.9 s of rest, and what is normal waits for that
            assert swarm.run("capped.note", "critical", priority="critical", timeout=20) == "critical"
            assert [future.result(20) for future in futures[1:]] == ["normal 0", "normal 1", "normal 2"]
        assert order[:2] == ["first", "critical"]
    finally:
        context.stop_at, context.stopping = time.monotonic(), True
        context.wake()
        thread.join(20)
        agent.close()
        node.close()
    assert not thread.is_alive()
