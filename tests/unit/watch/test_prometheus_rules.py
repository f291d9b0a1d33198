"""The rules: promtool takes them, each alert fires when it must and not otherwise, and the runbook knows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from support.prometheus import promtool
from swarm_agents.exported import exposition
from swarm_deploy.metrics_reference import declared

REPOSITORY = Path(__file__).parents[3]
RULES = REPOSITORY / "charts/agentswarm/files/rules.yaml"
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {r["alert"]: r for g in GROUPS for r in g["rules"] if "alert" in r}
RECORDS: dict[str, str] = {r["record"]: r["expr"] for g in GROUPS for r in g["rules"] if "record" in r}

SWARM = 'namespace="ns",swarm="risk"'
ON_NODE = f'{SWARM},node="n1"'
OPERATOR = 'namespace="sys",pod="op-1"'


class Case(NamedTuple):
    """Series by promtool's notation at a sample a minute. The alert fires by `at` minutes, with these labels or not."""

    alert: str
    why: str
    series: dict[str, str]
    fires: dict[str, str] | None
    at: int = 30


def agents(role: str, desired: str, ready: str) -> dict[str, str]:
    """Of both replicas of the operator, as Prometheus has them."""
    return {
        f'swarm_operator_agents{{{SWARM},role="{role}",state="{state}",pod="{pod}"}}': values
        for pod in ("op-1", "op-2")
        for state, values in (("desired", desired), ("ready", ready))
    }


def histogram(name: str, labels: str, counts: dict[str, str]) -> dict[str, str]:
    return {f'{name}_bucket{{{labels},le="{bound}"}}': values for bound, values in counts.items()}


def condition(kind: str, values: str) -> dict[str, str]:
    return {f'swarm_operator_swarm_condition{{{SWARM},condition="{kind}",pod="op-1"}}': values}


WHERE = {"namespace": "ns", "swarm": "risk"}
NODE = WHERE | {"node": "n1"}
POD = WHERE | {"pod": "risk-compute-0"}
_POD = f'{ON_NODE},pod="risk-compute-0",role="compute"'

