"""The operator's own account, with the rights that are shipped for it and no others.

An operator under test runs by its token, so whatever it does that the shipped roles do not grant fails, on the embedded
cluster as on a real one.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import yaml

from support.clusters import TestCluster
from support.kubectl import Kubectl, manifest
from swarm_operator import rbac

__all__ = ["account_kubeconfig", "operator_kubeconfig", "remove_rights"]

#: Long enough for any test; a real API server gives no token for less than ten minutes.
_TOKEN = "2h"


def operator_kubeconfig(
    cluster: TestCluster, scratch: Path, home: str, served: Sequence[str] = (), *, everywhere: bool = False
) -> tuple[Path, str]:
    """A kubeconfig for an operator that lives in the namespace `home`, and the suffix of what it has of the cluster's.

    Args:
        served: the namespaces that it serves; they must exist.
        everywhere: it serves all instead.
    """
    suffix = f"-{uuid.uuid4().hex[:8]}"
    objects = rbac.cluster_wide(home) if everywhere else rbac.namespaced(home, served, suffix=suffix)
    if everywhere:  # two tests at once must not share what has no namespace
        for each in objects:
            if "namespace" not in each["metadata"]:
                each["metadata"]["name"] += suffix
                if "roleRef" in each:
                    each["roleRef"]["name"] += suffix
    for each in objects:
        each["metadata"]["labels"] = {"test-rights": suffix.strip("-")}
    for namespace in sorted({each["metadata"].get("namespace", "default") for each in objects}):
        chosen = [each for each in objects if each["metadata"].get("namespace", "default") == namespace]
        cluster.kubectl.within(namespace)("apply", "-f", "-", stdin=manifest(*chosen))
    return account_kubeconfig(cluster.kubectl, rbac.ACCOUNT, home, scratch / f"kubeconfig{suffix}"), suffix


def account_kubeconfig(kubectl: Kubectl, account: str, namespace: str, path: Path) -> Path:
    """Writes a kubeconfig by which a ServiceAccount reaches the same API server; returns its path."""
    token = kubectl.within(namespace)("create", "token", account, "--duration", _TOKEN).out.strip()
    config = yaml.safe_load(kubectl.kubeconfig.read_text())
    (context,) = (c for c in config["contexts"] if c["name"] == config["current-context"])
    context["context"] |= {"user": account, "namespace": namespace}
    config["users"] = [{"name": account, "user": {"token": token}}]
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


def remove_rights(cluster: TestCluster, suffix: str) -> None:
    """Removes what belongs to the whole cluster or lies in `default`; the rest goes with the tests' namespaces."""
    label = f"test-rights={suffix.strip('-')}"
    for kinds in ("clusterroles,clusterrolebindings", "serviceaccounts,roles,rolebindings"):
        cluster.kubectl("delete", kinds, "-l", label, "--ignore-not-found")
