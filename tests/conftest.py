"""What every test may use: a cluster, stock kubectl, a namespace of its own; and the check that a run leaves nothing.

Fixtures that cost something import it when they are asked for, so that unit tests start at once.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.clusters import KUBECONFIG_VARIABLE, TestCluster, cluster_under_test
from support.kubectl import Kubectl, manifest
from support.leftovers import SESSION_VARIABLE, SharedMemoryWatch, processes, stays_empty_within

_SHARED_MEMORY = pytest.StashKey[SharedMemoryWatch]()
_TEMPORARY = pytest.StashKey[Path]()
_LEFT = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """An API server with the Swarm CRD and no operator: embedded, or the one SWARM_TEST_KUBECONFIG names."""
    with cluster_under_test(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def namespace(cluster: TestCluster) -> Iterator[str]:
    """A namespace that is this test's alone; it is deleted afterwards, with all that is in it."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": cluster.label}}
    cluster.kubectl("create", "-f", "-", stdin=manifest(made))
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def kubectl(cluster: TestCluster, namespace: str) -> Kubectl:
    """Stock kubectl in the test's own namespace."""
    return cluster.kubectl.within(namespace)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, on a real cluster, what needs the embedded kubelet."""
    given = os.environ.get(KUBECONFIG_VARIABLE)
    if not given:
        return
    skip = pytest.mark.skip(reason=f"needs the embedded cluster's kubelet, and {KUBECONFIG_VARIABLE} names another one")
    for item in items:
        if item.get_closest_marker("embedded"):
            item.add_marker(skip)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Mark all that this run starts, and remember what was there before it."""
    asyncio.set_event_loop(None)  # else looptime's plugin makes a loop around each sync test, and nobody closes it
    os.environ[SESSION_VARIABLE] = uuid.uuid4().hex
    session.config.stash[_SHARED_MEMORY] = SharedMemoryWatch()


@pytest.fixture(scope="session", autouse=True)
def _temporary_directory(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytestconfig.stash[_TEMPORARY] = tmp_path_factory.getbasetemp()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves a process or shared memory behind has failed."""
    stash = session.config.stash
    scratch = stash.get(_TEMPORARY, None)
    marks = [os.environ.pop(SESSION_VARIABLE), *([str(scratch)] if scratch else [])]
    left = stays_empty_within(5, lambda: [f"process {each}" for each in processes(*marks)])
    watch = stash[_SHARED_MEMORY]
    left += stays_empty_within(2, lambda: [f"/dev/shm/{name}" for name in watch.left(scratch)])
    watch.close()
    stash[_LEFT] = left
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left."""
    left = config.stash.get(_LEFT, [])
    if left:
        terminalreporter.section("left behind by this run", sep="=", red=True)
        for line in left:
            terminalreporter.line(line)
