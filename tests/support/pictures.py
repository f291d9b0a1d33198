"""`make pictures`: a swarm at work for some minutes, with agents that die, watched by a Prometheus and drawn.

PYTHONPATH=tests python -m support.pictures --minutes 6 --out docs/images
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from support.kubectl import Kubectl, manifest
from support.watched import Work, watching
from swarm_agents.client.connection import resolve
from swarm_deploy.dashboards import pictures
from swarm_deploy.local.manager import Cluster

SWARM = {
    "apiVersion": "agentswarm.dev/v1alpha1",
    "kind": "Swarm",
    "metadata": {"name": "risk"},
    "spec": {
        "compute": {"min": 2, "max": 3, "standby": 1, "cpus": 1, "memory": "256Mi"},
        "transport": {"sharedMemory": {"size": "64Mi"}},
    },
}


def main() -> int:
    """Draws; whatever happens, the cluster is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentswarm-pictures-") as folder:
        scratch = Path(folder)
        cluster = Cluster(scratch / "state")
        os.environ |= {"SWARM_LOCAL_STATE": str(scratch / "state"), "KUBECONFIG": str(scratch / "state/kubeconfig")}
        record = cluster.start(nodes=2, progress=print)
        try:
            kubectl = Kubectl(cluster.kubeconfig, scratch / "kubectl")
            kubectl("apply", "-f", "-", stdin=manifest(SWARM))
            kubectl("wait", "--for=condition=Ready", "swarm/risk", "--timeout=180s", timeout=200)
            (scratch / "prometheus").mkdir()
            with watching(scratch / "prometheus", record.operator_url) as server:
                work = Work(resolve(None), "risk", pause=0.05).start()
                try:
                    end = time.monotonic() + options.minutes * 60
                    while (left := end - time.monotonic()) > 0:
                        time.sleep(min(left, options.minutes * 60 / 6))
                        print(f"killed {work.kill_one()}; {work.answered} tasks answered")
                finally:
                    work.stop()
                if work.errors:
                    raise work.errors[0]
                words = ["--prometheus", server.url, "--minutes", str(options.minutes), "--out", str(options.out)]
                return pictures.main(words)
        finally:
            cluster.stop()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (subprocess.SubprocessError, pytest.skip.Exception) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
