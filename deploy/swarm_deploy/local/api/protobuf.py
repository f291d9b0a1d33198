"""Reading the few requests that kubectl can only send as protobuf (`create namespace`, `create configmap`, `auth
can-i`...).

Kubernetes' protobuf form is `k8s\\0` and an envelope of kind and body. Which numbers its fields have is in no schema
that this project carries, so the kinds in question are tabled here; any other is refused with 415, which says what to
send instead. Answers are always JSON: a client that sends protobuf reads both.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from swarm_deploy.local.api.errors import bad_request, unsupported_media_type

__all__ = ["MEDIA_TYPE", "decode_protobuf"]

Object = dict[str, Any]
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"

# Message -> field number -> (name, type). A type is s(tring), i(nt), b(ool), y (bytes, base64 in JSON), t(ime), the
# name of a message, `[x` for a list of x, `{x` for a map from strings to x.
_MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "Meta": {
        1: ("name", "s"),
        2: ("generateName", "s"),
        3: ("namespace", "s"),
        5: ("uid", "s"),
        6: ("resourceVersion", "s"),
        11: ("labels", "{s"),
        12: ("annotations", "{s"),
        13: ("ownerReferences", "[Owner"),
        14: ("finalizers", "[s"),
    },
    "Owner": {
        1: ("kind", "s"),
        3: ("name", "s"),
        4: ("uid", "s"),
        5: ("apiVersion", "s"),
        6: ("controller", "b"),
        7: ("blockOwnerDeletion", "b"),
    },
    "Namespace": {1: ("metadata", "Meta"), 2: ("spec", "NamespaceSpec")},
    "NamespaceSpec": {1: ("finalizers", "[s")},
    "ConfigMap": {1: ("metadata", "Meta"), 2: ("data", "{s"), 3: ("binaryData", "{y"), 4: ("immutable", "b")},
    "Secret": {
        1: ("metadata", "Meta"),
        2: ("data", "{y"),
        3: ("type", "s"),
        4: ("stringData", "{s"),
        5: ("immutable", "b"),
    },
    "ServiceAccount": {1: ("metadata", "Meta"), 4: ("automountServiceAccountToken", "b")},
    "SelfSubjectAccessReview": {1: ("metadata", "Meta"), 2: ("spec", "AccessSpec")},
    "AccessSpec": {1: ("resourceAttributes", "Attributes"), 2: ("nonResourceAttributes", "PathAttributes")},
    "Attributes": {
        1: ("namespace", "s"),
        2: ("verb", "s"),
        3: ("group", "s"),
        4: ("version", "s"),
        5: ("resource", "s"),
        6: ("subresource", "s"),
        7: ("name", "s"),
    },
    "PathAttributes": {1: ("path", "s"), 2: ("verb", "s")},
    "SelfSubjectRulesReview": {1: ("metadata", "Meta"), 2: ("spec", "RulesSpec")},
    "RulesSpec": {1: ("namespace", "s")},
    "SelfSubjectReview": {1: ("metadata", "Meta")},
    "Eviction": {1: ("metadata", "Meta"), 2: ("deleteOptions", "DeleteOptions")},
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "i"),
        2: ("preconditions", "Preconditions"),
        3: ("orphanDependents", "b"),
        4: ("propagationPolicy", "s"),
        5: ("dryRun", "[s"),
    },
    "Preconditions": {1: ("uid", "s"), 2: ("resourceVersion", "s")},
    "TokenRequest": {1: ("metadata", "Meta"), 2: ("spec", "TokenSpec")},
    "TokenSpec": {1: ("audiences", "[s"), 4: ("expirationSeconds", "i")},
    "PriorityClass": {
        1: ("metadata", "Meta"),
        2: ("value", "i"),
        3: ("globalDefault", "b"),
        4: ("description", "s"),
        5: ("preemptionPolicy", "s"),
    },
    "PodDisruptionBudget": {1: ("metadata", "Meta"), 2: ("spec", "BudgetSpec")},
    "BudgetSpec": {
        1: ("minAvailable", "IntOrString"),
        2: ("selector", "Selector"),
        3: ("maxUnavailable", "IntOrString"),
    },
    "Role": {1: ("metadata", "Meta"), 2: ("rules", "[Rule")},
    "ClusterRole": {1: ("metadata", "Meta"), 2: ("rules", "[Rule")},
    "Rule": {
        1: ("verbs", "[s"),
        2: ("apiGroups", "[s"),
        3: ("resources", "[s"),
        4: ("resourceNames", "[s"),
        5: ("nonResourceURLs", "[s"),
    },
    "RoleBinding": {1: ("metadata", "Meta"), 2: ("subjects", "[Subject"), 3: ("roleRef", "RoleRef")},
    "ClusterRoleBinding": {1: ("metadata", "Meta"), 2: ("subjects", "[Subject"), 3: ("roleRef", "RoleRef")},
    "Subject": {1: ("kind", "s"), 2: ("apiGroup", "s"), 3: ("name", "s"), 4: ("namespace", "s")},
    "RoleRef": {1: ("apiGroup", "s"), 2: ("kind", "s"), 3: ("name", "s")},
    "Selector": {1: ("matchLabels", "{s"), 2: ("matchExpressions", "[Requirement")},
    "Requirement": {1: ("key", "s"), 2: ("operator", "s"), 3: ("values", "[s")},
}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def varint(self) -> int:
        shift = value = 0
        while True:
            if self.at >= len(self.data) or shift > 63:
                raise ValueError("truncated")
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def fields(self) -> Any:
        while self.at < len(self.data):
            key = self.varint()
            wire = key & 7
            if wire == 0:
                yield key >> 3, self.varint()
            elif wire == 2:
                length = self.varint()
                if self.at + length > len(self.data):
                    raise ValueError("truncated")
                yield key >> 3, self.data[self.at : self.at + length]
                self.at += length
            elif wire in (1, 5):
                self.at += 8 if wire == 1 else 4
            else:
                raise ValueError("unknown wire type")


def _value(kind: str, raw: Any) -> Any:
    if kind == "s":
        return bytes(raw).decode()
    if kind == "i":
        return raw - (1 << 64) if raw >> 63 else raw
    if kind == "b":
        return bool(raw)
    if kind == "y":
        import base64

        return base64.b64encode(raw).decode()
    if kind == "t":
        seconds = dict(_Reader(raw).fields()).get(1, 0)
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if kind == "IntOrString":
        held = dict(_Reader(raw).fields())
        return bytes(held.get(3, b"")).decode() if held.get(1) else held.get(2, 0)
    return _message(kind, raw)


def _message(name: str, raw: bytes) -> Object:
    fields = _MESSAGES[name]
    out: Object = {}
    for number, value in _Reader(raw).fields():
        if number not in fields:
            continue
        key, kind = fields[number]
        if kind[0] == "[":
            out.setdefault(key, []).append(_value(kind[1:], value))
        elif kind[0] == "{":
            entry = dict(_Reader(value).fields())
            out.setdefault(key, {})[bytes(entry.get(1, b"")).decode()] = _value(kind[1:], entry.get(2, b""))
        else:
            read = _value(kind, value)
            # Go writes empty strings and zero structs of required fields; JSON leaves them out.
            if read not in ("", {}):
                out[key] = read
    return out


def decode_protobuf(body: bytes) -> Object:
    """A request's object.

    Raises:
        ApiError: 400 when it can't be read, 415 when its kind is not one of those that are.
    """
    if not body.startswith(_MAGIC):
        raise bad_request("the body of the request is not in Kubernetes' protobuf form")
    try:
        envelope = dict(_Reader(body[len(_MAGIC) :]).fields())
        kind_of = dict(_Reader(envelope.get(1, b"")).fields())
        version, kind = bytes(kind_of.get(1, b"")).decode(), bytes(kind_of.get(2, b"")).decode()
        if kind not in _MESSAGES:
            raise unsupported_media_type(
                f"the embedded cluster reads no protobuf for kind {kind} - accepted media types include:"
                " application/json, application/yaml"
            )
        return {"kind": kind, "apiVersion": version, **_message(kind, bytes(envelope.get(2, b"")))}
    except (ValueError, TypeError, UnicodeDecodeError) as e:
        raise bad_request(f"the body of the request can't be read as protobuf: {e}") from None
