"""The audit trail of a Swarm: who changed what, when, from what to what, in a chain that shows tampering. Pure.

Each entry holds the hash of the one before it and a hash of itself (SHA-256 over its canonical JSON), its number, and
the Swarm's generation, which the API server raises with each change of the spec. So an entry that was edited, one that
was taken out or put in, and an order that was changed break the chain; generations that nobody recorded (the operator
was down) are shown as a gap that names them. A trail whose end was cut off is whole in itself: what tells it is the
*anchor*, count and hash of the last entry, which lies elsewhere, in the Swarm's status.

The beginning of a long trail is retired, a segment at a time. An entry says so, with the number and hash at which the
segment ended, and so the chain vouches for where it begins: a segment that merely vanished is found.

What it can't do: an attacker who may write the segments and the status can write a new chain. Whoever fears that keeps
the hashes elsewhere: the operator logs each as it is written. And it knows field managers, not users: who authenticated
is known to the API server's own audit log alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

__all__ = [
    "GENESIS",
    "Anchor",
    "Finding",
    "changes",
    "entry",
    "hash_of",
    "read_segment",
    "spec_hash",
    "verify",
]

#: What the first entry of all names as the hash before it.
GENESIS: Final = "0" * 64
#: Changed fields that an entry lists, and how long a value in it may be.
MOST_CHANGES: Final = 64
MOST_TEXT: Final = 256

Entry = dict[str, Any]


@dataclass(frozen=True)
class Anchor:
    """Where a trail ended when it was looked at last."""

    entries: int
    head: str


@dataclass(frozen=True)
class Finding:
    """Something about a trail. `broken`: it was tampered with; else it is merely incomplete, and says where."""

    broken: bool
    where: str
    what: str
    #: Numbers for programs.
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{'BROKEN' if self.broken else 'gap'} at {self.where}: {self.what}"


def canonical(value: Any) -> str:
    """JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hash_of(item: Entry) -> str:
    """The hash that an entry should carry."""
    return hashlib.sha256(canonical({k: v for k, v in item.items() if k != "hash"}).encode()).hexdigest()


def spec_hash(spec: Any) -> str:
    """A spec's hash: an entry names the one that it led to."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()[:16]


def entry(last: Entry | None, **fields: Any) -> Entry:
    """The entry that follows `last`, sealed."""
    made = {"n": last["n"] + 1 if last else 0, "prev": last["hash"] if last else GENESIS, **fields}
    return {**made, "hash": hash_of(made)}


def changes(old: Any, new: Any, path: str = "") -> list[dict[str, Any]]:
    """What differs, field by field: `path`, and `from` and `to`, of which one is absent for what came or went."""
    found = list(_differences(old, new, path or "spec"))
    if len(found) > MOST_CHANGES:
        found = [*found[:MOST_CHANGES], {"path": "…", "more": len(found) - MOST_CHANGES}]
    return found


def _differences(old: Any, new: Any, path: str) -> Iterable[dict[str, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            below = f"{path}.{key}"
            if key not in old:
                yield {"path": below, "to": _short(new[key])}
            elif key not in new:
                yield {"path": below, "from": _short(old[key])}
            else:
                yield from _differences(old[key], new[key], below)
    elif old != new or type(old) is not type(new):
        yield {"path": path, "from": _short(old), "to": _short(new)}


def _short(value: Any) -> Any:
    text = canonical(value)
    return value if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}… (sha256 {spec_hash(value)})"


def read_segment(text: str) -> list[Entry | None]:
    """A segment's entries; None for a line that is none."""
    found: list[Entry | None] = []
    for line in text.splitlines():
        try:
            item = json.loads(line)
            fine = isinstance(item, dict) and isinstance(item.get("n"), int) and isinstance(item.get("hash"), str)
            found.append(item if fine else None)
        except ValueError:
            found.append(None)
    return found


def verify(segments: Sequence[tuple[int, str]], anchor: Anchor | None = None) -> list[Finding]:
    """What is wrong with a trail: nothing, in an empty list. Segments are numbered texts, a line an entry."""
    findings: list[Finding] = []

    def broken(where: str, what: str, **facts: Any) -> None:
        findings.append(Finding(True, where, what, facts))

    trail: list[Entry] = []
    numbers = [number for number, _ in sorted(segments)]
    for before, after in pairwise(numbers):
        if after != before + 1:
            broken(f"segment {before + 1}", "the segment is missing")
    for number, text in sorted(segments):
        for line, item in enumerate(read_segment(text)):
            if item is None:
                broken(f"segment {number}, line {line + 1}", "this is no entry")
                continue
            if hash_of(item) != item["hash"]:
                broken(f"entry {item['n']}", "it was edited: its content is not what its hash says", n=item["n"])
            if trail and item["n"] != trail[-1]["n"] + 1:
                broken(f"entry {item['n']}", f"entry {trail[-1]['n'] + 1} should be here", n=item["n"])
            elif trail and item.get("prev") != trail[-1]["hash"]:
                broken(f"entry {item['n']}", "it does not follow the one before it", n=item["n"])
            trail.append(item)
    findings += _beginning(trail)
    findings += _gaps(trail)
    if anchor is not None and anchor.entries:
        at = {item["n"]: item["hash"] for item in trail}
        last = anchor.entries - 1
        if last not in at:
            broken(f"entry {last}", f"the status knows of {anchor.entries} entries: the end was cut off", n=last)
        elif at[last] != anchor.head:
            broken(f"entry {last}", "the Swarm's status knows another hash: the chain was written anew", n=last)
    return findings


def _beginning(trail: list[Entry]) -> list[Finding]:
    if not trail:
        return []
    first = trail[0]
    if first["n"] == 0:
        if first.get("prev") == GENESIS:
            return []
        return [Finding(True, "entry 0", "it names an entry before it", {"n": 0})]
    for item in trail:
        ended = item.get("retired") or {}
        if ended.get("last") == first["n"] - 1 and ended.get("hash") == first.get("prev"):
            return []
    return [Finding(True, f"entry {first['n']}", f"the {first['n']} entries before it are gone, and no entry says why")]


def _gaps(trail: list[Entry]) -> list[Finding]:
    findings = []
    known: dict[str, int] = {}
    for item in trail:
        if item.get("event") == "Broken":
            findings.append(
                Finding(True, f"entry {item['n']}", f"the operator found the trail damaged: {item.get('why')}")
            )
        uid, generation = item.get("uid", ""), item.get("generation")
        if not isinstance(generation, int):
            continue
        since = known.get(uid)
        if since is None and item.get("event") != "Created":
            since = generation - 1  # what was before it has been retired
        missed = generation - (since or 0) - 1
        if item.get("event") in ("Created", "Changed") and missed > 0:
            first = generation - missed
            span = f"generation {first}" if missed == 1 else f"generations {first} to {generation - 1}"
            findings.append(Finding(False, f"entry {item['n']}", f"{span} not seen one by one", {"missed": missed}))
        known[uid] = generation
    return findings
