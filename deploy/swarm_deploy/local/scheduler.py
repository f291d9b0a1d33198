"""Which node a pod goes to. `place` is pure: a pod, the nodes and the pods in; a node, or the reasons why not, out.

The rules are those of the real scheduler's default plugins, as far as this cluster has their objects: node name,
unschedulable, taints, node selector and affinity, resources, host ports, affinity between pods, topology spread,
volumes. Scores decide between the nodes that are left: preferences of the pod, free resources, few pods of the same
owner.

Not done: preemption. A pod of high priority is placed before others that wait, and never drives out one that runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from swarm_deploy.local.api.quantity import parse_quantity
from swarm_deploy.local.api.selectors import matches_labels

__all__ = ["Placement", "Unplaceable", "place", "pod_requests"]

Object = dict[str, Any]

_EFFECTS = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Placement:
    """The node."""

    node: str


@dataclass(frozen=True, slots=True)
class Unplaceable:
    """No node; the message is worded as the real scheduler's."""

    message: str


def pod_requests(pod: Object) -> dict[str, Decimal]:
    """What a pod asks a node for: the sum of its containers, or what one init container needs, whichever is more."""
    most: dict[str, Decimal] = {}
    sums: dict[str, Decimal] = {}
    spec = pod["spec"]
    for container in spec["containers"]:
        for name, amount in ((container.get("resources") or {}).get("requests") or {}).items():
            sums[name] = sums.get(name, Decimal(0)) + parse_quantity(amount)
    for container in spec.get("initContainers") or ():
        requests = (container.get("resources") or {}).get("requests") or {}
        for name, amount in requests.items():
            if container.get("restartPolicy") == "Always":  # a sidecar stays
                sums[name] = sums.get(name, Decimal(0)) + parse_quantity(amount)
            else:
                most[name] = max(most.get(name, Decimal(0)), parse_quantity(amount))
    out = {name: max(sums.get(name, Decimal(0)), most.get(name, Decimal(0))) for name in {**sums, **most}}
    for name, amount in (spec.get("overhead") or {}).items():
        out[name] = out.get(name, Decimal(0)) + parse_quantity(amount)
    return out


