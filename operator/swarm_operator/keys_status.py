"""What the status says of a swarm's keys: their fingerprint and age, and how far their renewal is. Pure.

Fingerprints and times alone; and times of day, not ages, so that a quiet swarm's status stays as it is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from swarm_operator.actions import Plan
from swarm_operator.api.fields import seconds
from swarm_operator.keyrecord import Stage
from swarm_operator.snapshot import Snapshot

__all__ = ["KEYS_RENEWING", "keys_block", "keys_condition"]

KEYS_RENEWING: Final = "KeysRenewing"
#: Reasons beside the stages' names.
NO_KEYS: Final = "NoKeys"
NOT_RENEWING: Final = "KeysHold"
_NAMED: Final = 3

_TEXT: Final = {
    Stage.OFFERED: "The next keys {next} are in the Secret; each hub takes them beside {now} as soon as its node's "
    "kubelet has brought them (about a minute)",
    Stage.OVERLAPPING: "Keys {now} and {next} are both taken, for security.keyOverlap at least: give the new ones to "
    "clients outside (`swarm connection`)",
    Stage.ENDING: "Keys {now} hold; each hub ends the old ones as soon as its node's kubelet has brought the Secret",
    Stage.RETURNING: "Keys {now} hold, the old ones are refused; everybody goes back to the hubs' own port",
}


def keys_block(snapshot: Snapshot) -> dict[str, Any]:
    """The status' `keys`; nothing before there are any."""
    keys = snapshot.keys
    if keys.record is None or not keys.fingerprint:
        return {}
    # All of the fields, also those that say nothing: the API server fills its defaults in, and what it shows is
    # compared with what is wanted, so that an operator that is started anew writes nothing.
    return {
        "keys": {
            "fingerprint": keys.fingerprint,
            "nextFingerprint": keys.next_fingerprint,
            "madeAt": _stamp(keys.record.made),
            "renewals": keys.record.count,
            "stage": str(keys.record.stage),
        }
    }


def keys_condition(snapshot: Snapshot, plan: Plan) -> tuple[str, str, str, str]:
    """Whether keys are being renewed: type, status, reason, message."""
    keys, spec = snapshot.keys, snapshot.spec
    if keys.record is None or not keys.fingerprint:
        return KEYS_RENEWING, "Unknown", NO_KEYS, "The Secret with the keys is not there, or not whole."
    text = _TEXT.get(keys.stage)
    if text is None:
        period = spec.security.key_rotation if spec else None
        due = f", due {_stamp(keys.record.made + seconds(period))}" if period else ""
        message = f"Keys {keys.fingerprint} hold since {_stamp(keys.record.made)}{due}."
        return KEYS_RENEWING, "False", NOT_RENEWING, message
    message = text.format(now=keys.fingerprint, next=keys.next_fingerprint)
    late = plan.turn.waiting if plan.turn else ()
    if late:
        more = f" and {len(late) - _NAMED} more" if len(late) > _NAMED else ""
        message += f". Waiting for {', '.join(late[:_NAMED])}{more}"
    return KEYS_RENEWING, "True", str(keys.stage), f"{message}."


def _stamp(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
