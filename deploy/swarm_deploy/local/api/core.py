"""The API itself, without HTTP: what a request means for the store.

`Api` is one object whose methods are the verbs; the HTTP application and the cluster's own parts call the same ones.
All but `watch` are synchronous: a request is decided and written between two turns of the event loop, which is why
there are no locks, and why two writers can't both find the version they had read.

Reading is here; writing is in `writes`, which is mixed in.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from swarm_deploy.local.api import crd
from swarm_deploy.local.api.decoding import Result
from swarm_deploy.local.api.defaults import empty_object
from swarm_deploy.local.api.errors import ApiError, bad_request, expired, no_such_path, not_found
from swarm_deploy.local.api.events import from_core
from swarm_deploy.local.api.meta import Clock, timestamp
from swarm_deploy.local.api.resources import Catalog, Resource
from swarm_deploy.local.api.scale import scale_of
from swarm_deploy.local.api.selectors import field_matcher, label_matcher
from swarm_deploy.local.api.special import Tokens, below
from swarm_deploy.local.api.structural import default
from swarm_deploy.local.api.writes import Writes
from swarm_deploy.local.store import Compacted, Store

__all__ = ["Api", "LogReader", "Page"]

Object = dict[str, Any]

#: Reads a container's log: `await reader(namespace, pod, container, options)` gives an async iterator of bytes.
#: `options` are the query's (`follow`, `tailLines`, `sinceSeconds`, `timestamps`, `previous`, `limitBytes`), decoded.
LogReader = Callable[[str, str, str, Object], Awaitable[AsyncGenerator[bytes, None]]]

_SNAPSHOTS = 64
_BOOKMARK_SECONDS = 60.0
DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list. `resume` is the token for the next part, empty with the last one."""

    items: list[Object]
    revision: int
    resume: str = ""
    remaining: int | None = None


