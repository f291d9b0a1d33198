"""The table of metrics: every one is declared, exported, and named as Prometheus wants it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from support.shm import make_board
from swarm_agents.exported import Declared, Table
from swarm_agents.resource import metrics as resource_metrics
from swarm_agents.resource.exported import BOARD, EVENTS, HUB, NODE
from swarm_agents.resource.sensing import Availability, Reading, Sensors, sources
from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.heat import temperature, throttling
from swarm_agents.runtime.exported import IO
from swarm_deploy.metrics_reference import TABLES, declared, metrics_reference
from swarm_operator import actions
from swarm_operator.api.status import SwarmStatus
from swarm_operator.exported import ACTIONS, CONDITIONS, OPERATOR, ROLES
from swarm_operator.metrics import Metrics
from swarm_operator.views import SwarmView

REPOSITORY = Path(__file__).parents[3]


def families(text: bytes) -> dict[str, Metric]:
    """By the name that the table has."""
    found = {
        f.name + ("_total" if f.type == "counter" else ""): f for f in text_string_to_metric_families(text.decode())
    }
    assert not [name for name in found if name.endswith("_created")]
    return found


def agrees(found: dict[str, Metric], *tables: Table) -> None:
    """What is exported is what the tables say: names, kinds, labels, help."""
    wanted = {one.exposed: one for table in tables for one in table}
    assert set(found) == set(wanted)
    for name, family in found.items():
        one = wanted[name]
        assert family.type == ("gauge" if one.kind == "info" else one.kind), name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(one.labels), name
            assert sample.name in one.series()
        if not name.removeprefix("swarm_supervisor_").startswith("process_"):
            assert family.documentation == one.text


def test_the_committed_table_is_the_code_s() -> None:
    assert (REPOSITORY / "deploy/reference/metrics.md").read_text() == metrics_reference(), "run `make generate`"
    assert sum(1 for table in TABLES for _ in table) == len(declared()), "a metric is declared by two parts"


def test_the_operator_exports_its_table_before_anything_has_happened() -> None:
    metrics = Metrics()
    for one in OPERATOR:
        name = one.name.removeprefix("swarm_operator_")
        if name in ("queue_depth", "swarms", "pods", "watch_age_seconds", "audit_entries") or name in (
            "autoscale_unread_nodes",
            "leading",
            "events_dropped",
        ):
            metrics.read(name, lambda: 0.0)
    metrics.read_swarms(list)
    found = families(metrics.exposition())
    agrees(found, OPERATOR)
    counted = {one.exposed for one in OPERATOR if one.kind == "counter"} - {"swarm_operator_api_requests_total"}
    assert all(found[name].samples for name in counted), "a rate over a counter is 0 before its first event, not absent"


def test_a_swarm_s_agents_and_conditions_are_exported_as_its_status_says() -> None:
    status: dict[str, Any] = {
        "compute": {"desired": 3, "ready": 1},
        "conditions": [
            {"type": "Ready", "status": "False"},
            {"type": "Accepted", "status": "True"},
            {"type": "PodSecurity", "status": "Unknown"},
            {"type": "SomebodyElse", "status": "True"},
        ],
    }
    metrics = Metrics()
    metrics.read_swarms(
        lambda: [SwarmView("a", "b", "u", "1", 1, False, {}, status), SwarmView("a", "new", "v", "1", 1, False, {}, {})]
    )
    found = families(metrics.exposition())
    agents = {(s.labels["role"], s.labels["state"]): s.value for s in found["swarm_operator_agents"].samples}
    assert agents == {("compute", "desired"): 3, ("compute", "ready"): 1}
    conditions = {s.labels["condition"]: s.value for s in found["swarm_operator_swarm_condition"].samples}
    assert math.isnan(conditions.pop("PodSecurity"))
    assert conditions == {"Ready": 0, "Accepted": 1}


def test_the_operator_s_labels_have_the_values_that_there_are() -> None:
    kinds = {c.__name__ for c in vars(actions).values() if isinstance(c, type) and issubclass(c, actions.Action)}
    assert {*ACTIONS} == kinds - {"Action"}
    assert {*ROLES} == {"compute", "standby", "resource"}
    told = SwarmStatus.model_fields["conditions"].description or ""
    assert {*CONDITIONS} == set(re.findall(r"\w+", told.partition(";")[0]))


def test_a_resource_agent_exports_board_and_hardware_and_says_what_it_can_not_know(tmp_path: Path) -> None:
    board = make_board(tmp_path)
    sensors = Sensors({**sources(Path("/"), tmp_path), "throttling": throttling(Files(tmp_path / "nowhere"))})
    sensors.read()
    found = families(resource_metrics.text(board, "n1", None, sensors))
    agrees(found, BOARD, NODE)
    (throttles,) = found["swarm_node_thermal_throttles_total"].samples
    assert math.isnan(throttles.value)
    states = {(s.labels["sensor"], s.labels["availability"]): s.value for s in found["swarm_node_sensor"].samples}
    assert states["throttling", "unavailable"] == 1
    assert states["shared_memory", "available"] == 1
    assert {sensor for sensor, _ in states} == {one.sensor for one in NODE if one.sensor}
    (size,), (free,) = (found[f"swarm_node_shared_memory_{n}_bytes"].samples for n in ("size", "available"))
    assert 0 < free.value <= size.value


def test_a_hub_exports_its_table_and_every_event_from_the_start(tmp_path: Path) -> None:
    peer = SimpleNamespace(node="n2", open=True, rtt=0.001, forwarded={})
    sessions = type("Sessions", (list,), {"kept_bytes": 7, "aside_bytes": 0})([SimpleNamespace(kind="rest")])
    hub: Any = SimpleNamespace(counts={"submitted": 3}, sessions=sessions, peers={"n2": peer})
    found = families(resource_metrics.text(make_board(tmp_path), "n1", hub, Sensors({})))
    agrees(found, BOARD, NODE, HUB, IO)
    events = {s.labels["event"]: s.value for s in found["swarm_hub_events_total"].samples}
    assert events == dict.fromkeys(EVENTS, 0) | {"submitted": 3}


def test_hubs_count_nothing_that_the_table_does_not_know() -> None:
    source = "".join(path.read_text() for path in (REPOSITORY / "agents/swarm_agents/resource").glob("*.py"))
    counted = {*re.findall(r'counts\["([a-z_]+)"', source), *re.findall(r'"(\w+)" if counted else "(\w+)"', source)[0]}
    assert len(counted) > 12
    assert counted <= {*EVENTS}


@pytest.mark.parametrize(
    "name",
    ["swarm_things_total", "swarm_wait_ms", "swarm_wait_milliseconds", "swarm_busy_percent", "Swarm_x", "other_x"],
)
def test_a_name_against_the_conventions_can_not_be_declared(name: str) -> None:
    with pytest.raises(ValueError, match="conventions"):
        Declared(name, "gauge", "Something")


def test_a_label_that_nobody_has_bounded_and_a_histogram_without_a_unit_can_not_be_declared() -> None:
    with pytest.raises(ValueError, match="bounded"):
        Declared("swarm_tasks", "counter", "Tasks", {"task": ""})
    with pytest.raises(ValueError, match="unit"):
        Declared("swarm_task_length", "histogram", "Length")
    with pytest.raises(TypeError, match="declared as a gauge"):
        Declared("swarm_tasks", "gauge", "Tasks").counter()


class TestHeat:
    """Sensors of heat, on machines that are directories."""

    @staticmethod
    def machine(root: Path, counts: dict[int, tuple[int, int, int]]) -> None:
        """Cores by number: package, throttled core, throttled package."""
        for cpu, (package, core, whole) in counts.items():
            folder = root / f"sys/devices/system/cpu/cpu{cpu}"
            (folder / "thermal_throttle").mkdir(parents=True)
            (folder / "topology").mkdir()
            (folder / "topology/physical_package_id").write_text(f"{package}\n")
            (folder / "thermal_throttle/core_throttle_count").write_text(f"{core}\n")
            (folder / "thermal_throttle/package_throttle_count").write_text(f"{whole}\n")

    def test_a_package_is_counted_once_and_not_by_each_of_its_cores(self, tmp_path: Path) -> None:
        self.machine(tmp_path, {0: (0, 1, 100), 1: (0, 2, 100), 2: (1, 4, 1000), 3: (1, 8, 1000)})
        assert throttling(Files(tmp_path))() == Reading(Availability.AVAILABLE, {"thermal_throttles": 1115.0})

    def test_the_hottest_place_counts_and_what_no_machine_is_does_not(self, tmp_path: Path) -> None:
        for name, text in (("hwmon/hwmon0/temp1_input", "41000"), ("hwmon/hwmon1/temp2_input", "-128000")):
            (tmp_path / "sys/class" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "sys/class" / name).write_text(text)
        (tmp_path / "sys/class/thermal/thermal_zone3").mkdir(parents=True)
        (tmp_path / "sys/class/thermal/thermal_zone3/temp").write_text("67500\n")
        assert temperature(Files(tmp_path))().values == {"temperature_celsius": 67.5}

    def test_a_sensor_that_falls_asleep_is_unavailable(self, tmp_path: Path) -> None:
        self.machine(tmp_path, {0: (0, 1, 0)})
        sensor = throttling(Files(tmp_path))
        assert sensor().values == {"thermal_throttles": 1.0}
        for path in (tmp_path / "sys").rglob("*_count"):
            path.unlink()
        assert sensor().availability is Availability.UNAVAILABLE


def test_no_label_of_an_agent_s_metric_means_another_thing_than_the_one_that_scraping_adds() -> None:
    """What a target's label shadows is dropped, so it must have said the same."""
    same = {"swarm_agent_info", "swarm_agent"}
    for table in TABLES:
        for one in table:
            if table is not OPERATOR and one.name not in same:
                assert not {"namespace", "swarm", "role", "pod"} & set(one.labels), one.name
