"""The API server that integration tests run against: the embedded cluster, or the one that SWARM_TEST_KUBECONFIG names.

A test asks for `cluster` and must not care which it got; where it has to (it needs pods that are processes of this
machine), it is marked `embedded`. No operator runs in it: a test that needs one starts it, so that it can also kill it.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from support.kubectl import Kubectl
from support.leftovers import processes, shared_memory, stays_empty_within

__all__ = ["CRD", "KUBECONFIG_VARIABLE", "ROOT", "TestCluster", "cluster_under_test"]

ROOT = Path(__file__).parents[2]
CRD = ROOT / "deploy" / "crds" / "swarms.agentswarm.dev.yaml"
KUBECONFIG_VARIABLE = "SWARM_TEST_KUBECONFIG"


@dataclass(frozen=True, slots=True)
class TestCluster:
    """Where the API server is, and which kind it is. The Swarm CRD is installed and established."""

    __test__ = False

    kubeconfig: Path
    embedded: bool
    kubectl: Kubectl
    #: What this run's namespaces are labelled with.
    label: dict[str, str]


@contextmanager
def cluster_under_test(scratch: Path) -> Iterator[TestCluster]:
    """A cluster for as long as the block lasts; `scratch` is an empty directory for whatever it needs on disk."""
    given = os.environ.get(KUBECONFIG_VARIABLE)
    if given:
        path = Path(given).expanduser().resolve()
        assert path.is_file(), f"{KUBECONFIG_VARIABLE}={given}: there is no such file"
        yield from _with_crd(path, embedded=False, scratch=scratch)
        return
    with _embedded(scratch / "state") as path:
        yield from _with_crd(path, embedded=True, scratch=scratch)


def _with_crd(kubeconfig: Path, *, embedded: bool, scratch: Path) -> Iterator[TestCluster]:
    """Install the CRD; leave somebody's cluster as it was: no namespace of ours, and no CRD where there was none."""
    kubectl = Kubectl(kubeconfig, scratch / "kubectl-cache")
    crd = "customresourcedefinition/swarms.agentswarm.dev"
    found = kubectl.attempt("get", crd).code == 0
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    kubectl("wait", "--for=condition=Established", crd, "--timeout=30s")
    run = uuid.uuid4().hex
    try:
        yield TestCluster(kubeconfig, embedded, kubectl, {"test-run": run})
    finally:
        if not embedded:
            kubectl("delete", "namespace", "-l", f"test-run={run}", "--timeout=120s", timeout=130)
            if not found:
                kubectl("delete", crd, "--timeout=60s")


@contextmanager
def _embedded(state: Path) -> Iterator[Path]:
    """The embedded cluster in a directory of its own, and the proof that nothing of it stays."""
    from swarm_deploy.local.manager import Cluster  # imported late: a real cluster is tested without it

    cluster = Cluster(state)
    cluster.start(nodes=2, operator=False, back_off=0.5)
    kubeconfig = state / "kubeconfig"
    try:
        assert kubeconfig.stat().st_mode & 0o077 == 0, "the kubeconfig holds a token: nobody else may read it"
        server = _server(kubeconfig)
        yield kubeconfig
    finally:
        cluster.stop()
    left = stays_empty_within(10, lambda: processes(str(state)))
    assert not left, f"the embedded cluster left processes: {left}"
    mine = f"agentswarm-local-{(state / 'cluster-id').read_text().strip()}"
    left = stays_empty_within(2, lambda: sorted(shared_memory() & {mine}))
    assert not left, f"the embedded cluster left in /dev/shm: {left}"
    with socket.socket() as probe:
        assert probe.connect_ex(server) != 0, f"the embedded cluster still listens at {server}"


def _server(kubeconfig: Path) -> tuple[str, int]:
    import yaml

    url = urlsplit(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    assert url.hostname is not None
    assert url.port is not None
    return url.hostname, url.port
