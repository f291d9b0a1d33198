"""The operator's HTTP port: what the kubelet and Prometheus ask."""

from __future__ import annotations

import aiohttp
import pytest

from swarm_operator.httpd import serve, split_address
from swarm_operator.metrics import Metrics


@pytest.mark.parametrize(
    ("text", "is_"),
    [("127.0.0.1:9403", ("127.0.0.1", 9403)), ("[::1]:0", ("::1", 0)), (":80", ("0.0.0.0", 80))],
)
def test_an_address_is_read(text: str, is_: tuple[str, int]) -> None:
    assert split_address(text) == is_


@pytest.mark.parametrize("text", ["", "host", "host:port", "host:70000"])
def test_an_address_that_is_none_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write HOST:PORT"):
        split_address(text)


async def test_probes_say_what_is_wrong_and_metrics_are_prometheus_text() -> None:
    wrong = {"alive": "", "ready": "the first lists are not complete yet"}
    metrics = Metrics()
    metrics.read("swarms", lambda: 3)
    metrics.observe_request("GET", "Pod", 200, 0.01)
    runner, port = await serve("127.0.0.1:0", metrics, lambda: wrong["alive"], lambda: wrong["ready"])
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            async with session.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (503, "the first lists are not complete yet\n")
            wrong |= {"alive": "a watch was not heard of for 300 s", "ready": ""}
            async with session.get("/healthz") as answer:
                assert answer.status == 503
            async with session.get("/readyz") as answer:
                assert answer.status == 200
            async with session.get("/metrics") as answer:
                text = await answer.text()
        assert "swarm_operator_swarms 3.0" in text
        assert 'swarm_operator_api_requests_total{code="200",kind="Pod",method="GET"} 1.0' in text
    finally:
        await runner.cleanup()
