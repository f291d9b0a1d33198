"""deploy/examples/learning/train.py: training on shards finds what training in one process finds."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from swarm_agents.client import Swarm
from swarm_agents.compute import registry

EXAMPLE = Path(__file__).parents[3] / "deploy/examples/learning/train.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("training_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def here(kernel: str, *iterables: Any) -> Iterator[Any]:
    """`Swarm.map` in this process."""
    return map(registry.get(kernel), *iterables)


def test_shards_lead_to_the_weights_of_a_single_process(example: ModuleType) -> None:
    x, y = example.data(3000, 6, shards=7)
    weights, bias, losses = example.train(here, x, y, steps=400)
    alone = example.train(here, [np.concatenate(x)], [np.concatenate(y)], steps=400)
    np.testing.assert_allclose(weights, alone[0], rtol=1e-9)
    assert bias == pytest.approx(alone[1], rel=1e-9)
    assert losses[-1] < losses[0] / 1.5


def test_the_weights_are_those_that_a_general_minimiser_finds(example: ModuleType) -> None:
    x, y = example.data(1500, 4, shards=3)
    weights, bias, _ = example.train(here, x, y, steps=600, ridge=1e-2)
    rows, labels = np.concatenate(x), np.concatenate(y)

    def loss(at: np.ndarray) -> float:
        z = rows @ at[:4] + at[4]
        return float(np.mean(np.logaddexp(0, z) - labels * z) + 0.5e-2 * at[:4] @ at[:4])

    found = optimize.minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(np.append(weights, bias), found.x, atol=1e-5)


def test_the_example_trains_on_a_swarm_and_says_how_well(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class InProcess:
        def __enter__(self) -> InProcess:
            return self

        def __exit__(self, *_: object) -> None: ...

        map = staticmethod(here)

    monkeypatch.setattr(Swarm, "connect", lambda target: InProcess())
    monkeypatch.setattr("sys.argv", ["train.py", "--samples", "2000", "--features", "5", "--shards", "3"])
    example.main()
    told = capsys.readouterr().out
    assert "in 100 steps over 3 shards" in told
    assert float(told.split("%")[0].split("\n")[-1]) > 80.0
