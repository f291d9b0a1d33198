"""A seed says what a run of chaos does: which faults, when, and how words choose among them."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from swarm_deploy.chaos.faults import KINDS, FaultError, choose, schedule, weigh

ALL = {name: kind.weight for name, kind in KINDS.items()}


def test_a_seed_draws_the_same_faults_again_and_another_seed_draws_others() -> None:
    assert schedule(7, 300, ALL) == schedule(7, 300, ALL)
    assert schedule(7, 300, ALL) != schedule(8, 300, ALL)


def test_every_kind_comes_once_before_any_comes_by_its_weight() -> None:
    faults = schedule(3, 3600, ALL)
    for wide in (False, True):
        strand = [fault.kind for fault in faults if KINDS[fault.kind].wide == wide]
        kinds = [name for name, kind in KINDS.items() if kind.wide == wide]
        assert sorted(strand[: len(kinds)]) == sorted(kinds)


@pytest.mark.parametrize("seed", range(20))
def test_two_wide_faults_are_never_on_at_once_and_none_outlasts_the_run(seed: int) -> None:
    wide = [fault for fault in schedule(seed, 600, ALL) if KINDS[fault.kind].wide]
    for before, after in itertools.pairwise(wide):
        rest = KINDS[before.kind].rest
        assert rest is not None
        assert after.at >= before.at + before.lasts + 0.7 * rest
    assert all(fault.at + fault.lasts < 600 for fault in wide)


def test_faults_come_as_often_as_was_asked_for_and_by_their_weights() -> None:
    drawn = Counter(fault.kind for fault in schedule(1, 20_000, {"kill-agent": 3.0, "kill-hub": 1.0}, every=2.0))
    assert 9_000 < drawn.total() < 11_500
    assert 2.5 < drawn["kill-agent"] / drawn["kill-hub"] < 3.5


def test_words_name_kinds_and_groups_and_no_words_name_all() -> None:
    assert choose(["kill-hub"]) == ["kill-hub"]
    assert choose(["partition", "hub"]) == ["kill-hub", "stop-hub", "delete-hub", "partition"]
    assert choose([]) == list(KINDS)
    assert all(name.startswith("kill-") for name in choose(["kill"]))


def test_a_word_that_names_nothing_is_refused_with_what_there_is() -> None:
    with pytest.raises(FaultError, match=r"no fault is called 'meteor'; there are agent, api, arena"):
        choose(["kill", "meteor"])


def test_weights_are_changed_and_a_weight_of_nothing_leaves_a_kind_out() -> None:
    weights = weigh(["kill-agent=10", "api=0"], KINDS)
    assert weights["kill-agent"] == 10
    assert not {"kill-api", "stop-api"} & weights.keys()


@pytest.mark.parametrize("word", ["kill-agent", "kill-agent=", "kill-agent=-1", "kill-agent=nan", "kill-agent=x"])
def test_a_weight_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(FaultError, match=r"expected KIND=WEIGHT with a number from 0"):
        weigh([word], KINDS)


def test_a_choice_of_nothing_is_refused() -> None:
    with pytest.raises(FaultError, match="every weight is 0"):
        weigh(["kill-hub=0"], ["kill-hub"])
