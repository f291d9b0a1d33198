"""A cluster that the product is installed on for an end-to-end run: what it can do, and the release on it.

The cluster is the current kubeconfig's: kind, a managed one, a bare kubelet, or the embedded one. Nothing is asked of
it that not each of them has: no DNS, no ingress, no storage class, no second node. Where it runs no Deployments (the
embedded one does not) the operator is a process of this machine, with the account and the rights that the chart made.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from support.helm import CHART, helm, set_values
from support.kubectl import Kubectl, manifest
from support.operatorlive import Operator
from support.rights import account_kubeconfig

__all__ = ["CRD", "Images", "Site", "cores"]

Object = dict[str, Any]
CRD = "customresourcedefinition/swarms.agentswarm.dev"


def cores(quantity: str) -> float:
    """A Kubernetes quantity of CPU as a number of cores."""
    return float(quantity.removesuffix("m")) / 1000 if quantity.endswith("m") else float(quantity)


@dataclass(frozen=True, slots=True)
class Images:
    """The images under test: `OPERATOR_IMAGE`, `AGENT_IMAGE`, `NEXT_AGENT_IMAGE` (to roll to) and `PULL_POLICY`."""

    operator: str = "agentswarm/operator:0.1.0"
    agent: str = "agentswarm/agent:0.1.0"
    #: Another name of an image of agents; empty: there is none, and only another field is rolled.
    next_agent: str = ""
    pull_policy: str = "IfNotPresent"

    @classmethod
    def given(cls) -> Images:
        names = {
            "operator": "OPERATOR_IMAGE",
            "agent": "AGENT_IMAGE",
            "next_agent": "NEXT_AGENT_IMAGE",
            "pull_policy": "PULL_POLICY",
        }
        return cls(**{name: os.environ[variable] for name, variable in names.items() if os.environ.get(variable)})


@dataclass
class Site:
    """One run on one cluster: its namespaces, its release, and what is found out about the nodes."""

    kubeconfig: Path
    scratch: Path
    images: Images
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:6])

    def __post_init__(self) -> None:
        self.kubectl = Kubectl(self.kubeconfig, self.scratch / "kubectl-cache")
        self.system, self.work, self.tight = (f"e2e-{self.run}-{part}" for part in ("system", "work", "tight"))
        self.release = f"e2e-{self.run}"
        self.had_crd = self.kubectl.attempt("get", CRD).code == 0
        self._process: Operator | None = None
        self._operators = 0

    # -- what the cluster can do

    @cached_property
    def runs_deployments(self) -> bool:
        """Whether somebody acts on Deployments here: tried without keeping anything."""
        pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
        spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": pod}
        tried = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tried"}, "spec": spec}
        return self.kubectl.attempt("create", "--dry-run=server", "-f", "-", stdin=manifest(tried)).code == 0

    @cached_property
    def nodes(self) -> list[Object]:
        """The nodes that pods without tolerations can run on."""

        def open_(node: Object) -> bool:
            taints = node["spec"].get("taints", ())
            return not any(taint["effect"] in ("NoSchedule", "NoExecute") for taint in taints)

        return [node for node in self.kubectl.get("nodes")["items"] if open_(node)]

    @cached_property
    def cpus(self) -> float:
        """Cores that pods may ask for, of the node that has most."""
        return max(cores(node["status"]["allocatable"]["cpu"]) for node in self.nodes)

    def free_cpus(self, name: str) -> float:
        """Cores of a node that no pod has asked for."""
        (node,) = (node for node in self.nodes if node["metadata"]["name"] == name)
        asked = 0.0
        for pod in self.kubectl.get("pods", "-A", "--field-selector", f"spec.nodeName={name}")["items"]:
            if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                for container in pod["spec"]["containers"]:
                    asked += cores(str(container.get("resources", {}).get("requests", {}).get("cpu", "0")))
        return cores(node["status"]["allocatable"]["cpu"]) - asked

    def cpu_manager(self, node: str) -> str:
        """The CPU Manager policy of a node's kubelet; empty where it can't be asked."""
        answer = self.kubectl.attempt("get", "--raw", f"/api/v1/nodes/{node}/proxy/configz")
        if answer.code:
            return ""
        return str(json.loads(answer.out).get("kubeletconfig", {}).get("cpuManagerPolicy", ""))

    # -- namespaces

    def make_namespaces(self) -> None:
        """The operator's own and the one of private boards are `restricted`; the third admits the node's memory."""
        for name, level in ((self.system, "restricted"), (self.work, "privileged"), (self.tight, "restricted")):
            labels = {"e2e-run": self.run, "pod-security.kubernetes.io/enforce": level}
            made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            self.kubectl("create", "-f", "-", stdin=manifest(made))

    def remove_namespaces(self) -> None:
        self.kubectl("delete", "namespace", "-l", f"e2e-run={self.run}", "--timeout=180s", timeout=200)

    # -- the release

    def values(self, **more: Any) -> Object:
        repository, _, tag = self.images.operator.rpartition(":")
        return {
            "image": {"repository": repository, "tag": tag, "pullPolicy": self.images.pull_policy},
            "crds": {"keep": self.had_crd},
            # a small node has to have room for the agents; one that gives a single core, for one that has it alone
            "resources": {
                "requests": {"cpu": "20m" if self.cpus >= 1.5 else "0", "memory": "96Mi"},
                "limits": {"memory": "512Mi"},
            },
            **more,
        }

    def helm(self, *words: str, values: Object | None = None, timeout: float = 300) -> str:
        """Runs helm against this cluster; a failure is the test's."""
        done = helm(
            *words,
            "--namespace",
            self.system,
            *(["--values", "-"] if values is not None else []),
            kubeconfig=self.kubeconfig,
            stdin=set_values(values) if values is not None else None,
            timeout=timeout,
        )
        assert done.returncode == 0, f"helm {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def install(self) -> None:
        if self.runs_deployments:
            words = ("--wait", "--timeout", "240s")
            try:
                self.helm("install", self.release, str(CHART), *words, values=self.values())
            except AssertionError:
                within = self.kubectl.within(self.system)
                print(within.attempt("describe", "pods").out[-4000:])
                print(within.attempt("logs", "-l", "app.kubernetes.io/component=operator", "--tail=40").out)
                raise
            return
        self.kubectl.within(self.system)("apply", "-f", "-", stdin=manifest(*self._without_pods()))
        self.kubectl("wait", "--for=condition=Established", CRD, "--timeout=30s")
        self.start_process()

    def uninstall(self) -> None:
        if self.runs_deployments:
            self.helm("uninstall", self.release, "--wait", "--timeout", "120s")
            return
        assert self._process is not None
        self._process.stop()
        kept = self._without_pods()
        if self.had_crd:
            kept = [each for each in kept if each["kind"] != "CustomResourceDefinition"]
        self.kubectl.within(self.system)(
            "delete", "--ignore-not-found", "--timeout=120s", "-f", "-", stdin=manifest(*kept), timeout=150
        )

    def _without_pods(self) -> list[Object]:
        """What the chart makes, but for what nobody acts on here."""
        rendered = self.helm("template", self.release, str(CHART), values=self.values())
        return [
            each
            for each in yaml.safe_load_all(rendered)
            if each and each["kind"] not in ("Deployment", "PodDisruptionBudget", "Pod")
        ]

    def start_process(self) -> None:
        """The operator as a process, by the token of the chart's account."""
        within = self.kubectl.within(self.system)
        names = [each["metadata"]["name"] for each in within.get("serviceaccounts")["items"]]
        (account,) = set(names) - {"default"}
        path = account_kubeconfig(self.kubectl, account, self.system, self.scratch / "operator-kubeconfig")
        self._process = Operator(path, self.scratch, [], "--lease-namespace", self.system).start()

    def kill_operators(self) -> None:
        """All of them at once, without a grace period."""
        if self._process is not None:
            self._process.kill()
            self._process.start()
            return
        self.kubectl.within(self.system)(
            "delete", "pod", "-l", "app.kubernetes.io/component=operator", "--grace-period=0", "--force", "--wait=false"
        )

    def finish(self) -> None:
        """After whatever happened: no process of ours goes on, and no release stays."""
        if self._process is not None:
            self._process.kill()
        helm("uninstall", self.release, "--namespace", self.system, "--ignore-not-found", kubeconfig=self.kubeconfig)
