"""ChaCha20 against the vectors that RFC 8439 publishes, and against a well-known library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from swarm_agents.compute import registry, team
from swarm_agents.errors import BadArguments

CHACHA = registry.get("crypto.chacha20")
each = pytest.mark.parametrize("implementation", ["numpy", "numba", "threads"])
#: Key, nonce and counter of RFC 8439, 2.3.2 and 2.4.2.
KEY = bytes(range(32))
SUNSCREEN = " ".join(
    (
        "Ladies and Gentlemen of the class of '99: If I could offer you only one",
        "tip for the future, sunscreen would be it.",
    )
).encode()


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "threads", lambda: 3)


def cipher(implementation: str, data: bytes, key: bytes, nonce: str, counter: int) -> bytes:
    args: tuple[Any, ...] = (data, key, bytes.fromhex(nonce))
    return bytes(CHACHA.run(args, {"counter": counter}, implementation=implementation))


@each
def test_the_block_is_that_of_rfc_8439_section_2_3_2(implementation: str) -> None:
    assert cipher(implementation, bytes(64), KEY, "000000090000004a00000000", 1).hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


@each
def test_the_text_is_enciphered_as_in_rfc_8439_section_2_4_2(implementation: str) -> None:
    assert cipher(implementation, SUNSCREEN, KEY, "000000000000004a00000000", 1).hex() == (
        "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b"
        "f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8"
        "07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736"
        "5af90bbf74a35be6b40b8eedf2785e42874d"
    )


@each
@pytest.mark.parametrize(
    ("key", "nonce", "counter", "stream"),
    [
        ("00" * 32, "00" * 12, 0, "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"),
        ("00" * 32, "00" * 12, 1, "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"),
        ("00" * 31 + "01", "00" * 12, 1, "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"),
        ("00ff" + "00" * 30, "00" * 12, 2, "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"),
        ("00" * 32, "00" * 11 + "02", 0, "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c7"),
    ],
)
def test_the_key_streams_are_those_of_rfc_8439_appendix_a_1(
    implementation: str, key: str, nonce: str, counter: int, stream: str
) -> None:
    assert cipher(implementation, bytes(32), bytes.fromhex(key), nonce, counter).hex() == stream


@each
@pytest.mark.usefixtures("three_threads")
def test_every_length_and_place_agrees_with_openssl(implementation: str) -> None:
    rng = np.random.default_rng(5)
    for size in (0, 1, 63, 64, 65, 1023, 1024, 1025, 3 * (1 << 18) + 77):
        data, counter = rng.bytes(size), int(rng.integers(0, 1 << 20))
        openssl = Cipher(ChaCha20(KEY, counter.to_bytes(4, "little") + bytes(range(12))), mode=None).encryptor()
        assert cipher(implementation, data, KEY, bytes(range(12)).hex(), counter) == openssl.update(data)


@each
def test_deciphering_is_enciphering_again(implementation: str) -> None:
    there = cipher(implementation, SUNSCREEN, KEY, "00" * 12, 7)
    assert cipher(implementation, there, KEY, "00" * 12, 7) == SUNSCREEN


@each
def test_a_key_stream_never_begins_anew(implementation: str) -> None:
    last = 2**32 - 1
    assert len(cipher(implementation, bytes(64), KEY, "00" * 12, last)) == 64
    with pytest.raises(BadArguments, match=r"'counter' must leave 2 blocks before 2\*\*32"):
        cipher(implementation, bytes(65), KEY, "00" * 12, last)
