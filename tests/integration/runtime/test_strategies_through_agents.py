"""What real agents learn of kernels' implementations: the fast one is taken, a change noticed, a restart is warm."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

from swarm_agents.compute.strategies import file_name

KERNELS = """
import time
from swarm_agents.compute.registry import kernel

@kernel("test.paced")
def paced(default: float, other: float) -> str:
    '''Says which implementation ran; each sleeps as long as it is told to.'''
    time.sleep(0.05)
    return "numpy"

@paced.implementation("other", default=False)
def _(default, other):
    time.sleep(other)
    return "other"

@paced.implementation("default")
def _(default, other):
    time.sleep(default)
    return "default"
"""


def answers(client: Any, count: int, *seconds: float) -> Counter[str]:
    """Which implementation ran in each of so many tasks, one after another."""
    ran: Counter[str] = Counter()
    for _ in range(count):
        client.submit("test.paced", *seconds)
        (answer,) = client.answers(1)
        assert answer.error is None
        ran[answer.value] += 1
    return ran


def test_agents_learn_what_is_fast_notice_a_change_and_start_warm(
    node: Any, client_of: Any, tmp_path: Path, eventually: Any
) -> None:
    (node.root / "kernels_that_sleep.py").write_text(KERNELS)
    node.write(node.with_runtime(kernel_modules=("kernels_that_sleep",)))
    path = os.pathsep.join([str(node.root), *filter(None, [os.environ.get("PYTHONPATH")])])

    def start(ordinal: int) -> Any:
        own = tmp_path / f"cache-{ordinal}"
        return node.start(ordinal, PYTHONPATH=path, SWARM_CACHE_DIR=str(own), SWARM_CACHE_SEED=str(node.cache)).ready()

    def starts_warm(pod: Any) -> list[Any]:
        return pod.log("starts from what agents of this hardware have learned")

    first = start(0)
    assert not starts_warm(first)
    with contextlib.closing(client_of(node)) as client:
        answers(client, 20, 0.004, 0.001)
        ran = answers(client, 40, 0.004, 0.001)
        assert ran["other"] >= 36, ran
        # The one that was fast is slow now: the machine has changed.
        answers(client, 60, 0.004, 0.02)
        ran = answers(client, 40, 0.004, 0.02)
        assert ran["default"] >= 36, ran
        assert ran["numpy"] == 0, "the reference would be tried where calls are short"
    first.terminate()
    assert first.ended() == 0
    assert not node.board.exists(), "nothing of it is left in shared memory"

    # The next one in that place has learned it, and tells it to a new agent on the node while it works.
    kept = tmp_path / "cache-0" / file_name()
    again = start(0)
    assert starts_warm(again)
    eventually("what was learned lies beside the board", lambda: (node.board / file_name()).exists())
    second = start(1)
    assert starts_warm(second)
    with contextlib.closing(client_of(node)) as client:
        ran = answers(client, 30, 0.004, 0.02)
        assert ran["other"] <= 2, ran
    for pod in (again, second):
        pod.terminate()
        assert pod.ended() == 0

    # A torn file is none.
    kept.write_bytes(kept.read_bytes()[:-3])
    torn = start(0)
    assert not starts_warm(torn)
    with contextlib.closing(client_of(node)) as client:
        assert sum(answers(client, 20, 0.004, 0.001).values()) == 20
