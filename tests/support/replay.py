"""Replaying recorded exchanges with an API server against the embedded one, and comparing the answers.

A recording is a list of exchanges (`request`, `response`). Names, identities, versions and times differ from run to
run, so the replayer learns, answer by answer, which of ours stands for which of theirs, puts ours into the requests
that follow, and compares what is left: status, the headers that matter, and the whole body. A watch runs beside what
follows it, and is compared when the recording ends.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

__all__ = ["Difference", "Exchange", "Replayer", "differences"]

Object = dict[str, Any]

_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_AGE = re.compile(r"^(\d+[ydhms])+$")
_HASH = re.compile(r"[0-9A-F]{128}")
_TOKEN_VOLUME = re.compile(r"kube-api-access-\w{5}")
# The headers that clients act on.
_HEADERS = ("Content-Type", "Warning", "Retry-After", "Cache-Control", "Vary")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer, as recorded."""

    number: int
    command: str
    request: Object
    response: Object

    @property
    def name(self) -> str:
        """How reports and lists of exceptions name it."""
        return f"{self.number:03d} {self.command}: {self.request['method']} {self.request['path']}"

    @property
    def watches(self) -> bool:
        """Whether it is a watch."""
        return self.request["query"].get("watch") == "true"


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where our answer is not theirs."""

    where: str
    theirs: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.where}: expected {_short(self.theirs)}, got {_short(self.ours)}"


def _events(exchange: Exchange) -> list[Object]:
    """A watch's events, without the bookmarks that only the minutes' passing brought."""
    events = list(exchange.response["events"])
    while events and events[-1]["type"] == "BOOKMARK" and "annotations" not in events[-1]["object"]["metadata"]:
        events.pop()
    return events


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 300 else text[:300] + "..."


def _plain(value: Any) -> Any:
    """A string with what differs from run to run written over."""
    if not isinstance(value, str):
        return value
    if _TIME.match(value):
        return "TIME"
    if _AGE.match(value):
        return "AGE"
    value = _UID.sub("UID", value)
    value = _HASH.sub("HASH", value)
    return _TOKEN_VOLUME.sub("kube-api-access-XXXXX", value)


def differences(
    theirs: Any, ours: Any, where: str = "", ignore: Callable[[str], bool] = lambda _: False
) -> list[Difference]:
    """Every place where two answers differ, but for what differs from run to run."""
    if ignore(where):
        return []
    if isinstance(theirs, dict) and isinstance(ours, dict):
        # Owned items of lists that are keyed by an identity have it in their name.
        theirs, ours = ({_UID.sub("UID", k): v for k, v in d.items()} for d in (theirs, ours))
        found = []
        for key in [*theirs, *(k for k in ours if k not in theirs)]:
            here = f"{where}.{key}"
            if key not in ours:
                found += [] if ignore(here) else [Difference(here, theirs[key], "nothing")]
            elif key not in theirs:
                found += [] if ignore(here) else [Difference(here, "nothing", ours[key])]
            elif key == "resourceVersion":
                found += [] if type(theirs[key]) is type(ours[key]) else [Difference(here, theirs[key], ours[key])]
            else:
                found += differences(theirs[key], ours[key], here, ignore)
        return found
    if isinstance(theirs, list) and isinstance(ours, list):
        found = [Difference(f"{where}.length", len(theirs), len(ours))] if len(theirs) != len(ours) else []
        for index, (a, b) in enumerate(zip(theirs, ours, strict=False)):
            found += differences(a, b, f"{where}[{index}]", ignore)
        return found
    same = _plain(theirs) == _plain(ours) and isinstance(theirs, bool) == isinstance(ours, bool)
    return [] if same else [Difference(where, theirs, ours)]


@dataclass
class Replayer:
    """Sends recorded requests to a server and compares."""

    session: aiohttp.ClientSession
    url: str
    #: Before exchange N: what happened beside the recording (kubelets, controllers, commands that were not recorded).
    stage: Mapping[int, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    #: Exchange number -> paths of the answer that are not compared, each with its reason, as prefixes.
    exceptions: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    #: The same for all exchanges: a test of the place.
    ignore: Callable[[str], bool] = lambda _: False

    #: After the last exchange: what the watches that are still open are to see.
    finale: Callable[[], Awaitable[None]] | None = None
    #: Before each exchange, with it: moves the server's clock to where the recorded one stood.
    tick: Callable[[Exchange], None] = lambda _: None

    def __post_init__(self) -> None:
        self._ours: dict[str, str] = {}
        self._watches: list[tuple[Exchange, asyncio.Task[list[Object]]]] = []

    async def run(self, exchanges: list[Exchange]) -> dict[str, list[Difference]]:
        """Replay all; the differences by exchange."""
        found: dict[str, list[Difference]] = {}
        for exchange in exchanges:
            self.tick(exchange)
            if exchange.number in self.stage:
                await self.stage[exchange.number]()
            if exchange.watches:
                task = asyncio.create_task(self._watch(exchange))
                self._watches.append((exchange, task))
                await asyncio.sleep(0.02)  # let it begin before what it is to see
                continue
            result = await self._exchange(exchange)
            if result:
                found[exchange.name] = result
        if self.finale is not None:
            await self.finale()
        for exchange, task in self._watches:
            wanted = _events(exchange)
            try:
                events = await asyncio.wait_for(task, 5)
            except TimeoutError:
                events = []
                found[exchange.name] = [Difference("events", [e["type"] for e in wanted], "too few within 5 s")]
                continue
            if result := self._compare(exchange, ".events", wanted, events):
                found[exchange.name] = result
        return found

    def _ignored(self, exchange: Exchange) -> Callable[[str], bool]:
        own = self.exceptions.get(exchange.number, {})
        return lambda where: self.ignore(where) or any(where.startswith(p) for p in own)

    def _compare(self, exchange: Exchange, where: str, theirs: Any, ours: Any) -> list[Difference]:
        self._learn(theirs, ours)
        return differences(theirs, ours, where, self._ignored(exchange))

    def _learn(self, theirs: Any, ours: Any) -> None:
        """Remember which of our identities, versions and hashes stands for which of theirs."""
        if isinstance(theirs, dict) and isinstance(ours, dict):
            for key, value in theirs.items():
                if key in ("uid", "resourceVersion") and isinstance(value, str) and isinstance(ours.get(key), str):
                    self._ours[value] = ours[key]
                elif key == "serverRelativeURL" and key in ours:
                    self._ours[value.rpartition("=")[2]] = ours[key].rpartition("=")[2]
                else:
                    self._learn(value, ours.get(key))
        elif isinstance(theirs, list) and isinstance(ours, list):
            for a, b in zip(theirs, ours, strict=False):
                self._learn(a, b)

    def _translated(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: self._translated(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self._translated(v, key) for v in value]
        if not isinstance(value, str):
            return value
        if key in ("resourceVersion", "uid", "hash", "If-None-Match", "value"):
            bare = value.strip('"')
            return value.replace(bare, self._ours.get(bare, bare))
        if key == "fieldSelector":
            return _UID.sub(lambda m: self._ours.get(m[0], m[0]), value)
        return value

    def _arguments(self, exchange: Exchange) -> Object:
        request = exchange.request
        headers = {k: v for k, v in request["headers"].items() if k not in ("Accept-Encoding", "Content-Length")}
        body = request.get("body")
        data: bytes | None = None
        if isinstance(body, str):
            data = body.encode("latin-1", "replace")
        elif body is not None:
            data = json.dumps(self._translated(body)).encode()
        return {
            "url": self.url + request["path"],
            "params": self._translated(request["query"]),
            "headers": self._translated(headers),
            "data": data,
            "allow_redirects": False,
        }

    async def _exchange(self, exchange: Exchange) -> list[Difference]:
        theirs = exchange.response
        async with self.session.request(exchange.request["method"], **self._arguments(exchange)) as answer:
            raw = await answer.read()
            found = []
            if answer.status != theirs["status"]:
                return [
                    Difference(".status", theirs["status"], f"{answer.status} {raw[:600].decode(errors='replace')}")
                ]
            ours_headers = {k.title(): v for k, v in answer.headers.items()}
            theirs_headers = {k.title(): v for k, v in theirs["headers"].items()}
            if "Etag" in theirs_headers and "Etag" in ours_headers:
                self._ours[theirs_headers["Etag"].strip('"')] = ours_headers["Etag"].strip('"')
            elif "Etag" in theirs_headers:
                found.append(Difference(".headers.Etag", theirs_headers["Etag"][:20], "nothing"))
            ignored = self._ignored(exchange)
            for name in _HEADERS:
                a, b = theirs_headers.get(name.title()), ours_headers.get(name.title())
                if name == "Content-Type" and a is None and exchange.response["status"] != 304:
                    continue  # taken out of the recording
                if a != b and not ignored(f".headers.{name}"):
                    found.append(Difference(f".headers.{name}", a, b))
            if "body" not in theirs:
                return found
            ours: Any = raw.decode(errors="replace")
            if isinstance(theirs["body"], dict | list):
                try:
                    ours = json.loads(raw)
                except ValueError:
                    return [*found, Difference(".body", "JSON", ours[:100])]
            return found + self._compare(exchange, ".body", theirs["body"], ours)

    async def _watch(self, exchange: Exchange) -> list[Object]:
        """As many events as were recorded."""
        wanted = len(_events(exchange))
        out: list[Object] = []
        async with self.session.request(exchange.request["method"], **self._arguments(exchange)) as answer:
            if not wanted:
                return out
            async for line in answer.content:
                out.append(json.loads(line))
                self._learn(exchange.response["events"][: len(out)], out)
                if len(out) >= wanted:
                    break
        return out
