"""What a user brings, on real agents: the README's package of kernels, and the example that trains a model."""

from __future__ import annotations

import importlib.util
import os
import textwrap
from pathlib import Path

import numpy as np
import pytest

from swarm_agents.client import Swarm
from swarm_agents.compute import registry
from swarm_agents.compute.plugins import GROUP
from swarm_agents.errors import UnknownKernel

ROOT = Path(__file__).parents[3]


def install(site: Path, package: str, module: str, source: str) -> None:
    """Puts a package where `pip install --target` puts it."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{package} = {module}\n")
    (site / f"{module}.py").write_text(source)


def from_the_readme() -> str:
    text = (ROOT / "README.md").read_text()
    begin = text.index("    # acme-kernels/acme_kernels.py\n")
    return textwrap.dedent(text[begin : text.index("\nIt is installed into an image", begin)])


def test_a_users_kernel_and_the_training_example_run_on_an_agent(node, tmp_path: Path) -> None:
    install(tmp_path, "acme_kernels", "acme_kernels", from_the_readme())
    install(tmp_path, "broken_kernels", "broken_kernels", "import no_such_library")
    pod = node.start(PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}").ready()
    spec = importlib.util.spec_from_file_location("training_on_agents", ROOT / "deploy/examples/learning/train.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    x, y = example.data(600, 4, shards=3)
    with Swarm.connect(f"shm://{node.board}") as swarm:
        assert swarm.run("acme.drawdown", np.array([100.0, 120.0, 90.0, 110.0])) == 0.25
        with pytest.raises(UnknownKernel, match=r"package broken_kernels 1\.0 .* No module named 'no_such_library'"):
            swarm.run("broken.kernel")
        weights, bias, losses = example.train(swarm.map, x, y, steps=40)
    alone = example.train(lambda kernel, *a: map(registry.get(kernel), *a), x, y, steps=40)
    np.testing.assert_allclose(weights, alone[0], rtol=1e-6)
    assert bias == pytest.approx(alone[1], rel=1e-6)
    assert losses[-1] < losses[0]
    warned = [line["event"] for line in pod.log() if line["level"] == "warning"]
    assert [event for event in warned if "the package broken_kernels 1.0" in event]
