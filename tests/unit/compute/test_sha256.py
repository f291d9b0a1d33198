"""SHA-256 trees against published vectors, and against a recursion written from the RFC's definition."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swarm_agents.compute import registry, team
from swarm_agents.compute.kernels import sha256
from swarm_agents.compute.kernels.sha256 import merkle_root

TREE = registry.get("hash.sha256_tree")

#: The leaves and roots with which Certificate Transparency's implementations test their trees (RFC 6962).
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + by_definition(leaves[:k]) + by_definition(leaves[k:])).digest()


@pytest.mark.parametrize("count", range(len(ROOTS)))
def test_the_roots_are_those_of_certificate_transparency(count: int) -> None:
    assert merkle_root(LEAVES[:count]).hex() == ROOTS[count]


@pytest.mark.parametrize("implementation", list(TREE.implementations))
@settings(deadline=None)
@given(data=st.binary(max_size=700), leaf=st.integers(1, 130))
@example(b"", 1)
@example(bytes(range(256)) * 3, 64)
@example(bytes(17 * 55), 55)
@example(bytes(17 * 56), 56)
@example(bytes(33 * 119), 119)
def test_the_kernel_gives_the_root_of_the_definition(implementation: str, data: bytes, leaf: int) -> None:
    leaves = [data[at : at + leaf] for at in range(0, len(data), leaf)]
    got = TREE.run((data,), {"leaf": leaf}, implementation=implementation)
    assert got == by_definition(leaves)


def test_a_changed_bit_anywhere_changes_the_root() -> None:
    data = np.arange(4096, dtype=np.uint32).view(np.uint8)
    root = TREE(data, leaf=256)
    for at in (0, 255, 256, 9000, data.size - 1):
        changed = data.copy()
        changed[at] ^= 1
        assert TREE(changed, leaf=256) != root


@pytest.mark.parametrize("implementation", list(TREE.implementations))
def test_a_single_leaf_is_the_sha_256_of_the_standard_behind_a_zero_byte(implementation: str) -> None:
    """FIPS 180-4's example "abc", and its example of two blocks, as the leaf 0x00 ‖ text."""
    for text in (b"abc", b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"):
        got = TREE.run((text,), implementation=implementation)
        assert got == hashlib.sha256(b"\x00" + text).digest()
    assert hashlib.sha256(b"abc").hexdigest() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("implementation", list(TREE.implementations))
def test_the_tree_hash_of_nothing_and_of_an_empty_leaf_differ_as_rfc_6962_says(implementation: str) -> None:
    nothing = TREE.run((b"",), implementation=implementation)
    assert nothing.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    zero = TREE.run((b"\x00",), implementation=implementation)
    assert zero.hex() == hashlib.sha256(b"\x00\x00").hexdigest()


@pytest.mark.parametrize("leaf", [64, 1000, 4096])
@pytest.mark.parametrize("leaves", [1, 2, 3, 511, 513, 700])
def test_subtrees_on_threads_grow_into_the_same_tree(leaf: int, leaves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sha256, "_LEAST", 1000)
    monkeypatch.setattr(team, "threads", lambda: 3)
    data = np.random.default_rng(leaf).integers(0, 256, leaf * leaves - leaf // 3, dtype=np.uint8)
    got = TREE.run((data,), {"leaf": leaf}, implementation="threads")
    assert got == TREE.run((data,), {"leaf": leaf}, implementation="numpy")


def test_roots_of_pieces_are_nodes_of_the_whole() -> None:
    data = np.random.default_rng(1).integers(0, 256, 8 * 100, dtype=np.uint8)
    left, right = TREE(data[:400], leaf=100), TREE(data[400:], leaf=100)
    assert TREE(data, leaf=100) == hashlib.sha256(b"\x01" + left + right).digest()


def test_the_compiled_tree_holds_no_gil() -> None:
    from swarm_agents.compute.kernels import sha256_jit

    assert sha256_jit.tree.targetoptions["nogil"] is True


def test_the_constants_are_those_of_the_standard() -> None:
    from swarm_agents.compute.kernels import sha256_jit

    assert [hex(int(k)) for k in sha256_jit._K[[0, 1, 63]]] == ["0x428a2f98", "0x71374491", "0xc67178f2"]
    assert [hex(int(h)) for h in sha256_jit._H[[0, 7]]] == ["0x6a09e667", "0x5be0cd19"]
