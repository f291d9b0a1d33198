"""The building blocks of the API's models: how a field is declared, and the text forms of quantities and durations.

Every field says what happens when it is changed, in its description and for the program: *live* (applied without a
restart), *rolling* (pods are made anew, a few at a time; see `revision`) or *fixed* (refused after creation). A field
that says nothing of the kind does not pass `test_every_field_says_whether_it_is_live_or_rolling`.

Bounds are part of the declaration because the API server needs them: an unbounded string or list makes the estimated
cost of a CEL rule infinite, and the CRD is refused. Durations are bounded by a CEL rule (`duration()` compares what a
pattern can't) and by the same rule here, for `swarm plan`, which has no API server.

Rejected: `Decimal` quantities from the Kubernetes client (a heavy import for two parsers of ten lines).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

__all__ = [
    "BOUNDS",
    "CHANGE",
    "NAME_PATTERN",
    "RULES",
    "SET",
    "Change",
    "Cpus",
    "Duration",
    "EnvName",
    "LabelKey",
    "LabelMap",
    "LabelValue",
    "Model",
    "Name",
    "Short",
    "Size",
    "bounds",
    "duration",
    "fixed",
    "live",
    "milli_cpus",
    "plain",
    "rolling",
    "seconds",
    "size_bytes",
]

#: Keys under which a field's schema carries what only we read (`CHANGE`, `BOUNDS`) and the CEL rules (`RULES`).
CHANGE: Final = "x-change"
RULES: Final = "x-kubernetes-validations"
BOUNDS: Final = "x-bounds"
#: How the API server merges a list, and by what it knows an entry again.
LIST_TYPE: Final = "x-kubernetes-list-type"
LIST_KEYS: Final = "x-kubernetes-list-map-keys"
#: A list without order in which nothing stands twice.
SET: Final[dict[str, Any]] = {LIST_TYPE: "set"}

NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_SIZE_PATTERN: Final = r"^[1-9][0-9]{0,14}(k|M|G|T|Ki|Mi|Gi|Ti)?$"
_CPU_PATTERN: Final = r"^([1-9][0-9]{0,6}m|[1-9][0-9]{0,3}(\.[0-9]{1,3})?|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9]))$"
#: The largest plain numbers of a size (bytes) and of CPUs, as many digits as the patterns allow.
_MOST_BYTES: Final = 10**15 - 1
_MOST_CPUS: Final = 9999
_DURATION_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h)$"
_SUFFIX: Final = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_SIZES: Final = {**_SUFFIX, "Ti": 1 << 40, "": 1}
#: Unit -> factor and divisor; dividing is exact where multiplying by 1e-6 is not.
_UNITS: Final = {"us": (1, 1e6), "ms": (1, 1e3), "s": (1, 1.0), "m": (60, 1.0), "h": (3600, 1.0)}


class Change(StrEnum):
    """What a change of a field does to running agents."""

    LIVE = "live"
    ROLLING = "rolling"
    FIXED = "fixed"


class Model(BaseModel):
    """The base of every object in the API: camelCase outside, frozen, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        alias_generator=lambda name: re.sub(r"_([a-z0-9])", lambda m: m.group(1).upper(), name),
    )

    @model_validator(mode="after")
    def _durations_in_bounds(self) -> Model:
        for name, info in type(self).model_fields.items():
            bounds = info.json_schema_extra.get(BOUNDS) if isinstance(info.json_schema_extra, dict) else None
            if isinstance(bounds, list):
                low, high = (seconds(str(bound)) for bound in bounds)
                value = getattr(self, name)
                if value is not None and not low <= seconds(value) <= high:
                    raise ValueError(f"{info.alias or name}: must be a duration from {bounds[0]} to {bounds[1]}")
        return self

    @model_validator(mode="after")
    def _entries_are_distinct(self) -> Model:
        for name, info in type(self).model_fields.items():
            extra = info.json_schema_extra
            kind = extra.get(LIST_TYPE) if isinstance(extra, dict) else None
            if kind in ("set", "map"):
                keys = [key if kind == "set" else _map_key(key, extra) for key in getattr(self, name)]
                twice = sorted({str(key) for key in keys if keys.count(key) > 1})
                if twice:
                    raise ValueError(f"{info.alias or name}: {', '.join(twice)} stands there twice; leave one out")
        return self


def _map_key(entry: Any, extra: Any) -> str:
    return "/".join(str(entry.model_dump(by_alias=True)[key]) for key in extra[LIST_KEYS])


def _field(change: Change, default: Any, text: str, extra: Mapping[str, Any] | None, options: dict[str, Any]) -> Any:
    schema = {CHANGE: change.value, **(extra or {})}
    if isinstance(default, list | dict):
        copy = default
        return Field(
            default_factory=lambda: type(copy)(copy),
            description=f"{text} ({change.value})",
            json_schema_extra=schema,
            **options,
        )
    return Field(default=default, description=f"{text} ({change.value})", json_schema_extra=schema, **options)


