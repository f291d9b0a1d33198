"""Ethernet, IPv4, TCP and UDP headers of many packets, as columns.

Sources: IEEE 802.3 and 802.1Q (frames and their tags); J. Postel, Internet Protocol, RFC 791 (1981), and User Datagram
Protocol, RFC 768 (1980); W. Eddy, Transmission Control Protocol, RFC 9293 (2022). A header is read as far as it goes:
what is wrong with a packet is in `fault`, how far it was read in `layers`, and fields of layers that were not read are
0. Lengths that a packet states are never trusted: they are held against the bytes that there are before anything is
read by them.

The reference reads a field of all packets at once; the compiled form reads packet by packet.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.kernels.net.types import Bytes, Ints, Offsets, Packets, check_offsets, random_packets
from swarm_agents.compute.registry import Call, call, kernel

__all__ = ["FIELDS", "Fault", "Layer", "parse_headers"]

_NAME = "net.parse_headers"


class Layer(IntFlag):
    """What a packet was read as: the bits of `layers`."""

    ETHERNET = 1
    VLAN = 2
    IPV4 = 4
    TCP = 8
    UDP = 16


class Fault(IntEnum):
    """Why a packet was read no further: the values of `fault`. Other protocols than these four are no fault."""

    NONE = 0
    #: Fewer bytes than an Ethernet header and its tags have.
    ETHERNET_TRUNCATED = 1
    #: Fewer bytes than the IPv4 header, options included, has.
    IP_TRUNCATED = 2
    #: Another version than 4, or a header of less than 20 bytes.
    IP_MALFORMED = 3
    #: The IPv4 total length is below its header's, or more than was captured.
    IP_LENGTH = 4
    #: The IPv4 datagram ends within the TCP or UDP header.
    TRANSPORT_TRUNCATED = 5
    #: A TCP header of less than 20 bytes, or a UDP length below 8 or beyond the datagram.
    TRANSPORT_MALFORMED = 6


#: The columns of an answer, in the order of the compiled function's rows.
FIELDS: dict[str, Any] = {
    "layers": np.uint8,
    "fault": np.uint8,
    "destination_mac": np.uint64,
    "source_mac": np.uint64,
    "vlan": np.uint16,
    "ether_type": np.uint16,
    "ip_checksum_valid": np.bool_,
    "time_to_live": np.uint8,
    "protocol": np.uint8,
    "more_fragments": np.bool_,
    "fragment_offset": np.uint16,
    "source_address": np.uint32,
    "destination_address": np.uint32,
    "source_port": np.uint16,
    "destination_port": np.uint16,
    "sequence": np.uint32,
    "acknowledgement": np.uint32,
    "tcp_flags": np.uint8,
    "window": np.uint16,
    "payload_begin": np.int64,
    "payload_end": np.int64,
}


@kernel("net.parse_headers")
def parse_headers(packets: Packets, offsets: Offsets) -> dict[str, Any]:
    """Header fields of each Ethernet frame `packets[offsets[i]:offsets[i + 1]]`, a column [packets] each (`FIELDS`).

    `layers` has a bit for each header that was read (1 Ethernet, 2 802.1Q tag, 4 IPv4, 8 TCP, 16 UDP), `fault` says
    what is wrong (see `Fault`; 0: nothing). MAC addresses are 48-bit numbers, IPv4 addresses 32-bit ones, all in the
    order in which they are written. `vlan` is the inner tag's identifier, `fragment_offset` counts bytes; of fragments
    but the first no TCP or UDP header is read. `payload_begin` and `payload_end` are indices into `packets`: what
    follows the last header that was read; both 0 where not even an Ethernet header was.

    Raises:
        BadArguments: offsets that lie outside the packets, or go backwards.
    """
    count = check_offsets(_NAME, packets, offsets)
    out: dict[str, Any] = {name: np.zeros(count, kind) for name, kind in FIELDS.items()}
    start, end = offsets[:-1], offsets[1:]

    def number(at: Ints, size: int, rows: NDArray[np.bool_]) -> NDArray[np.uint64]:
        """The big-endian number of `size` bytes at each packet's place; 0 where it is not to be read."""
        value = np.zeros(count, np.uint64)
        for k in range(size):
            value[rows] = (value[rows] << np.uint64(8)) | packets[at[rows] + k]
        return value

    def store(name: str, value: Any, rows: NDArray[np.bool_]) -> None:
        out[name][rows] = value[rows].astype(FIELDS[name])

    def mark(layer: Layer, rows: NDArray[np.bool_]) -> None:
        out["layers"][rows] |= np.uint8(layer)

    def fail(rows: NDArray[np.bool_], fault: Fault) -> None:
        out["fault"][rows] = fault

    # Ethernet, and up to two tags
    whole = end - start >= 14
    fail(~whole, Fault.ETHERNET_TRUNCATED)
    ether_type, at = number(start + 12, 2, whole), start + 14
    for _ in range(2):
        tagged = whole & np.isin(ether_type, [0x8100, 0x88A8])
        short = tagged & (end - at < 4)
        fail(short, Fault.ETHERNET_TRUNCATED)
        tagged &= ~short
        whole &= ~short
        store("vlan", number(at, 2, tagged) & np.uint64(0xFFF), tagged)
        ether_type = np.where(tagged, number(at + 2, 2, tagged), ether_type)
        at = at + 4 * tagged
        mark(Layer.VLAN, tagged)
    mark(Layer.ETHERNET, whole)
    out["layers"][~whole] = 0
    out["vlan"][~whole] = 0
    store("destination_mac", number(start, 6, whole), whole)
    store("source_mac", number(start + 6, 6, whole), whole)
    store("ether_type", ether_type, whole)
    store("payload_begin", at, whole)
    store("payload_end", end, whole)

    # IPv4
    ip = whole & (ether_type == 0x0800)
    short = ip & (end - at < 20)
    fail(short, Fault.IP_TRUNCATED)
    ip &= ~short
    first = number(at, 1, ip)
    header = (4 * (first & np.uint64(15))).astype(np.int64)
    wrong = ip & ((first >> np.uint64(4) != 4) | (header < 20))
    fail(wrong, Fault.IP_MALFORMED)
    ip &= ~wrong
    short = ip & (end - at < header)
    fail(short, Fault.IP_TRUNCATED)
    ip &= ~short
    total = number(at + 2, 2, ip).astype(np.int64)
    wrong = ip & ((total < header) | (total > end - at))
    fail(wrong, Fault.IP_LENGTH)
    ip &= ~wrong
    stop = np.where(ip, at + total, end)  # short frames are padded: the datagram may end before the frame
    mark(Layer.IPV4, ip)
    summed = np.zeros(count, np.uint64)
    for k in range(0, 60, 2):
        summed += number(at + k, 2, ip & (k < header))
    for _ in range(2):
        summed = (summed & np.uint64(0xFFFF)) + (summed >> np.uint64(16))
    store("ip_checksum_valid", summed == 0xFFFF, ip)
    store("time_to_live", number(at + 8, 1, ip), ip)
    store("protocol", number(at + 9, 1, ip), ip)
    fragment = number(at + 6, 2, ip)
    store("more_fragments", fragment & np.uint64(0x2000) != 0, ip)
    store("fragment_offset", 8 * (fragment & np.uint64(0x1FFF)), ip)
    store("source_address", number(at + 12, 4, ip), ip)
    store("destination_address", number(at + 16, 4, ip), ip)
    at = at + header * ip
    store("payload_begin", at, ip)
    store("payload_end", stop, ip)

    # TCP and UDP
    opening = ip & (fragment & np.uint64(0x1FFF) == 0)
    for protocol, layer, least in ((6, Layer.TCP, 20), (17, Layer.UDP, 8)):
        rows = opening & (out["protocol"] == protocol)
        short = rows & (stop - at < least)
        fail(short, Fault.TRANSPORT_TRUNCATED)
        rows &= ~short
        if layer is Layer.TCP:
            size = (4 * (number(at + 12, 1, rows) >> np.uint64(4))).astype(np.int64)
            wrong, ends = rows & (size < 20), stop
            short = rows & ~wrong & (stop - at < size)
            fail(short, Fault.TRANSPORT_TRUNCATED)
        else:
            stated = number(at + 4, 2, rows).astype(np.int64)
            # The first of several fragments holds only the beginning of what the UDP length counts.
            beyond = (stated > stop - at) & ~out["more_fragments"]
            size, short = np.full(count, 8), np.zeros(count, bool)
            wrong, ends = rows & ((stated < 8) | beyond), np.minimum(stop, at + stated)
        fail(wrong, Fault.TRANSPORT_MALFORMED)
        rows &= ~short & ~wrong
        mark(layer, rows)
        store("source_port", number(at, 2, rows), rows)
        store("destination_port", number(at + 2, 2, rows), rows)
        if layer is Layer.TCP:
            store("sequence", number(at + 4, 4, rows), rows)
            store("acknowledgement", number(at + 8, 4, rows), rows)
            store("tcp_flags", number(at + 13, 1, rows), rows)
            store("window", number(at + 14, 2, rows), rows)
        store("payload_begin", at + size, rows)
        store("payload_end", ends, rows)
    return out


