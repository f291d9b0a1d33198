"""Packages that bring kernels: the README's, from its text to an answer; and broken ones, which break nothing else."""

from __future__ import annotations

import importlib
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from support.kernelkit import assert_same
from swarm_agents.compute import registry
from swarm_agents.compute.plugins import GROUP, Broken, Plugins
from swarm_agents.errors import BadArguments, UnknownKernel
from swarm_operator.api.v1alpha1 import SwarmSpec

README = Path(__file__).parents[3] / "README.md"
GOOD = """
from swarm_agents.compute.registry import kernel

@kernel("good.twice")
def twice(x: float) -> float:
    return 2 * x
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Puts a package's module and metadata where `pip install --target` puts them."""
    monkeypatch.setattr(registry, "plugins", Plugins())
    monkeypatch.syspath_prepend(str(tmp_path))
    before, modules = dict(registry._kernels), set(sys.modules)

    def add(package: str, version: str, entries: dict[str, str], files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        info = tmp_path / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")
        importlib.invalidate_caches()

    yield add
    registry._kernels.clear()
    registry._kernels.update(before)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def block(name: str) -> str:
    """The README's file of that name: an indented block whose first line is a comment with it."""
    lines = README.read_text().splitlines()
    begin = lines.index(f"    # {name}") + 1
    end = next(
        i
        for i in range(begin, len(lines))
        if (lines[i] and not lines[i].startswith("    ")) or lines[i].startswith("    # ")
    )
    return textwrap.dedent("\n".join(lines[begin:end]))


def test_the_package_of_the_readme_is_found_checked_compiled_and_right(install: Callable[..., None]) -> None:
    project = tomllib.loads(block("acme-kernels/pyproject.toml"))
    source = block("acme-kernels/acme_kernels.py")
    assert project["tool"]["setuptools"]["py-modules"] == ["acme_kernels"]
    entries = project["project"]["entry-points"][GROUP]
    install(project["project"]["name"], project["project"]["version"], entries, {"acme_kernels.py": source})

    told: list[Broken] = []
    assert "acme.drawdown" in registry.load(broken=told.append)
    assert not told
    assert "acme.drawdown/numba" in registry.warm(["acme.*"])
    spec = SwarmSpec.model_validate(yaml.safe_load(block("swarm.yaml"))["spec"])
    kernel = registry.get("acme.drawdown", spec.compute.kernels)
    assert kernel([100, 120, 90, 110]) == 0.25
    assert kernel.sample is not None
    for seed in range(5):
        call = kernel.sample(np.random.default_rng(seed))
        one, other = (kernel.run(*call, implementation=name) for name in ("numpy", "numba"))
        assert_same(one, other, kernel.implementations["numba"].tolerance)
    with pytest.raises(BadArguments, match=r"acme\.drawdown argument 'prices'"):
        kernel([100.0, float("nan")])
    with pytest.raises(UnknownKernel, match="not allowed here"):
        registry.get("hash.sha256_tree", spec.compute.kernels)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (GOOD.replace("good.twice", "bad.twice") + "\n1 / 0", "ZeroDivisionError"),
        (GOOD.replace("good.twice", "hash.sha256_tree"), "ValueError: kernel 'hash.sha256_tree' is registered by"),
        (GOOD.replace("x: float", "x"), "TypeError: kernel good.twice: parameter 'x' has no annotation"),
    ],
)
def test_a_broken_package_is_named_and_takes_nothing_down(
    install: Callable[..., None], source: str, reason: str
) -> None:
    install("bad-kernels", "0.3", {"bad": "bad_kernels"}, {"bad_kernels.py": source})
    install("good-kernels", "1.0", {"good": "good_kernels"}, {"good_kernels.py": GOOD})
    told: list[Broken] = []
    names = registry.load(broken=told.append)
    assert {"good.twice", "hash.sha256_tree"} <= set(names)
    assert "bad.twice" not in names
    assert registry.get("hash.sha256_tree").reference.__module__ == "swarm_agents.compute.kernels.sha256"
    (fault,) = told
    assert fault.package == "bad-kernels 0.3"
    assert reason in str(fault)
    with pytest.raises(UnknownKernel, match=r"kernels of the package bad-kernels 0\.3 are not there"):
        registry.get("bad.twice")
    registry.load(broken=told.append)
    assert len(told) == 1, "a fault is told once"


def test_a_broken_package_that_the_settings_name_is_an_error(install: Callable[..., None]) -> None:
    install("bad-kernels", "0.3", {"bad": "bad_kernels"}, {"bad_kernels.py": "import no_such_library"})
    with pytest.raises(ImportError, match=r"'bad_kernels' of the package bad-kernels 0\.3 can't be imported"):
        registry.load(["bad_kernels"])


FAILING = (
    GOOD.replace("good.twice", "bad.twice")
    + """
from swarm_agents.compute.registry import call

@twice.samples
def _(rng):
    return call(1.0)

@twice.implementation("numba")
def _(x):
    raise RuntimeError("no such instruction")
"""
)


def test_a_kernel_that_fails_on_its_own_sample_is_taken_out_alone(install: Callable[..., None]) -> None:
    install("bad-kernels", "0.3", {"bad": "bad_kernels"}, {"bad_kernels.py": FAILING})
    registry.load()
    told: list[Broken] = []
    registry.warm(["bad.*", "core.*"], broken=told.append)
    assert [fault.package for fault in told] == ["bad-kernels 0.3"]
    with pytest.raises(UnknownKernel, match=r"'bad\.twice' that fails on its sample \(RuntimeError: no such instr"):
        registry.get("bad.twice")


def test_a_kernel_that_fails_on_its_own_sample_is_an_error_where_the_settings_name_it(
    install: Callable[..., None],
) -> None:
    install("bad-kernels", "0.3", {"bad": "bad_kernels"}, {"bad_kernels.py": FAILING})
    registry.load(["bad_kernels"])
    with pytest.raises(RuntimeError, match="no such instruction"):
        registry.warm(["bad.*"])


def test_nothing_installed_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "plugins", Plugins())
    told: list[Broken] = []
    registry.load(broken=told.append)
    assert not told
