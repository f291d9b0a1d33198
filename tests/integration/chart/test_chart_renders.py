"""What the chart makes, for values that people set: right by Kubernetes' own schemas, and right in what matters."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support.clusters import ROOT
from support.helm import CHART, HelmMissing, helm, render
from swarm_operator import rbac
from swarm_operator.policy import Policy
from swarm_operator.policy_file import parse

MATRIX: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "one replica": {"replicas": 1},
    "two namespaces": {"watchNamespaces": ["a", "b"]},
    "no definition": {"crds": {"enabled": False}},
    "a definition that goes": {"crds": {"keep": False}},
    "nothing of its own rights": {"rbac": {"create": False}, "serviceAccount": {"create": False, "name": "mine"}},
    "watched": {
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "podMonitor": {"enabled": True},
            "prometheusRule": {"enabled": True},
            "dashboards": {"enabled": True},
        }
    },
    "everything": {
        "image": {"digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
        "commonLabels": {"team": "risk"},
        "podLabels": {"tier": "control"},
        "podAnnotations": {"note": "x: y # z"},
        "extraArgs": ["--version"],
        "extraEnv": [{"name": "A", "value": "b"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "control", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
        "networkPolicy": {"enabled": True, "from": [{"podSelector": {}}]},
        "podDisruptionBudget": {"minAvailable": "50%"},
        "sampleSwarm": {"enabled": True, "name": "first", "namespace": "default"},
        "policy": yaml.safe_load((ROOT / "deploy" / "examples" / "policy.yaml").read_text()),
        "serviceAccount": {"annotations": {"a": "b"}},
    },
}
#: Kinds whose schemas are not Kubernetes' own.
_FOREIGN = {"Swarm", "ServiceMonitor", "PodMonitor", "PrometheusRule", "CustomResourceDefinition"}


@pytest.fixture(autouse=True, scope="module")
def _helm() -> None:
    try:
        helm("version")
    except HelmMissing as error:
        pytest.skip(str(error))


def of(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only object of a kind."""
    (found,) = (each for each in objects if each["kind"] == kind)
    return found


def test_helm_finds_nothing_to_blame() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", MATRIX)
def test_each_object_is_as_kubernetes_wants_it(name: str) -> None:
    objects = render(MATRIX[name])
    identities = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(set(identities)) == len(identities)
    for each in objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "agentswarm"
        if each["kind"] not in _FOREIGN:
            kubernetes_validate.validate(each, "1.36", strict=True)