CASES = [
    Case("SwarmWithoutAgents", "none is ready", agents("compute", "2x60", "0x60"), WHERE | {"role": "compute"}),
    Case("SwarmWithoutAgents", "a standby may be missing", agents("standby", "2x60", "0x60"), None),
    Case("SwarmWithoutAgents", "suspended, none is wanted", agents("compute", "0x60", "0x60"), None),
    Case("SwarmAgentsMissing", "one of three", agents("compute", "3x60", "2x60"), WHERE | {"role": "compute"}),
    Case("SwarmAgentsMissing", "a rollout", agents("compute", "3x60", "3x5 2x3 3x60"), None),
    Case("SwarmNotAccepted", "refused", condition("Accepted", "0x60"), WHERE),
    Case("SwarmNotAccepted", "accepted", condition("Accepted", "1x60"), None),
    Case("SwarmDegraded", "for long", condition("Degraded", "1x60"), WHERE),
    Case("SwarmDegraded", "nobody knows", condition("Degraded", "NaNx60"), None),
    Case("SwarmNotScraped", "no agent's metrics", agents("compute", "2x60", "2x60"), WHERE),
    Case(
        "SwarmNotScraped",
        "one is scraped",
        agents("compute", "2x60", "2x60") | {f"swarm_agent_up{{{_POD}}}": "1x60"},
        None,
    ),
    Case("SwarmAgentsDying", "one a minute", {f'swarm_fences_total{{{_POD},witness="exit"}}': "0+1x60"}, WHERE),
    Case("SwarmAgentsDying", "one, once", {f'swarm_fences_total{{{_POD},witness="exit"}}': "0x20 1x60"}, None),
    Case("SwarmAgentCrashLooping", "a pod", {f"swarm_agent_restarts_total{{{_POD}}}": "0+1x60"}, POD),
    Case("SwarmAgentCrashLooping", "replaced once", {f"swarm_agent_restarts_total{{{_POD}}}": "0x20 1x60"}, None),
    Case(
        "SwarmFailoverSlow",
        "found out late",
        histogram(
            "swarm_failover_seconds", f'{_POD},stage="detect"', {"1.0": "0x60", "2.0": "0+1x60", "+Inf": "0+1x60"}
        ),
        WHERE | {"stage": "detect"},
    ),
    Case(
        "SwarmFailoverSlow",
        "in milliseconds",
        histogram("swarm_failover_seconds", f'{_POD},stage="detect"', {"0.01": "0+1x60", "+Inf": "0+1x60"}),
        None,
    ),
    Case("SwarmAgentUnfit", "cores as required are not there", {f"swarm_agent_unfit{{{_POD}}}": "1x60"}, POD | NODE),
    Case("SwarmAgentUnfit", "they are", {f"swarm_agent_unfit{{{_POD}}}": "0x60"}, None),
    Case(
        "SwarmCoresNotExclusive",
        "asked for and not there",
        {f"swarm_agent_cores_exclusive{{{_POD}}}": "0x60", f"swarm_agent_cores_exclusive_wanted{{{_POD}}}": "1x60"},
        NODE,
    ),
    Case(
        "SwarmCoresNotExclusive",
        "sharing is meant",
        {f"swarm_agent_cores_exclusive{{{_POD}}}": "0x60", f"swarm_agent_cores_exclusive_wanted{{{_POD}}}": "0x60"},
        None,
    ),
    Case(
        "SwarmCoresNotExclusive",
        "nobody can tell",
        {f"swarm_agent_cores_exclusive{{{_POD}}}": "NaNx60", f"swarm_agent_cores_exclusive_wanted{{{_POD}}}": "1x60"},
        None,
    ),
    Case(
        "SwarmHubPeerUnreachable",
        "cut off",
        {f'swarm_hub_peer_up{{{ON_NODE},peer="n2"}}': "0x60"},
        NODE | {"peer": "n2"},
    ),
    Case("SwarmHubPeerUnreachable", "back soon", {f'swarm_hub_peer_up{{{ON_NODE},peer="n2"}}': "1x25 0x2 1x60"}, None),
    Case(
        "SwarmQueueGrowing",
        "more comes than goes",
        {f'swarm_queue_depth{{{ON_NODE},priority="bulk"}}': "0+50x60"},
        WHERE,
    ),
    Case(
        "SwarmQueueGrowing", "many, and fewer", {f'swarm_queue_depth{{{ON_NODE},priority="bulk"}}': "6000-50x60"}, None
    ),
    Case(
        "SwarmCriticalTasksWait",
        "for 100 ms",
        histogram(
            "swarm_task_queued_seconds",
            f'{ON_NODE},priority="critical"',
            {"0.05": "0x60", "0.1": "0+9x60", "+Inf": "0+9x60"},
        ),
        WHERE | {"priority": "critical"},
    ),
    Case(
        "SwarmCriticalTasksWait",
        "normal ones may",
        histogram(
            "swarm_task_queued_seconds",
            f'{ON_NODE},priority="normal"',
            {"0.05": "0x60", "0.1": "0+9x60", "+Inf": "0+9x60"},
        ),
        None,
    ),
    Case(
        "SwarmTasksLost",
        "given up",
        {f'swarm_board_events_total{{{ON_NODE},event="lost",priority="normal",path="tcp"}}': "0x20 1x60"},
        WHERE,
        at=25,
    ),
    Case(
        "SwarmTasksLost",
        "only begun again",
        {f'swarm_board_events_total{{{ON_NODE},event="retried",priority="normal",path="tcp"}}': "0+1x60"},
        None,
    ),
    Case(
        "SwarmTasksRefused",
        "again and again",
        {f'swarm_board_events_total{{{ON_NODE},event="full",priority="normal",path="tcp"}}': "0+60x60"},
        NODE,
    ),
    Case(
        "SwarmTasksRefused",
        "for a moment",
        {f'swarm_board_events_total{{{ON_NODE},event="full",priority="normal",path="tcp"}}': "0x20 9x60"},
        None,
    ),
    Case(
        "SwarmNodeMemoryNearlyFull",
        "3 % left",
        {f"swarm_node_memory_bytes{{{ON_NODE}}}": "100x60", f"swarm_node_memory_available_bytes{{{ON_NODE}}}": "3x60"},
        NODE,
    ),
    Case(
        "SwarmNodeMemoryNearlyFull",
        "the sensor is switched off",
        {
            f"swarm_node_memory_bytes{{{ON_NODE}}}": "NaNx60",
            f"swarm_node_memory_available_bytes{{{ON_NODE}}}": "NaNx60",
        },
        None,
    ),
    Case(
        "SwarmSharedMemoryNearlyFull",
        "5 % left",
        {
            f"swarm_node_shared_memory_size_bytes{{{ON_NODE}}}": "100x60",
            f"swarm_node_shared_memory_available_bytes{{{ON_NODE}}}": "5x60",
        },
        NODE,
    ),
    Case(
        "SwarmSharedMemoryNearlyFull",
        "half is free",
        {
            f"swarm_node_shared_memory_size_bytes{{{ON_NODE}}}": "100x60",
            f"swarm_node_shared_memory_available_bytes{{{ON_NODE}}}": "50x60",
        },
        None,
    ),
    Case(
        "SwarmArenaNearlyFull",
        "payloads nobody takes",
        {f"swarm_arena_size_bytes{{{ON_NODE}}}": "100x60", f"swarm_arena_used_bytes{{{ON_NODE}}}": "95x60"},
        NODE,
    ),
    Case(
        "SwarmArenaNearlyFull",
        "a burst",
        {f"swarm_arena_size_bytes{{{ON_NODE}}}": "100x60", f"swarm_arena_used_bytes{{{ON_NODE}}}": "10x27 95x2 10x60"},
        None,
    ),
    Case("SwarmNodeThrottled", "all the time", {f"swarm_node_thermal_throttles_total{{{ON_NODE}}}": "7+3x60"}, NODE),
    Case("SwarmNodeThrottled", "nobody can tell", {f"swarm_node_thermal_throttles_total{{{ON_NODE}}}": "NaNx60"}, None),
    Case("SwarmNodeThrottled", "long ago", {f"swarm_node_thermal_throttles_total{{{ON_NODE}}}": "7x60"}, None),
    Case("SwarmOperatorDown", "there is none", {"up": "1x60"}, {}),
    Case("SwarmOperatorDown", "there is one", {f"swarm_operator_leading{{{OPERATOR}}}": "0x60"}, None),
    Case("SwarmOperatorWithoutLeader", "none", {f"swarm_operator_leading{{{OPERATOR}}}": "0x60"}, {"namespace": "sys"}),
    Case(
        "SwarmOperatorWithoutLeader",
        "another one leads",
        {f"swarm_operator_leading{{{OPERATOR}}}": "0x60", 'swarm_operator_leading{namespace="sys",pod="op-2"}': "1x60"},
        None,
    ),
    Case(
        "SwarmOperatorWatchStale",
        "silent",
        {f"swarm_operator_watch_age_seconds{{{OPERATOR}}}": "0+60x60"},
        {"namespace": "sys", "pod": "op-1"},
    ),
    Case("SwarmOperatorWatchStale", "bookmarks", {f"swarm_operator_watch_age_seconds{{{OPERATOR}}}": "60x60"}, None),
    Case(
        "SwarmOperatorReconcileErrors",
        "half of all",
        {
            f'swarm_operator_reconciles_total{{{OPERATOR},result="failed"}}': "0+5x60",
            f'swarm_operator_reconciles_total{{{OPERATOR},result="ok"}}': "0+5x60",
        },
        {"namespace": "sys"},
    ),
    Case(
        "SwarmOperatorReconcileErrors",
        "one in a hundred",
        {
            f'swarm_operator_reconciles_total{{{OPERATOR},result="failed"}}': "0+1x60",
            f'swarm_operator_reconciles_total{{{OPERATOR},result="ok"}}': "0+99x60",
        },
        None,
    ),
    Case(
        "SwarmOperatorCrashes",
        "a defect",
        {f'swarm_operator_reconciles_total{{{OPERATOR},result="crash"}}': "0x25 1x60"},
        {"namespace": "sys"},
    ),
    Case(
        "SwarmOperatorCrashes",
        "only refused",
        {f'swarm_operator_reconciles_total{{{OPERATOR},result="failed"}}': "0+1x60"},
        None,
    ),
    Case(
        "SwarmOperatorQueueSlow",
        "half a minute",
        histogram("swarm_operator_queue_seconds", OPERATOR, {"10.0": "0x60", "30.0": "0+9x60", "+Inf": "0+9x60"}),
        {"namespace": "sys"},
    ),
    Case(
        "SwarmOperatorQueueSlow",
        "at once",
        histogram("swarm_operator_queue_seconds", OPERATOR, {"0.01": "0+9x60", "+Inf": "0+9x60"}),
        None,
    ),
    Case(
        "SwarmAutoscalerFailing",
        "every round",
        {f'swarm_operator_autoscales_total{{{OPERATOR},result="failed"}}': "0+6x60"},
        {"namespace": "sys"},
    ),
    Case(
        "SwarmAutoscalerFailing",
        "it writes",
        {f'swarm_operator_autoscales_total{{{OPERATOR},result="out"}}': "0+6x60"},
        None,
    ),
]


