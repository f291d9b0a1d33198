"""`swarm chaos`, from the words of the command line to the exit code."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from swarm_agents.errors import SwarmError
from swarm_deploy.chaos.faults import KINDS, choose, weigh
from swarm_deploy.chaos.ground import Ground
from swarm_deploy.chaos.own import OwnGround
from swarm_deploy.chaos.report import Outcome
from swarm_deploy.chaos.run import run
from swarm_deploy.session import Interrupted, signals_end_it, use_the_warm_cache

__all__ = ["chaos", "kinds"]

Say = Callable[[str], None]


def kinds() -> list[str]:
    """A line for each kind of fault."""
    return [f"{kind.name:<16} {kind.weight:<4g} {kind.text}" for kind in KINDS.values()]


def chaos(
    *,
    swarm: str | None,
    seconds: float,
    seed: int | None,
    only: list[str],
    weight: list[str],
    every: float,
    clients: int,
    nodes: int,
    replicas: int,
    standby: int,
    report: Path,
    say: Say = print,
) -> int:
    """Does a run, writes its document, and returns the exit code: 0 when nothing is to be complained of.

    Raises:
        SwarmError: it can't be begun; the message says why.
    """
    names = choose(only)
    weights = weigh(weight, names)
    drawn = random.SystemRandom().randrange(1 << 31) if seed is None else seed
    use_the_warm_cache()
    report.parent.mkdir(parents=True, exist_ok=True)
    say(f"seed {drawn}: `swarm chaos --seed {drawn} --seconds {seconds:g}` draws the same faults again")
    outcome: Outcome | None = None
    ground: Ground | None = None
    left: list[str] = []
    with signals_end_it():
        try:
            if swarm is None:
                ground = own = OwnGround(nodes=nodes, replicas=replicas, standby=standby)
                own.start(say)
            else:
                from swarm_deploy.chaos.existing import find_ground

                ground = find_ground(swarm)
            say(f"ready after {ground.wait_ready(120, say):.1f} s")
            outcome = run(
                ground,
                seed=drawn,
                seconds=seconds,
                weights=weights,
                explicit=bool(only),
                every=every,
                clients=clients,
                say=say,
            )
            if outcome.complaints and isinstance(ground, OwnGround):
                ground.keep_logs(report.parent / "chaos-logs")
        except Interrupted as interrupted:
            say(f"ended by {interrupted}")
            return 128 + interrupted.number
        except SwarmError:
            if isinstance(ground, OwnGround):
                ground.keep_logs(report.parent / "chaos-logs")
            raise
        finally:
            if ground is not None:
                left = ground.close()
    outcome.left = left
    report.write_text(json.dumps(outcome.document(), indent=1) + "\n")
    for line in outcome.lines():
        say(line)
    logs = report.parent / "chaos-logs"
    say(f"  {report}" + (f"; logs in {logs}" if outcome.complaints and isinstance(ground, OwnGround) else ""))
    return 1 if outcome.complaints else 0