def _random_frame(rng: np.random.Generator) -> bytes:
    """A frame that is well formed, but for what `spoil` does to some bytes of it, or cut somewhere."""
    tcp = bool(rng.integers(2))
    options, more = 4 * int(rng.integers(0, 3)), 4 * int(rng.integers(0, 3))
    body = rng.bytes(int(rng.integers(0, 40)))
    ports = rng.bytes(4)
    if tcp:
        transport = ports + rng.bytes(8) + bytes([(5 + more // 4) << 4]) + rng.bytes(7 + more) + body
    else:
        transport = ports + (8 + len(body)).to_bytes(2, "big") + rng.bytes(2) + body
    total = 20 + options + len(transport)
    fragment = int(rng.choice([0, 0, 0, 0x4000, 0x2000, 7]))
    ip = bytes([0x45 + options // 4, 0]) + total.to_bytes(2, "big") + rng.bytes(2) + fragment.to_bytes(2, "big")
    ip += bytes([64, 6 if tcp else 17]) + rng.bytes(10 + options)
    tags = b"".join(kind + rng.bytes(2) for kind in (b"\x88\xa8", b"\x81\x00")[: int(rng.integers(0, 3))])
    frame = bytearray(rng.bytes(12) + tags + b"\x08\x00" + ip + transport + bytes(int(rng.integers(0, 6))))
    if rng.random() < 0.3:
        frame[int(rng.integers(12, len(frame)))] = int(rng.integers(256))
    return bytes(frame[: int(rng.integers(0, len(frame) + 1))] if rng.random() < 0.3 else frame)


@parse_headers.memory
def _(packets: Any, offsets: Any, **_: Any) -> float:
    return float(2.0 * len(packets) + 400.0 * len(offsets))


@parse_headers.samples
def _(rng: np.random.Generator) -> Call:
    frames = [_random_frame(rng) for _ in range(int(rng.integers(1, 60)))]
    packets, offsets = random_packets(rng, np.array([len(frame) for frame in frames]))
    packets[offsets[0] : offsets[-1]] = np.frombuffer(b"".join(frames), np.uint8)
    return call(packets, offsets)


@parse_headers.implementation("threads", parallel=True, default=False)
def _(packets: Bytes, offsets: Ints) -> dict[str, Any]:
    from swarm_agents.compute.kernels.net import jit

    count = check_offsets(_NAME, packets, offsets)
    columns = np.zeros((len(FIELDS), count), np.int64)

    def part(begin: int, end: int) -> None:
        jit.parse(packets, offsets[begin : end + 1], columns[:, begin:end])

    team.run(part, team.pieces(count, least=1 << 12))
    return _narrowed(columns)


@parse_headers.implementation("numba")
def _(packets: Bytes, offsets: Ints) -> dict[str, Any]:
    from swarm_agents.compute.kernels.net import jit

    columns = np.zeros((len(FIELDS), check_offsets(_NAME, packets, offsets)), np.int64)
    jit.parse(packets, offsets, columns)
    return _narrowed(columns)


def _narrowed(columns: Ints) -> dict[str, Any]:
    return {name: column.astype(kind) for (name, kind), column in zip(FIELDS.items(), columns, strict=True)}
