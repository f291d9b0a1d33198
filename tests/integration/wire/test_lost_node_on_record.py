"""That a node's hub is lost, and that it is back, is put on record once, with how long it took."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from support.wirekit import FakeDesk, eventually, make_settings
from swarm_agents.config import Hub as HubAddress
from swarm_agents.runtime.control import Happened
from swarm_agents.runtime.supervisor import Supervisor


def test_a_lost_hub_is_told_once_with_its_times_and_so_is_its_return(make_hub: Any) -> None:
    of_a, of_b = make_settings(), make_settings()
    hubs = tuple(
        HubAddress(node=node, address=f"tcp://127.0.0.1:{each.transport.hub_port}")
        for node, each in (("node-a", of_a), ("node-b", of_b))
    )
    a, b = FakeDesk(workers=0, auto=False), FakeDesk(auto=False)
    first = make_hub(a, msgspec.structs.replace(of_a, hubs=hubs))
    second = make_hub(b, msgspec.structs.replace(of_b, hubs=hubs), node="node-b")
    eventually(lambda: first.hub.peers["node-b"].open)

    def news() -> list[Any]:
        return [told for told in first.told if told[0] != "KeysServed"]

    assert news() == [], "that there is one is no news"
    first.call(lambda: [a.own((1, n), "core.echo", n) for n in range(5)])
    eventually(lambda: len(b.waiting) == 5)
    second.sever()
    (event, fields) = eventually(lambda: news()[:1])[0]
    assert (event, fields["peer"], fields["tasks"], fields["level"]) == ("HubLost", "node-b", 5, "warning")
    assert fields["detect"] >= 0.0
    assert fields["claim"] >= 0.0
    eventually(lambda: len(a.waiting) == 5)
    first.call(a.work)
    (event, fields) = eventually(lambda: [told for told in first.told if told[0] == "TasksResumed"])[0]
    assert (fields["peer"], fields["tasks"]) == ("node-b", 5)
    assert fields["resume"] >= 0.0
    second.close()
    # It is looked for again and again in vain, which is no further news; then it is there.
    for _ in range(3):
        first.call(lambda: [link.reset() for link in first.hub.peers["node-b"].links.values()])
    assert [told for told, _ in news()] == ["HubLost", "TasksResumed"]
    make_hub(FakeDesk(), msgspec.structs.replace(of_b, hubs=hubs), node="node-b")
    eventually(lambda: [told for told, _ in news()] == ["HubLost", "TasksResumed", "HubBack"])


def test_what_an_agent_tells_is_an_event_of_its_pod_and_its_stages_are_measured() -> None:
    recorded: list[Any] = []
    stages: list[Any] = []
    supervisor: Any = SimpleNamespace(
        agent=object(),
        events=SimpleNamespace(record=lambda event, **fields: recorded.append((event, fields))),
        exported=SimpleNamespace(failover=lambda stage, seconds: stages.append((stage, seconds))),
    )
    fields = {"peer": "node-b", "tasks": 5, "detect": 0.2, "claim": 0.001}
    Supervisor._announced(supervisor, Happened("HubLost", fields))
    Supervisor._announced(supervisor, Happened("TaskRunTwice", {"task": "0"}))
    assert recorded == [("HubLost", fields), ("TaskRunTwice", {"task": "0"})]
    assert stages == [("detect", 0.2), ("claim", 0.001)]
