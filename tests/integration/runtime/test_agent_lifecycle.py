"""Starting, stopping, draining and settings of a real pod."""

from __future__ import annotations

import os
import signal

import msgspec
import pytest

from swarm_agents.config import encode_settings, settings_revision


def with_runtime(settings, **changes):
    runtime = msgspec.structs.replace(settings.runtime, **changes)
    return msgspec.structs.replace(settings, runtime=runtime, generation=settings.generation + 1)


def test_a_pod_answers_probes_status_and_metrics(node, compute, client) -> None:
    assert compute.http("GET", "/healthz", token=None) == (200, {"status": "ok"})
    assert compute.http("GET", "/readyz", token=None) == (200, {"status": "ok"})
    client.submit("core.noop")
    client.answers(1)
    status = compute.status()
    assert status["agent"] == "risk-compute-0-0"
    assert (status["role"], status["state"], status["running"], status["node"]) == ("compute", "ready", 0, "node-0")
    assert status["settings"] == settings_revision(node.settings)
    assert status["cores"] == sorted(os.sched_getaffinity(0))
    assert status["coresExclusive"] in (True, False, None)
    assert status["coresReason"]
    assert compute.metric("swarm_agent_up") == 1
    assert compute.metric('swarm_tasks_total{priority="normal",result="ok"}') == 1
    assert compute.metric('swarm_task_seconds_count{priority="normal"}') == 1
    assert compute.metric('swarm_queue_depth{node="node-0",priority="normal"}') == 0
    assert compute.metric("swarm_agent_epoch") == status["epoch"]
    assert compute.metric("swarm_agent_resident_memory_bytes") > 1e7


def test_what_is_not_public_needs_the_token(compute) -> None:
    for method, path in (("GET", "/v1/status"), ("PUT", "/v1/settings"), ("POST", "/v1/drain"), ("POST", "/v1/resume")):
        for token in (None, "wrong", ""):
            status, body = compute.http(method, path, b"" if method != "GET" else None, token=token)
            assert (status, "Authorization" in body["error"]) == (401, True)
    assert compute.http("GET", "/nothing")[0] == 404
    assert compute.http("DELETE", "/v1/status")[0] == 405


def test_pushed_settings_are_acknowledged_when_the_agent_runs_by_them(node, compute, client) -> None:
    new = with_runtime(node.settings, kernels=("core.echo",))
    assert compute.http("PUT", "/v1/settings", encode_settings(new)) == (200, {"settings": settings_revision(new)})
    assert compute.status()["settings"] == settings_revision(new)
    client.submit("core.noop")
    assert "not allowed" in str(client.answers(1)[0].error)
    client.submit("core.echo", 1)
    assert client.answers(1)[0].value == 1


def test_pushed_settings_outlive_the_agent(node, compute, client, eventually) -> None:
    new = with_runtime(node.settings, kernels=("core.echo",))
    assert compute.http("PUT", "/v1/settings", encode_settings(new))[0] == 200
    os.kill(client.agent_pid(compute), signal.SIGKILL)
    client.submit("core.noop")
    assert "not allowed" in str(client.answers(1)[0].error)


def test_settings_that_do_not_fit_are_refused_and_the_old_ones_hold(node, compute) -> None:
    foreign = msgspec.structs.replace(node.settings, uid="another")
    missing = with_runtime(node.settings, kernel_modules=("no_such_module",))
    for body, word in (
        (b"{", "can't be read"),
        (b"[]", "can't be read"),
        (encode_settings(foreign), "another"),
        (encode_settings(missing), "no_such_module"),
        (b"x" * (5 << 20), "bytes at most"),
    ):
        status, answer = compute.http("PUT", "/v1/settings", body)
        assert status in (400, 413)
        assert word in answer["error"]
    assert compute.status()["settings"] == settings_revision(node.settings)


def test_newer_settings_in_the_config_map_are_taken_though_nobody_pushed_them(node, compute, eventually) -> None:
    new = with_runtime(node.settings, log_level="debug")
    node.write(new)
    eventually("the file is read", lambda: compute.status().get("settings") == settings_revision(new))


