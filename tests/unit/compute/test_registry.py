"""The registry: names, implementations, near misses, plug-ins, and that it costs nothing until a kernel needs Numba."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from swarm_agents.compute import registry
from swarm_agents.compute.context import Context
from swarm_agents.errors import BadArguments, TaskCancelled, UnknownKernel


@pytest.fixture
def added() -> Iterator[None]:
    """Forgets the kernels that a test has registered."""
    before = dict(registry._kernels)
    yield
    registry._kernels.clear()
    registry._kernels.update(before)


def test_the_built_in_kernels_are_there_without_loading_anything() -> None:
    assert {"core.noop", "core.echo", "core.sleep", "core.spin", "core.fail"} <= set(registry.names())
    assert {"hash.sha256_tree", "risk.monte_carlo", "risk.filtered_historical", "risk.backtest_window"} <= set(
        registry.names()
    )


def test_every_kernel_says_what_it_does_and_what_it_expects() -> None:
    for name in registry.names():
        kernel = registry.get(name)
        assert kernel.summary.endswith((".", ":")), name
        assert str(kernel.signature).startswith(f"{name}("), name


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(UnknownKernel, match=r"risk\.monte_carl.*did you mean risk\.monte_carlo"):
        registry.get("risk.monte_carl")
    with pytest.raises(UnknownKernel, match=r"there are .*core\.echo, "):
        registry.get("zzzzzz")


def test_a_kernel_that_the_swarm_does_not_allow_is_unknown_there() -> None:
    assert registry.get("risk.loss_tail", ["risk.*"]).name == "risk.loss_tail"
    with pytest.raises(UnknownKernel, match=r"allows risk\.\*"):
        registry.get("core.noop", ["risk.*"])
    assert all(name.startswith("risk.") for name in registry.names(["risk.*"]))


@pytest.mark.parametrize("name", ["monte", "Risk.x", "risk.", "risk..x", "risk x.y", ""])
def test_a_name_that_is_not_dotted_lower_case_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a kernel"):
        registry.kernel(name)


def test_a_name_that_another_module_has_is_refused() -> None:
    def noop() -> None: ...

    with pytest.raises(ValueError, match=r"core\.noop.*registered by swarm_agents\.compute\.kernels\.core"):
        registry.kernel("core.noop")(noop)


@pytest.mark.usefixtures("added")
def test_the_last_implementation_is_chosen_unless_it_says_no() -> None:
    @registry.kernel("test.twice")
    def twice(x: int) -> str:
        return f"reference {2 * x}"

    assert twice(2) == "reference 4"

    @twice.implementation("fast", when=lambda x: x > 10)
    def fast(x: int) -> str:
        return f"fast {2 * x}"

    assert twice(2) == "reference 4"
    assert twice(20) == "fast 40"
    assert twice.run((2,), {}, implementation="fast") == "fast 4"

    @twice.implementation("other", default=False)
    def other(x: int) -> str:
        return "other"

    assert twice(20) == "fast 40"
    with pytest.raises(ValueError, match="has an implementation 'fast' already"):
        twice.implementation("fast")


@pytest.mark.usefixtures("added")
def test_a_parameter_that_cannot_be_checked_is_refused_at_registration() -> None:
    def bare(x) -> None: ...  # type: ignore[no-untyped-def]

    def rest(*x: int) -> None: ...

    def odd(x: set[int]) -> None: ...

    def context(ctx: Context) -> None: ...

    for function, words in (
        (bare, "no annotation"),
        (rest, "must be named"),
        (odd, "can't be annotated"),
        (context, "keyword-only"),
    ):
        with pytest.raises(TypeError, match=words):
            registry.kernel("test.odd")(function)
    with pytest.raises(UnknownKernel):
        registry.get("test.odd")


def test_loading_an_owners_module_registers_its_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, added: None
) -> None:
    (tmp_path / "owners_kernels.py").write_text(
        "from swarm_agents.compute.registry import kernel\n"
        "@kernel('owner.add')\n"
        "def add(a: int, b: int = 1) -> int:\n"
        "    return a + b\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "owner.add" in registry.load(["owners_kernels"])
    assert registry.get("owner.add")(41) == 42


def test_a_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(ImportError, match=r"kernel module 'no_such_module_x'.*agents' image"):
        registry.load(["no_such_module_x"])


def test_warming_runs_every_compiled_implementation_and_no_parallel_one(added: None) -> None:
    ran: list[str] = []

    @registry.kernel("test.warmth")
    def warmth(x: int) -> int:
        ran.append("reference")
        return x

    warmth.samples(lambda rng: registry.call(int(rng.integers(10))))
    warmth.implementation("plain")(lambda x: ran.append("plain"))
    warmth.implementation("threads", parallel=True)(lambda x: ran.append("threads"))
    warmth.implementation("compiled", parallel=True, warm=lambda: ran.append("compiled"))(lambda x: ran.append("run"))
    spent = registry.warm(["test.*"])
    assert ran == ["plain", "compiled"]
    assert list(spent) == ["test.warmth/plain", "test.warmth/compiled"]


def test_warming_covers_each_built_in_kernel_that_numba_compiles() -> None:
    spent = registry.warm()
    compiled = {f"{n}/numba" for n in registry.names() if "numba" in registry.get(n).implementations}
    assert {"hash.sha256_tree/numba", "risk.monte_carlo/numba", "risk.backtest_window/numba"} <= compiled
    assert compiled <= set(spent)


def test_listing_and_binding_import_neither_numba_nor_scipy() -> None:
    code = (
        "import sys; from swarm_agents.compute import registry; registry.load(); "
        "registry.get('risk.garch_fit').bind(([0.1, 0.2],), {}); "
        "print([m for m in ('numba', 'scipy', 'zmq') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_a_kernel_that_asks_for_its_context_gets_the_callers() -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(TaskCancelled):
        registry.get("core.spin").run((60.0,), ctx=Context(cancelled))
    with pytest.raises(TaskCancelled):
        registry.get("core.sleep").run((60.0,), ctx=Context(lambda: True))


def test_the_core_kernels_do_what_their_names_say() -> None:
    assert registry.get("core.noop")() is None
    value = {"a": [1, 2.5, None], "b": b"\0"}
    assert registry.get("core.echo")(value) is value
    assert registry.get("core.sleep")(0.0) >= 0.0
    assert registry.get("core.spin")(0.001) >= 1
    with pytest.raises(RuntimeError, match="no luck"):
        registry.get("core.fail")("no luck")


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "lacks seconds"),
        ((1, 2), {}, "takes 1 positional arguments, 2 were given"),
        ((1,), {"seconds": 1}, "twice"),
        ((1,), {"minutes": 1}, "knows no argument 'minutes'"),
        ((-1,), {}, "'seconds' must be float from 0 to 86400: got -1"),
        ((float("nan"),), {}, "got nan"),
        (("1",), {}, "got str '1'"),
        ((True,), {}, "got bool True"),
        ((1,), {"ctx": None}, "knows no argument 'ctx'"),
        (([1, 2],), {}, "got a value of type list"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_what_is_expected(args: tuple, kwargs: dict, words: str) -> None:
    with pytest.raises(BadArguments, match=words) as caught:
        registry.get("core.sleep").bind(args, kwargs)
    assert "core.sleep(seconds: float from 0 to 86400)" in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_numbers_of_numpy_and_0d_arrays_are_numbers() -> None:
    bind = registry.get("core.sleep").bind
    for value in (np.float32(0.5), np.int64(2), np.array(0.5)):
        (bound,) = bind((value,), {}).values()
        assert type(bound) is float
