"""By which keys, and at which of the swarm's addresses, a client connects while the keys are renewed.

The settings name the hubs' addresses with the key of each. As soon as one of them has the next key, all hubs take the
next keys, and a client uses those alone: the old ones end before long. Each hub's own port is named as well, where it
will have the new key when the renewal is over, so that a connection file written meanwhile stays good.
"""

from __future__ import annotations

import msgspec

from swarm_agents.config import Hub, Settings, second_port
from swarm_agents.wire.keys import Keys

__all__ = ["keys_in_use"]


def keys_in_use(settings: Settings, keys: Keys) -> tuple[Keys, tuple[Hub, ...]]:
    """The set of keys to use at present, and the hubs, those first that serve it already."""
    announced = {hub.public_key for hub in settings.hubs}
    chosen = keys.next if keys.next is not None and keys.next.hub_public in announced else keys
    # one with a key that belongs to neither set has it for a reason of its own
    hubs = [hub for hub in settings.hubs if chosen is keys or hub.public_key != keys.hub_public]
    named = {hub.address for hub in hubs}
    main, second = (f":{port}" for port in (settings.transport.hub_port, second_port(settings.transport)))
    for hub in settings.hubs:
        address = hub.address.removesuffix(second) + main if hub.address.endswith(second) else hub.address
        if address and address not in named:
            named.add(address)
            hubs.append(msgspec.structs.replace(hub, address=address, public_key=chosen.hub_public))
    return chosen, tuple(hubs)
