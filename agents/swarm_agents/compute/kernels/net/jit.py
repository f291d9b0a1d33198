"""The compiled loops of the network kernels; imports Numba.

Offsets have been checked by the caller: they lie within the packets and ascend. What a packet says of its own lengths
is held against them here before it is used. Explicit signatures: importing the module compiles it, or loads it from
the cache. The numbers of layers, faults and rows are those of `headers`.
"""

from __future__ import annotations

from numba import int64, njit, types, uint8, uint16, uint64

__all__ = ["checksum", "parse"]

_bytes = types.Array(uint8, 1, "C", readonly=True)
_ints = types.Array(int64, 1, "C", readonly=True)


@njit(types.void(_bytes, _ints, uint16[::1]), cache=True, nogil=True)
def checksum(packets, offsets, out):  # type: ignore[no-untyped-def]
    """The Internet checksum of each packet."""
    for i in range(out.size):
        packet = packets[offsets[i] : offsets[i + 1]]
        words = packet.size // 2
        upper = lower = uint64(0)
        for k in range(words):
            upper += uint64(packet[2 * k])
            lower += uint64(packet[2 * k + 1])
        if packet.size % 2:
            upper += uint64(packet[packet.size - 1])
        total = uint64(256) * upper + lower
        while total > uint64(0xFFFF):
            total = (total & uint64(0xFFFF)) + (total >> uint64(16))
        out[i] = uint16(uint64(0xFFFF) - total)


@njit(int64(_bytes, int64, int64), cache=True, nogil=True)
def _number(packets, at, size):  # type: ignore[no-untyped-def]
    """The big-endian number of `size` bytes from `at`."""
    value = 0
    for k in range(size):
        value = (value << 8) | int64(packets[at + k])
    return value


@njit(types.void(_bytes, _ints, types.Array(int64, 2, "A")), cache=True, nogil=True)
def parse(packets, offsets, out):  # type: ignore[no-untyped-def]
    """Fills a column of `out` in for each packet; they hold zeros before."""
    for i in range(offsets.size - 1):
        start, end = offsets[i], offsets[i + 1]
        if end - start < 14:
            out[1, i] = 1
            continue
        at = start + 14
        ether_type = _number(packets, start + 12, 2)
        layers, vlan, tags = 1, 0, 0
        while tags < 2 and (ether_type == 0x8100 or ether_type == 0x88A8):
            if end - at < 4:
                out[1, i] = 1
                break
            vlan = _number(packets, at, 2) & 0xFFF
            ether_type = _number(packets, at + 2, 2)
            at += 4
            layers |= 2
            tags += 1
        if out[1, i]:
            continue
        out[0, i] = layers
        out[2, i] = _number(packets, start, 6)
        out[3, i] = _number(packets, start + 6, 6)
        out[4, i] = vlan
        out[5, i] = ether_type
        out[19, i] = at
        out[20, i] = end
        if ether_type != 0x0800:
            continue
        if end - at < 20:
            out[1, i] = 2
            continue
        first = int64(packets[at])
        header = 4 * (first & 15)
        if first >> 4 != 4 or header < 20:
            out[1, i] = 3
            continue
        if end - at < header:
            out[1, i] = 2
            continue
        total = _number(packets, at + 2, 2)
        if total < header or total > end - at:
            out[1, i] = 4
            continue
        stop = at + total
        out[0, i] |= 4
        summed = 0
        for k in range(0, header, 2):
            summed += _number(packets, at + k, 2)
        summed = (summed & 0xFFFF) + (summed >> 16)
        summed = (summed & 0xFFFF) + (summed >> 16)
        out[6, i] = 1 if summed == 0xFFFF else 0
        out[7, i] = int64(packets[at + 8])
        protocol = int64(packets[at + 9])
        out[8, i] = protocol
        fragment = _number(packets, at + 6, 2)
        out[9, i] = (fragment >> 13) & 1
        out[10, i] = 8 * (fragment & 0x1FFF)
        out[11, i] = _number(packets, at + 12, 4)
        out[12, i] = _number(packets, at + 16, 4)
        at += header
        out[19, i] = at
        out[20, i] = stop
        if fragment & 0x1FFF:
            continue
        if protocol == 6:
            if stop - at < 20:
                out[1, i] = 5
                continue
            size = 4 * (int64(packets[at + 12]) >> 4)
            if size < 20:
                out[1, i] = 6
                continue
            if stop - at < size:
                out[1, i] = 5
                continue
            out[0, i] |= 8
            out[15, i] = _number(packets, at + 4, 4)
            out[16, i] = _number(packets, at + 8, 4)
            out[17, i] = int64(packets[at + 13])
            out[18, i] = _number(packets, at + 14, 2)
            out[19, i] = at + size
        elif protocol == 17:
            if stop - at < 8:
                out[1, i] = 5
                continue
            stated = _number(packets, at + 4, 2)
            if stated < 8 or (stated > stop - at and not out[9, i]):
                out[1, i] = 6
                continue
            out[0, i] |= 16
            out[19, i] = at + 8
            out[20, i] = min(stop, at + stated)
        else:
            continue
        out[13, i] = _number(packets, at, 2)
        out[14, i] = _number(packets, at + 2, 2)
