"""Who may do what: Kubernetes' role-based access control, on the roles and bindings that the cluster holds.

The administrator's token may do everything (group `system:masters`); the accounts of pods, and whoever was given one of
their tokens, only what a Role or ClusterRole grants that is bound to them. So an operator can be tried here under the
rights that it will have on a real cluster. What every account may do there it may here: read the API's own documents,
and ask what it may do.

Bindings are looked up at each request: there are few, and so a change of rights counts at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from swarm_deploy.local.api.errors import ApiError, forbidden
from swarm_deploy.local.api.selectors import matches_labels

if TYPE_CHECKING:
    from swarm_deploy.local.api.core import Api

__all__ = ["ADMIN", "Authorizer", "Request", "groups_of"]

Object = dict[str, Any]

ADMIN: Final = "kubernetes-admin"
_MASTERS: Final = "system:masters"
_AUTHENTICATED: Final = "system:authenticated"
_RBAC: Final = "rbac.authorization.k8s.io"
#: The only ClusterRole that is there without having been made.
_EVERYTHING: Final = {"cluster-admin": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
#: What every account may ask.
_ABOUT_ITSELF: Final = frozenset({"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"})


def groups_of(user: str) -> tuple[str, ...]:
    """The groups that a user is in."""
    if user == ADMIN:
        return (_MASTERS, _AUTHENTICATED)
    kind, _, rest = user.partition("system:serviceaccount:")
    if not kind and rest:
        return ("system:serviceaccounts", f"system:serviceaccounts:{rest.partition(':')[0]}", _AUTHENTICATED)
    return (_AUTHENTICATED,)


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants to do. `plural` has no subresource in it."""

    verb: str
    group: str
    plural: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def resource(self) -> str:
        """As rules name it: `pods`, `pods/log`."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural


class Authorizer:
    """Decides by the roles and bindings of one API."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def check(self, user: str, request: Request) -> None:
        """Raises ApiError 403, in Kubernetes' words, unless the user may do this."""
        if self.allows(user, request):
            return
        where = f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
        raise forbidden(
            request.plural,
            request.group,
            request.name,
            f'User "{user}" cannot {request.verb} resource "{request.resource}" in API group "{request.group}" {where}',
        )

    def allows(self, user: str, request: Request) -> bool:
        """Whether the user may do this."""
        if _MASTERS in groups_of(user):
            return True
        if request.verb == "create" and request.plural in _ABOUT_ITSELF:
            return True
        return any(_matches(rule, request) for rule in self.rules(user, request.namespace))

    def rules(self, user: str, namespace: str) -> Iterator[Object]:
        """The rules that hold for a user in a namespace; of the whole cluster for the empty one."""
        for binding in self._list("clusterrolebindings", None):
            if _binds(binding, user):
                yield from self._cluster_role(binding["roleRef"]["name"])
        if not namespace:
            return
        for binding in self._list("rolebindings", namespace):
            if not _binds(binding, user):
                continue
            name = binding["roleRef"]["name"]
            if binding["roleRef"].get("kind") == "ClusterRole":
                yield from self._cluster_role(name)
            else:
                role = self._get("roles", namespace, name)
                yield from (role or {}).get("rules") or ()

    def _cluster_role(self, name: str) -> Iterable[Object]:
        role = self._get("clusterroles", "", name)
        if role is None:
            return _EVERYTHING.get(name, ())
        selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
        if not selectors:
            return role.get("rules") or ()
        # what the aggregating controller of a real cluster would have written into it
        return [
            rule
            for each in self._list("clusterroles", None)
            if any(matches_labels(s, each["metadata"].get("labels") or {}) for s in selectors)
            for rule in each.get("rules") or ()
        ]

    def _list(self, plural: str, namespace: str | None) -> list[Object]:
        return self._api.store.list(f"{plural}.{_RBAC}", namespace)

    def _get(self, plural: str, namespace: str, name: str) -> Object | None:
        return self._api.store.get(f"{plural}.{_RBAC}", namespace, name)

    def review(self, kind: str, body: Object, user: str) -> Object:
        """The status of an access review: of a SubjectAccessReview by somebody, or of one about oneself.

        Raises:
            ApiError: 403, the embedded cluster knows no tokens but its own.
        """
        spec = body.get("spec") or {}
        if kind == "SelfSubjectReview":
            return {"userInfo": {"username": user, "groups": [*groups_of(user)]}}
        if kind == "TokenReview":
            raise ApiError(403, "the embedded cluster reviews no foreign tokens")
        if kind == "SelfSubjectRulesReview":
            return self._summary(user, spec.get("namespace", ""))
        about = user if kind == "SelfSubjectAccessReview" else spec.get("user", "")
        wanted = spec.get("resourceAttributes")
        if wanted is None:  # a path that is no resource: documents, which everybody may read
            paths = spec.get("nonResourceAttributes") or {}
            return {"allowed": _MASTERS in groups_of(about) or paths.get("verb") == "get"}
        request = Request(
            verb=wanted.get("verb", ""),
            group=wanted.get("group", ""),
            plural=wanted.get("resource", ""),
            subresource=wanted.get("subresource", ""),
            namespace=wanted.get("namespace", ""),
            name=wanted.get("name", ""),
        )
        return {"allowed": self.allows(about, request)}

    def _summary(self, user: str, namespace: str) -> Object:
        documents: list[Object] = [{"verbs": ["get"], "nonResourceURLs": ["*"]}]
        if _MASTERS in groups_of(user):
            documents = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
            rules = _EVERYTHING["cluster-admin"]
        else:
            rules = [*self.rules(user, namespace)]
        shown = [
            {k: rule[k] for k in ("verbs", "apiGroups", "resources", "resourceNames") if k in rule} for rule in rules
        ]
        return {"resourceRules": shown, "nonResourceRules": documents, "incomplete": False}


def _binds(binding: Object, user: str) -> bool:
    for subject in binding.get("subjects") or ():
        match subject.get("kind"):
            case "ServiceAccount":
                if user == f"system:serviceaccount:{subject.get('namespace', '')}:{subject['name']}":
                    return True
            case "User" if subject["name"] == user:
                return True
            case "Group" if subject["name"] in groups_of(user):
                return True
    return False


def _matches(rule: Object, request: Request) -> bool:
    resources = rule.get("resources") or ()
    names = rule.get("resourceNames") or ()
    return (
        _has(rule.get("verbs") or (), request.verb)
        and _has(rule.get("apiGroups") or (), request.group)
        and (_has(resources, request.resource) or bool(request.subresource and f"*/{request.subresource}" in resources))
        and (not names or request.name in names)
    )


def _has(values: Iterable[str], wanted: str) -> bool:
    return any(value in ("*", wanted) for value in values)
