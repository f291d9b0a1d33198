"""What Prometheus is told to scrape."""

from __future__ import annotations

import aiohttp

from swarm_operator.httpd import serve
from swarm_operator.metrics import Metrics
from swarm_operator.targets import targets
from swarm_operator.views import PodView

LABELS = {"agentswarm.dev/swarm": "risk", "agentswarm.dev/role": "compute", "swarm": "a lie"}


def pod(**changes: object) -> PodView:
    base = {"phase": "Running", "ip": "10.0.0.1", "node": "n1", "labels": LABELS}
    return PodView("ns", "risk-compute-0-0", "u", "1", **(base | changes))  # type: ignore[arg-type]


def test_each_agent_is_a_target_with_the_labels_that_say_whose_it_is() -> None:
    (found,) = targets([pod()])
    labels = {"namespace": "ns", "pod": "risk-compute-0-0", "node": "n1", "swarm": "risk", "role": "compute"}
    assert found == {"targets": ["10.0.0.1:9402"], "labels": labels}


def test_a_hub_inside_a_compute_agent_s_pod_is_a_target_of_its_own() -> None:
    hub, agent = targets([pod(ports=(9403, 9402))])
    assert (hub["targets"], hub["labels"]["role"]) == (["10.0.0.1:9403"], "resource")
    assert (agent["targets"], agent["labels"]["role"]) == (["10.0.0.1:9402"], "compute")


def test_what_does_not_run_or_is_no_agent_is_no_target_and_ipv6_is_written_as_in_urls() -> None:
    assert targets([pod(phase="Pending"), pod(phase="Succeeded"), pod(ip=""), pod(labels={})]) == []
    assert targets([pod(ip="fd00::1")])[0]["targets"] == ["[fd00::1]:9402"]


async def test_the_operator_serves_them() -> None:
    runner, port = await serve("127.0.0.1:0", Metrics(), lambda: "", lambda: "", lambda: targets([pod()]))
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/targets") as answer:
            assert answer.content_type == "application/json"
            assert await answer.json() == targets([pod()])
    finally:
        await runner.cleanup()
