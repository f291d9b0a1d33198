"""What the operator's integration tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from support.clusters import TestCluster
from support.operatorlive import Client, Operator
from support.rights import operator_kubeconfig, remove_rights
from swarm_operator.kube import connect


@pytest.fixture
async def client(cluster: TestCluster, namespace: str) -> AsyncIterator[Client]:
    api = await connect(str(cluster.kubeconfig))
    yield Client(api, namespace)
    await api.close()


@pytest.fixture
def start(cluster: TestCluster, namespace: str, tmp_path: Path) -> Iterator[Callable[..., Operator]]:
    """Starts operators, by an account that has the shipped rights; all are ended with the test.

    `everywhere`: with those of an operator that serves every namespace and lives in another one than the test's.
    """
    started: list[Operator] = []
    rights: dict[tuple[tuple[str, ...], bool], tuple[Path, str]] = {}

    def begin(*options: str, namespaces: tuple[str, ...] = (), everywhere: bool = False) -> Operator:
        served = (namespace, *namespaces)
        if (served, everywhere) not in rights:
            home = "default" if everywhere else namespace
            rights[served, everywhere] = operator_kubeconfig(cluster, tmp_path, home, served, everywhere=everywhere)
        operator = Operator(rights[served, everywhere][0], tmp_path, [*served], *options).start()
        started.append(operator)
        return operator

    yield begin
    for operator in started:
        if operator.process and operator.process.poll() is None:
            operator.stop()
    for _, suffix in rights.values():
        remove_rights(cluster, suffix)
