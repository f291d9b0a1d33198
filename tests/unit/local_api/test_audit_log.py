"""The embedded API server's audit log: bounded, for its owner alone, without bodies, and able to be left out."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

from swarm_deploy.local.api.app import serve
from swarm_deploy.local.api.audit import MOST_BYTES, AuditLog
from swarm_deploy.local.api.authorization import Request
from swarm_deploy.local.store import Store


def test_two_files_of_bounded_size_are_kept_and_the_newest_entries_are_among_them(tmp_path: Path) -> None:
    path, most = tmp_path / "audit.log", 20_000
    log = AuditLog(path, most)
    for number in range(400):
        what = Request("get", "", "pods", "", "default", f"p{number}")
        request = make_mocked_request("GET", f"/api/v1/namespaces/default/pods/p{number}")
        log.record(request, "somebody", what, "v1", 200, "ResponseComplete")
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.log", "audit.log.1"]
    assert all(file.stat().st_size < most + 2_000 for file in files)
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    lines = (files[1].read_text() + files[0].read_text()).splitlines()
    names = [json.loads(line)["objectRef"]["name"] for line in lines]
    assert names == [f"p{number}" for number in range(400 - len(names), 400)]
    assert MOST_BYTES == 16 << 20


@pytest.mark.parametrize("audited", [True, False])
async def test_requests_are_noted_unless_it_is_turned_off_and_never_their_bodies(tmp_path: Path, audited: bool) -> None:
    store = Store(None)
    async with serve(store, state=tmp_path, audited=audited) as server:
        secret = {"metadata": {"name": "s"}, "stringData": {"k": "not-for-the-log"}}
        connector = aiohttp.TCPConnector(ssl=server.credentials.client_context())
        headers = {"Authorization": f"Bearer {server.credentials.token}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            url = f"{server.url}/api/v1/namespaces/default/secrets"
            async with session.post(url, json=secret) as answer:
                assert answer.status == 201
    store.close()
    path = tmp_path / "audit.log"
    assert path.exists() is audited
    if audited:
        text = path.read_text()
        assert [e["objectRef"]["resource"] for e in map(json.loads, text.splitlines())] == ["secrets"]
        assert "not-for-the-log" not in text
        assert server.credentials.token not in text


def test_a_request_does_not_fail_because_there_is_no_room_to_note_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.log"
    path.symlink_to("/dev/full")
    log = AuditLog(path)
    for _ in range(3):
        log._flushed = -1e9  # each line is written at once
        log.record(make_mocked_request("GET", "/api"), "somebody", None, "", 200, "ResponseComplete")
    assert len([line for line in caplog.messages if "can't be noted" in line and "No space left" in line]) == 1
    path.unlink()
    log.record(make_mocked_request("GET", "/api"), "somebody", None, "", 200, "ResponseComplete")
    log.close()
    assert len(path.read_text().splitlines()) == 1