def test_a_draining_agent_finishes_claims_nothing_more_and_takes_work_again_when_resumed(
    compute, client, eventually
) -> None:
    client.submit("core.sleep", 0.4)
    eventually("it works", lambda: compute.status().get("running") == 1)
    status, body = compute.http("POST", "/v1/drain", b"")
    assert (status, body["state"]) == (202, "draining")
    client.submit("core.echo", 2)
    assert client.answers(1)[0].error is None
    eventually("drained", lambda: compute.status().get("state") == "drained")
    assert not client.port.wait(0.2), "a drained agent has taken a task"
    status, body = compute.http("POST", "/v1/resume", b"")
    assert (status, body["state"]) == (202, "ready")
    assert client.answers(1)[0].value == 2


def test_a_drained_agent_that_is_killed_comes_back_drained(compute, client, eventually) -> None:
    compute.http("POST", "/v1/drain", b"")
    eventually("drained", lambda: compute.status().get("state") == "drained")
    os.kill(client.agent_pid(compute), signal.SIGKILL)
    eventually("back", lambda: compute.status().get("restarts") == 1 and compute.status()["state"] == "drained")


def test_a_stopping_pod_finishes_its_task_leaves_the_board_and_ends_with_0(node, compute, client, eventually) -> None:
    client.submit("core.sleep", 0.4)
    eventually("it works", lambda: compute.status().get("running") == 1)
    compute.terminate()
    assert compute.ended() == 0
    (answer,) = client.answers(1)
    assert (answer.error, answer.attempts) == (None, 1)
    assert client.info(compute.name) is None


def test_a_task_that_can_not_be_finished_in_time_is_handed_back(node, client, compute, eventually) -> None:
    short = with_runtime(node.settings, drain_timeout=0.2)
    assert compute.http("PUT", "/v1/settings", encode_settings(short))[0] == 200
    client.submit("core.spin", 3.0)
    eventually("it works", lambda: compute.status().get("running") == 1)
    compute.terminate()
    assert compute.ended() == 0
    assert client.info(compute.name) is None
    node.write(node.settings)
    node.start(1).ready()
    (answer,) = client.answers(1)
    assert answer.error is None
    assert answer.attempts == 1, "a task that was handed back has not been tried"


def test_the_last_one_out_removes_the_board(node, compute) -> None:
    assert node.board.exists()
    compute.terminate()
    assert compute.ended() == 0
    assert not node.board.exists()


def test_two_signals_or_an_interrupt_end_a_pod_as_well(node, compute) -> None:
    compute.process.send_signal(signal.SIGINT)
    compute.terminate()
    assert compute.ended() == 0


@pytest.mark.parametrize("kernel", ["core.no_such", "core.echoo"])
def test_an_unknown_kernel_is_the_submitters_error(compute, client, kernel: str) -> None:
    client.submit(kernel)
    error = client.answers(1)[0].error
    assert error.code == "UnknownKernel"
    assert kernel in str(error)


def test_what_a_kernel_raises_comes_back_with_its_traceback(compute, client) -> None:
    client.submit("core.fail", "of course")
    error = client.answers(1)[0].error
    assert error.code == "KernelError"
    assert error.remote_type == "RuntimeError"
    assert "of course" in error.remote_traceback
    assert "core.py" in error.remote_traceback
    client.submit("core.sleep", "long")
    assert client.answers(1)[0].error.code == "BadArguments"


def test_a_task_can_be_cancelled_while_it_runs(compute, client, eventually) -> None:
    ticket = client.submit("core.sleep", 60.0)
    eventually("it works", lambda: compute.status().get("running") == 1)
    client.port.cancel(ticket)
    assert client.answers(1)[0].error.code == "TaskCancelled"


def test_a_pod_with_a_warm_cache_compiles_nothing(node, compute, client) -> None:
    files = {path: path.stat().st_mtime_ns for path in node.cache.rglob("*") if path.is_file()}
    assert files
    cold = node.root / "cache"  # a home of its own, seeded by what the first pod has compiled
    pod = node.start(1, SWARM_CACHE_DIR=str(cold), SWARM_CACHE_SEED=str(node.cache)).ready()
    for n in range(10):
        client.submit("core.echo", n)
    client.answers(10)
    names = {path.relative_to(node.cache) for path in files}
    assert {path.relative_to(cold) for path in cold.rglob("*") if path.is_file()} == names
    (warm,) = [line for line in pod.log() if line["event"] == "the supervisor is warm"]
    assert warm["cache_files_seeded"] == len(files)
    assert {path: path.stat().st_mtime_ns for path in node.cache.rglob("*") if path.is_file()} == files
