"""What kinds the API serves: the built-in ones, listed here, and those that a CustomResourceDefinition adds.

The list is as long as a real server's, because clients ask for all of it (`kubectl get all` reads ten kinds before it
prints the first pod). But a kind that nothing in this cluster acts on can't be created: an accepted Deployment that
never becomes pods would be a lie. `Resource.refusal` says what to use instead.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Catalog", "Resource", "Subresource"]

Object = dict[str, Any]

_ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
# A real server lists those of a custom resource in this order.
CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_STATUS_VERBS = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class Subresource:
    """One path below an object, and what it speaks (`scale` speaks autoscaling/v1 Scale)."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind in one version."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    singular: str = ""
    verbs: tuple[str, ...] = _ALL
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    list_kind: str = ""
    #: Why it can't be created here; empty where it can.
    refusal: str = ""
    #: What a user should know about objects of this kind; sent as a warning when one is created.
    caveat: str = ""
    #: The version of a CustomResourceDefinition that this is, or None for a built-in kind.
    definition: Object | None = field(default=None, compare=False, hash=False)
    #: Where the objects lie in the store; two groups may share one (`events`).
    storage: str = ""

    @property
    def group_version(self) -> str:
        """`v1`, `apps/v1`: an object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """`pods`, `swarms.agentswarm.dev`: how messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def key(self) -> str:
        """The store's name for it."""
        return self.storage or self.qualified

    @property
    def custom(self) -> bool:
        """Whether a CustomResourceDefinition made it."""
        return self.definition is not None

    @property
    def storage_hash(self) -> str:
        """What discovery calls storageVersionHash."""
        version = _STORED_AS.get(self.qualified, self.version)
        digest = hashlib.sha256(f"{self.group}/{version}/{self.kind}".encode()).digest()
        return base64.b64encode(digest[:8]).decode()

    def subresource(self, name: str) -> Subresource | None:
        """The subresource of that name, if it has one."""
        return next((s for s in self.subresources if s.name == name), None)


# Real servers of this version still store these as the version before; clients only compare the hash.
_STORED_AS = {
    "customresourcedefinitions.apiextensions.k8s.io": "v1beta1",
    "mutatingadmissionpolicies.admissionregistration.k8s.io": "v1beta1",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": "v1beta1",
}

_CONTROLLER = "the embedded cluster runs no controller for it; create Pods, or a Swarm, or use a real cluster"
_NETWORK = "the embedded cluster has no network of its own that could enforce or route it; use a real cluster"
_VOLUMES = "the embedded cluster provides no storage; use emptyDir or hostPath volumes"
_ADMISSION = (
    "the embedded cluster calls no admission webhooks or policies; CEL rules in a CustomResourceDefinition work"
)
_QUOTA = "the embedded cluster enforces no limits"
_PODS_ONLY = "the embedded cluster enforces pods, requests and limits of this quota, without scopes, and nothing else"
_NO_POLICIES = (
    "the embedded cluster has no network of its own that could enforce it: every process of this machine reaches the "
    "pods' addresses"
)
_NOT_HERE = "the embedded cluster does not provide it; use a real cluster"

