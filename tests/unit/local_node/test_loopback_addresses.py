"""Loopback addresses: each once, free, and given back."""

from __future__ import annotations

import socket

import pytest

from swarm_deploy.local.addresses import AddressPool, NoAddressError, claim_block, taken


def test_two_clusters_never_have_the_same_block() -> None:
    first, one = claim_block("a", 0)
    second, two = claim_block("a", 0)
    with one, two:
        assert first != second
        assert first.startswith("127.")
    again, three = claim_block("b", 7, preferred=first)
    with three:
        assert again == first


def test_an_address_is_given_once_and_not_again_at_once_after_its_return() -> None:
    pool = AddressPool("127.77.1")
    first, second = pool.take("a"), pool.take("b")
    assert len({first, second, pool.node}) == 3
    pool.release(first, "a")
    assert pool.take("c") not in (first, second)
    assert pool.take("d", preferred=first) == first


def test_only_its_owner_gives_an_address_back() -> None:
    pool = AddressPool("127.77.2")
    address = pool.take("a")
    pool.release(address, "b")
    assert pool.take("c", preferred=address) != address


def test_all_addresses_can_be_had_and_then_it_is_said_that_there_are_none() -> None:
    pool = AddressPool("127.77.3")
    assert len({pool.take(str(n)) for n in range(253)}) == 253
    with pytest.raises(NoAddressError, match="all 253 addresses"):
        pool.take("one more")


def test_an_address_on_which_a_port_is_taken_is_passed_over() -> None:
    pool = AddressPool("127.77.4")
    with socket.socket() as listener:
        listener.bind(("127.77.4.2", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert taken("127.77.4.2", [port]) == [port]
        assert pool.take("a", [port]) == "127.77.4.3"


def test_a_port_that_is_taken_everywhere_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(NoAddressError, match=rf"port {port} .* 0\.0\.0\.0"):
            AddressPool("127.77.5").take("a", [port])
