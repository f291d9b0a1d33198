"""The paths that are no plain object: bindings, evictions, tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

from swarm_deploy.local.api.decoding import Result, copy
from swarm_deploy.local.api.errors import (
    ApiError,
    Cause,
    bad_request,
    conflict,
    method_not_allowed,
    not_found,
    too_many_requests,
)
from swarm_deploy.local.api.meta import parse_time, timestamp
from swarm_deploy.local.api.resources import Resource
from swarm_deploy.local.api.selectors import matches_labels

if TYPE_CHECKING:
    from swarm_deploy.local.api.core import Api

__all__ = ["Tokens", "below", "bind", "evict"]

Object = dict[str, Any]


class Tokens:
    """Service account tokens: signed, and with an end."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @staticmethod
    def _part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    def _sign(self, text: str) -> str:
        return self._part(hmac.digest(self._key, text.encode(), hashlib.sha256))

    def issue(self, namespace: str, name: str, expires: int, now: int) -> str:
        """A token for a service account, good until `expires` (seconds since the epoch)."""
        subject = f"system:serviceaccount:{namespace}:{name}"
        claims = {"sub": subject, "exp": expires, "iat": now, "iss": "https://kubernetes.default.svc.cluster.local"}
        head = self._part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        text = f"{head}.{self._part(json.dumps(claims).encode())}"
        return f"{text}.{self._sign(text)}"

    def subject(self, token: str, now: float) -> str | None:
        """Whose token it is; None when it is not one of these, or no longer good."""
        text, _, signature = token.rpartition(".")
        if not text or not hmac.compare_digest(signature, self._sign(text)):
            return None
        try:
            raw = text.partition(".")[2]
            claims = json.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))
        except ValueError:
            return None
        return str(claims["sub"]) if claims.get("exp", 0) > now else None

    def request(self, api: Api, namespace: str, name: str, body: Object) -> Result:
        """POST serviceaccounts/NAME/token."""
        if api.store.get("serviceaccounts", namespace, name) is None:
            raise not_found("serviceaccounts", "", name)
        seconds = int((body.get("spec") or {}).get("expirationSeconds") or 3600)
        if seconds < 600:
            raise bad_request("may not specify a duration less than 10 minutes")
        now = int(api.clock())
        token = self.issue(namespace, name, now + seconds, now)
        spec = {"audiences": ["https://kubernetes.default.svc.cluster.local"], **(body.get("spec") or {})}
        return Result(
            {
                "kind": "TokenRequest",
                "apiVersion": "authentication.k8s.io/v1",
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": timestamp(now)},
                "spec": {**spec, "expirationSeconds": seconds},
                "status": {"token": token, "expirationTimestamp": timestamp(now + seconds)},
            },
            201,
        )


def _status(message: str = "", code: int = 201) -> Object:
    out: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if message:
        out["message"] = message
    return {**out, "code": code}


def bind(api: Api, namespace: str, name: str, body: Object) -> Result:
    """POST pods/NAME/binding: put a pod on a node, once."""
    target = body.get("target") or {}
    if target.get("kind") not in (None, "", "Node") or not target.get("name"):
        raise bad_request("target.name: Required value")
    pods = api.resource("pods")
    pod = copy(api.read(pods, namespace, name))
    uid = (body.get("metadata") or {}).get("uid")
    if uid and uid != pod["metadata"]["uid"]:
        text = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {pod['metadata']['uid']}"
        raise conflict("pods/binding", "", name, text)
    if pod["metadata"].get("deletionTimestamp"):
        raise conflict("pods/binding", "", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if pod["spec"].get("nodeName"):
        text = f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"'
        raise conflict("pods/binding", "", name, text)
    pod["spec"]["nodeName"] = target["name"]
    conditions = [c for c in pod["status"].get("conditions") or () if c["type"] != "PodScheduled"]
    pod["status"]["conditions"] = [
        *conditions,
        {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": api.now(),
        },
    ]
    api.store.update(pods.key, namespace, name, pod)
    return Result(_status(), 201)


_DISRUPTED_SECONDS = 120


def evict(api: Api, namespace: str, name: str, body: Object) -> Result:
    """POST pods/NAME/eviction: delete a pod, if the disruption budgets that cover it allow.

    Raises:
        ApiError: 429 while a budget does not.
    """
    pods, budgets = api.resource("pods"), api.resource("poddisruptionbudgets.policy")
    pod = api.read(pods, namespace, name)
    options = body.get("deleteOptions") or {}
    finished = pod.get("status", {}).get("phase") in ("Succeeded", "Failed", "Pending")
    covering = [
        b
        for b in api.store.list(budgets.key, namespace)
        if matches_labels(b.get("spec", {}).get("selector"), pod["metadata"].get("labels") or {})
    ]
    if finished or pod["metadata"].get("deletionTimestamp"):
        covering = []
    if len(covering) > 1:
        raise ApiError(
            500, "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    for budget in covering:
        status = budget.get("status", {})
        stale = status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0)
        if stale or status.get("disruptionsAllowed", 0) <= 0:
            if stale:
                text = f"The disruption budget {budget['metadata']['name']} is still being processed by the server."
            else:
                healthy, needed = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
                text = f"The disruption budget {budget['metadata']['name']} needs {needed} healthy pods"
                text += f" and has {healthy} currently"
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            raise too_many_requests(message, 10, causes=[Cause("DisruptionBudget", text, "")])
        now = api.clock()
        # An eviction that led to nothing within two minutes counts no longer.
        held = {
            k: v for k, v in (status.get("disruptedPods") or {}).items() if now - parse_time(v) < _DISRUPTED_SECONDS
        }
        changed = copy(budget)
        changed["status"]["disruptionsAllowed"] = status["disruptionsAllowed"] - 1
        changed["status"]["disruptedPods"] = {**held, name: timestamp(now)}
        if options.get("dryRun") != ["All"]:
            api.store.update(budgets.key, namespace, budget["metadata"]["name"], changed)
    api.delete(pods, namespace, name, options)
    return Result(_status(), 201)


def below(api: Api, resource: Resource, namespace: str, name: str, subresource: str, body: Object) -> Result:
    """POST to a path below an object."""
    where = (resource.qualified, subresource)
    if where == ("pods", "binding"):
        return bind(api, namespace, name, body)
    if where == ("pods", "eviction"):
        return evict(api, namespace, name, body)
    if where == ("serviceaccounts", "token"):
        return api.tokens.request(api, namespace, name, body)
    raise method_not_allowed()
