"""Checksums and headers of packets: published examples, frames written out by hand, and hostile ones."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.kernelkit import assert_same
from swarm_agents.compute import registry, team
from swarm_agents.compute.kernels.net.headers import Fault, Layer
from swarm_agents.errors import BadArguments

CHECKSUM, PARSE = registry.get("net.checksum"), registry.get("net.parse_headers")
each = pytest.mark.parametrize("implementation", ["numpy", "numba", "threads"])
#: The IPv4 header of a datagram on the wire, checksum B1E6 included.
HEADER = bytes.fromhex("45000073000040004011b861c0a80001c0a800c7")


def packed(*packets: bytes) -> tuple[np.ndarray, np.ndarray]:
    edges = np.concatenate([[0], np.cumsum([len(p) for p in packets])]).astype(np.int64)
    return np.frombuffer(b"".join(packets) + b"\xff" * 3, np.uint8), edges


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "threads", lambda: 3)


# -- checksums


@each
def test_the_checksum_of_rfc_1071s_example_is_220d(implementation: str) -> None:
    """Section 3 sums these bytes to DDF2."""
    got = CHECKSUM.run(packed(bytes.fromhex("0001f203f4f5f6f7")), implementation=implementation)
    assert got.dtype == np.uint16
    assert [hex(v) for v in got.tolist()] == ["0x220d"]


@each
def test_a_header_with_its_checksum_sums_to_zero_and_without_it_gives_it(implementation: str) -> None:
    without = HEADER[:10] + b"\0\0" + HEADER[12:]
    got = CHECKSUM.run(packed(HEADER, without), implementation=implementation)
    assert got.tolist() == [0, 0xB861]


@each
def test_odd_and_empty_packets_are_padded_with_zero(implementation: str) -> None:
    got = CHECKSUM.run(packed(b"", b"\x12", b"\x12\x00", b"\xff\xff\x01"), implementation=implementation)
    assert got.tolist() == [0xFFFF, 0xEDFF, 0xEDFF, 0xFEFF]


@each
def test_a_million_bytes_do_not_overflow_the_sum(implementation: str) -> None:
    packets = (b"\xff" * 1_000_001, b"\xff\xfe" * 300_000)
    expected = []
    for packet in packets:
        total = sum(struct.unpack(f">{(len(packet) + 1) // 2}H", packet + b"\0" * (len(packet) % 2)))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        expected.append(0xFFFF - total)
    assert CHECKSUM.run(packed(*packets), implementation=implementation).tolist() == expected


@pytest.mark.parametrize("kernel", [CHECKSUM, PARSE])
@pytest.mark.parametrize(
    ("offsets", "what"),
    [
        ([-1, 4], "must lie from 0 to 8"),
        ([0, 9], "must lie from 0 to 8"),
        ([0, 2**62], "must lie from 0 to 8"),
        ([0, 5, 3, 8], "must not go backwards: got 5, then 3 at index 2"),
        ([0, 2**62, 8], "must not go backwards"),
        ([0, -(2**63), 8], "must not go backwards"),
    ],
)
def test_offsets_that_lead_outside_or_backwards_are_refused(
    kernel: registry.Kernel, offsets: list[int], what: str
) -> None:
    for implementation in kernel.implementations:
        with pytest.raises(BadArguments, match=f"kernel {kernel.name} argument 'offsets' {what}"):
            kernel.run((np.zeros(8, np.uint8), np.array(offsets)), implementation=implementation)


@each
def test_no_packets_at_all_give_empty_columns(implementation: str) -> None:
    none = np.zeros(8, np.uint8), np.array([3])
    assert CHECKSUM.run(none, implementation=implementation).shape == (0,)
    assert all(column.shape == (0,) for column in PARSE.run(none, implementation=implementation).values())


# -- headers

MACS = bytes.fromhex("0a1b2c3d4e5f 6a7b8c9dae0f")


def ipv4(
    body: bytes, protocol: int, *, first: int = 0x45, fragment: int = 0, total: int | None = None, options: bytes = b""
) -> bytes:
    length = 20 + len(options) + len(body) if total is None else total
    head = struct.pack(">BBHHHBBH4s4s", first, 0, length, 7, fragment, 61, protocol, 0, b"\x0a\0\0\1", b"\xc0\xa8\1\2")
    head += options
    value = int(CHECKSUM(*packed(head))[0])
    return head[:10] + value.to_bytes(2, "big") + head[12:] + body


def tcp(body: bytes = b"", words: int = 5) -> bytes:
    return struct.pack(">HHIIBBHHH", 443, 51000, 0x01020304, 0xA0B0C0D0, words << 4, 0x12, 8192, 0, 0) + body


def udp(body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack(">HHHH", 53, 5353, 8 + len(body) if length is None else length, 0) + body


def ethernet(body: bytes, kind: str = "0800", tags: str = "") -> bytes:
    return MACS + bytes.fromhex(tags + kind) + body


def parse(implementation: str, *frames: bytes) -> dict[str, Any]:
    found: dict[str, Any] = PARSE.run(packed(*frames), implementation=implementation)
    return found


@each
def test_every_field_of_a_tcp_frame_is_read(implementation: str) -> None:
    frame = ethernet(ipv4(tcp(b"hello", 6)[:20] + b"\1\1\1\0" + b"hello", 6, options=b"\1\1\1\0", first=0x46))
    got = {name: column.tolist()[0] for name, column in parse(implementation, frame).items()}
    assert got == {
        "layers": Layer.ETHERNET | Layer.IPV4 | Layer.TCP,
        "fault": Fault.NONE,
        "destination_mac": 0x0A1B2C3D4E5F,
        "source_mac": 0x6A7B8C9DAE0F,
        "vlan": 0,
        "ether_type": 0x0800,
        "ip_checksum_valid": True,
        "time_to_live": 61,
        "protocol": 6,
        "more_fragments": False,
        "fragment_offset": 0,
        "source_address": 0x0A000001,
        "destination_address": 0xC0A80102,
        "source_port": 443,
        "destination_port": 51000,
        "sequence": 0x01020304,
        "acknowledgement": 0xA0B0C0D0,
        "tcp_flags": 0x12,
        "window": 8192,
        "payload_begin": 14 + 24 + 24,
        "payload_end": 14 + 24 + 24 + 5,
    }


@each
def test_tags_padding_and_udp_are_read(implementation: str) -> None:
    tagged = ethernet(ipv4(udp(b"abc"), 17) + b"\0" * 15, tags="88a80064810020c8")
    got = parse(implementation, tagged)
    assert got["layers"][0] == Layer.ETHERNET | Layer.VLAN | Layer.IPV4 | Layer.UDP
    assert (got["vlan"][0], got["source_port"][0], got["destination_port"][0]) == (0xC8, 53, 5353)
    assert bytes(tagged[got["payload_begin"][0] : got["payload_end"][0]]) == b"abc"
    assert got["fault"][0] == Fault.NONE


@each
@pytest.mark.parametrize(
    ("frame", "fault", "layers"),
    [
        (b"", Fault.ETHERNET_TRUNCATED, 0),
        (MACS + b"\x08", Fault.ETHERNET_TRUNCATED, 0),
        (MACS + bytes.fromhex("810000"), Fault.ETHERNET_TRUNCATED, 0),
        (ethernet(b"x" * 40, "86dd"), Fault.NONE, 1),
        (ethernet(ipv4(b"", 1)), Fault.NONE, 5),
        (ethernet(b""), Fault.IP_TRUNCATED, 1),
        (ethernet(ipv4(b"", 6)[:19]), Fault.IP_TRUNCATED, 1),
        (ethernet(ipv4(b"", 6, first=0x65)), Fault.IP_MALFORMED, 1),
        (ethernet(ipv4(b"", 6, first=0x44)), Fault.IP_MALFORMED, 1),
        (ethernet(ipv4(b"", 6, first=0x4F)), Fault.IP_TRUNCATED, 1),
        (ethernet(ipv4(b"", 6, total=65535)), Fault.IP_LENGTH, 1),
        (ethernet(ipv4(tcp(), 6, total=0)), Fault.IP_LENGTH, 1),
        (ethernet(ipv4(tcp()[:19], 6)), Fault.TRANSPORT_TRUNCATED, 5),
        (ethernet(ipv4(tcp(words=6), 6)), Fault.TRANSPORT_TRUNCATED, 5),
        (ethernet(ipv4(tcp(words=4), 6)), Fault.TRANSPORT_MALFORMED, 5),
        (ethernet(ipv4(tcp(), 6, total=30) + b"\0" * 40), Fault.TRANSPORT_TRUNCATED, 5),
        (ethernet(ipv4(udp()[:7], 17)), Fault.TRANSPORT_TRUNCATED, 5),
        (ethernet(ipv4(udp(length=7), 17)), Fault.TRANSPORT_MALFORMED, 5),
        (ethernet(ipv4(udp(length=9), 17)), Fault.TRANSPORT_MALFORMED, 5),
        (ethernet(ipv4(udp(b"x" * 8, length=999), 17, fragment=0x2000)), Fault.NONE, 21),
        (ethernet(ipv4(b"no header", 17, fragment=0x0005)), Fault.NONE, 5),
    ],
    ids=lambda value: f"{len(value)}_bytes" if isinstance(value, bytes) else str(int(value)),
)
def test_what_is_wrong_with_a_packet_is_said(frame: bytes, fault: Fault, layers: int, implementation: str) -> None:
    """Between two good ones, so that a read beyond its end would find something."""
    good = ethernet(ipv4(tcp(b"data"), 6))
    got = parse(implementation, good, frame, good)
    assert got["fault"].tolist() == [0, fault, 0]
    assert got["layers"].tolist() == [13, layers, 13]
    begin, end = int(got["payload_begin"][1]), int(got["payload_end"][1])
    assert len(good) <= begin <= end <= len(good) + len(frame) or (begin, end) == (0, 0)


@each
def test_a_spoiled_header_has_no_valid_checksum(implementation: str) -> None:
    good = ethernet(ipv4(udp(), 17))
    bad = good[:22] + b"\x05" + good[23:]
    assert parse(implementation, good, bad)["ip_checksum_valid"].tolist() == [True, False]


@settings(max_examples=80, deadline=None)
@given(frames=st.lists(st.binary(max_size=90).map(lambda tail: MACS + b"\x08\x00\x45" + tail), max_size=20))
def test_all_implementations_read_arbitrary_bytes_alike(frames: list[bytes]) -> None:
    arguments = packed(*frames)
    expected = PARSE.run(arguments, implementation="numpy")
    for implementation in ("numba", "threads"):
        assert_same(expected, PARSE.run(arguments, implementation=implementation), 0.0)


def test_a_packets_fields_do_not_depend_on_its_neighbours() -> None:
    """Cut at every length, in a buffer that ends with it, and with other bytes behind it."""
    frame = ethernet(ipv4(tcp(b"payload", 5), 6))
    cuts = [frame[:k] for k in range(len(frame) + 1)]
    together = PARSE(*packed(*cuts))
    for k, cut in enumerate(cuts[1:], 1):
        alone = PARSE(np.frombuffer(cut, np.uint8), np.array([0, k]))
        for name, column in alone.items():
            if not name.startswith("payload"):
                assert column[0] == together[name][k], (name, k)