# One line a kind: plural kind scope short-names categories subresources verbs. A dash means none, or the usual verbs;
# `!` marks what is refused, and `?` what has no effect.
_KINDS = """\
v1 bindings Binding N - - - create
v1 componentstatuses ComponentStatus C cs - - get,list
v1 configmaps ConfigMap N cm
v1 endpoints Endpoints N ep
v1 events Event N ev
v1 limitranges LimitRange N limits !quota
v1 namespaces Namespace C ns - finalize,status
v1 nodes Node C no - proxy,status
v1 persistentvolumeclaims PersistentVolumeClaim N pvc - status !volumes
v1 persistentvolumes PersistentVolume C pv - status !volumes
v1 pods Pod N po all attach,binding,ephemeralcontainers,eviction,exec,log,portforward,proxy,resize,status
v1 podtemplates PodTemplate N
v1 replicationcontrollers ReplicationController N rc all scale,status !controller
v1 resourcequotas ResourceQuota N quota - status ?quota
v1 secrets Secret N
v1 serviceaccounts ServiceAccount N sa - token
v1 services Service N svc all proxy,status
apiregistration.k8s.io/v1 apiservices APIService C - api-extensions status !nothere
apps/v1 controllerrevisions ControllerRevision N
apps/v1 daemonsets DaemonSet N ds all status !controller
apps/v1 deployments Deployment N deploy all scale,status !controller
apps/v1 replicasets ReplicaSet N rs all scale,status !controller
apps/v1 statefulsets StatefulSet N sts all scale,status !controller
events.k8s.io/v1 events Event N ev
authentication.k8s.io/v1 selfsubjectreviews SelfSubjectReview C - - - create
authentication.k8s.io/v1 tokenreviews TokenReview C - - - create
authorization.k8s.io/v1 localsubjectaccessreviews LocalSubjectAccessReview N - - - create
authorization.k8s.io/v1 selfsubjectaccessreviews SelfSubjectAccessReview C - - - create
authorization.k8s.io/v1 selfsubjectrulesreviews SelfSubjectRulesReview C - - - create
authorization.k8s.io/v1 subjectaccessreviews SubjectAccessReview C - - - create
autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler N hpa all status !controller
autoscaling/v1 horizontalpodautoscalers HorizontalPodAutoscaler N hpa all status !controller
batch/v1 cronjobs CronJob N cj all status !controller
batch/v1 jobs Job N - all status !controller
certificates.k8s.io/v1 certificatesigningrequests CertificateSigningRequest C csr - approval,status !nothere
networking.k8s.io/v1 ingressclasses IngressClass C - - - !network
networking.k8s.io/v1 ingresses Ingress N ing - status !network
networking.k8s.io/v1 ipaddresses IPAddress C ip - - !network
networking.k8s.io/v1 networkpolicies NetworkPolicy N netpol - - ?network
networking.k8s.io/v1 servicecidrs ServiceCIDR C - - status !network
policy/v1 poddisruptionbudgets PodDisruptionBudget N pdb - status
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding C
rbac.authorization.k8s.io/v1 clusterroles ClusterRole C
rbac.authorization.k8s.io/v1 rolebindings RoleBinding N
rbac.authorization.k8s.io/v1 roles Role N
storage.k8s.io/v1 csidrivers CSIDriver C - - - !volumes
storage.k8s.io/v1 csinodes CSINode C - - - !volumes
storage.k8s.io/v1 csistoragecapacities CSIStorageCapacity N - - - !volumes
storage.k8s.io/v1 storageclasses StorageClass C sc - - !volumes
storage.k8s.io/v1 volumeattachments VolumeAttachment C - - status !volumes
storage.k8s.io/v1 volumeattributesclasses VolumeAttributesClass C vac - - !volumes
ADMISSION/v1 mutatingadmissionpolicies MutatingAdmissionPolicy C - api-extensions - !admission
ADMISSION/v1 mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding C - api-extensions - !admission
ADMISSION/v1 mutatingwebhookconfigurations MutatingWebhookConfiguration C - api-extensions - !admission
ADMISSION/v1 validatingadmissionpolicies ValidatingAdmissionPolicy C - api-extensions status !admission
ADMISSION/v1 validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding C - api-extensions - !admission
ADMISSION/v1 validatingwebhookconfigurations ValidatingWebhookConfiguration C - api-extensions - !admission
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition C crd,crds api-extensions status
scheduling.k8s.io/v1 priorityclasses PriorityClass C pc
coordination.k8s.io/v1 leases Lease N
node.k8s.io/v1 runtimeclasses RuntimeClass C - - - !nothere
discovery.k8s.io/v1 endpointslices EndpointSlice N
resource.k8s.io/v1 deviceclasses DeviceClass C - - - !nothere
resource.k8s.io/v1 resourceclaims ResourceClaim N - - status !nothere
resource.k8s.io/v1 resourceclaimtemplates ResourceClaimTemplate N - - - !nothere
resource.k8s.io/v1 resourceslices ResourceSlice C - - - !nothere
flowcontrol.apiserver.k8s.io/v1 flowschemas FlowSchema C - - status !nothere
flowcontrol.apiserver.k8s.io/v1 prioritylevelconfigurations PriorityLevelConfiguration C - - status !nothere
"""

_REFUSALS = {
    "controller": _CONTROLLER,
    "network": _NETWORK,
    "volumes": _VOLUMES,
    "admission": _ADMISSION,
    "quota": _QUOTA,
    "nothere": _NOT_HERE,
}