def test_the_operator_runs_as_nobody_who_may_nothing() -> None:
    pod = of(render(), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def test_the_definition_is_the_one_of_the_project_and_stays_when_the_release_goes() -> None:
    crd = of(render(), "CustomResourceDefinition")
    source = yaml.safe_load((CHART.parents[1] / "deploy/crds/swarms.agentswarm.dev.yaml").read_text())
    assert crd["spec"] == source["spec"]
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    going = of(render({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "helm.sh/resource-policy" not in (going["metadata"].get("annotations") or {})
    assert not [o for o in render({"crds": {"enabled": False}}) if o["kind"] == "CustomResourceDefinition"]


def test_probes_and_monitors_ask_where_the_operator_listens() -> None:
    objects = render({"metrics": {"port": 9500, "serviceMonitor": {"enabled": True}}})
    (container,) = of(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert "--http-bind=$(POD_IP):9500" in container["args"]
    assert container["ports"] == [{"name": "http", "containerPort": 9500, "protocol": "TCP"}]
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert probes["livenessProbe"]["path"] == "/healthz"
    service, monitor = of(objects, "Service"), of(objects, "ServiceMonitor")
    labels = of(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_the_agents_are_scraped_where_swarms_are_served_and_nowhere_else() -> None:
    everywhere = of(render({"metrics": {"podMonitor": {"enabled": True}}}), "PodMonitor")
    assert everywhere["spec"]["namespaceSelector"] == {"any": True}
    some = of(render({"watchNamespaces": ["a"], "metrics": {"podMonitor": {"enabled": True}}}), "PodMonitor")
    assert some["spec"]["namespaceSelector"] == {"matchNames": ["a"]}
    assert some["spec"]["podMetricsEndpoints"][0]["port"] == "http"


def test_a_policy_reaches_the_operator_as_it_was_written_and_another_one_makes_other_pods() -> None:
    checksums = set()
    for policy in ({"images": ["registry.example/*: x"], "env": []}, {"images": ["*"]}):
        objects = render({"policy": policy})
        pod = of(objects, "Deployment")["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        (given,) = (word.partition("=")[2] for word in container["args"] if word.startswith("--policy="))
        (mount,) = (mount for mount in container["volumeMounts"] if given.startswith(mount["mountPath"] + "/"))
        (volume,) = (volume for volume in pod["spec"]["volumes"] if volume["name"] == mount["name"])
        config = of(objects, "ConfigMap")
        assert volume["configMap"]["name"] == config["metadata"]["name"]
        read = parse(config["data"][given.rpartition("/")[2]])
        assert read == Policy.model_validate(policy)
        checksums.add(pod["metadata"]["annotations"]["checksum/policy"])
    assert len(checksums) == 2
    assert not [o for o in render() if o["kind"] == "ConfigMap"]
    assert "--policy" not in str(of(render(), "Deployment"))


def test_a_budget_is_made_only_where_a_replica_can_be_spared() -> None:
    assert of(render(), "PodDisruptionBudget")["spec"]["minAvailable"] == 1
    assert not [o for o in render({"replicas": 1}) if o["kind"] == "PodDisruptionBudget"]


def test_two_releases_do_not_share_what_belongs_to_the_cluster() -> None:
    shared = {"CustomResourceDefinition"}

    def cluster_wide(release: str) -> set[tuple[str, str]]:
        objects = render(release=release)
        return {(o["kind"], o["metadata"]["name"]) for o in objects if "namespace" not in o["metadata"]}

    both = cluster_wide("one") & cluster_wide("two")
    assert {kind for kind, _ in both} <= shared


def rules_of(objects: list[dict[str, Any]], kind: str, namespace: str | None = None) -> list[dict[str, Any]]:
    return [
        rule
        for each in objects
        if each["kind"] == kind
        and each["metadata"].get("namespace") == namespace
        and "aggregate" not in str(each["metadata"]["labels"])
        for rule in each["rules"]
    ]


def test_the_operator_gets_the_rights_of_its_table_and_in_some_namespaces_only_if_asked() -> None:
    served, cluster = rbac.rule_dicts(rbac.SERVED), rbac.rule_dicts(rbac.CLUSTER)
    everywhere = render()
    assert rules_of(everywhere, "ClusterRole") == cluster + served
    assert rules_of(everywhere, "Role", "swarm-system") == rbac.rule_dicts(rbac.LEADER)
    some = render({"watchNamespaces": ["a", "b"]})
    assert rules_of(some, "ClusterRole") == cluster
    assert rules_of(some, "Role", "a") == rules_of(some, "Role", "b") == served
    (container,) = of(some, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"--namespace=a", "--namespace=b"} <= {*container["args"]}
    assert not [o for o in render({"rbac": {"create": False, "aggregate": False}}) if "Role" in o["kind"]]


def test_every_binding_names_a_role_and_the_account_that_are_there() -> None:
    for values in ({}, {"watchNamespaces": ["a"]}, {"serviceAccount": {"create": False, "name": "mine"}}):
        objects = render(values)
        roles = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects}
        account = of(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
        bindings = [o for o in objects if o["kind"].endswith("Binding")]
        assert bindings
        for each in bindings:
            ref, space = each["roleRef"], each["metadata"].get("namespace")
            assert (ref["kind"], space if ref["kind"] == "Role" else None, ref["name"]) in roles
            assert each["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "swarm-system"}]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replica": 2}, "replica"),
        ({"image": {"pullpolicy": "Always"}}, "pullpolicy"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"replicas": "two"}, "replicas"),
        ({"replicas": -1}, "replicas"),
        ({"logLevel": "verbose"}, "logLevel"),
        ({"watchNamespaces": "risk"}, "watchNamespaces"),
        ({"watchNamespaces": ["Not A Name"]}, "watchNamespaces"),
        ({"crds": {"install": True}}, "install"),
        ({"metrics": {"port": 80}}, "port"),
        ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "interval"),
        ({"extraEnv": [{"value": "x"}]}, "extraEnv"),
        ({"policy": {"image": ["x"]}}, "image"),
        ({"policy": {"images": "x"}}, "images"),
        ({"policy": {"volumes": ["hostPath"]}}, "volumes"),
        ({"policy": {"minUserId": 0}}, "minUserId"),
        ({"podDisruptionBudget": {"minAvailable": "half"}}, "minAvailable"),
        ({"metrics": {"service": {"enabled": False}, "serviceMonitor": {"enabled": True}}}, "metrics.service.enabled"),
    ],
)
def test_values_that_can_not_be_are_refused_with_the_keys_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        render(values)


def test_the_schema_and_the_values_know_the_same_keys() -> None:
    def keys(schema: dict[str, Any]) -> Any:
        inner = schema.get("properties")
        return {name: keys(below) for name, below in inner.items()} if inner else None

    def shape(value: Any, like: Any) -> Any:
        if not isinstance(like, dict) or not isinstance(value, dict):
            return None
        return {name: shape(below, like.get(name)) for name, below in value.items()}

    schema = keys(json.loads((CHART / "values.schema.json").read_text()))
    del schema["global"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    free = {("resources",), ("policy",)}
    for path in free:
        schema[path[0]] = values[path[0]] = None
    assert shape(values, schema) == schema


def test_the_notes_say_the_next_step() -> None:
    done = helm(
        "install", "swarms", str(CHART), "--dry-run=client", "--namespace", "swarm-system", "--values", "-", stdin="{}"
    )
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "kubectl apply" in notes
    assert "swarm/first" in notes