def as_test(case: Case) -> dict[str, Any]:
    """In promtool's words; what an alert says is filled in here by what is written in the rules."""
    rule = ALERTS[case.alert]
    expected = []
    if case.fires is not None:
        said = {
            name: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: case.fires[found[1]], text)  # type: ignore[index]
            for name, text in rule["annotations"].items()
        }
        expected = [{"exp_labels": case.fires | rule["labels"], "exp_annotations": said}]
    return {
        "name": f"{case.alert}: {case.why}",
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values.replace("NaNx60", " ".join(["NaN"] * 60))}
            for name, values in case.series.items()
        ],
        "alert_rule_test": [{"alertname": case.alert, "eval_time": f"{case.at}m", "exp_alerts": expected}],
    }


def test_promtool_takes_the_rules() -> None:
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_must_with_what_they_say_and_are_quiet_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "cases.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [as_test(c) for c in CASES]})
    )
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_would_tell_if_an_alert_did_not_fire(tmp_path: Path) -> None:
    file = tmp_path / "cases.yaml"
    wrong = Case("SwarmOperatorDown", "there is one", {f"swarm_operator_leading{{{OPERATOR}}}": "1x60"}, {})
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [as_test(wrong)]})
    )
    assert promtool("test", "rules", str(file)).returncode == 1


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert {c.alert for c in CASES if c.fires is not None} == set(ALERTS)
    assert {c.alert for c in CASES if c.fires is None} == set(ALERTS)