def _active(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def _labels(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


class _View:
    """The cluster as one decision sees it."""

    def __init__(self, nodes: Iterable[Object], pods: Iterable[Object], namespaces: Mapping[str, Object]) -> None:
        self.nodes = {node["metadata"]["name"]: node for node in nodes}
        self.namespaces = namespaces
        self.on: dict[str, list[Object]] = {name: [] for name in self.nodes}
        for pod in pods:
            where = pod["spec"].get("nodeName")
            if where in self.on and _active(pod):
                self.on[where].append(pod)

    def placed(self) -> Iterable[tuple[Object, Object]]:
        """Every pod with its node."""
        for name, pods in self.on.items():
            for pod in pods:
                yield pod, self.nodes[name]


# -- one node by itself -------------------------------------------------------------------------------------------


def _tolerates(pod: Object, taint: Object) -> bool:
    for toleration in pod["spec"].get("tolerations") or ():
        if toleration.get("effect") not in (None, "", taint.get("effect")):
            continue
        if toleration.get("key") not in (None, "", taint["key"]):
            continue
        if toleration.get("operator", "Equal") == "Exists":
            return True
        if toleration.get("key") and toleration.get("value", "") == taint.get("value", ""):
            return True
    return False


def _expression(expression: Object, values: Mapping[str, str]) -> bool:
    key, operator, wanted = expression["key"], expression["operator"], expression.get("values") or []
    has, value = key in values, values.get(key, "")
    if operator == "In":
        return has and value in wanted
    if operator == "NotIn":
        return not has or value not in wanted
    if operator == "Exists":
        return has
    if operator == "DoesNotExist":
        return not has
    try:
        left, right = int(value), int(wanted[0])
    except (ValueError, IndexError):
        return False
    return has and (left > right if operator == "Gt" else left < right)


def _term(term: Object, node: Object) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False  # a term that says nothing selects nothing
    own = {"metadata.name": node["metadata"]["name"]}
    return all(_expression(e, _labels(node)) for e in expressions) and all(_expression(f, own) for f in fields)


def _selected(pod: Object, node: Object) -> bool:
    """Node selector and required node affinity."""
    labels = _labels(node)
    if any(labels.get(k) != v for k, v in (pod["spec"].get("nodeSelector") or {}).items()):
        return False
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return affinity is None or any(_term(t, node) for t in affinity.get("nodeSelectorTerms") or ())


def _host_ports(pod: Object) -> set[tuple[str, int]]:
    return {
        (port.get("protocol", "TCP"), port["hostPort"])
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or ()
        if port.get("hostPort")
    }


def _insufficient(pod: Object, node: Object, others: Sequence[Object]) -> list[str]:
    allocatable = node.get("status", {}).get("allocatable") or {}
    reasons = []
    if len(others) + 1 > int(parse_quantity(allocatable.get("pods", "110"))):
        reasons.append("Too many pods")
    wanted = pod_requests(pod)
    if not wanted:
        return reasons
    used: dict[str, Decimal] = {}
    for other in others:
        for name, amount in pod_requests(other).items():
            used[name] = used.get(name, Decimal(0)) + amount
    for name, amount in sorted(wanted.items()):
        free = parse_quantity(allocatable.get(name, "0")) - used.get(name, Decimal(0))
        if amount > 0 and amount > free:
            reasons.append(f"Insufficient {name}")
    return reasons


def _alone(pod: Object, node: Object, view: _View) -> list[str]:
    """Why this node is out, whatever runs elsewhere; empty when it is not."""
    name = node["metadata"]["name"]
    if node["spec"].get("unschedulable"):
        taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        if not _tolerates(pod, taint):
            return ["node(s) were unschedulable"]
    for taint in node["spec"].get("taints") or ():
        if taint.get("effect") in _EFFECTS and not _tolerates(pod, taint):
            return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    if not _selected(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    ports = _host_ports(pod)
    if ports and any(ports & _host_ports(other) for other in view.on[name]):
        return ["node(s) didn't have free ports for the requested pod ports"]
    return _insufficient(pod, node, view.on[name])


# -- one node among the others ------------------------------------------------------------------------------------


def _term_namespaces(term: Object, pod: Object, view: _View) -> set[str]:
    listed = set(term.get("namespaces") or ())
    if "namespaceSelector" in term:
        selector = term["namespaceSelector"]
        listed |= {name for name, ns in view.namespaces.items() if matches_labels(selector, _labels(ns))}
    elif not listed:
        listed = {pod["metadata"]["namespace"]}
    return listed


def _matches_term(term: Object, owner: Object, other: Object, view: _View) -> bool:
    """Whether `other` is one of the pods that a term of `owner` means."""
    if other["metadata"]["namespace"] not in _term_namespaces(term, owner, view):
        return False
    return matches_labels(term.get("labelSelector"), _labels(other))


def _required(pod: Object, kind: str) -> Sequence[Object]:
    affinity = (pod["spec"].get("affinity") or {}).get(kind) or {}
    found: Sequence[Object] = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    return found


def _with_others(pod: Object, node: Object, view: _View) -> list[str]:
    labels = _labels(node)
    for other, where in view.placed():
        for term in _required(other, "podAntiAffinity"):
            key = term["topologyKey"]
            same = key in labels and labels[key] == _labels(where).get(key)
            if same and _matches_term(term, other, pod, view):
                return ["node(s) didn't satisfy existing pods anti-affinity rules"]
    for term in _required(pod, "podAntiAffinity"):
        key = term["topologyKey"]
        for other, where in view.placed():
            same = key in labels and labels[key] == _labels(where).get(key)
            if same and _matches_term(term, pod, other, view):
                return ["node(s) didn't match pod anti-affinity rules"]
    for term in _required(pod, "podAffinity"):
        key = term["topologyKey"]
        if key not in labels:
            return ["node(s) didn't match pod affinity rules"]
        fitting = [where for other, where in view.placed() if _matches_term(term, pod, other, view)]
        if not fitting and _matches_term(term, pod, pod, view):
            continue  # the first of a group that wants to be together
        if not any(_labels(where).get(key) == labels[key] for where in fitting):
            return ["node(s) didn't match pod affinity rules"]
    for constraint in pod["spec"].get("topologySpreadConstraints") or ():
        if constraint.get("whenUnsatisfiable") != "DoNotSchedule":
            continue
        key = constraint["topologyKey"]
        if key not in labels:
            return ["node(s) didn't match pod topology spread constraints (missing required label)"]
        counts = _spread(pod, constraint, view)
        mine = 1 if matches_labels(constraint.get("labelSelector"), _labels(pod)) else 0
        fewest = min(counts.values(), default=0)
        if constraint.get("minDomains") and len(counts) < constraint["minDomains"]:
            fewest = 0
        if counts.get(labels[key], 0) + mine - fewest > int(constraint.get("maxSkew") or 1):
            return ["node(s) didn't match pod topology spread constraints"]
    return []


def _spread(pod: Object, constraint: Object, view: _View) -> dict[str, int]:
    """How many pods of a constraint there are in each domain that the pod could go to."""
    key = constraint["topologyKey"]
    selector = constraint.get("labelSelector")
    if constraint.get("matchLabelKeys"):
        extra = {k: _labels(pod)[k] for k in constraint["matchLabelKeys"] if k in _labels(pod)}
        selector = {**(selector or {}), "matchLabels": {**((selector or {}).get("matchLabels") or {}), **extra}}
    counts: dict[str, int] = {}
    for name, node in view.nodes.items():
        labels = _labels(node)
        if key not in labels:
            continue
        if constraint.get("nodeAffinityPolicy", "Honor") == "Honor" and not _selected(pod, node):
            continue
        if constraint.get("nodeTaintsPolicy", "Ignore") == "Honor" and any(
            t.get("effect") in _EFFECTS and not _tolerates(pod, t) for t in node["spec"].get("taints") or ()
        ):
            continue
        counts.setdefault(labels[key], 0)
        for other in view.on[name]:
            if other["metadata"]["namespace"] != pod["metadata"]["namespace"]:
                continue
            if other["metadata"].get("deletionTimestamp"):
                continue
            if matches_labels(selector, _labels(other)):
                counts[labels[key]] += 1
    return counts


# -- the best of them ---------------------------------------------------------------------------------------------


def _score(pod: Object, node: Object, view: _View) -> float:
    """More is better. Each part lies between 0 and 100 and has the weight that the real scheduler gives it."""
    name, labels = node["metadata"]["name"], _labels(node)
    total = _free(pod, node, view.on[name])
    affinity = pod["spec"].get("affinity") or {}
    preferred = (affinity.get("nodeAffinity") or {}).get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    weights = sum(p["weight"] for p in preferred)
    if weights:
        total += 2 * 100 * sum(p["weight"] for p in preferred if _term(p["preference"], node)) / weights
    for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        for entry in (affinity.get(kind) or {}).get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            term = entry["podAffinityTerm"]
            key = term["topologyKey"]
            near = sum(
                1
                for other, where in view.placed()
                if key in labels and _labels(where).get(key) == labels[key] and _matches_term(term, pod, other, view)
            )
            total += sign * 2 * entry["weight"] * min(near, 10) / 10
    soft = [t for t in node["spec"].get("taints") or () if t.get("effect") == "PreferNoSchedule"]
    total -= 3 * 100 * sum(not _tolerates(pod, t) for t in soft) / max(len(soft), 1)
    for constraint in pod["spec"].get("topologySpreadConstraints") or ():
        if constraint.get("whenUnsatisfiable") == "ScheduleAnyway":
            counts = _spread(pod, constraint, view)
            here, most = counts.get(labels.get(constraint["topologyKey"], ""), 0), max(counts.values(), default=0)
            total += 2 * 100 * (1 - here / most if most else 1)
    # Beside what it asks for: pods of one owner are spread.
    owners = {o["uid"] for o in pod["metadata"].get("ownerReferences") or ()}
    if owners and "podAffinity" not in affinity:
        own = {
            n: sum(any(o["uid"] in owners for o in p["metadata"].get("ownerReferences") or ()) for p in pods)
            for n, pods in view.on.items()
        }
        most = max(own.values(), default=0)
        total += 100 * (1 - own[name] / most if most else 1)
    return total


def _free(pod: Object, node: Object, others: Sequence[Object]) -> float:
    """How free the node would be afterwards, and how evenly its CPUs and its memory would be used."""
    allocatable = node.get("status", {}).get("allocatable") or {}
    shares = []
    for name, least in (("cpu", Decimal("0.1")), ("memory", Decimal(200 << 20))):
        capacity = parse_quantity(allocatable.get(name, "0"))
        if capacity <= 0:
            continue
        # A pod that asks for nothing counts as a small one, or all of them would gather on one node.
        used = sum((pod_requests(p).get(name) or least for p in [*others, pod]), Decimal(0))
        shares.append(min(1.0, float(used / capacity)))
    if not shares:
        return 0.0
    mean = sum(shares) / len(shares)
    uneven = sum(abs(s - mean) for s in shares) / len(shares)
    return 100 * (1 - mean) + 100 * (1 - uneven)


def place(
    pod: Object, nodes: Iterable[Object], pods: Iterable[Object], namespaces: Mapping[str, Object] | None = None
) -> Placement | Unplaceable:
    """Choose a node. `pods` are all there are; of equally good nodes the one with the fewest pods, then by name."""
    view = _View(nodes, pods, namespaces or {})
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"].get("claimName", "")
            count = len(view.nodes)
            return Unplaceable(
                f'0/{count} nodes are available: persistentvolumeclaim "{claim}" not found (the embedded cluster'
                " provides no storage: use emptyDir or hostPath)."
            )
    if not view.nodes:
        return Unplaceable("no nodes available to schedule pods")
    reasons: Counter[str] = Counter()
    fitting = []
    for node in view.nodes.values():
        against = _alone(pod, node, view) or _with_others(pod, node, view)
        if against:
            reasons.update(against)
        else:
            fitting.append(node)
    if not fitting:
        listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        return Unplaceable(f"0/{len(view.nodes)} nodes are available: {listed}.")

    def rank(node: Object) -> tuple[float, int, str]:
        name = node["metadata"]["name"]
        return -_score(pod, node, view), len(view.on[name]), name

    return Placement(min(fitting, key=rank)["metadata"]["name"])
