"""Starting, stopping, draining and settings of a real pod."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

import msgspec
import pytest

from swarm_agents.config import HUB_PORT, Role, encode_settings, settings_revision


def test_a_pod_answers_probes_status_and_metrics(lone) -> None:
    pod = lone.first
    before = pod.metric('swarm_tasks_total{priority="normal",result="ok"}')
    assert pod.http("GET", "/healthz", token=None) == (200, {"status": "ok"})
    assert pod.http("GET", "/readyz", token=None) == (200, {"status": "ok"})
    lone.client.submit("core.noop")
    lone.client.answers(1)
    status = pod.status()
    assert status["agent"] == "risk-compute-0-0"
    assert (status["role"], status["state"], status["running"], status["node"]) == ("compute", "ready", 0, "node-0")
    assert status["settings"] == settings_revision(lone.node.settings)
    assert status["cores"] == sorted(os.sched_getaffinity(0))
    assert status["coresExclusive"] in (True, False, None)
    assert status["coresReason"]
    assert pod.metric("swarm_agent_up") == 1
    assert pod.metric('swarm_tasks_total{priority="normal",result="ok"}') == before + 1
    assert pod.metric('swarm_task_seconds_count{priority="normal"}') >= 1
    assert pod.metric("swarm_agent_epoch") == status["epoch"]
    assert pod.metric("swarm_agent_resident_memory_bytes") > 1e7


def test_what_is_not_public_needs_the_token(pair) -> None:
    for method, path in (
        ("GET", "/v1/status"),
        ("PUT", "/v1/settings"),
        ("POST", "/v1/drain"),
        ("POST", "/v1/resume"),
        ("GET", "/v1/events"),
    ):
        for token in (None, "wrong", ""):
            status, body = pair.first.http(method, path, b"" if method != "GET" else None, token=token)
            assert (status, "Authorization" in body["error"]) == (401, True)
    assert pair.first.http("GET", "/nothing")[0] == 404
    assert pair.first.http("DELETE", "/v1/status")[0] == 405


def test_pushed_settings_are_acknowledged_when_the_agent_runs_by_them_and_outlive_it(lone) -> None:
    pod, client = lone.first, lone.client
    new = lone.node.with_runtime(kernels=("core.echo",))
    assert pod.http("PUT", "/v1/settings", encode_settings(new)) == (200, {"settings": settings_revision(new)})
    assert pod.status()["settings"] == settings_revision(new)
    client.submit("core.noop")
    assert "not allowed" in str(client.answers(1)[0].error)
    client.submit("core.echo", 1)
    assert client.answers(1)[0].value == 1
    os.kill(client.agent_pid(pod), signal.SIGKILL)
    client.submit("core.noop")
    assert "not allowed" in str(client.answers(1)[0].error)


def test_settings_that_do_not_fit_are_refused_and_the_old_ones_hold(pair) -> None:
    settings = pair.node.settings
    for body, word in (
        (b"{", "can't be read"),
        (b"[]", "can't be read"),
        (encode_settings(msgspec.structs.replace(settings, uid="another")), "another"),
        (encode_settings(pair.node.with_runtime(kernel_modules=("no_such_module",))), "no_such_module"),
        (b"x" * (5 << 20), "bytes at most"),
    ):
        status, answer = pair.first.http("PUT", "/v1/settings", body)
        assert status in (400, 413)
        assert word in answer["error"]
    assert pair.first.status()["settings"] == settings_revision(settings)


def test_newer_settings_in_the_config_map_are_taken_though_nobody_pushed_them(pair, eventually) -> None:
    new = pair.node.with_runtime(log_level="debug")
    pair.node.write(new)
    eventually("the file is read", lambda: pair.first.status().get("settings") == settings_revision(new))


def test_a_draining_agent_finishes_claims_nothing_more_and_takes_work_again_when_resumed(lone, eventually) -> None:
    pod, client = lone.first, lone.client
    client.submit("core.sleep", 0.3)
    eventually("it works", lambda: pod.status().get("running") == 1)
    status, body = pod.http("POST", "/v1/drain", b"")
    assert (status, body["state"]) == (202, "draining")
    client.submit("core.echo", 2)
    assert client.answers(1)[0].error is None
    eventually("drained", lambda: pod.status().get("state") == "drained")
    assert not client.port.wait(0.2), "a drained agent has taken a task"
    restarts = pod.status()["restarts"]
    os.kill(client.agent_pid(pod), signal.SIGKILL)
    eventually(
        "drained as before",
        lambda: (pod.status().get("restarts"), pod.status().get("state")) == (restarts + 1, "drained"),
    )
    status, body = pod.http("POST", "/v1/resume", b"")
    assert (status, body["state"]) == (202, "ready")
    assert client.answers(1)[0].value == 2


def test_an_agent_follows_its_cores_when_they_change(pair, eventually) -> None:
    everywhere = os.sched_getaffinity(0)
    here = {max(everywhere)}
    agent = pair.client.agent_pid(pair.first)
    os.sched_setaffinity(pair.first.process.pid, here)  # as the kernel does when the kubelet rewrites the cpuset
    try:
        eventually("the new cores", lambda: pair.first.status().get("cores") == sorted(here))
        threads = [int(thread) for thread in os.listdir(f"/proc/{agent}/task")]
        assert len(threads) > 1
        assert all(os.sched_getaffinity(thread) == here for thread in threads)
    finally:
        os.sched_setaffinity(pair.first.process.pid, everywhere)
        eventually("the old cores", lambda: pair.first.status().get("cores") == sorted(everywhere))


@pytest.mark.parametrize("kernel", ["core.no_such", "core.echoo"])
def test_an_unknown_kernel_is_the_submitters_error(pair, kernel: str) -> None:
    pair.client.submit(kernel)
    error = pair.client.answers(1)[0].error
    assert error.code == "UnknownKernel"
    assert kernel in str(error)


def test_what_a_kernel_raises_comes_back_with_its_traceback(pair) -> None:
    pair.client.submit("core.fail", "of course")
    error = pair.client.answers(1)[0].error
    assert error.code == "KernelError"
    assert error.remote_type == "RuntimeError"
    assert "of course" in error.remote_traceback
    assert "kernels/core.py" in error.remote_traceback
    assert "compute/agent.py" not in error.remote_traceback
    pair.client.submit("core.sleep", "long")
    assert pair.client.answers(1)[0].error.code == "BadArguments"


def test_a_task_can_be_cancelled_while_it_runs(lone, eventually) -> None:
    ticket = lone.client.submit("core.sleep", 60.0)
    eventually("it works", lambda: lone.first.status().get("running") == 1)
    lone.client.port.cancel(ticket)
    assert lone.client.answers(1)[0].error.code == "TaskCancelled"


def test_a_stopping_pod_finishes_its_task_or_hands_it_back_and_ends_with_0(lone, eventually) -> None:
    node, client = lone.node, lone.client
    assert lone.first.http("POST", "/v1/drain", b"")[0] == 202
    node.write(node.with_runtime(drain_timeout=1.5))
    cold = node.root / "cold"  # a home of its own, seeded by what the other pods have compiled
    before = {path.relative_to(node.cache) for path in node.cache.rglob("*.nb?")}
    pods = [node.start(n, SWARM_CACHE_DIR=str(cold), SWARM_CACHE_SEED=str(node.cache)) for n in (2, 3)]
    for pod in pods:
        pod.ready()
    quick = client.submit("core.sleep", 0.5)
    slow = client.submit("core.spin", 4.0)
    eventually("both work", lambda: all(pod.status().get("running") == 1 for pod in pods))
    for pod in pods:
        pod.terminate()
    assert [pod.ended() for pod in pods] == [0, 0]
    (first,) = client.answers(1)
    assert (first.ticket, first.error, first.attempts) == (quick, None, 1), "finished"
    assert [client.info(pod.name) for pod in pods] == [None, None]
    assert [info for info in client.board.members() if info.name in [pod.name for pod in pods]] == []
    assert client.board.find(slow.task_id) == "ready", "handed back"
    assert lone.first.http("POST", "/v1/resume", b"")[0] == 202
    (second,) = client.answers(1)
    assert (second.ticket, second.error, second.attempts) == (slow, None, 1), "to be stopped is not to have failed"
    assert {path.relative_to(cold) for path in cold.rglob("*.nb?")} == before, "a warm cache, and yet it compiled"
    (warm,) = pods[0].log("the supervisor is warm")
    assert warm["cache_files_seeded"] + pods[1].log("the supervisor is warm")[0]["cache_files_seeded"] == len(before)


@pytest.mark.parametrize("role", [Role.COMPUTE, Role.RESOURCE])
def test_the_last_one_out_removes_the_board(node, role: Role) -> None:
    pod = node.start(0, role).ready()
    if role is Role.RESOURCE:
        socket.create_connection((pod.address, HUB_PORT)).close()  # ready means that it can be reached
    assert node.board.exists()
    pod.process.send_signal(signal.SIGINT)
    pod.terminate()
    assert pod.ended() == 0
    assert not node.board.exists()


def test_the_board_of_an_agent_that_can_not_leave_by_itself_is_removed_too(node, client_of) -> None:
    node.write(node.with_runtime(drain_timeout=0.1))
    pod = node.start(0).ready()
    with contextlib.closing(client_of(node)) as client:
        agent = client.agent_pid(pod)
    os.kill(agent, signal.SIGSTOP)
    pod.terminate()
    assert pod.ended() == 0
    assert pod.log("AgentKilled") or pod.log("AgentHung")  # found stopped, or when its grace was over
    assert not node.board.exists()
