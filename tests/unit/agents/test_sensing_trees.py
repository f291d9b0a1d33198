"""Sensors on recorded machines: what each shows, what it lacks, and what comes of files that are broken."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.machinekit import machine
from swarm_agents.resource.sensing import Availability, Reading, Sensors, Source, sources
from swarm_agents.resource.sensing.cpu import cpu
from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.gpu import gpus
from swarm_agents.resource.sensing.io import disks, network
from swarm_agents.resource.sensing.power import power


def read(root: Path) -> dict[str, Reading]:
    found = sources(root, root)
    del found["gpu"]
    return Sensors(found).read()


def test_a_server_shows_everything_that_it_has(tmp_path: Path) -> None:
    found = read(machine(tmp_path, "server"))
    assert found["cpu"].values["cpus"] == 4
    assert found["cpu"].values["context_switches"] == 500000
    assert found["memory"].values["memory_available_bytes"] == 98304000 * 1024
    assert found["load"].values == {"load1": 3.2, "load5": 2.1, "load15": 1.05}
    assert found["pressure"].series["pressure_some_ratio"] == {"cpu": 0.125, "memory": 0.01, "io": 0.0}
    assert found["disks"].values == {"disk_read_bytes": 8000 * 512.0, "disk_written_bytes": 16000 * 512.0}
    assert found["network"].values["network_received_bytes"] == 100000
    assert found["network"].values["network_drops"] == 6
    assert found["numa"].series["numa_memory_free_bytes"] == {"0": 32768000 * 1024.0, "1": 16384000 * 1024.0}
    assert found["frequency"].values == {"cpu_frequency_hertz": 3e9}
    assert found["temperature"].values == {"temperature_celsius": 61.0}
    assert found["temperature"].series["zone_temperature_celsius"] == {"0:x86_pkg_temp": 54.0}
    assert found["faults"].values == {"page_faults": 9e5, "page_faults_major": 1200.0, "oom_kills": 1.0}
    assert found["cgroup"].values == {
        "cgroup_memory_used_bytes": 104857600.0,
        "cgroup_memory_limit_bytes": 209715200.0,
        "cgroup_oom_kills": 1.0,
        "cgroup_cpu_limit_cores": 1.5,
        "cgroup_throttles": 7.0,
        "cgroup_throttled_seconds": 2.5,
    }


def test_a_small_vm_says_what_it_lacks_and_what_is_estimated(tmp_path: Path) -> None:
    found = read(machine(tmp_path, "vm"))
    for name in ("temperature", "throttling", "idle", "numa", "pressure", "disks", "network"):
        assert found[name].availability is Availability.UNAVAILABLE, name
        assert found[name].reason
        assert not found[name].values
    for name in ("power", "memory", "frequency", "bandwidth"):
        assert found[name].availability is Availability.ESTIMATED, name
        assert found[name].reason
    # Version 1; the memory controller's path is outside of what the container sees, and it has no limit.
    assert found["cgroup"].values == {
        "cgroup_memory_used_bytes": 52428800.0,
        "cgroup_oom_kills": 3.0,
        "cgroup_cpu_limit_cores": 0.5,
        "cgroup_throttles": 4.0,
        "cgroup_throttled_seconds": 1.5,
    }


def test_an_arm_board_has_a_battery_a_thermal_zone_and_a_hybrid_of_cgroups(tmp_path: Path) -> None:
    found = read(machine(tmp_path, "arm"))
    assert found["power"].values == {"power_watts": 2.0}
    assert found["power"].availability is Availability.ESTIMATED
    assert found["temperature"].values == {"temperature_celsius": 48.312}
    assert found["cgroup"].values == {
        "cgroup_memory_used_bytes": 1e6,
        "cgroup_memory_limit_bytes": 4e6,
        "cgroup_throttles": 2.0,
        "cgroup_throttled_seconds": 3.0,
    }


def test_a_core_s_time_is_told_by_what_it_went_on_since_the_last_reading(tmp_path: Path) -> None:
    sensor = cpu(Files(machine(tmp_path, "vm")))
    assert "cpu_busy_ratio" not in sensor().values, "there is nothing to compare with yet"
    stat = tmp_path / "proc/stat"
    stat.write_text("cpu 110 0 55 860 15 0 0 60\ncpu0 110 0 55 860 15 0 0 60\n")
    found = sensor()
    assert found.values["cpu_busy_ratio"] == pytest.approx(0.35)
    assert found.series["core_steal_ratio"] == {"0": pytest.approx(0.2)}
    assert sensor().values["cpu_busy_ratio"] == pytest.approx(0.35), "no tick has passed: what was is still so"


def test_cores_that_are_switched_off_vanish_and_come_back_without_a_leap(tmp_path: Path) -> None:
    sensor = cpu(Files(machine(tmp_path, "arm")))
    sensor()
    stat = tmp_path / "proc/stat"
    stat.write_text("cpu 20 0 20 120 0 0 0 0\ncpu0 10 0 10 60 0 0 0 0\n")
    assert sensor().values["cpus"] == 1
    assert "1" not in sensor().series["core_busy_ratio"]
    stat.write_text("cpu 30 0 30 160 0 0 0 0\ncpu0 15 0 15 80 0 0 0 0\ncpu1 900 0 0 0 0 0 0 0\n")
    assert "1" not in sensor().series["core_busy_ratio"]
    stat.write_text("cpu 3 0 3 16 0 0 0 0\ncpu0 1 0 1 8 0 0 0 0\ncpu1 901 0 0 3 0 0 0 0\n")  # all but one backwards
    found = sensor()
    assert found.series["core_busy_ratio"]["1"] == pytest.approx(0.25)
    assert all(0 <= value <= 1 for value in found.series["core_busy_ratio"].values())


def test_a_counter_of_energy_that_wraps_goes_on_and_an_absurd_one_gives_no_power(tmp_path: Path) -> None:
    now = [0.0]
    sensor = power(Files(machine(tmp_path, "server")), lambda: now[0])
    assert sensor().availability is Availability.UNAVAILABLE
    zones = [tmp_path / f"sys/class/powercap/intel-rapl:{zone}/energy_uj" for zone in (0, 1)]
    zones[0].write_text(f"{262000000000 + 100_000_000 - 262143328850 + 262143328850 - 100_000_000}\n")
    zones[1].write_text("51000000\n")
    now[0] = 1.0
    assert sensor().values == {"power_watts": 50.0}
    zones[0].write_text("6671150\n")  # 150 J later, across the end of its range
    zones[1].write_text("51000000\n")
    now[0] = 2.0
    assert sensor().values["power_watts"] == pytest.approx(150.0)
    zones[0].write_text("200000000000\n")
    now[0] = 3.0
    assert sensor().values["power_watts"] == 0.0, "only the other socket's makes sense"


def test_rates_of_disks_and_interfaces_leave_out_a_counter_that_went_backwards(tmp_path: Path) -> None:
    now = [0.0]
    files = Files(machine(tmp_path, "server"))
    disk, net = disks(files, lambda: now[0]), network(files, lambda: now[0])
    disk(), net()
    line = " 259 0 nvme0n1 {} 10 8000 {} 2000 20 16000 900 {} {} {} 0 0\n"
    (tmp_path / "proc/diskstats").write_text(line.format(1100, 700, 1, 1200, 3400))
    (tmp_path / "proc/net/dev").write_text("eth0: 50 1 0 0 0 0 0 0 60000 9 0 0 0 0 0 0\n")
    now[0] = 1.0
    found = disk()
    assert found.series["disk_busy_ratio"] == {"nvme0n1": 0.5}
    assert found.series["disk_queue_length"] == {"nvme0n1": 2.0}
    assert found.series["disk_wait_seconds"] == {"nvme0n1": pytest.approx(0.002)}
    assert net().series["interface_received_bytes_per_second"] == {}
    assert net().series["interface_sent_bytes_per_second"] == {}, "no time has passed"
    (tmp_path / "proc/diskstats").write_text(line.format(1, 1, 2**32 - 1, 1, 1))
    now[0] = 2.0
    assert disk().series["disk_queue_length"] == {}


@pytest.mark.parametrize("text", ["", "\n", "\0\0\0", "cpu", "MemTotal: 12", "nonsense " * 9, "-1", "9" * 400, "é\n"])
@pytest.mark.parametrize("kind", ["server", "vm", "arm"])
def test_files_that_are_cut_off_or_absurd_make_sensors_unavailable_and_never_zero(
    tmp_path: Path, kind: str, text: str
) -> None:
    root = machine(tmp_path, kind)
    found = sources(root, root)
    del found["gpu"], found["shared_memory"], found["bandwidth"]
    sensors = Sensors(found)
    sensors.read()
    for path in root.rglob("*"):
        if path.is_file():
            path.write_text(text)
    for name, reading in sensors.read().items():
        if name == "temperature" and text == "-1":
            continue  # a thousandth of a degree below zero is a temperature
        assert reading.availability is Availability.UNAVAILABLE, (name, reading)
        assert reading.reason, name
        assert (reading.values, reading.series) == ({}, {}), name


def test_files_that_vanish_make_sensors_unavailable_until_they_are_back(tmp_path: Path) -> None:
    root = machine(tmp_path, "server")
    found = sources(root, root)
    sensors = Sensors({name: found[name] for name in ("cpu", "memory", "load", "pressure", "cgroup", "faults")})
    sensors.read()
    for path in root.rglob("*"):
        if path.is_file():
            path.unlink()
    assert {r.availability for r in sensors.read().values()} == {Availability.UNAVAILABLE}
    machine(tmp_path, "server")
    assert {r.availability for r in sensors.read().values()} == {Availability.AVAILABLE}


def test_a_sensor_that_hangs_is_said_to_and_holds_up_no_other() -> None:
    now, release, again, other = [0.0], threading.Event(), threading.Event(), threading.Event()
    hung = threading.Event()

    def hang() -> Reading:
        if not release.is_set():
            hung.set()
            release.wait()
        else:
            again.set()
        return Reading(Availability.AVAILABLE, {"x": 1.0})

    def live() -> Reading:
        other.set()
        return Reading(Availability.AVAILABLE, {"y": 1.0})

    found: dict[str, Source] = {"hang": hang, "live": live}
    sensors = Sensors(found, clock=lambda: now[0])
    sensors.start(lambda: 0.001)
    try:
        assert hung.wait(10)
        sensors.watch()
        assert not other.is_set()
        now[0] = 3.0
        sensors.watch()
        assert other.wait(10)
        assert sensors.readings["hang"] == Reading(Availability.UNAVAILABLE, reason="has not answered for 3 s")
        release.set()
        for tick in range(1, 10_000):  # the thread sleeps by the real clock, and keeps its grid by this one
            now[0] = 3.0 + tick * 0.01
            if again.wait(0.005):
                break
        assert again.is_set()
    finally:
        release.set()
        sensors.stop()


class NVMLError(Exception):
    pass


class NVMLError_GpuIsLost(NVMLError):  # noqa: N801, N818 - pynvml's name
    pass


class Nvml:
    """As pynvml, with two devices; the second one can be lost, and shows no power."""

    NVMLError, NVMLError_GpuIsLost = NVMLError, NVMLError_GpuIsLost
    NVML_TEMPERATURE_GPU = NVML_CLOCK_SM = NVML_MEMORY_ERROR_TYPE_UNCORRECTED = NVML_VOLATILE_ECC = 0
    lost: frozenset[int] = frozenset()

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def _ask(self, handle: int, value: object) -> object:
        if handle in self.lost:
            raise NVMLError_GpuIsLost("GPU is lost")
        return value

    def __getattr__(self, name: str) -> object:
        values: dict[str, object] = {
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=40),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=1000, used=250),
            "nvmlDeviceGetTemperature": 66,
            "nvmlDeviceGetClockInfo": 1500,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 4,
            "nvmlDeviceGetTotalEccErrors": 0,
        }
        if name == "nvmlDeviceGetPowerUsage":
            return self._power
        if name not in values:
            raise AttributeError(name)
        return lambda handle, *_: self._ask(handle, values[name])

    def _power(self, handle: int) -> object:
        if handle == 1:
            raise NVMLError("Not Supported")
        return self._ask(handle, 300_000)


def test_a_gpu_shows_what_it_supports_and_one_that_falls_off_the_bus_is_said() -> None:
    nvml, now = Nvml(), [0.0]
    sensor = gpus(lambda: nvml, lambda: now[0])
    found = sensor()
    assert found.values == {"gpus": 2.0}
    assert found.series["gpu_power_watts"] == {"0": 300.0}
    assert found.series["gpu_busy_ratio"] == {"0": 0.4, "1": 0.4}
    nvml.lost = frozenset({1})
    found = sensor()
    assert found.values == {"gpus": 1.0}
    assert found.reason == "lost from the bus: GPU 1"
    assert "1" not in found.series["gpu_busy_ratio"]
    nvml.lost = frozenset({0, 1})
    assert sensor().availability is Availability.UNAVAILABLE
    nvml.lost = frozenset()
    assert sensor().availability is Availability.UNAVAILABLE, "NVML is started anew a minute later"
    now[0] = 61.0
    assert sensor().values == {"gpus": 2.0}
