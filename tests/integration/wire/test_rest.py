"""The hub's REST interface over real HTTP, and the client that speaks it."""

from __future__ import annotations

import http.client
import json
import re
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from support.wirekit import KEYS, FakeDesk, HubThread, eventually, make_settings
from swarm_agents.client import ConnectionLost, KernelError, PayloadError, Swarm, UnknownKernel, Unreachable, WrongKey
from swarm_agents.resource.openapi import document
from swarm_agents.wire.values import from_json, to_json


def ask(hub: HubThread, method: str, path: str, body=None, *, token: str = KEYS.token, raw: bytes | None = None):
    """Status, decoded body, headers."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(hub.rest_url + path, data, headers, method=method)
    try:
        response = urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as refused:
        response = refused
    with response:
        text = response.read()
        return response.status, json.loads(text) if text else None, response.headers


def test_a_task_is_submitted_waited_for_and_forgotten(make_hub):
    desk = FakeDesk(auto=False)
    hub = make_hub(desk)
    status, body, headers = ask(hub, "POST", "/v1/tasks", {"kernel": "core.double", "args": [21], "priority": "high"})
    assert status == 202
    path = headers["Location"]
    assert path == f"/v1/tasks/{body['id']}"
    assert desk.waiting[0].submit.lane == 1
    assert ask(hub, "GET", path)[1]["state"] == "pending"
    threading.Timer(0.05, desk.work).start()
    status, body, _ = ask(hub, "GET", f"{path}?wait=10")
    assert (status, body["state"], body["value"]) == (200, "done", 42)
    assert body["info"]["agent"] == "risk-compute-0-1"
    assert ask(hub, "GET", path)[1]["value"] == 42, "it is kept until it is deleted"
    assert ask(hub, "DELETE", path)[0] == 204
    status, body, _ = ask(hub, "GET", path)
    assert (status, body["error"]["code"]) == (404, "UnknownTask")


def test_a_deleted_task_is_cancelled(make_hub):
    desk = FakeDesk(auto=False)
    hub = make_hub(desk)
    path = ask(hub, "POST", "/v1/tasks", {"kernel": "core.echo", "args": [1]})[2]["Location"]
    assert ask(hub, "DELETE", path)[0] == 204
    assert len(desk.cancelled) == 1


def test_run_answers_at_once_with_arrays_both_ways(make_hub):
    hub = make_hub()
    array = np.arange(6.0).reshape(2, 3)
    status, body, _ = ask(hub, "POST", "/v1/run", {"kernel": "core.double", "args": [to_json(array)]})
    assert status == 200
    np.testing.assert_array_equal(from_json(body["value"]), array * 2)
    large = np.arange(200_000.0)
    _, body, _ = ask(hub, "POST", "/v1/run", {"kernel": "core.double", "args": [to_json(large)]})
    np.testing.assert_array_equal(from_json(body["value"]), large * 2)
    assert hub.call(lambda: hub.hub.sessions.kept_bytes) == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"kernel": "core.nothing"}, 404, "UnknownKernel"),
        ({"kernel": "core.fail", "args": ["boo"]}, 500, "KernelError"),
        ({"kernel": "core.echo", "args": [1], "unknown": 1}, 400, "PayloadError"),
        ({"args": [1]}, 400, "PayloadError"),
        ({"kernel": "core.echo", "priority": "urgent"}, 400, "PayloadError"),
        ({"kernel": "core.echo", "args": [{"dtype": "O", "shape": [1], "data": ""}]}, 400, "PayloadError"),
        ({"kernel": "core.echo", "id": "zz"}, 400, "PayloadError"),
        ({"kernel": "core.echo", "id": "f" * 17 + "-1"}, 400, "PayloadError"),
        ({"kernel": "core.echo", "timeout": -1}, 400, "PayloadError"),
    ],
)
def test_a_refusal_has_a_status_a_code_and_a_reason(make_hub, body, status, code):
    got, answer, _ = ask(make_hub(), "POST", "/v1/run", body)
    assert (got, answer["error"]["code"]) == (status, code)
    assert answer["error"]["message"]
    if code == "KernelError":
        assert answer["error"]["type"] == "RuntimeError"
        assert "Traceback of the agent" in answer["error"]["traceback"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_task_is_refused(make_hub, raw):
    assert ask(make_hub(), "POST", "/v1/tasks", raw=raw)[0] == 400


def test_without_the_token_there_is_nothing_but_the_description(make_hub):
    hub = make_hub()
    for method, path in (("POST", "/v1/tasks"), ("GET", "/v1/tasks/1-1"), ("DELETE", "/v1/tasks/1-1"),
                         ("POST", "/v1/run"), ("GET", "/v1/kernels"), ("GET", "/v1/swarm")):  # fmt: skip
        for token in ("", "wrong", KEYS.token + "x", KEYS.token[:-1]):
            status, body, headers = ask(hub, method, path, {} if method == "POST" else None, token=token)
            assert (status, body["error"]["code"]) == (401, "WrongKey")
            assert headers["WWW-Authenticate"] == "Bearer"
    assert ask(hub, "GET", "/openapi.json", token="")[0] == 200


def test_the_same_id_twice_runs_once(make_hub):
    desk = FakeDesk()
    hub = make_hub(desk)
    for _ in range(2):
        assert ask(hub, "POST", "/v1/tasks", {"kernel": "core.echo", "args": [5], "id": "ab-1"})[0] == 202
    assert desk.begun == [(0xAB, 1)]
    assert ask(hub, "GET", "/v1/tasks/ab-1?wait=5")[1]["value"] == 5


def test_a_full_board_answers_429_and_says_when_to_come_back(make_hub):
    hub = make_hub(FakeDesk(auto=False, room=1))
    assert ask(hub, "POST", "/v1/tasks", {"kernel": "core.echo"})[0] == 202
    status, body, headers = ask(hub, "POST", "/v1/tasks", {"kernel": "core.echo"})
    assert (status, body["error"]["code"], headers["Retry-After"]) == (429, "SwarmFull", "1")


def test_a_body_beyond_the_limit_is_cut_off(make_hub):
    settings = make_settings(transport={"max_message_bytes": 1000})
    hub = make_hub(settings=settings)
    connection = http.client.HTTPConnection("127.0.0.1", settings.transport.rest_port, timeout=10)
    connection.putrequest("POST", "/v1/tasks")
    connection.putheader("Authorization", f"Bearer {KEYS.token}")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    try:
        for _ in range(64):
            connection.send(bytes(1 << 16))
    except OSError:
        pass  # it hung up
    assert connection.getresponse().status == 413
    connection.close()
    assert ask(hub, "POST", "/v1/tasks", {"kernel": "core.echo", "args": ["x" * 2000]})[0] == 413


def test_run_that_takes_too_long_is_cancelled(make_hub):
    desk = FakeDesk(auto=False)
    status, body, _ = ask(make_hub(desk), "POST", "/v1/run", {"kernel": "core.echo", "timeout": 0.05})
    assert (status, body["error"]["code"]) == (504, "DeadlineExceeded")
    eventually(lambda: len(desk.cancelled) == 1)


def test_every_route_is_described_and_everything_described_is_there(make_hub):
    hub = make_hub()
    routes = hub.call(lambda: {
        (route.path, method) for route in hub.rest.app.routes for method in route.methods - {"HEAD"}
    })  # fmt: skip
    described = document()
    assert routes == {
        (path, method.upper()) for path, item in described["paths"].items() for method in item if method != "parameters"
    }
    assert ask(hub, "GET", "/openapi.json")[1] == json.loads(json.dumps(described))
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
    assert names <= described["components"]["schemas"].keys()


# -- the client


def test_the_client_by_http_gets_values_and_errors(make_hub):
    with Swarm.connect(make_hub().rest_url, token=KEYS.token) as swarm:
        array = np.arange(1000.0)
        future = swarm.submit("core.double", array)
        np.testing.assert_array_equal(future.result(10), array * 2)
        assert future.info.agent == "risk-compute-0-1"
        assert list(swarm.map("core.echo", range(60))) == list(range(60))
        with pytest.raises(KernelError, match="boo") as caught:
            swarm.run("core.fail", "boo", timeout=10)
        assert caught.value.remote_type == "RuntimeError"
        with pytest.raises(UnknownKernel):
            swarm.run("core.nothing", timeout=10)
        with pytest.raises(PayloadError):
            swarm.run("core.echo", object(), timeout=10)
        assert swarm.info()["node"] == "node-a"


def test_the_client_by_http_is_told_of_a_wrong_token_and_of_nobody_there(make_hub):
    with pytest.raises(WrongKey, match="token"):
        Swarm.connect(make_hub().rest_url, token="wrong", timeout=5)
    with pytest.raises(Unreachable, match="nothing answers"):
        Swarm.connect("http://127.0.0.1:1", token="x", timeout=0.2)


def test_a_cancel_by_http_reaches_the_hub(make_hub):
    desk = FakeDesk(auto=False)
    with Swarm.connect(make_hub(desk).rest_url, token=KEYS.token) as swarm:
        future = swarm.submit("core.echo", 1)
        eventually(lambda: desk.waiting)
        assert future.cancel()
        eventually(lambda: desk.cancelled == [future.task])


def test_a_hub_that_comes_back_is_asked_again_by_http_under_the_same_id(make_hub):
    settings, desk = make_settings(), FakeDesk(auto=False)
    hub = make_hub(desk, settings)
    swarm = Swarm.connect(hub.rest_url, token=KEYS.token)
    future = swarm.submit("core.echo", 7)
    eventually(lambda: desk.waiting)
    hub.close()
    again = FakeDesk()
    make_hub(again, settings)
    assert future.result(20) == 7
    assert again.begun == [future.task]
    swarm.close()
    with pytest.raises(ConnectionLost):
        swarm.submit("core.echo", 8)
