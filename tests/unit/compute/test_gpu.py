"""The GPU path: on a real device where there is one; its chunks, bounds and fallbacks with NumPy in CuPy's place."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.fakecupy import CUDARuntimeError, OutOfMemoryError, fake_device
from support.kernelkit import assert_same, draw
from swarm_agents.compute import gpu, registry
from swarm_agents.compute.crossover import Measured, crossover, main, measure

ON_GPU = [name for name in registry.names() if "cupy" in registry.get(name).implementations]


@pytest.fixture(autouse=True)
def a_process_that_has_not_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_asked", False)
    monkeypatch.setattr(gpu, "_device", None)
    monkeypatch.setattr(gpu, "_why_not", "")
    gpu.COUNTS.clear()


def use(monkeypatch: pytest.MonkeyPatch, device: Any) -> Any:
    monkeypatch.setattr(gpu, "_asked", True)
    monkeypatch.setattr(gpu, "_device", device)
    return device


@pytest.fixture
def real() -> gpu.Device:
    """The machine's device."""
    device = gpu.device()
    if device is None:
        pytest.skip(f"no CUDA device: {gpu.why_not()}")
    return device


# -- on a device


@pytest.mark.parametrize("name", ON_GPU)
def test_on_a_device_kernels_give_what_the_reference_gives(name: str, real: gpu.Device) -> None:
    kernel = registry.get(name)
    for seed in range(6):
        call = draw(name, seed)
        got = kernel.run(*call, implementation="cupy")
        assert_same(kernel.run(*call), got, kernel.implementations["cupy"].tolerance)
    assert gpu.COUNTS["device"] == 6


def test_on_a_device_the_pool_is_bounded_and_what_exceeds_it_is_computed_here(real: gpu.Device) -> None:
    small = gpu.Device(real.xp, real._cupyx, real.special, limit=1 << 20, number=real.number)
    with pytest.raises(Exception, match=r"[Oo]ut of memory") as caught, small:
        real.xp.empty(1 << 22)
    assert small.is_out_of_memory(caught.value)


def test_on_a_device_two_processes_do_not_disturb_each_other(real: gpu.Device, tmp_path: Path) -> None:
    import subprocess

    program = (
        "import sys, numpy as np\n"
        "from swarm_agents.compute import gpu, registry\n"
        "gpu.configure(share=0.3, ordinal=0)\n"
        "k, rng = registry.get('learning.dense'), np.random.default_rng(int(sys.argv[1]))\n"
        "x, w = rng.normal(size=(20000, 256)).astype('f4'), rng.normal(size=(256, 128)).astype('f4')\n"
        "b = np.zeros(128, 'f4')\n"
        "for _ in range(20):\n"
        "    got = k.run((x, w, b), implementation='cupy')\n"
        "    assert np.allclose(got, np.maximum(x @ w, 0), rtol=1e-3, atol=1e-2)\n"
        "assert gpu.COUNTS['device'] == 20\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, str(seed)]) for seed in (1, 2)]
    assert [process.wait(100) for process in both] == [0, 0]


# -- without one


@pytest.mark.parametrize("name", ON_GPU)
def test_kernels_compute_the_same_with_arrays_of_a_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, fake_device())
    kernel = registry.get(name)
    for seed in range(12):
        call = draw(name, seed)
        got = kernel.run(*call, implementation="cupy")
        assert_same(kernel.run(*call, implementation="numpy"), got, max(kernel.implementations["cupy"].tolerance, 1e-9))
    assert gpu.COUNTS == {"device": 12}


@pytest.mark.parametrize("name", ON_GPU)
def test_kernels_compute_the_same_in_many_small_chunks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = use(monkeypatch, fake_device(limit=1 << 16))
    monkeypatch.setattr(gpu, "_STAGED", 2000)
    monkeypatch.setattr(device.xp.pools[0], "limit", 1 << 30)
    kernel, call = registry.get(name), draw(name, 3)
    got = kernel.run(*call, implementation="cupy")
    assert_same(kernel.run(*call, implementation="numpy"), got, kernel.implementations["cupy"].tolerance)


@pytest.mark.parametrize("name", ON_GPU)
@pytest.mark.parametrize("error", [OutOfMemoryError("full"), CUDARuntimeError(2)])
def test_without_room_on_the_device_the_cpu_computes(
    name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = use(monkeypatch, fake_device())

    def full(*_: Any, **__: Any) -> Any:
        raise error

    for function in ("empty", "asarray", "arange"):
        monkeypatch.setattr(device.xp, function, full, raising=False)
    kernel, call = registry.get(name), draw(name, 2)
    got = kernel.run(*call, implementation="cupy")
    assert_same(kernel.run(*call, implementation="numba"), got, 0.0)
    assert gpu.COUNTS == {"memory": 1}
    assert device.xp.pools[0].freed == 1, "what it had is given back"


def test_another_error_of_the_device_is_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    device = use(monkeypatch, fake_device())

    def broken(*_: Any, **__: Any) -> Any:
        raise CUDARuntimeError(719)

    monkeypatch.setattr(device.xp, "empty", broken, raising=False)
    with pytest.raises(CUDARuntimeError, match="719"):
        registry.get("learning.dense").run(*draw("learning.dense", 1), implementation="cupy")


def test_without_a_device_the_cpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None)
    call = draw("learning.dense", 1)
    kernel = registry.get("learning.dense")
    assert_same(kernel.run(*call, implementation="numba"), kernel.run(*call, implementation="cupy"), 0.0)
    assert gpu.COUNTS == {"cpu": 1}


