"""Whether an object is as it should be, and what to remove from it that should not be there.

Server-side apply takes back every field that we own, whoever changed it; it leaves alone what others added, also where
an addition does harm (a further port, a key in the ConfigMap, a label in a selector). Hence a repair has two parts: for
the paths that are ours alone (`EXACT`) a merge patch that removes what was added, and then an apply. In this order:
what was added may clash with what is ours (two ports of one name), and the apply would be refused.

Comparing here and not by a dry run keeps an idle operator silent: it writes nothing to find out that nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from swarm_operator.objects import WHOLE
from swarm_operator.views import ObjectView

__all__ = ["as_wanted", "covers", "excess", "waits_for"]

#: The API server leaves these out of what it answers where they are false. Of others (`automountServiceAccountToken`)
#: the absence means something else, so this can't be a rule for every field.
_ABSENT_WHEN_FALSE = frozenset({"publishNotReadyAddresses"})


def covers(desired: Any, observed: Any) -> bool:
    """Whether everything in `desired` is in `observed` with the same value. Lists are compared item by item."""
    if isinstance(desired, dict):
        if not isinstance(observed, dict):
            return not desired and observed is None
        return all(
            covers(value, observed[key]) if key in observed else value is False and key in _ABSENT_WHEN_FALSE
            for key, value in desired.items()
        )
    if isinstance(desired, list):
        if not isinstance(observed, list) or len(desired) > len(observed):
            return False
        if len(desired) == len(observed) and all(covers(d, o) for d, o in zip(desired, observed, strict=True)):
            return True
        return all(any(covers(item, other) for other in observed) for item in desired)
    return bool(desired == observed)


def as_wanted(manifest: dict[str, Any], observed: ObjectView) -> bool:
    """Whether an object holds everything that its manifest says, labels and owners included."""
    wanted = {k: v for k, v in manifest.items() if k not in ("apiVersion", "kind", "metadata")}
    if manifest["kind"] in WHOLE and any(observed.body.get(key) != value for key, value in wanted.items()):
        return False
    meta = {k: manifest["metadata"][k] for k in ("labels", "ownerReferences")}
    return covers(wanted, observed.body) and covers(meta, observed.body["metadata"])


def waits_for(observed: ObjectView | None, uid: str, blocked: list[str]) -> bool:
    """An object that is on its way out, or an earlier Swarm's, is waited for; its DELETED event wakes the key."""
    if observed is None or (not observed.deleting and (uid in observed.owners or not observed.owners)):
        return False
    blocked.append(f"{observed.kind} {observed.name} of an earlier Swarm is not gone yet")
    return True


def excess(desired: dict[str, Any], observed: dict[str, Any], paths: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    """A merge patch that removes, at `paths`, what is in `observed` and not in `desired`; empty: nothing is."""
    patch: dict[str, Any] = {}
    for path in paths:
        want, have = _at(desired, path), _at(observed, path)
        if have is None or have == want:
            continue
        change = _removal(want, have)
        if change is not None:
            node = patch
            for step in path[:-1]:
                node = node.setdefault(step, {})
            node[path[-1]] = change
    return patch


def _removal(want: Any, have: Any) -> Any:
    """What a merge patch must say so that nothing beyond `want` is left; None when nothing is beyond it."""
    if isinstance(have, dict) and (want is None or isinstance(want, dict)):
        changes: dict[str, Any] = {}
        for key, value in have.items():
            if want is None or key not in want:
                changes[key] = None
            elif isinstance(value, dict):
                inner = _removal(want[key], value)
                if inner is not None:
                    changes[key] = inner
        return changes or None
    if isinstance(have, list) and isinstance(want, list):
        # a merge patch replaces a list whole
        return None if all(any(covers(item, other) for item in want) for other in have) else want
    return None


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        tree = tree.get(step) if isinstance(tree, dict) else None
    return tree
