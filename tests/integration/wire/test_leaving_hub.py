"""A hub that is to leave: it offers nothing, gives other hubs back what nobody has begun, and answers what was."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import msgspec
import pytest

from support.wirekit import KEYS, FakeDesk, HubThread, connection, eventually, make_settings
from swarm_agents.client import Swarm
from swarm_agents.config import Failover
from swarm_agents.config import Hub as HubAddress
from swarm_agents.wire import schema

IDLE = schema.Load(workers=4, idle=4, room=1000, run_mean=0.001)
NOBODY = schema.Load(workers=0, room=1000)


def ask(hub: HubThread, method: str, path: str, body: Any = None) -> tuple[int, Any, Any]:
    """Status, headers and body of a REST request."""
    request = urllib.request.Request(
        f"{hub.rest_url}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {KEYS.token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.load(error)


@pytest.fixture
def three(make_hub):
    """Three hubs that know each other, of which nothing is called back for being late."""

    def make(*desks: FakeDesk) -> list[HubThread]:
        settings = [make_settings() for _ in desks]
        names = ["node-a", "node-b", "node-c"]
        hubs = tuple(
            HubAddress(node=name, address=f"tcp://127.0.0.1:{each.transport.hub_port}")
            for name, each in zip(names, settings, strict=True)
        )
        made = [
            make_hub(desk, msgspec.structs.replace(each, hubs=hubs, failover=Failover(straggler_share=0.0)), node=name)
            for name, each, desk in zip(names, settings, desks, strict=True)
        ]
        for hub in made:
            eventually(lambda hub=hub: all(peer.open for peer in hub.hub.peers.values()))
        return made

    return make


def test_a_leaving_hub_gives_back_what_nobody_has_begun_and_is_sent_no_more(three) -> None:
    a, b, c = FakeDesk(workers=0, auto=False), FakeDesk(auto=False), FakeDesk()
    b.shown, c.shown = IDLE, NOBODY
    first, second, _ = three(a, b, c)
    first.call(lambda: [a.own((1, n), "core.echo", n) for n in range(10)])
    eventually(lambda: len(b.waiting) == 10)
    begun = second.call(b.waiting.popleft)  # it is in an agent's hand
    second.call(second.hub.drain)
    eventually(lambda: first.hub.peers["node-b"].load.workers == 0)
    assert a.handed_back == [], "what was not begun counts as no attempt"
    eventually(lambda: second.hub.sessions.unanswered == 1)
    c.shown = IDLE
    rest = [(1, n) for n in range(10) if (1, n) != begun.submit.task]
    eventually(lambda: all(task in a.committed for task in rest))
    assert sorted(c.begun) == rest
    # What was begun is answered by the one that leaves, which is idle from then on.
    second.call(lambda: (b._compute(begun), b._wake()))
    eventually(lambda: begun.submit.task in a.committed)
    eventually(lambda: not second.hub.sessions.unanswered)
    assert b.begun == [begun.submit.task]
    first.call(lambda: [a.own((2, n), "core.echo", n) for n in range(10)])
    eventually(lambda: all((2, n) in a.committed for n in range(10)))
    assert b.begun == [begun.submit.task]


def test_what_an_agent_that_leaves_as_well_hands_back_is_given_back_too(three) -> None:
    a, b, c = FakeDesk(workers=0, auto=False), FakeDesk(auto=False), FakeDesk()
    b.shown, c.shown = IDLE, NOBODY
    first, second, _ = three(a, b, c)
    first.call(lambda: a.own((1, 1), "core.echo", 7))
    eventually(lambda: len(b.waiting) == 1)
    begun = second.call(b.waiting.popleft)
    second.call(second.hub.drain)
    assert second.hub.sessions.unanswered == 1
    second.call(lambda: b.waiting.append(begun))
    c.shown = IDLE
    eventually(lambda: (1, 1) in a.committed)
    assert c.begun == [(1, 1)]


def test_a_clients_running_task_is_answered_before_it_goes_and_begun_nowhere_else(make_hub) -> None:
    desk, other = FakeDesk(auto=False), FakeDesk()
    leaving, staying = make_hub(desk), make_hub(other, node="node-b")
    with Swarm.connect(connection(leaving, staying)) as swarm:
        running, waiting = swarm.submit("core.echo", 1), swarm.submit("core.echo", 2)
        eventually(lambda: len(desk.waiting) == 2)
        begun = leaving.call(desk.waiting.popleft)  # it is in an agent's hand
        leaving.call(leaving.hub.drain)
        eventually(lambda: not desk.waiting)
        late = swarm.submit("core.echo", 3)  # not taken here any more
        leaving.call(lambda: (desk._compute(begun), desk._wake()))
        assert [future.result(10) for future in (running, waiting, late)] == [1, 2, 3]
        assert swarm.endpoint == staying.url
    assert desk.begun == [running.task]
    assert sorted(other.begun) == [waiting.task, late.task]
    assert not leaving.hub.sessions.unanswered


def test_what_takes_too_long_does_not_keep_a_client_from_going(make_hub) -> None:
    desk, other = FakeDesk(auto=False), FakeDesk()
    leaving, staying = make_hub(desk), make_hub(other, node="node-b")
    with Swarm.connect(connection(leaving, staying)) as swarm:
        future = swarm.submit("core.echo", 1)
        eventually(lambda: desk.waiting)
        leaving.call(desk.waiting.popleft)  # an agent has it, and never answers
        leaving.call(leaving.hub.drain)
        assert future.result(10) == 1
        assert swarm.endpoint == staying.url
    assert other.begun == [future.task]
    eventually(lambda: not leaving.hub.sessions.unanswered)


def test_a_client_without_tasks_goes_at_once_and_one_that_comes_is_sent_elsewhere(make_hub) -> None:
    leaving, staying = make_hub(FakeDesk()), make_hub(FakeDesk(), node="node-b")
    with Swarm.connect(connection(leaving, staying)) as swarm:
        assert swarm.run("core.echo", 1, timeout=10) == 1
        leaving.call(leaving.hub.drain)
        eventually(lambda: swarm.endpoint == staying.url)
        assert swarm.run("core.echo", 2, timeout=10) == 2
    with Swarm.connect(connection(leaving, staying)) as swarm:
        assert swarm.endpoint == staying.url


def test_rest_is_answered_for_what_it_has_and_sent_elsewhere_with_more(make_hub) -> None:
    desk = FakeDesk(auto=False)
    hub = make_hub(desk)
    accepted = ask(hub, "POST", "/v1/tasks", {"kernel": "core.echo", "args": [7]})
    assert accepted[0] == 202
    eventually(lambda: desk.waiting)
    hub.call(hub.hub.drain)
    code, headers, body = ask(hub, "POST", "/v1/tasks", {"kernel": "core.echo", "args": [8]})
    assert (code, headers["Connection"], headers["Retry-After"]) == (503, "close", "1")
    assert "ask another one" in body["error"]["message"]
    assert hub.hub.sessions.unanswered == 1, "what was accepted is waited for"
    hub.call(desk.work)
    code, _, body = ask(hub, "GET", f"{accepted[1]['Location']}?wait=10")
    assert (code, body["state"]) == (200, "done")
    hub.call(hub.hub.resume)
    assert ask(hub, "POST", "/v1/tasks", {"kernel": "core.echo", "args": [9]})[0] == 202


def test_a_hub_that_need_not_leave_after_all_is_sent_tasks_again(three) -> None:
    a, b, c = FakeDesk(workers=0, auto=False), FakeDesk(), FakeDesk()
    b.shown, c.shown = IDLE, NOBODY
    first, second, _ = three(a, b, c)
    second.call(second.hub.drain)
    eventually(lambda: first.hub.peers["node-b"].load.workers == 0)
    first.call(lambda: a.own((1, 1), "core.echo", 7))
    second.call(second.hub.resume)
    eventually(lambda: (1, 1) in a.committed)
    assert b.begun == [(1, 1)]