def live(default: Any, text: str, *, schema: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """A field whose change reaches the swarm without restarting an agent."""
    return _field(Change.LIVE, default, text, schema, options)


def rolling(default: Any, text: str, *, schema: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """A field whose change makes a new revision: the pods are replaced, a few at a time."""
    return _field(Change.ROLLING, default, text, schema, options)


def fixed(default: Any, text: str, *, schema: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """A field that may not change after creation. The transition rule stands on the object that holds the field."""
    return _field(Change.FIXED, default, text, schema, options)


def plain(default: Any, text: str, **options: Any) -> Any:
    """A field of an item or of the status, to which no change of its own belongs."""
    return Field(default=default, description=text, **options)


def seconds(text: str) -> float:
    """A duration such as `100ms`, in seconds.

    Raises:
        ValueError: not a number with one of the units us, ms, s, m, h.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)", text)
    if not match:
        raise ValueError(f"{text!r} is no duration: a number and a unit (us, ms, s, m, h), such as 100ms")
    factor, divisor = _UNITS[match.group(2)]
    return float(match.group(1)) * factor / divisor


def duration(change: Change, default: str, text: str, low: str, high: str) -> Any:
    """A duration field, bounded (inclusive) in the API server and here."""
    return _field(change, default, f"{text} From {low} to {high}.", bounds(low, high, default), {})


def bounds(low: str, high: str, example: str) -> dict[str, Any]:
    """The schema of a duration within these bounds (inclusive)."""
    rule = {
        "rule": f"duration(self) >= duration('{low}') && duration(self) <= duration('{high}')",
        "message": f"must be a duration from {low} to {high}, such as {example}",
    }
    return {RULES: [rule], BOUNDS: [low, high]}


def size_bytes(text: str | int) -> int:
    """A size such as `256Mi`, in bytes.

    Raises:
        ValueError: not a whole number with an optional suffix.
    """
    match = re.fullmatch(r"([0-9]+)(k|M|G|T|Ki|Mi|Gi|Ti)?", str(text))
    if not match:
        raise ValueError(
            f"{text!r} is no size: a whole number with k, M, G, T, Ki, Mi, Gi, Ti or nothing, such as 512Mi"
        )
    return int(match.group(1)) * _SIZES[match.group(2) or ""]


def milli_cpus(text: str | int) -> int:
    """CPUs such as `2`, `500m` or `0.5`, in thousandths.

    Raises:
        ValueError: not a number of CPUs, or zero.
    """
    text = str(text)
    if not re.fullmatch(r"[0-9]+m|[0-9]+(\.[0-9]{1,3})?", text):
        raise ValueError(f"{text!r} is no number of CPUs: write 2, 500m or 0.5")
    milli = int(text[:-1]) if text.endswith("m") else round(float(text) * 1000)
    if milli < 1:
        raise ValueError("at least 1m of a CPU is needed")
    return milli


def _as_the_schema(value: object, pattern: str, most: int, advice: str) -> str:
    """What the schema of an int-or-string takes: a whole number from 1 to `most`, or a text of the pattern.

    A number with a point is neither: YAML reads 0.5 without quotes as one.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return str(value)
    if isinstance(value, str) and re.fullmatch(pattern.removesuffix("$"), value):
        return value
    raise ValueError(f"{value!r} {advice}")


def _canonical_size(value: str | int) -> str:
    """The shortest exact binary form, so that `1024Mi` and `1Gi` are one revision."""
    advice = "is no size: a whole number from 1 with k, M, G, T, Ki, Mi, Gi, Ti or nothing, such as 512Mi"
    value = _as_the_schema(value, _SIZE_PATTERN, _MOST_BYTES, advice)
    count = size_bytes(value)
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        if count and count % _SIZES[suffix] == 0:
            return f"{count // _SIZES[suffix]}{suffix}"
    return str(count)


def _canonical_cpus(value: str | int) -> str:
    advice = 'is no number of CPUs: write 2, 500m or 0.5 (in quotes: "0.5"), at least 1m'
    milli = milli_cpus(_as_the_schema(value, _CPU_PATTERN, _MOST_CPUS, advice))
    return f"{milli}m" if milli % 1000 else str(milli // 1000)


def _checked_duration(value: str) -> str:
    seconds(value)
    return value


def _int_or_string(pattern: str, most: int) -> WithJsonSchema:
    return WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "pattern": pattern, "maxLength": 20, "minimum": 1, "maximum": most}
    )


Size = Annotated[str, BeforeValidator(_canonical_size), _int_or_string(_SIZE_PATTERN, _MOST_BYTES)]
Cpus = Annotated[str, BeforeValidator(_canonical_cpus), _int_or_string(_CPU_PATTERN, _MOST_CPUS)]
Duration = Annotated[
    str, StringConstraints(pattern=_DURATION_PATTERN, max_length=16), AfterValidator(_checked_duration)
]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, min_length=1, max_length=253)]
Short = Annotated[str, StringConstraints(min_length=1, max_length=253)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", min_length=1, max_length=128)]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317)]
LabelValue = Annotated[str, StringConstraints(pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$", max_length=63)]
LabelMap = dict[LabelKey, LabelValue]
