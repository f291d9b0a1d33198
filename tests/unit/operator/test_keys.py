"""Keys are made whole, kept while valid, and repaired one by one."""

from __future__ import annotations

import pytest

from swarm_operator.keys import KeyMemory, complete, examine
from swarm_operator.snapshot import KEY_NAMES

WHOLE = complete({}, {})
OTHER = complete({}, {})["hub.secret"]


def test_new_keys_are_whole_and_different_each_time() -> None:
    assert set(WHOLE) == set(KEY_NAMES)
    assert examine(WHOLE).missing == ()
    assert examine(WHOLE).hub_public == WHOLE["hub.public"]
    assert complete({}, {})["hub.secret"] != WHOLE["hub.secret"]


def test_what_is_whole_is_left_alone() -> None:
    assert complete(WHOLE, {}) == WHOLE


@pytest.mark.parametrize("name", KEY_NAMES)
@pytest.mark.parametrize("value", ["", "short", "ä" * 40, OTHER], ids=["empty", "short", "not ASCII", "another"])
def test_a_damaged_key_is_noticed_and_repaired(name: str, value: str) -> None:
    damaged = {**WHOLE, name: value}
    if name.endswith("secret") and len(value) == 40 and value.isascii():
        # a valid secret that is another one: its public key is what no longer fits
        assert examine(damaged).missing == (name.replace("secret", "public"),)
    elif name == "token" and len(value) == 40 and not examine(damaged).missing:
        return  # a valid token is a rotation, and accepted
    else:
        assert name in examine(damaged).missing
    repaired = complete(damaged, {})
    assert examine(repaired).missing == ()
    untouched = [key for key in KEY_NAMES if key.split(".")[0] != name.split(".")[0]]
    assert {key: repaired[key] for key in untouched} == {key: WHOLE[key] for key in untouched}


def test_a_public_key_is_derived_from_its_secret() -> None:
    assert complete({**WHOLE, "hub.public": "x"}, {}) == WHOLE


def test_what_was_remembered_is_given_back() -> None:
    memory = KeyMemory()
    memory.remember("uid", WHOLE)
    assert complete({}, memory.of("uid")) == WHOLE
    memory.forget("uid")
    assert memory.of("uid") == {}


def test_further_keys_are_dropped() -> None:
    assert "more" not in complete({**WHOLE, "more": "x"}, {})
