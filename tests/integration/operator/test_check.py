"""`swarm-operator check` by the operator's account: what lacks is named, and the command that it prints mends it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.clusters import TestCluster
from support.kubectl import manifest
from support.rights import operator_kubeconfig, remove_rights
from swarm_operator import rbac


def run(*words: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("swarm-operator"))
    return subprocess.run([program, "check", *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def account(cluster: TestCluster, namespace: str, tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig of an operator that serves the test's namespace by the shipped rights."""
    path, suffix = operator_kubeconfig(cluster, tmp_path, namespace, (namespace,))
    yield path
    remove_rights(cluster, suffix)


def test_the_shipped_rights_are_enough_and_what_is_taken_away_is_missed_and_mended(
    cluster: TestCluster, namespace: str, account: Path
) -> None:
    words = ("--kubeconfig", str(account), "-n", namespace)
    done = run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    for line in ("networkpolicies.networking.k8s.io", "swarms.agentswarm.dev/status", "leases.coordination.k8s.io"):
        assert f"ok    {line}" in done.stdout
    assert f"system:serviceaccount:{namespace}:{rbac.ACCOUNT}" in done.stdout

    less = [rule for rule in rbac.rule_dicts(rbac.SERVED) if rule["resources"] != ["events"]]
    for rule in less:
        rule["verbs"] = [verb for verb in rule["verbs"] if (rule["resources"], verb) != (["pods"], "delete")]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": rbac.ACCOUNT}}
    cluster.kubectl.within(namespace)("apply", "-f", "-", stdin=manifest({**role, "rules": less}))
    cluster.kubectl.within(namespace)("delete", "role", f"{rbac.ACCOUNT}-leader")
    done = run(*words)
    assert done.returncode == 1
    failed = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("FAIL")}
    assert failed.keys() == {"pods", "events", "leases.coordination.k8s.io"}
    assert "missing: delete (for: the agents)" in failed["pods"]
    assert "missing: create, get, update" in failed["leases.coordination.k8s.io"]
    assert f"3 of {sum(line[:4] in ('ok  ', 'FAIL') for line in done.stdout.splitlines())} lines" in done.stdout

    command = done.stdout.partition("mends it by:\n\n")[2]
    head, _, body = command.partition("\n")
    assert head == "kubectl apply -f - <<'END'"
    cluster.kubectl.within(namespace)("apply", "-f", "-", stdin=body.rpartition("END")[0])
    done = run(*words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_account_without_any_right_is_told_all_that_it_lacks(
    cluster: TestCluster, namespace: str, account: Path
) -> None:
    cluster.kubectl.within(namespace)("delete", "rolebindings", "--all")
    done = run("--kubeconfig", str(account), "-n", namespace, "--no-leader-election")
    assert done.returncode == 1
    failed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAIL")}
    assert len(failed) == sum(len(rule.resources) for rule in rbac.SERVED)
    assert "Traceback" not in done.stderr
