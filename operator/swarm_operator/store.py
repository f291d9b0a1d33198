"""The operator's memory of the cluster: one store a kind, kept by the reflectors, read by `observe`.

Children are indexed by the Swarm that their label names, so that a snapshot of one Swarm never walks the others'. Every
change tells whose it is, before and after: an object that loses its label concerns the Swarm that it was taken from.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from swarm_operator.names import LABEL_SWARM, Key
from swarm_operator.views import NodeView, ObjectView, PodView, SwarmView, View

__all__ = ["Store", "key_of", "newer", "objects_of"]

#: Removed objects whose last version is remembered.
_TOMBSTONES: Final = 4096

OnChange = Callable[[View | None, View | None], None]


def key_of(view: View) -> Key | None:
    """The Swarm that an object concerns; None for a node, which concerns all."""
    if isinstance(view, NodeView):
        return None
    if isinstance(view, SwarmView):
        return Key(view.namespace, view.name)
    labels = view.labels if isinstance(view, PodView) else view.body["metadata"].get("labels") or {}
    swarm = labels.get(LABEL_SWARM)
    return Key(view.namespace, swarm) if swarm else None


def _identity(view: View) -> tuple[str, str]:
    return ("" if isinstance(view, NodeView) else view.namespace, view.name)


def _unversioned(view: View) -> Any:
    """What is compared to see whether an update matters."""
    fields: tuple[str, ...] = view.__struct_fields__
    return tuple(getattr(view, name) for name in fields if name != "resource_version")


def newer(candidate: str, than: str) -> bool:
    """Whether a resourceVersion is later than another; what is no number counts as later."""
    return not (candidate.isdecimal() and than.isdecimal()) or int(candidate) > int(than)


class Store:
    """The objects of one kind, by namespace and name."""

    def __init__(self, on_change: OnChange | None = None) -> None:
        self._objects: dict[tuple[str, str], View] = {}
        self._by_key: dict[Key, dict[tuple[str, str], View]] = {}
        self._removed: OrderedDict[tuple[str, str], str] = OrderedDict()
        self.on_change: OnChange = on_change or (lambda old, new: None)

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[View]:
        return iter(self._objects.values())

    def get(self, namespace: str, name: str) -> View | None:
        """One object."""
        return self._objects.get((namespace, name))

    def of(self, key: Key) -> Iterable[View]:
        """The objects that concern a Swarm."""
        return self._by_key.get(key, {}).values()

    def put(self, view: View) -> None:
        """Adds or updates an object. An older version than the one that is held is passed over."""
        identity = _identity(view)
        old = self._objects.get(identity)
        if old is not None:
            if not newer(view.resource_version, old.resource_version):
                return
            self._unindex(identity, old)
        self._objects[identity] = view
        key = key_of(view)
        if key:
            self._by_key.setdefault(key, {})[identity] = view
        if old is None or _unversioned(old) != _unversioned(view):
            self.on_change(old, view)

    def put_written(self, view: View) -> None:
        """Takes in the answer to a write of our own, so that the next plan need not wait for the watch.

        The watch may have been faster: an answer that is older than the object's removal must not bring it back.
        """
        removed = self._removed.get(_identity(view))
        if removed is None or newer(view.resource_version, removed):
            self.put(view)

    def remove(self, namespace: str, name: str, version: str = "") -> None:
        """Forgets an object; `version` is that of its removal."""
        old = self._objects.pop((namespace, name), None)
        self._removed[namespace, name] = version or (old.resource_version if old else "")
        self._removed.move_to_end((namespace, name))
        if len(self._removed) > _TOMBSTONES:
            self._removed.popitem(last=False)
        if old is not None:
            self._unindex((namespace, name), old)
            self.on_change(old, None)

    def replace(self, views: Iterable[View], version: str = "") -> None:
        """Makes the store be exactly `views`, a list of that version, telling of each difference.

        What vanished while no watch ran is told, too; what was written here after the list is kept.
        """
        seen = set()
        for view in views:
            seen.add(_identity(view))
            self.put(view)
        for identity, view in [(i, v) for i, v in self._objects.items() if i not in seen]:
            if not version or not newer(view.resource_version, version):
                self.remove(*identity, version)

    def _unindex(self, identity: tuple[str, str], view: View) -> None:
        key = key_of(view)
        if key:
            held = self._by_key.get(key, {})
            held.pop(identity, None)
            if not held:
                self._by_key.pop(key, None)


def objects_of(stores: Iterable[Store], key: Key) -> dict[tuple[str, str], ObjectView]:
    """The children of a Swarm that are not pods, by kind and name."""
    return {(v.kind, v.name): v for store in stores for v in store.of(key) if isinstance(v, ObjectView)}