class Api(Writes):
    """The API over one store."""

    def __init__(self, store: Store, *, clock: Clock = time.time, log_reader: LogReader | None = None) -> None:
        """`clock` gives seconds since the epoch."""
        self.store = store
        self.clock = clock
        self.catalog = Catalog()
        #: Set by whoever runs containers.
        self.log_reader = log_reader
        # Signed with a key of this process: pods get new tokens when the cluster starts again.
        self.tokens = Tokens(secrets.token_bytes(32))
        #: Called after a namespace or a definition began to be deleted; set by `lifecycle`.
        self.sweeper: asyncio.Event | None = None
        self._snapshots: OrderedDict[str, list[Object]] = OrderedDict()
        #: Definition -> the revision at which its schema last changed: older objects get its defaults when read.
        self._changed: dict[str, int] = {}
        for definition in store.list(DEFINITIONS):
            self.serve_definition(definition)

    # -- what there is ----------------------------------------------------------------------------------------------

    def resource(self, name: str) -> Resource:
        """The resource that `plural` or `plural.group` names. Raises ApiError 404."""
        found = self.catalog.by_name(name)
        if found is None:
            raise no_such_path()
        return found

    def at(self, group: str, version: str, plural: str) -> Resource:
        """The resource at a path. Raises ApiError 404."""
        found = self.catalog.find(group, version, plural)
        if found is None:
            raise no_such_path()
        return found

    def serve_definition(self, definition: Object) -> None:
        """Serve what an accepted definition defines; one that is not accepted (any more) serves nothing."""
        conditions = {c["type"]: c["status"] for c in definition.get("status", {}).get("conditions") or ()}
        established = conditions.get("Established") == "True"
        served = crd.resources_of(definition) if established else ()
        before = self.catalog.revision
        self.catalog.set_custom(definition["metadata"]["name"], served)
        if self.catalog.revision != before and served:
            self._changed[served[0].key] = int(definition["metadata"]["resourceVersion"])

    # -- reading ----------------------------------------------------------------------------------------------------

    def view(self, resource: Resource, stored: Object) -> Object:
        """A stored object as one version of its kind shows it. Not to be changed."""
        if resource.custom:
            out = stored
            if int(stored["metadata"]["resourceVersion"]) <= self._changed.get(resource.key, 0):
                assert resource.definition is not None
                out = default(crd.schema_of(resource.definition), out)
            if out["apiVersion"] != resource.group_version:
                out = {**out, "apiVersion": resource.group_version}
            return out
        if resource.group == "events.k8s.io":
            return from_core(stored)
        return stored

    def read(self, resource: Resource, namespace: str, name: str, subresource: str = "") -> Object:
        """One object, or its scale. Raises ApiError 404. Not to be changed."""
        self._check_subresource(resource, subresource)
        stored = self.store.get(resource.key, namespace, name)
        if stored is None:
            raise not_found(resource.plural, resource.group, name)
        shown = self.view(resource, stored)
        if subresource == "scale" and resource.custom:
            return scale_of(resource, shown)
        return shown

    def select(
        self, resource: Resource, namespace: str | None, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], int]:
        """Every object that fits, and the revision of the list. Raises ApiError 400 for a selector it can't use."""
        by_label, by_field = label_matcher(labels), field_matcher(resource, fields)
        items = [self.view(resource, o) for o in self.store.list(resource.key, namespace)]
        if by_label:
            items = [o for o in items if by_label(o)]
        if by_field:
            items = [o for o in items if by_field(o)]
        return items, self.store.revision

    def page(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        resume: str = "",
        resource_version: str = "",
        match: str = "",
    ) -> Page:
        """Part of a list; every part shows the same moment.

        Raises:
            ApiError: 410 when the moment that `resume` belongs to is no longer held, 400 for what can't be read.
        """
        if resume:
            items, revision, start = self._resume(resume)
        else:
            self._check_version(resource_version, match)
            items, revision = self.select(resource, namespace, labels, fields)
            start = 0
        if not limit or start + limit >= len(items):
            return Page(items[start:] if start else items, revision)
        key = f"{revision}.{resource.qualified}.{namespace or ''}.{labels}.{fields}"
        self._snapshots[key] = items
        self._snapshots.move_to_end(key)
        while len(self._snapshots) > _SNAPSHOTS:
            self._snapshots.popitem(last=False)
        token = {"v": "meta.k8s.io/v1", "rv": revision, "start": start + limit, "of": key}
        encoded = base64.urlsafe_b64encode(json.dumps(token, separators=(",", ":")).encode()).decode().rstrip("=")
        remaining = None if labels or fields else len(items) - start - limit
        return Page(items[start : start + limit], revision, encoded, remaining)

    def _resume(self, token: str) -> tuple[list[Object], int, int]:
        try:
            fields = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            key, revision, start = fields["of"], int(fields["rv"]), int(fields["start"])
        except (ValueError, KeyError, TypeError, binascii.Error):
            raise bad_request(f"continue key is not valid: {token}") from None
        items = self._snapshots.get(key)
        if items is None:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. You must start a new"
                " list without the continue parameter."
            )
        return items, revision, start

    def _check_version(self, version: str, match: str) -> None:
        if match and not version:
            raise _invalid_list(
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            )
        if version in ("", "0"):
            return
        wanted = _number(version)
        if wanted > self.store.revision:
            raise too_large(wanted, self.store.revision)
        if match == "Exact" and wanted != self.store.revision:
            raise expired(f"The resourceVersion for the provided list is too old: {wanted} ({self.store.revision})")

    # -- watching ---------------------------------------------------------------------------------------------------

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = False,
        initial: bool = False,
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Events as `(type, object)`; an object that stops fitting the selector is shown as deleted.

        Args:
            resource_version: where to begin, exclusive; empty or "0" begins with what there is.
            initial: begin with what there is, then a bookmark that says so (a watch-list).

        Raises:
            ApiError: 410 when the history does not reach back that far, 400 for a selector it can't use.
        """
        by_label, by_field = label_matcher(label_selector), field_matcher(resource, field_selector)

        def fits(obj: Object | None) -> bool:
            return (
                obj is not None
                and (namespace is None or obj["metadata"].get("namespace", "") == namespace)
                and (by_label is None or by_label(obj))
                and (by_field is None or by_field(obj))
            )

        since = self.store.revision
        afresh = initial or resource_version in ("", "0")
        if resource_version not in ("", "0"):
            wanted = _number(resource_version)
            if wanted > since:
                raise too_large(wanted, since)
            since = since if initial else wanted
        try:
            watcher = self.store.watcher(resource.key, since)
            if afresh:
                for obj in self.select(resource, namespace, label_selector, field_selector)[0]:
                    yield "ADDED", obj
                if initial and bookmarks:
                    yield "BOOKMARK", self.bookmark(resource, since, initial=True)
            clock = asyncio.get_running_loop().time
            due = clock() + _BOOKMARK_SECONDS
            while True:
                for event in watcher.drain():
                    since = event.revision
                    new = self.view(resource, event.object)
                    old = self.view(resource, event.previous) if event.previous is not None else None
                    left = fits(old)
                    if event.type != "DELETED" and fits(new):
                        yield ("MODIFIED" if left else "ADDED"), new
                    elif left:
                        # It shows its last state that fitted, under the revision at which it left.
                        yield "DELETED", new if event.type == "DELETED" else _at_version(old or new, new)
                # Whatever else happens: of a watch with a selector, most events may be other people's.
                if not await watcher.wait(max(due - clock(), 0.0) if bookmarks else None):
                    due = clock() + _BOOKMARK_SECONDS
                    yield "BOOKMARK", self.bookmark(resource, max(since, self.store.revision))
        except Compacted as e:
            raise expired(str(e)) from None

    def bookmark(self, resource: Resource, revision: int, *, initial: bool = False) -> Object:
        """An object of the kind that says nothing but how far a watch has come."""
        if resource.custom:
            out: Object = {"apiVersion": resource.group_version, "kind": resource.kind, "metadata": {}}
        else:
            out = empty_object(resource.kind, resource.group_version)
        meta: Object = {"resourceVersion": str(revision)}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        return {**out, "metadata": meta}

    def below(self, resource: Resource, namespace: str, name: str, subresource: str, body: Object) -> Result:
        """POST to a path below an object: bindings, evictions, tokens."""
        return below(self, resource, namespace, name, subresource, body)

    def now(self) -> str:
        """The time, as objects carry it."""
        return timestamp(self.clock())


def _at_version(obj: Object, newer: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": newer["metadata"]["resourceVersion"]}}


def _number(version: str) -> int:
    if not version.isdigit():
        raise _invalid_list(
            "resourceVersion", f'Invalid value: "{version}": strconv.ParseUint: parsing "{version}": invalid syntax'
        )
    return int(version)


def _invalid_list(field: str, text: str) -> ApiError:
    reason = "FieldValueForbidden" if text.startswith("Forbidden") else "FieldValueInvalid"
    return ApiError(
        422,
        f'ListOptions.meta.k8s.io "" is invalid: {field}: {text}',
        details={
            "group": "meta.k8s.io",
            "kind": "ListOptions",
            "causes": [{"reason": reason, "message": text, "field": field}],
        },
    )


def too_large(wanted: int, current: int) -> ApiError:
    """504: a revision that has not happened yet."""
    return ApiError(
        504,
        f"Too large resource version: {wanted}, current: {current}",
        details={
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
    )
