"""The real Prometheus, by the shipped configuration, over a running swarm: every metric, every panel, every picture."""

from __future__ import annotations

import math
import re
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.kubectl import Kubectl
from support.product import Running
from support.prometheus import Prometheus, program
from support.waiting import eventually
from support.watched import Work, watching
from swarm_agents.client.connection import resolve
from swarm_deploy.dashboards.boards import BOARDS
from swarm_deploy.dashboards.model import Board, filled
from swarm_deploy.dashboards.pictures import draw, fetcher
from swarm_deploy.local.manager import Cluster
from swarm_deploy.metrics_reference import declared

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

#: The autoscaler may want two, and two there are: it speaks, and does nothing.
AUTOSCALED = '{"spec":{"compute":{"min":2,"max":2}}}'
NOT_AUTOSCALED = '{"spec":{"compute":{"min":null,"max":null}}}'


@pytest.fixture(scope="module")
def watched(product: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The swarm works, one agent has been killed in the middle of a task, and Prometheus has seen it all."""
    program("prometheus")
    record = Cluster(product.state).record()
    assert record is not None
    with pytest.MonkeyPatch.context() as patch:
        for name, value in product.env.items():
            patch.setenv(name, value)
        connection = resolve(None)
    kubectl: Kubectl = product.kubectl
    kubectl("patch", "swarm", "small", "--type=merge", "-p", AUTOSCALED)
    try:
        with watching(tmp_path_factory.mktemp("prometheus"), record.operator_url) as server:
            work = Work(connection, "small").start()
            try:
                # what is not seen before it happens has no rate
                eventually(lambda: server.query('count(swarm_fences_total{witness="exit"}) >= 3'), "fences", 60)
                eventually(
                    lambda: server.query("count(count_over_time(swarm_tasks_total[1m]) >= 3)"),
                    "tasks of all agents",
                    60,
                )
                work.kill_one()
                kubectl("label", "swarm", "small", "looked=at", "--overwrite")  # the operator may have nothing to do
                rounds = "sum(increase(swarm_operator_reconcile_seconds_count[1m])) > 0"
                eventually(lambda: server.query(rounds), "a round of the operator", 60)
                again = 'sum(increase(swarm_failover_seconds_count{stage="resume"}[1m])) > 0'
                eventually(lambda: server.query(again), "a task that went on elsewhere", 60)
                assert not work.errors
                yield server
            finally:
                work.stop()
            assert not work.errors
    finally:
        kubectl("patch", "swarm", "small", "--type=merge", "-p", NOT_AUTOSCALED)
        kubectl("label", "swarm", "small", "looked-")


def test_every_documented_metric_is_there_and_no_other(watched: Prometheus) -> None:
    wanted = {name for one in declared().values() for name in one.series()}

    def names() -> set[str]:
        return set(watched.get("label/__name__/values"))

    eventually(lambda: wanted <= names(), "every documented metric", 60)
    others = {name for name in names() - wanted if ":" not in name and not name.startswith(("scrape_", "ALERTS"))}
    assert others == {"up"}


def test_every_agent_and_the_operator_are_scraped_with_labels_that_say_whose_they_are(watched: Prometheus) -> None:
    def found() -> list[dict[str, Any]]:
        return list(watched.get("targets")["activeTargets"])

    eventually(lambda: {target["health"] for target in found()} == {"up"}, "targets that answer", 60)
    targets = found()
    agents = [t["labels"] for t in targets if t["labels"]["job"] == "agentswarm-agents"]
    assert len(agents) == 5
    assert {agent["swarm"] for agent in agents} == {"small"}
    assert {agent["role"] for agent in agents} == {"compute", "standby", "resource"}
    named = {label for s in watched.query('{__name__=~"swarm_.+"}') for label in s["metric"]}
    assert not {label for label in named if label.startswith("exported_")}


def test_labels_have_no_more_values_than_the_table_says(watched: Prometheus) -> None:
    """Names with a bound in numbers: what is found is among what is listed."""
    for one in declared().values():
        for label, bound in one.labels.items():
            if re.match(r"\d+ \w+: ", bound):
                listed = set(re.split(r", | and |; ", bound.partition(": ")[2]))
                found = {s["metric"][label] for s in watched.query(f"group by ({label}) ({one.series()[0]})")}
                assert found <= listed, f"{one.exposed}: {label}"


def test_all_rules_are_evaluated_without_an_error_and_record_something(watched: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in watched.get("rules")["groups"] for rule in group["rules"]]

    eventually(lambda: {rule["health"] for rule in rules()} == {"ok"}, "rules that evaluate", 30)
    for rule in rules():
        if rule["type"] == "recording":
            assert watched.query(rule["name"]), rule["name"]
    # what a busy machine can't bring about
    wrong = {"SwarmTasksLost", "SwarmNotScraped", "SwarmWithoutAgents", "SwarmNotAccepted"}
    wrong |= {"SwarmOperatorDown", "SwarmOperatorWithoutLeader", "SwarmOperatorCrashes"}
    assert not [r["name"] for r in rules() if r["type"] == "alerting" and r["state"] == "firing" and r["name"] in wrong]


def values_of(board: Board, watched: Prometheus) -> dict[str, str]:
    """What people would choose: everything; of agents one that has computed."""
    busiest = watched.query('topk(1, sum by (pod) (swarm_tasks_total{role="compute",result="ok"}))')
    return {"namespace": ".*", "swarm": ".*", "__rate_interval": "5m", "pod": busiest[0]["metric"]["pod"]}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_panel_s_query_returns_data_while_the_swarm_works(board: Board, watched: Prometheus) -> None:
    unknown = {
        s["metric"]["sensor"]
        for s in watched.query('min by (sensor) (swarm_node_sensor{availability="unavailable"}) == 1')
    }
    table = {name: one for one in declared().values() for name in one.series()}
    values = values_of(board, watched)
    for panel in board.panels():
        for query in panel.queries:
            expression = filled(query.expression, values)
            found = [float(sample["value"][1]) for sample in watched.query(expression)]
            assert found, f"{panel.title}: {expression}"
            sensors = {table[name].sensor for name in re.findall(r"\bswarm_node_\w+", expression) if name in table}
            if sensors & unknown:
                assert all(math.isnan(value) for value in found), f"{panel.title}: nobody can know that"
            else:
                assert any(math.isfinite(value) for value in found), f"{panel.title}: {expression}"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_what_variables_offer_is_there(board: Board, watched: Prometheus) -> None:
    values = values_of(board, watched)
    for variable in board.variables:
        assert watched.query(f"group by ({variable.of}) ({filled(variable.metric, values)})"), variable.name


def test_a_picture_is_drawn_of_a_dashboard_from_this_data_and_is_small(watched: Prometheus) -> None:
    now = time.time()
    (board,) = (board for board in BOARDS if board.uid == "agentswarm-overview")
    drawn = draw(board, values_of(board, watched), fetcher(watched.url, now - 60, now))
    assert drawn.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", drawn[16:24])
    assert width >= 800
    assert height >= 500
    assert 10_000 < len(drawn) < 150_000
