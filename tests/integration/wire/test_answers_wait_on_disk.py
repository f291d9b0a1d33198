"""Answers that a client does not take lie on the hub's disk, and reach it whole when it takes them again."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import structlog

from support.wirekit import KEYS, FakeDesk, HubThread, connection, eventually, make_settings
from swarm_agents.client import Swarm
from swarm_agents.resource import aside as asides
from swarm_agents.resource.rest import write_id
from swarm_agents.wire.values import from_json

COUNT, WORDS = 12, 32 << 10


def run_by_http(served: HubThread, task: str) -> np.ndarray:
    body = json.dumps({"kernel": "core.echo", "id": task, "timeout": 20}).encode()
    request = urllib.request.Request(
        f"{served.rest_url}/v1/run", body, {"Authorization": f"Bearer {KEYS.token}"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return from_json(json.load(response)["value"])


def test_answers_that_were_put_aside_reach_their_client_whole(make_hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(asides, "in_memory", lambda directory: False)  # wherever tests keep their files
    desk = FakeDesk(auto=False)
    served = make_hub(desk, make_settings())
    hub = served.hub
    with Swarm.connect(connection(served)) as swarm:
        arrays = [np.full(WORDS, float(number)) for number in range(COUNT)]
        futures = [swarm.submit("core.echo", array) for array in arrays]
        eventually(lambda: len(desk.waiting) == COUNT)
        with hub.reactor:
            hub.sessions.keep_bytes = COUNT * arrays[0].nbytes
            aside = asides.open_aside(hub, tmp_path, structlog.get_logger())
            assert aside is not None
            (session,) = (one for one in hub.sessions if one.kind == "client")
            room, session.room = session.room, 0
            session.flying += 1  # as if an answer were on its way for long
        desk.work()
        eventually(lambda: hub.counts["put_aside"] >= COUNT // 2)
        assert hub.sessions.aside_bytes >= COUNT // 2 * arrays[0].nbytes
        with hub.reactor:
            task = next(entry.task for entry in session.entries.values() if entry.aside is not None)
        by_http = run_by_http(served, write_id(task))
        assert any(np.array_equal(by_http, array) for array in arrays), "the REST interface reads it there as well"
        with hub.reactor:
            session.room = room
            session.flying -= 1
            hub._outbox.pump(session)
        for array, future in zip(arrays, futures, strict=True):
            np.testing.assert_array_equal(future.result(timeout=20), array)
        eventually(lambda: hub.sessions.kept_bytes == 0)
        assert (hub.sessions.aside_bytes, aside.on_disk, hub.counts["aside_lost"]) == (0, 0, 0)
        aside.close()
    assert not served.errors
    assert not list((tmp_path / "aside").iterdir())