_SUBRESOURCES = {
    "finalize": ("", ("update",), "", ""),
    "status": ("", _STATUS_VERBS, "", ""),
    "proxy": ("{}ProxyOptions", ("create", "delete", "get", "patch", "update"), "", ""),
    "attach": ("PodAttachOptions", ("create", "get"), "", ""),
    "exec": ("PodExecOptions", ("create", "get"), "", ""),
    "portforward": ("PodPortForwardOptions", ("create", "get"), "", ""),
    "binding": ("Binding", ("create",), "", ""),
    "ephemeralcontainers": ("", _STATUS_VERBS, "", ""),
    "resize": ("", _STATUS_VERBS, "", ""),
    "log": ("", ("get",), "", ""),
    "approval": ("", _STATUS_VERBS, "", ""),
    "eviction": ("Eviction", ("create",), "policy", "v1"),
    "token": ("TokenRequest", ("create",), "authentication.k8s.io", "v1"),
    "scale": ("Scale", _STATUS_VERBS, "autoscaling", "v1"),
}

# A real server names the singular of these as they are; and it doesn't offer to delete all namespaces at once.
_SINGULAR = {"endpoints": "endpoints"}
_VERBS = {"namespaces": tuple(v for v in _ALL if v != "deletecollection")}
# events.k8s.io and autoscaling/v1 are other views of the same objects.
_STORAGE = {"events.events.k8s.io": "events"}


_CAVEATS = {"quota": _PODS_ONLY, "network": _NO_POLICIES}


def _parse(line: str) -> Resource:
    words = line.split()
    refusal = next((_REFUSALS[w[1:]] for w in words if w.startswith("!")), "")
    caveat = next((_CAVEATS[w[1:]] for w in words if w.startswith("?")), "")
    words = [w for w in words if w[0] not in "!?"]
    words += ["-"] * (8 - len(words))
    where, plural, kind, scope, short, categories, subresources, verbs = words[:8]
    group, _, version = where.replace("ADMISSION", "admissionregistration.k8s.io").rpartition("/")
    some = _VERBS.get(plural, _ALL) if verbs == "-" else tuple(verbs.split(","))
    resource = Resource(
        group=group,
        version=version,
        plural=plural,
        kind=kind,
        namespaced=scope == "N",
        singular=_SINGULAR.get(plural, kind.lower()),
        verbs=some,
        short_names=() if short == "-" else tuple(short.split(",")),
        categories=() if categories == "-" else tuple(categories.split(",")),
        subresources=() if subresources == "-" else tuple(_sub(s, kind) for s in subresources.split(",")),
        list_kind=kind + "List",
        refusal=refusal,
        caveat=caveat,
    )
    return replace(resource, storage=_STORAGE.get(resource.qualified, ""))


def _sub(name: str, kind: str) -> Subresource:
    speaks, verbs, group, version = _SUBRESOURCES[name]
    return Subresource(name, speaks.format(kind) or kind, verbs, group, version)


BUILT_IN = tuple(_parse(line) for line in _KINDS.strip().splitlines())


class Catalog:
    """The resources being served, by the ways in which requests name them. `revision` rises with every change."""

    def __init__(self) -> None:
        self.revision = 0
        self._built_in = {(r.group, r.version, r.plural): r for r in BUILT_IN}
        self._custom: dict[str, tuple[Resource, ...]] = {}
        self._all = dict(self._built_in)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._all.values())

    def set_custom(self, definition: str, resources: tuple[Resource, ...]) -> None:
        """Serve the versions of one CustomResourceDefinition; none takes them away."""
        if resources == self._custom.get(definition, ()) and all(
            a.definition == b.definition for a, b in zip(resources, self._custom.get(definition, ()), strict=True)
        ):
            return
        if resources:
            self._custom[definition] = resources
        else:
            self._custom.pop(definition, None)
        self._all = dict(self._built_in)
        for served in self._custom.values():
            for resource in served:
                self._all[resource.group, resource.version, resource.plural] = resource
        self.revision += 1

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource at a path."""
        return self._all.get((group, version, plural))

    def versions(self, group: str) -> list[str]:
        """The versions of a group, the preferred one first."""
        return list(dict.fromkeys(r.version for r in self._all.values() if r.group == group))

    def groups(self) -> list[str]:
        """Every group but the core one, in the order of discovery."""
        return list(dict.fromkeys(r.group for r in self._all.values() if r.group))

    def of(self, group: str, version: str) -> list[Resource]:
        """The resources of one group and version."""
        return [r for r in self._all.values() if r.group == group and r.version == version]

    def by_name(self, name: str) -> Resource | None:
        """The resource that `plural` or `plural.group` names, in its preferred version."""
        plural, _, group = name.partition(".")
        return next((r for r in self._all.values() if r.plural == plural and r.group == group), None)

    def by_kind(self, group: str, kind: str) -> Resource | None:
        """The resource of a kind."""
        return next((r for r in self._all.values() if r.kind == kind and r.group == group), None)
