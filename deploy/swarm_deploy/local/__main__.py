"""`python -m swarm_deploy.local serve …`: the daemon."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from swarm_deploy.local.daemon import Options, run
from swarm_deploy.local.kubelet.services import Timing


def main() -> int:
    """Runs the cluster in this process."""
    parser = argparse.ArgumentParser(prog="swarm_deploy.local")
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus-per-node", type=int, default=4)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--no-operator", action="store_true")
    parser.add_argument("--no-audit", action="store_true")
    parser.add_argument("--back-off", type=float, default=10.0)
    parser.add_argument("--most-back-off", type=float, default=300.0)
    parser.add_argument("--heartbeat", type=float, default=10.0)
    parser.add_argument("--node-grace", type=float, default=40.0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    timing = Timing(
        crash_backoff=given.back_off,
        crash_backoff_most=given.most_back_off,
        heartbeat=given.heartbeat,
        node_grace=given.node_grace,
    )
    options = Options(
        given.state, given.nodes, given.cpus_per_node, given.port, not given.no_operator, timing, not given.no_audit
    )
    return asyncio.run(run(options))


if __name__ == "__main__":
    sys.exit(main())
