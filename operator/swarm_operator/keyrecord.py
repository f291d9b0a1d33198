"""What is known of a swarm's keys without knowing a secret: fingerprints, ages, and the stage of their renewal.

The record is one entry of the Secret's data, so that it changes together with the keys, and comes back with them when
somebody deletes the Secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

__all__ = ["KEY_NAMES", "NEXT_NAMES", "RECORD", "KeyState", "Record", "Stage", "read_record", "write_record"]

#: The Secret's keys, which the agents read as files.
KEY_NAMES: Final = ("hub.public", "hub.secret", "client.public", "client.secret", "token")
#: Those that follow them, while they are being renewed.
NEXT_NAMES: Final = ("next.hub.public", "next.hub.secret", "next.client.public", "next.client.secret")
#: The entry that keeps the record.
RECORD: Final = "rotation"


class Stage(StrEnum):
    """See `rotation`."""

    STEADY = "Steady"
    OFFERED = "Offered"
    OVERLAPPING = "Overlapping"
    ENDING = "Ending"
    RETURNING = "Returning"

    @property
    def has_next(self) -> bool:
        """Whether the Secret holds a next set of keys."""
        return self in (Stage.OFFERED, Stage.OVERLAPPING)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Times are in whole seconds since the epoch."""

    #: When the keys that hold became so.
    made: int
    stage: Stage = Stage.STEADY
    #: Since when it is in this stage.
    since: int = 0
    #: A digest of the request that was carried out last, or is being carried out.
    asked: str = ""
    #: How many renewals are complete.
    count: int = 0


def read_record(text: str) -> Record | None:
    """A record from the Secret's data; None where there is none, or none that can be read."""
    try:
        return msgspec.json.decode(text, type=Record)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


def write_record(record: Record) -> str:
    """As it stands in the Secret's data."""
    return msgspec.json.encode(record).decode()


@dataclass(frozen=True)
class KeyState:
    """The Secret's content, examined. The secrets themselves stay out of plans and logs."""

    #: Which of `KEY_NAMES` are missing, malformed, or do not belong to their other half; of `NEXT_NAMES` while they
    #: are needed; and the record.
    missing: tuple[str, ...] = KEY_NAMES
    #: The hubs' CURVE public key (Z85), empty when it is missing.
    hub_public: str = ""
    #: By what these keys are known.
    fingerprint: str = ""
    next_hub_public: str = ""
    next_fingerprint: str = ""
    #: None where nothing is known of their renewal.
    record: Record | None = None

    @property
    def stage(self) -> Stage:
        """The stage that they are in."""
        return self.record.stage if self.record else Stage.STEADY