def names_in(expression: str) -> set[str]:
    """The metrics that an expression reads, without the suffixes of histograms."""
    found = set(
        re.findall(r"(?<![:\w])(swarm_[a-z0-9_]+)(?=[\[{)\s]|$)", re.sub(r'"[^"]*"|\w+:[\w:]+', "", expression))
    )
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


@pytest.mark.parametrize("expression", [*RECORDS.values(), *(r["expr"] for r in ALERTS.values())])
def test_rules_read_metrics_that_there_are_and_rules_that_there_are(expression: str) -> None:
    read = names_in(expression)
    recorded = set(re.findall(r"\w+:\w+(?::\w+)?", re.sub(r'"[^"]*"', "", expression)))
    assert read <= set(declared())
    assert recorded <= set(RECORDS)
    assert read or recorded


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_bad_it_is_and_has_its_section_in_the_runbook(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor == alert.lower()
    text = (REPOSITORY / file).read_text()
    section = text.partition(f"\n### {alert}\n")[2].partition("\n#")[0].strip()
    assert len(section) > 100, f"nothing is said of {alert} in {file}"


def test_the_runbook_has_no_section_without_an_alert() -> None:
    assert set(re.findall(r"^### (\w+)$", (REPOSITORY / "docs/runbook.md").read_text(), re.M)) == set(ALERTS)


def test_the_copy_for_a_prometheus_of_one_s_own_is_the_chart_s() -> None:
    copy = (REPOSITORY / "deploy/prometheus/agentswarm.rules.yaml").read_text()
    assert copy.partition("\n")[2] == RULES.read_text(), "run `make generate`"


def test_promtool_finds_nothing_to_blame_in_names_and_types_of_all_metrics() -> None:
    families = []
    for one in declared().values():
        labels = ["x"] * len(one.labels)
        match one.kind:
            case "gauge":
                families.append(one.gauge((labels, 1.0)))
            case "counter":
                families.append(one.counter((labels, 1.0)))
            case "histogram":
                families.append(one.histogram((labels, [("1.0", 1.0), ("+Inf", 1.0)], 1.0)))
            case "info":
                families.append(one.info(dict.fromkeys(one.labels, "x")))
    text = exposition(*families).decode()
    assert all(f"# TYPE {one.exposed} " in text for one in declared().values())
    done = promtool("check", "metrics", stdin=text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    blamed = promtool("check", "metrics", stdin="# TYPE swarm_tasks counter\nswarm_tasks 1\n")
    assert blamed.returncode != 0, "promtool would say so"


def test_promtool_takes_the_shipped_configuration() -> None:
    done = promtool("check", "config", str(REPOSITORY / "deploy/prometheus/prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
