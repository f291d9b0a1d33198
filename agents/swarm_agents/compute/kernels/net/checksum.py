"""The Internet checksum of many packets: what IPv4, ICMP, UDP and TCP carry.

The 16-bit ones' complement of the ones' complement sum of all 16-bit words, in network byte order; an odd last byte is
followed by a zero. Source: R. Braden, D. Borman and C. Partridge, Computing the Internet checksum, RFC 1071 (1988),
whose section 2 says why the carries may wait until the end: the compiled form adds even and odd bytes in vector
registers and folds once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.kernels.net.types import Bytes, Ints, Offsets, Packets, check_offsets, random_packets
from swarm_agents.compute.registry import Call, call, kernel

__all__ = ["checksum"]

_NAME = "net.checksum"


@kernel("net.checksum")
def checksum(packets: Packets, offsets: Offsets) -> NDArray[np.uint16]:
    """The Internet checksum (RFC 1071) of each packet `packets[offsets[i]:offsets[i + 1]]`: uint16 [packets].

    What a sender writes where the checksum belongs (first byte: the upper one), having taken it as 0. Of a header that
    holds its right checksum it is 0. That of an empty packet is 0xFFFF.

    Raises:
        BadArguments: offsets that lie outside the packets, or go backwards.
    """
    out = np.empty(check_offsets(_NAME, packets, offsets), np.uint16)
    for i, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        packet = packets[begin:end]
        total = 256 * int(packet[::2].sum(dtype=np.int64)) + int(packet[1::2].sum(dtype=np.int64))
        while total > 0xFFFF:
            total = (total & 0xFFFF) + (total >> 16)
        out[i] = 0xFFFF - total
    return out


@checksum.memory
def _(packets: Any, offsets: Any, **_: Any) -> float:
    return float(8.0 * len(packets) + 64.0 * len(offsets))


@checksum.samples
def _(rng: np.random.Generator) -> Call:
    return call(*random_packets(rng, rng.integers(0, 1600, int(rng.integers(1, 40)))))


@checksum.implementation("threads", parallel=True, default=False)
def _(packets: Bytes, offsets: Ints) -> NDArray[np.uint16]:
    from swarm_agents.compute.kernels.net import jit

    count = check_offsets(_NAME, packets, offsets)
    out = np.empty(count, np.uint16)
    # pieces of about as many bytes, whatever the packets' sizes
    edges = np.searchsorted(offsets, [offsets[0] + begin for begin, _ in _bytes(offsets)]).tolist()
    ranges = list(zip(edges, [*edges[1:], count], strict=True))

    def part(begin: int, end: int) -> None:
        jit.checksum(packets, offsets[begin : end + 1], out[begin:end])

    team.run(part, ranges)
    return out


def _bytes(offsets: Ints) -> list[tuple[int, int]]:
    return team.pieces(int(offsets[-1] - offsets[0]), least=1 << 17)


@checksum.implementation("numba")
def _(packets: Bytes, offsets: Ints) -> NDArray[np.uint16]:
    from swarm_agents.compute.kernels.net import jit

    out = np.empty(check_offsets(_NAME, packets, offsets), np.uint16)
    jit.checksum(packets, offsets, out)
    return out
