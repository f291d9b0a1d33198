"""Logs, as `kubectl logs` asks the kubelet for them."""

from __future__ import annotations

import asyncio

import pytest

from support.localnode import InProcess, make_pod
from swarm_deploy.local.api.client import ApiError

pytestmark = pytest.mark.embedded


async def test_both_streams_are_kept_and_lines_come_whole(small: InProcess) -> None:
    script = "printf part; sleep 0.1; echo ial; echo wrong >&2; printf 'no newline'"
    await small.create(make_pod("p", script, restartPolicy="Never"))
    await small.until(lambda: small.status("p").get("phase") == "Succeeded")
    assert sorted((await small.log("p")).splitlines()) == ["no newline", "partial", "wrong"]


async def test_a_line_longer_than_an_entry_comes_back_as_one(small: InProcess) -> None:
    script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end"
    await small.create(make_pod("p", script, restartPolicy="Never"))
    await small.until(lambda: small.status("p").get("phase") == "Succeeded")
    assert await small.log("p") == "x" * 100_000 + "\nend\n"
    assert await small.log("p", tailLines=2) == "x" * 100_000 + "\nend\n"
    stamped = (await small.log("p", timestamps=True)).splitlines()
    assert len(stamped) == 2
    assert all(line.split(" ", 1)[0].endswith("Z") for line in stamped)


async def test_tail_limit_and_since_choose_what_is_shown(small: InProcess) -> None:
    await small.create(make_pod("p", "seq 1 1000; sleep 1.1; echo late", restartPolicy="Never"))
    await small.until(lambda: small.status("p").get("phase") == "Succeeded")
    assert (await small.log("p", tailLines=3)).split() == ["999", "1000", "late"]
    assert await small.log("p", tailLines=0) == ""
    assert await small.log("p", limitBytes=5) == "1\n2\n3"
    assert (await small.log("p", sinceSeconds=1)).split() in (["late"], [])
    last = (await small.log("p", tailLines=1, timestamps=True)).split()[0]
    assert (await small.log("p", sinceTime=last)).split() == ["late"]


async def test_following_gives_lines_as_they_come_and_ends_with_the_container(small: InProcess) -> None:
    script = "echo first; while [ ! -e go ]; do sleep 0.02; done; echo last"
    await small.create(make_pod("p", script, restartPolicy="Never"))
    await small.until(lambda: small.container("p").get("state", {}).get("running"))
    stream = await small.assembly.read_log("default", "p", "main", {"follow": True})
    assert await asyncio.wait_for(anext(stream), 10) == b"first\n"
    pod = small.get("pods", "p")
    assert pod is not None
    (small.assembly.state / "nodes/node-1/pods" / pod["metadata"]["uid"] / "containers/main/home/go").touch()
    assert b"".join([chunk async for chunk in stream]) == b"last\n"


async def test_the_run_before_is_kept_and_older_ones_are_not(small: InProcess) -> None:
    script = "n=$(cat n 2>/dev/null || echo 0); echo run $n; echo $((n + 1)) > n; test $n = 3 && exec sleep 600; exit 1"
    await small.create(make_pod("p", script))
    await small.until(lambda: small.container("p").get("restartCount") == 3 and small.ready("p"))
    assert await small.said_in_log("p") == "run 3\n"
    assert await small.log("p", previous=True) == "run 2\n"
    kept = sorted(path.name for path in small.assembly.state.glob("nodes/node-1/logs/*/main/*.log"))
    assert kept == ["2.log", "3.log"]


async def test_a_log_that_is_not_there_is_refused_with_the_reason(small: InProcess) -> None:
    await small.create(make_pod("waits", container={"image": "example.com/nosuch"}))
    await small.create(make_pod("runs"))
    await small.until(lambda: small.ready("runs") and small.container("waits").get("state", {}).get("waiting"))
    with pytest.raises(ApiError, match=r"is waiting to start: (ErrImagePull|ImagePullBackOff)"):
        await small.log("waits")
    with pytest.raises(ApiError, match=r'previous terminated container "main" in pod "runs" not found'):
        await small.log("runs", previous=True)
