"""What the operator's integration tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from support.clusters import TestCluster
from support.operatorlive import Client, Operator
from swarm_operator.kube import connect


@pytest.fixture
async def client(cluster: TestCluster, namespace: str) -> AsyncIterator[Client]:
    api = await connect(str(cluster.kubeconfig))
    yield Client(api, namespace)
    await api.close()


@pytest.fixture
def start(cluster: TestCluster, namespace: str, tmp_path: Path) -> Iterator[Callable[..., Operator]]:
    """Starts operators; all are ended with the test."""
    started: list[Operator] = []

    def begin(*options: str, namespaces: tuple[str, ...] = ()) -> Operator:
        operator = Operator(cluster.kubeconfig, tmp_path, [namespace, *namespaces], *options).start()
        started.append(operator)
        return operator

    yield begin
    for operator in started:
        if operator.process and operator.process.poll() is None:
            operator.stop()
