"""What the tests of shared arrays do on a node: its board, a client and an agent in one process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from swarm_agents.shm.board import Claim

MIB = 1 << 20


def claim(node: SimpleNamespace) -> Claim:
    found: Claim | None = node.worker.claim(5)
    assert found is not None
    return found


def answer(node: SimpleNamespace, *, copy: bool = True) -> Any:
    assert node.port.wait(5)
    (found,) = node.port.poll(copy=copy)
    if found.error is not None:
        raise found.error
    return found.value


def lies_in(array: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.shares_memory(array, other))


def filled(node: SimpleNamespace, shape: Any = (512, 256), dtype: Any = np.float64) -> np.ndarray:
    array = node.port.array(shape, dtype)
    array[...] = np.arange(array.size).reshape(shape)
    return array
