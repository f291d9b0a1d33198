"""What the chart gives to Prometheus and Grafana is what the repository has, unharmed by Helm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.helm import CHART, HelmMissing, helm, render
from support.prometheus import promtool

RULES: dict[str, Any] = yaml.safe_load((CHART / "files/rules.yaml").read_text())


@pytest.fixture(autouse=True, scope="module")
def _helm() -> None:
    try:
        helm("version")
    except HelmMissing as error:
        pytest.skip(str(error))


def objects(kind: str, **metrics: Any) -> list[dict[str, Any]]:
    return [each for each in render({"metrics": metrics}) if each["kind"] == kind]


def test_nothing_of_it_is_made_unless_asked_for() -> None:
    assert not [o for o in render() if o["kind"] in ("PrometheusRule", "ServiceMonitor", "PodMonitor", "ConfigMap")]


def test_the_rules_are_those_of_the_file_word_for_word_and_promtool_takes_them(tmp_path: Path) -> None:
    (rule,) = objects("PrometheusRule", prometheusRule={"enabled": True, "labels": {"release": "prometheus"}})
    assert rule["spec"] == RULES
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    checked = promtool("check", "rules", str(tmp_path / "rules.yaml"))
    assert checked.returncode == 0, checked.stderr


def test_alerts_get_labels_and_a_link_and_can_be_left_out() -> None:
    settings = {
        "enabled": True,
        "alertLabels": {"team": "risk", "severity": "none"},
        "runbookUrl": "https://wiki.example/runbook",
        "disabled": ["SwarmDegraded"],
    }
    (rule,) = objects("PrometheusRule", prometheusRule=settings)
    alerts = {r["alert"]: r for g in rule["spec"]["groups"] for r in g["rules"] if "alert" in r}
    source = {r["alert"]: r for g in RULES["groups"] for r in g["rules"] if "alert" in r}
    assert set(alerts) == set(source) - {"SwarmDegraded"}
    for name, alert in alerts.items():
        assert alert["labels"] == {"team": "risk", **source[name]["labels"]}
        assert alert["annotations"]["runbook_url"] == f"https://wiki.example/runbook#{name.lower()}"
    assert [r for r in rule["spec"]["groups"][0]["rules"] if "record" in r] == RULES["groups"][0]["rules"]


@pytest.mark.parametrize(
    ("metrics", "named"),
    [
        ({"prometheusRule": {"enabled": True, "disabled": ["SwarmOnHoliday"]}}, "there is no alert SwarmOnHoliday"),
        ({"prometheusRule": {"runbookUrl": "runbook#here"}}, "runbookUrl"),
        ({"prometheusRule": {"rules": []}}, "rules"),
        ({"dashboards": {"labels": {"grafana_dashboard": 1}}}, "grafana_dashboard"),
        ({"dashboards": {"folder": "x"}}, "folder"),
    ],
)
def test_values_that_can_not_be_are_refused_with_their_name(metrics: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        render({"metrics": metrics})


def test_agents_can_not_say_for_themselves_whose_they_are() -> None:
    (monitor,) = objects("PodMonitor", podMonitor={"enabled": True})
    assert [e["port"] for e in monitor["spec"]["podMetricsEndpoints"]] == ["http", "hub-http"]
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        assert not endpoint.get("honorLabels")
        assert {r["targetLabel"] for r in endpoint["relabelings"]} == {"swarm", "role", "node"}
        assert endpoint["metricRelabelings"][0]["action"] == "labeldrop"
    (operator,) = objects("ServiceMonitor", serviceMonitor={"enabled": True})
    assert operator["spec"]["endpoints"][0]["honorLabels"], (
        "else every Swarm would seem to be in the operator's namespace"
    )


def test_each_dashboard_is_a_config_map_for_the_sidecar_with_its_braces_unharmed() -> None:
    settings = {"enabled": True, "namespace": "monitoring", "annotations": {"grafana_folder": "Agent Swarm"}}
    found = objects("ConfigMap", dashboards=settings)
    sources = {path.name: json.loads(path.read_text()) for path in (CHART / "files/dashboards").glob("*.json")}
    assert len(sources) >= 6
    assert {name: json.loads(text) for each in found for name, text in each["data"].items()} == sources
    assert any("{{" in text for each in found for text in each["data"].values())
    for each in found:
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["namespace"] == "monitoring"
        assert each["metadata"]["annotations"] == {"grafana_folder": "Agent Swarm"}
        assert len(each["metadata"]["name"]) <= 63
        assert len(json.dumps(each)) < 1 << 20
