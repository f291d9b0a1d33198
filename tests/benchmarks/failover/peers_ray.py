"""The peer: a Ray actor that is restarted, and whose methods are tried again, as Ray's documentation has it.

https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html: `max_restarts` and `max_task_retries`, both without
limit. The same task as ours, the same SIGKILL in the middle of it, the same mark when it is begun again.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from figures import summary
from marks import Marks

__all__ = ["actor_killed_to_resumed"]

_LIMIT = 60.0
_LONG = 10.0


def actor_killed_to_resumed(kills: int = 25, seed: int = 1) -> dict[str, float]:
    """Figures of the seconds from the SIGKILL of an actor's process until its task is begun again."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    here = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    import ray

    rng = random.Random(seed)
    samples = []
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, _temp_dir=folder
        )

        @ray.remote(max_restarts=-1, max_task_retries=-1)
        class Actor:
            def work(self, path: str, task: int, seconds: float) -> list[float]:
                from marks import work

                return work(path, task, seconds)

        marks = Marks(Path(folder) / "marks")
        actor = Actor.remote()
        ray.get(actor.work.remote(str(marks.path), 0, 0.0))
        for task in range(1, kills + 1):
            answer = actor.work.remote(str(marks.path), task, _LONG)
            victim = marks.wait(task, _LIMIT).pid
            time.sleep(rng.uniform(0.002, 0.02))
            began = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            samples.append(marks.wait(task, _LIMIT, but=victim).at - began)
            ray.get(answer, timeout=_LIMIT)
        ray.shutdown()
    return summary(samples)


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*map(int, sys.argv[2:])))
