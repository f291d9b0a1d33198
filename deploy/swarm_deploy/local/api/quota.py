"""ResourceQuota, as far as pods need it: `pods`, and the sums of requests and limits of what is not ended.

A real server counts in the quota's status, which a controller brings up to date; here the pods are counted anew at
every create, which is the same while there is one server. Scopes, other kinds than pods and LimitRanges are not
enforced, and a warning says so where a quota asks for them.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from swarm_deploy.local.api.errors import forbidden
from swarm_deploy.local.api.quantity import canonical_quantity, parse_quantity

if TYPE_CHECKING:
    from swarm_deploy.local.api.core import Api

__all__ = ["admit", "usage"]

Object = dict[str, Any]

#: What a quota may say of a pod's containers, and the name of it under requests or limits.
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")


def usage(pod: Object) -> dict[str, Decimal]:
    """What one pod takes of a quota, by the quota's names for it."""
    used = {"pods": Decimal(1), "count/pods": Decimal(1)}
    containers = pod["spec"].get("containers") or []
    for side in ("requests", "limits"):
        for container in containers:
            for name, amount in ((container.get("resources") or {}).get(side) or {}).items():
                key = f"{side}.{name}"
                used[key] = used.get(key, Decimal(0)) + parse_quantity(amount)
                if side == "requests" and name in _COMPUTE:
                    used[name] = used[key]
    return used


def _counts(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def _listed(names: list[str], amounts: dict[str, Decimal]) -> str:
    return ",".join(f"{name}={canonical_quantity(str(amounts.get(name, Decimal(0))))}" for name in names)


def admit(api: Api, pod: Object) -> None:
    """Let a new pod in, or refuse it in a real server's words.

    Raises:
        ApiError: 403, a quota of the namespace would be exceeded, or bounds something that the pod does not say.
    """
    meta = pod["metadata"]
    try:
        asked = usage(pod)
    except ValueError:
        return  # an amount that is none: the validation, which comes next, says which
    name = meta.get("name") or meta.get("generateName", "")
    for quota in api.store.list("resourcequotas", meta["namespace"]):
        spec = quota.get("spec") or {}
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue
        hard = {key: parse_quantity(amount) for key, amount in (spec.get("hard") or {}).items()}
        bounded = sorted(
            key for key in hard if key in asked or key.startswith(("requests.", "limits.")) or key in _COMPUTE
        )
        unsaid = [
            key
            for key in bounded
            if key not in asked and key.removeprefix("requests.").removeprefix("limits.") in _COMPUTE
        ]
        if unsaid:
            text = f"failed quota: {quota['metadata']['name']}: must specify {','.join(unsaid)} for: "
            raise forbidden("pods", "", name, text + ",".join(c["name"] for c in pod["spec"]["containers"]))
        held: dict[str, Decimal] = {}
        for other in filter(_counts, api.store.list("pods", meta["namespace"])):
            for key, amount in usage(other).items():
                held[key] = held.get(key, Decimal(0)) + amount
        over = [key for key in bounded if key in asked and held.get(key, Decimal(0)) + asked[key] > hard[key]]
        if over:
            text = f"exceeded quota: {quota['metadata']['name']}, requested: {_listed(over, asked)}, "
            text += f"used: {_listed(over, held)}, limited: {_listed(over, hard)}"
            raise forbidden("pods", "", name, text)
