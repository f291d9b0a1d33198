"""The product, installed by Helm on the current kubeconfig's cluster. `make e2e` runs this; `make test` does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.installation import Images, Site
from support.steady import Work

#: It changes the cluster of whoever runs it: only when it was asked for.
collect_ignore_glob = [] if os.environ.get("SWARM_E2E") else ["test_*.py"]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    given = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or str(Path.home() / ".kube" / "config")
    path = Path(given).expanduser().resolve()
    assert path.is_file(), f"{given}: there is no such file; say KUBECONFIG=path"
    found = Site(path, tmp_path_factory.mktemp("site"), Images.given())
    print(
        f"\ncluster of {path}: {len(found.nodes)} nodes, at most {found.cpus:g} cores a node, "
        f"{'with' if found.runs_deployments else 'without'} Deployments; images {found.images}"
    )
    found.make_namespaces()
    try:
        yield found
    finally:
        found.finish()
        found.remove_namespaces()


@pytest.fixture(scope="session")
def work() -> Iterator[Work]:
    going = Work()
    yield going
    if going.load is not None:
        going.load.stop(patience=5.0)
    if going.doorway is not None:
        going.doorway.close()
