"""The API server's audit log: one line for each request, as Kubernetes' own (`audit.k8s.io/v1`, level Metadata).

Bodies are never written, so no secret gets into it. A watch is told when it begins, every other request when it was
answered. The file is bounded: when it is full it becomes `….1`, and the one before that is deleted. As with a real
server, a request does not fail because it could not be noted: lines for which the disk has no room are lost, and the
cluster's log says so once.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from aiohttp import web

from swarm_deploy.local.api.authorization import Request, groups_of

__all__ = ["MOST_BYTES", "AuditLog"]

_log = logging.getLogger(__name__)

#: Size at which a file is put aside.
MOST_BYTES: Final = 16 << 20
#: Seconds that a line may wait for the next ones before it is written.
_DELAY: Final = 0.2


class AuditLog:
    """Appends to one file, which nobody else may read."""

    def __init__(self, path: Path, most: int = MOST_BYTES) -> None:
        self._path, self._most = path, most
        self._file: IO[str] | None = None
        self._size = 0
        self._flushed = 0.0
        self._failing = False

    def record(
        self, request: web.Request, user: str, what: Request | None, version: str, code: int, stage: str
    ) -> None:
        """Notes a request. `what` is None for one that names no resource; `stage` is Kubernetes' name for it."""
        now = time.time()
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        entry: dict[str, Any] = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": str(uuid.uuid4()),
            "stage": stage,
            "requestURI": request.path_qs,
            "verb": what.verb if what else request.method.lower(),
            "user": {"username": user, "groups": [*groups_of(user)]},
            "sourceIPs": [request.remote or ""],
            "userAgent": request.headers.get("User-Agent", ""),
            "responseStatus": {"metadata": {}, "code": code},
            "stageTimestamp": stamp,
            "annotations": {"authorization.k8s.io/decision": "allow" if request.get("allowed", True) else "forbid"},
        }
        if what:
            about = {
                "resource": what.plural,
                "subresource": what.subresource,
                "namespace": what.namespace,
                "name": what.name,
                "apiGroup": what.group,
                "apiVersion": version,
            }
            entry["objectRef"] = {key: value for key, value in about.items() if value}
        line = json.dumps(entry, separators=(",", ":")) + "\n"
        try:
            self._write(line, now)
        except OSError as error:
            self._give_up(error)
        else:
            self._failing = False

    def _write(self, line: str, now: float) -> None:
        file = self._opened()
        file.write(line)
        self._size += len(line)
        if now - self._flushed > _DELAY:
            file.flush()
            self._flushed = now
        if self._size > self._most:
            self.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))

    def _opened(self) -> IO[str]:
        if self._file is None:
            self._path.touch(mode=0o600)
            self._file = self._path.open("a", encoding="utf-8")
            self._size = self._path.stat().st_size
        return self._file

    def _give_up(self, error: OSError) -> None:
        """Lets go of the file with what could not be written to it; the next record opens it again."""
        if not self._failing:
            _log.error("requests can't be noted in %s: %s", self._path, error)
        self._failing = True
        self.close()

    def close(self) -> None:
        """Writes what waits, as far as there is room, and closes the file; the next record opens it again."""
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):
                file.close()
