"""Which replica writes: a `coordination.k8s.io` Lease, held by one and taken over by another when it is not renewed.

The second replica is warm: it watches and keeps its caches, and only does not write. A leader that can't renew stops
writing before another may begin: `leads` is false once `RENEW_DEADLINE` has passed since the last renewal that it knows
of, measured on its own clock from before the request was sent; others wait `DURATION` from when they saw the record
change, measured on theirs. No two clocks are compared. The monotonic clock goes on while a process is stopped, so one
that was frozen knows when it goes on that its time is over, and `kube` asks in the moment of sending.

Rejected: the client's leader election (synchronous; the process has to die with the leadership).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from swarm_operator.kube import Api, ApiError
from swarm_operator.names import LEASE_NAME

__all__ = ["DURATION", "RENEW_DEADLINE", "RETRY", "Leader"]

#: Seconds after which a lease that was not renewed may be taken.
DURATION: Final = 3
#: A leader that has not renewed for so long does not write any more.
RENEW_DEADLINE: Final = 2.25
#: How often a leader renews, and how long it waits for the answer.
RENEW: Final = 0.75
_ANSWER: Final = 1.5
#: How often the others look.
RETRY: Final = 0.3

log = structlog.get_logger("leader")


class Leader:
    """This replica's part in the election."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        identity: str,
        clock: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.identity = identity
        #: Set while this replica leads, for those who wait for it.
        self.elected = asyncio.Event()
        self.holder = ""
        self._api, self._namespace, self._clock, self._now = api, namespace, clock, now
        self._renewed = float("-inf")
        self._seen: tuple[str, str] | None = None
        self._seen_at = float("-inf")
        #: The Lease as this replica has written it last; None when it must be read first.
        self._lease: dict[str, Any] | None = None
        #: When the Lease runs out if it is not renewed.
        self._free_at = float("inf")

    def leads(self) -> bool:
        """Whether this replica may write at this moment."""
        return self._clock() - self._renewed < RENEW_DEADLINE

    async def run(self) -> None:
        """Takes part until cancelled. A cancelled leader gives the lease back with `release`."""
        failing = ""
        while True:
            try:
                await self._round()
                failing = ""
            except (ApiError, TimeoutError, msgspec.DecodeError) as problem:
                error = problem if str(problem) else "no answer in time"
                self._lease = None
                if str(error) != failing:  # told once, not twice a second
                    log.warning("the lease can't be read or written", error=str(error))
                failing = str(error)
            if not self.leads() and self.elected.is_set():
                log.warning("leadership lost", holder=self.holder)
                self.elected.clear()
            await asyncio.sleep(RENEW if self.leads() else self._pause())

    def _pause(self) -> float:
        """Until the next look; when the Lease runs out before that, until then."""
        left = self._free_at - self._clock()
        usual = RETRY * (0.75 + random.random() / 2)
        return left + 0.01 if 0.0 < left < usual else usual

    async def _round(self) -> None:
        async with asyncio.timeout(_ANSWER):
            if self._lease and self.leads() and await self._attempt(self._api.replace, self._lease, self._clock()):
                return
            await self._look()

    async def _look(self) -> None:
        begun = self._clock()
        try:
            lease = msgspec.json.decode(await self._api.get("Lease", self._namespace, LEASE_NAME))
        except ApiError as error:
            if error.status != 404:
                raise
            lease = None
        if lease is None:
            await self._attempt(self._api.create, None, begun)
            return
        spec = lease.get("spec") or {}
        self.holder = spec.get("holderIdentity") or ""
        version = (self.holder, str(spec.get("renewTime")))
        if version != self._seen:
            # When the answer is there, not when it was asked for: the leader may have renewed in between.
            self._seen, self._seen_at = version, self._clock()
        duration = float(spec.get("leaseDurationSeconds") or DURATION)
        self._free_at = self._seen_at + duration
        if self.holder not in ("", self.identity) and self._clock() < self._free_at:
            return
        await self._attempt(self._api.replace, lease, begun)

    async def _attempt(self, write: Callable[[dict[str, Any]], Awaitable[bytes]], old: Any, begun: float) -> bool:
        """Writes the Lease as this replica's. False: it is not as it was thought to be, another was quicker perhaps."""
        self._lease = None
        try:
            self._lease = msgspec.json.decode(await write(self._record(old)))
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            return False
        self._renewed = begun
        self.holder = self.identity
        if not self.elected.is_set():
            log.info("leading", identity=self.identity)
            self.elected.set()
        return True

    def _record(self, lease: dict[str, Any] | None) -> dict[str, Any]:
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = (lease or {}).get("spec") or {}
        mine = old.get("holderIdentity") == self.identity
        meta = {"name": LEASE_NAME, "namespace": self._namespace}
        if lease:
            meta["resourceVersion"] = lease["metadata"]["resourceVersion"]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": meta,
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": DURATION,
                "acquireTime": old.get("acquireTime") if mine and old.get("acquireTime") else stamp,
                "renewTime": stamp,
                "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if mine or not lease else 1),
            },
        }

    async def release(self) -> None:
        """Gives the lease back, so that another leads at once."""
        if not self.leads():
            return
        self._renewed = float("-inf")
        try:
            lease = msgspec.json.decode(await self._api.get("Lease", self._namespace, LEASE_NAME))
            if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                record = self._record(lease)
                record["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._api.replace(record)
        except ApiError as error:
            log.warning("lease not given back", error=str(error))
