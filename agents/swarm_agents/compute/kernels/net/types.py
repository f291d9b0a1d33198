"""What the network kernels share: packets in one buffer, and the check of where they begin and end."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute.signature import Dims
from swarm_agents.errors import BadArguments

__all__ = ["Bytes", "Ints", "Offsets", "Packets", "check_offsets", "random_packets"]

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
#: The packets' bytes, one packet behind the other.
Packets = Annotated[Bytes, Dims("bytes")]
#: Where each packet begins, and last where the last one ends.
Offsets = Annotated[Ints, Dims("packets+1")]


def check_offsets(kernel: str, packets: Bytes, offsets: Ints) -> int:
    """How many packets there are.

    Raises:
        BadArguments: offsets that lie outside the buffer or go backwards.
    """
    if offsets[0] < 0 or offsets[-1] > packets.size:
        raise BadArguments(
            f"kernel {kernel} argument 'offsets' must lie from 0 to {packets.size}, the number of bytes: "
            f"got {offsets[0]} to {offsets[-1]}"
        )
    back = np.flatnonzero(offsets[1:] < offsets[:-1])
    if back.size:
        at = int(back[0])
        raise BadArguments(
            f"kernel {kernel} argument 'offsets' must not go backwards: got {offsets[at]}, then {offsets[at + 1]} "
            f"at index {at + 1}"
        )
    return offsets.size - 1


def random_packets(rng: np.random.Generator, sizes: Ints) -> tuple[Bytes, Ints]:
    """Packets of random bytes with these sizes, behind and before bytes that belong to none."""
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64) + 5
    return rng.integers(0, 256, int(offsets[-1]) + 3, dtype=np.uint8), offsets
