"""The node's NVIDIA GPUs, by NVML; what a device does not support is left out, and one that is lost is said.

The library is loaded at the first reading, and again a minute after it failed: a driver may be installed later, and a
device that fell off the bus is only found again by a new start of NVML.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

from swarm_agents.resource.sensing.reading import Availability, Reading, Source, unavailable

__all__ = ["gpus"]

_AGAIN = 60.0
_MOST = 16


def gpus(
    load: Callable[[], Any] = lambda: importlib.import_module("pynvml"),
    clock: Callable[[], float] = time.monotonic,
) -> Source:
    """All that NVML shows."""
    handles: list[Any] = []
    nvml: list[Any] = []
    failed: list[tuple[float, str]] = []

    def start() -> str:
        try:
            module = load()
        except ImportError:
            return "the package nvidia-ml-py is not installed"
        try:
            module.nvmlInit()
            count = module.nvmlDeviceGetCount()
            handles[:] = [module.nvmlDeviceGetHandleByIndex(index) for index in range(min(count, _MOST))]
        except module.NVMLError as error:
            return f"NVML: {error}"
        nvml[:] = [module]
        return "" if handles else "no GPU is there"

    def of(module: Any, handle: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        asked: dict[str, Callable[[], float]] = {
            "gpu_busy_ratio": lambda: module.nvmlDeviceGetUtilizationRates(handle).gpu / 100.0,
            "gpu_memory_bytes": lambda: module.nvmlDeviceGetMemoryInfo(handle).total,
            "gpu_memory_used_bytes": lambda: module.nvmlDeviceGetMemoryInfo(handle).used,
            "gpu_temperature_celsius": lambda: module.nvmlDeviceGetTemperature(handle, module.NVML_TEMPERATURE_GPU),
            "gpu_power_watts": lambda: module.nvmlDeviceGetPowerUsage(handle) / 1e3,
            "gpu_clock_hertz": lambda: module.nvmlDeviceGetClockInfo(handle, module.NVML_CLOCK_SM) * 1e6,
            "gpu_throttle_reasons": lambda: module.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
            "gpu_ecc_errors": lambda: module.nvmlDeviceGetTotalEccErrors(
                handle, module.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, module.NVML_VOLATILE_ECC
            ),
        }
        for name, ask in asked.items():
            try:
                found[name] = float(ask())
            except module.NVMLError_GpuIsLost:
                raise
            except module.NVMLError:
                continue
        return found

    def read() -> Reading:
        if failed and clock() - failed[0][0] < _AGAIN:
            return unavailable(failed[0][1])
        if not nvml or failed:
            failed.clear()
            if why := start():
                failed[:] = [(clock(), why)]
                return unavailable(why)
        module = nvml[0]
        series: dict[str, dict[str, float]] = {}
        lost = []
        for index, handle in enumerate(handles):
            try:
                found = of(module, handle)
            except module.NVMLError_GpuIsLost:
                lost.append(str(index))
                continue
            for name, value in found.items():
                series.setdefault(name, {})[str(index)] = value
        why = f"lost from the bus: GPU {', '.join(lost)}" if lost else ""
        if lost and not series:
            failed[:] = [(clock(), why)]
            return unavailable(why)
        return Reading(Availability.AVAILABLE, {"gpus": float(len(handles) - len(lost))}, why, series)

    return read
