"""What the API refuses with: a `Status` object, worded as a real API server words it.

Clients decide by `reason` and `code`; people read `message`; `details.causes` name the fields. All three are part of
the API's contract, so they are built here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

__all__ = [
    "ApiError",
    "Cause",
    "already_exists",
    "bad_request",
    "conflict",
    "expired",
    "forbidden",
    "invalid",
    "invalid_value",
    "method_not_allowed",
    "no_such_path",
    "not_found",
    "required",
    "too_many_requests",
    "unauthorized",
    "unsupported_media_type",
    "unsupported_value",
]

Object = dict[str, Any]

#: HTTP status -> the reason a bare status of that code carries.
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiError(Exception):
    """A refusal. `status` is the body that a client receives."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        details: Object | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """`reason` defaults to the code's own; a few refusals of a real server have none, and give an empty one."""
        super().__init__(message)
        self.code = code
        self.reason = _REASONS.get(code, "") if reason is None else reason
        self.message = message
        self.headers = headers or {}
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
        }
        if self.reason:
            self.status["reason"] = self.reason
        if details is not None:
            self.status["details"] = details
        self.status["code"] = code


@dataclass(frozen=True, slots=True)
class Cause:
    """One field that is wrong. `text` already says what kind of wrong: `Invalid value: -1: must be ...`."""

    reason: str  # FieldValueInvalid, FieldValueRequired, FieldValueNotSupported...
    text: str
    field: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}"


def shown(value: Any) -> str:
    """A value as messages show it: strings quoted, the rest as JSON."""
    return msgspec.json.encode(value).decode()


def invalid_value(field: str, value: Any, message: str) -> Cause:
    """The value is of the right type and still wrong."""
    return Cause("FieldValueInvalid", f"Invalid value: {shown(value)}: {message}", field)


def required(field: str, message: str = "") -> Cause:
    """The value is missing."""
    return Cause("FieldValueRequired", "Required value" + (f": {message}" if message else ""), field)


def forbidden_field(field: str, message: str) -> Cause:
    """The field may not be set, or not now."""
    return Cause("FieldValueForbidden", f"Forbidden: {message}", field)


def duplicate(field: str, value: Any) -> Cause:
    """The value stands there already."""
    return Cause("FieldValueDuplicate", f"Duplicate value: {shown(value)}", field)


def unsupported_value(field: str, value: Any, supported: Iterable[str]) -> Cause:
    """The value is not one of those allowed."""
    listed = ", ".join(shown(v) for v in supported)
    return Cause("FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {listed}", field)


def _details(name: str, group: str, kind: str, **more: Any) -> Object:
    details: Object = {"name": name, "group": group, "kind": kind, **more}
    return {k: v for k, v in details.items() if v}


def _qualified(name: str, group: str) -> str:
    return f"{name}.{group}" if group else name


def not_found(plural: str, group: str, name: str) -> ApiError:
    """404: no object of that name."""
    return ApiError(404, f'{_qualified(plural, group)} "{name}" not found', details=_details(name, group, plural))


def no_such_path() -> ApiError:
    """404: no such resource at all. The same words as a real server's, which clients compare."""
    return ApiError(404, "the server could not find the requested resource", details={})


def already_exists(plural: str, group: str, name: str) -> ApiError:
    """409: create of a name that is taken."""
    return ApiError(
        409,
        f'{_qualified(plural, group)} "{name}" already exists',
        reason="AlreadyExists",
        details=_details(name, group, plural),
    )


def conflict(plural: str, group: str, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
    """409: the object is not in the state that the writer assumed."""
    return ApiError(
        409,
        f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {why}',
        details=_details(name, group, plural, causes=[_cause(c) for c in causes]),
    )


def _cause(cause: Cause) -> Object:
    return {"reason": cause.reason, "message": cause.text, "field": cause.field}


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """422: the object does not hold what its type promises. Repeated causes are said once."""
    texts = list(dict.fromkeys(str(c) for c in causes))
    listed = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    return ApiError(
        422,
        f'{_qualified(kind, group)} "{name}" is invalid: {listed}',
        details=_details(name, group, kind, causes=[_cause(c) for c in causes]),
    )


def bad_request(message: str) -> ApiError:
    """400: the request can't be understood."""
    return ApiError(400, message)


def unauthorized() -> ApiError:
    """401: no token, or not this cluster's."""
    return ApiError(401, "Unauthorized")


def forbidden(plural: str, group: str, name: str, why: str) -> ApiError:
    """403: understood, and not allowed here."""
    what = f'{_qualified(plural, group)} "{name}"' if name else _qualified(plural, group)
    return ApiError(403, f"{what} is forbidden: {why}", details=_details(name, group, plural))


def method_not_allowed(what: str = "the server does not allow this method on the requested resource") -> ApiError:
    """405: the resource exists, and does not do that."""
    return ApiError(405, what, details={})


def unsupported_media_type(message: str) -> ApiError:
    """415: a body, or a patch, of a kind that this resource does not take."""
    return ApiError(415, message)


def expired(message: str) -> ApiError:
    """410: the history does not reach back that far; list again."""
    return ApiError(410, message, reason="Expired")


def too_many_requests(message: str, seconds: int = 1, *, causes: Sequence[Cause] = ()) -> ApiError:
    """429: later. Clients wait the seconds that Retry-After says."""
    details: Object = {"retryAfterSeconds": seconds} if not causes else {"causes": [_cause(c) for c in causes]}
    return ApiError(429, message, details=details, headers={"Retry-After": str(seconds)})