@pytest.mark.parametrize("n", [0, 1, 99, 100, 101, 200, 1234])
def test_every_row_passes_once_and_two_chunks_are_on_their_way_at_once(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device = fake_device()
    monkeypatch.setattr(gpu, "_STAGED", 100 * 24)
    x, y = np.arange(n, dtype=float), np.arange(n, dtype=float) * 3
    out = np.full(n, np.nan)
    sizes: list[int] = []

    def work(a: Any, b: Any) -> list[Any]:
        sizes.append(len(a))
        return [a * b + 1]

    device.over([x, y], [out], work, per_row=48)
    np.testing.assert_array_equal(out, x * y + 1)
    assert sizes == [100] * (n // 100) + ([n % 100] if n % 100 else [])
    kinds = [line.split()[0] for line in device.xp.journal]
    if n > 200:
        assert kinds[:3] == ["begin", "begin", "end"], "the second chunk begins before the first has ended"
        assert len({line.split()[1] for line in device.xp.journal}) == 2


def test_chunks_leave_room_for_two_of_them_in_the_pool() -> None:
    device = fake_device(limit=3_000_000)
    device.over([np.zeros(100_000)], [np.zeros(100_000)], lambda a: [a * 2], per_row=100)
    assert device.xp.pools[0].largest <= 3_000_000 // 3 // 100 * 8


def test_a_failing_chunk_leaves_nothing_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    device = fake_device()
    monkeypatch.setattr(gpu, "_STAGED", 160)
    calls = 0

    def work(a: Any) -> list[Any]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ValueError("third")
        return [a]

    with pytest.raises(ValueError, match="third"):
        device.over([np.arange(100.0)], [np.empty(100)], work, per_row=16)
    out = np.empty(50)
    device.over([np.arange(50.0)], [out], lambda a: [a], per_row=16)
    np.testing.assert_array_equal(out, np.arange(50.0))


@pytest.mark.parametrize(
    ("visible", "files", "why"),
    [
        ("", ["nvidia0"], "CUDA_VISIBLE_DEVICES"),
        ("-1", ["nvidia0"], "CUDA_VISIBLE_DEVICES"),
        ("0", [], r"no NVIDIA device .*spec\.compute\.gpus"),
        ("0", ["nvidiactl", "nvidia-uvm"], "no NVIDIA device"),
        ("0", ["nvidia0"], ""),
        ("0", ["dxg"], ""),
    ],
)
def test_whether_there_may_be_a_device_is_asked_without_cuda(
    visible: str, files: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for name in files:
        (tmp_path / name).touch()
    before = "cupy" in sys.modules
    said = gpu.missing(tmp_path)
    assert re.search(why, said)
    assert bool(said) == bool(why)
    assert ("cupy" in sys.modules) == before


def test_without_cupy_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert gpu.device() is None
    assert "agent-gpu" in gpu.why_not()


def test_a_driver_that_does_not_answer_is_a_reason_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise CUDARuntimeError(35)

    monkeypatch.setattr(gpu, "missing", lambda: "")
    monkeypatch.setattr(gpu, "_open", fails)
    assert gpu.device() is None
    assert "CUDARuntimeError: cuda error 35" in gpu.why_not()


def forked(look: Any) -> str:
    """What `look` says in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, str(look()).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as pipe:
        return pipe.read()


def test_a_child_of_a_process_that_used_cuda_has_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, fake_device())
    assert forked(lambda: (gpu.device(), gpu.why_not())).startswith("(None, 'this process was forked")


def test_a_child_of_one_that_did_not_looks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None)
    monkeypatch.setattr(gpu, "missing", lambda: "looked again")
    assert forked(lambda: (gpu.device(), gpu.why_not())) == "(None, 'looked again')"


def test_warming_up_before_the_fork_touches_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise AssertionError("CUDA before the fork")

    monkeypatch.setattr(gpu, "device", fails)
    for name in ON_GPU:
        warm = registry.get(name).implementations["cupy"].warm
        assert warm is not None
        warm()


# -- where it pays


def test_the_crossover_is_where_the_device_is_faster_from_then_on() -> None:
    def rows(kernel: str, *times: tuple[float, float]) -> list[Measured]:
        return [Measured(kernel, 10**i, device, cpu, "numba") for i, (device, cpu) in enumerate(times, 1)]

    measured = [
        *rows("always", (1, 2), (1, 3)),
        *rows("never", (2, 1), (2, 1)),
        *rows("late", (2, 1), (2, 2), (2, 3), (2, 9)),
        *rows("by chance once", (1, 2), (2, 1), (2, 1)),
        *rows("after chance", (1, 2), (2, 1), (1, 2)),
    ]
    assert crossover(measured) == {"always": 10, "never": None, "late": 1000, "by chance once": None} | {
        "after chance": 1000
    }


def test_the_crossover_is_measured_for_every_kernel_that_a_device_computes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, fake_device())
    monkeypatch.setattr("swarm_agents.compute.crossover.measure", lambda: measure(1000, repeats=1))
    assert main() == 0
    told = capsys.readouterr().out
    for name in ON_GPU:
        assert f"\n{name}: the" in told
    assert told.startswith("NumPy\n")


def test_without_a_device_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(gpu, "missing", lambda: "no such thing here")
    assert main() == 1
    assert capsys.readouterr() == ("", "no GPU: no such thing here\n")
