"""The stages in which keys are renewed: whatever comes in whichever order, nobody is asked for keys that he lacks."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agents.config import Hub, Transport, key_fingerprint, second_port
from swarm_operator.keyrecord import KEY_NAMES, NEXT_NAMES, RECORD, KeyState, Record, Stage, read_record, write_record
from swarm_operator.keys import complete, keep_record, observe, turned
from swarm_operator.rotation import SETTLE, Heard, Wishes, doors, step, wanted_at

TRANSPORT = Transport()
WISH = Wishes(asked="a", overlap=30.0)


def fresh(now: float = 0.0) -> dict[str, str]:
    return keep_record(complete({}, {}), {}, {}, "", now)


@dataclass
class FakeHub:
    """A hub as it is: what it has read of the Secret, which settings it was given, and what it serves."""

    files: dict[str, str]
    doors: tuple[Hub, ...] = ()

    @property
    def served(self) -> tuple[str, str]:
        state = observe(self.files)
        second = ""
        if state.next_fingerprint:
            second = state.next_fingerprint
        elif any(hub.address.endswith(f":{second_port(TRANSPORT)}") for hub in self.doors):
            second = state.fingerprint
        return state.fingerprint, second

    def admits(self, public: str) -> bool:
        return public in (self.files["client.public"], self.files.get("next.client.public"))


@dataclass
class World:
    """A Secret, hubs that read it late, settings that reach them late, and an operator that remembers nothing."""

    secret: dict[str, str] = field(default_factory=fresh)
    hubs: list[FakeHub] = field(default_factory=list)
    now: float = 100.0
    #: What the operator has heard of each hub, which may be old.
    heard: dict[int, tuple[tuple[str, str], tuple[Hub, ...]]] = field(default_factory=dict)
    turns: int = 0

    def state(self) -> KeyState:
        return observe(self.secret)

    def announced(self) -> tuple[Hub, ...]:
        return doors(Hub(node="n", address="tcp://10.0.0.1:7400"), TRANSPORT, self.state(), True)

    def plan(self, wish: Wishes) -> Record | None:
        state = self.state()
        assert state.record is not None
        served = tuple(self.heard[n][0] if n in self.heard else None for n in range(len(self.hubs)))
        acknowledged = all(n in self.heard and self.heard[n][1] == self.announced() for n in range(len(self.hubs)))
        return step(state.record, wanted_at(state), wish, Heard(served, acknowledged), self.now)[0]

    def turn(self, to: Record, before: Record) -> None:
        """As the executor does it: only from the stage that was planned from."""
        if self.state().record == before:
            self.secret = turned(self.secret, to)
            self.turns += 1


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 2)),
        st.tuples(st.just("push"), st.integers(0, 2)),
        st.tuples(st.just("hear"), st.integers(0, 2)),
        st.tuples(st.just("restart hub"), st.integers(0, 2)),
        st.tuples(st.just("plan"), st.integers(0, 1)),
        st.tuples(st.just("do"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.integers(0, 60)),
        st.tuples(st.just("operator dies"), st.just(0)),
    ),
    max_size=60,
)


def run(world: World, events: list[tuple[str, int]], wish: Wishes) -> None:
    plans: list[tuple[Record, Record]] = []
    for kind, n in events:
        match kind:
            case "read":
                world.hubs[n].files = dict(world.secret)
            case "push":
                world.hubs[n].doors = world.announced()
            case "hear":
                world.heard[n] = world.hubs[n].served, world.hubs[n].doors
            case "restart hub":
                world.hubs[n].doors = ()
            case "plan":
                before, to = world.state().record, world.plan(wish)
                if to is not None and before is not None:
                    plans.append((before, to))
                    if n:
                        world.turn(to, before)
            case "do" if plans:  # late, or for the second time
                before, to = plans[n % len(plans)]
                world.turn(to, before)
            case "wait":
                world.now += n
            case "operator dies":
                world.heard.clear()
        check(world)


def check(world: World) -> None:
    state = world.state()
    assert not state.missing
    assert state.record is not None
    holds = {state.fingerprint, state.next_fingerprint}
    for hub in world.hubs:
        # whoever goes by the Secret as it is now is let in, unless the keys were only just offered
        if state.stage in (Stage.OVERLAPPING, Stage.ENDING, Stage.RETURNING):
            newest = world.secret["next.client.public" if state.stage is Stage.OVERLAPPING else "client.public"]
            assert hub.admits(newest)
        # nobody serves keys that ended before, once the stage says so
        if state.stage in (Stage.RETURNING,):
            assert set(hub.served) - {""} <= holds


@settings(max_examples=80, deadline=None)
@given(events=EVENTS)
def test_no_order_of_events_has_a_hub_without_the_keys_that_are_in_use_and_each_renewal_ends(
    events: list[tuple[str, int]],
) -> None:
    world = World()
    world.hubs = [FakeHub(dict(world.secret)) for _ in range(3)]
    before = world.secret
    run(world, events, WISH)
    for _ in range(12):  # then everything comes through
        for n in range(3):
            run(world, [("read", n), ("push", n), ("hear", n)], WISH)
        run(world, [("wait", 31), ("plan", 1)], WISH)
    state = world.state()
    assert state.record is not None
    assert (state.stage, state.record.count, world.turns) == (Stage.STEADY, 1, 5)
    assert world.secret["hub.secret"] != before["hub.secret"]
    assert world.secret["client.secret"] != before["client.secret"]
    assert world.secret["token"] == before["token"]
    assert set(world.secret) == {*KEY_NAMES, RECORD}


def at(stage: Stage, since: int = 100) -> Record:
    return Record(made=0, stage=stage, since=since, asked="a", count=2)


FINE, OTHER = Heard((("k", "n"),), True), ("k", "n")


def test_a_stage_is_not_left_before_every_hub_serves_what_it_wants() -> None:
    for stage in (Stage.OFFERED, Stage.OVERLAPPING, Stage.ENDING):
        for said in (None, ("", ""), ("k", ""), ("x", "n")):
            heard = Heard((("k", "n"), said), True)
            assert step(at(stage), OTHER, WISH, heard, 1e6)[0] is None
    for stage in (Stage.OVERLAPPING, Stage.ENDING, Stage.RETURNING):
        assert step(at(stage), OTHER, WISH, Heard((("k", "n"),), False), 1e6)[0] is None


def test_old_and_new_keys_are_both_taken_for_as_long_as_asked_and_no_link_is_closed_before_another_is_made() -> None:
    assert step(at(Stage.OVERLAPPING), OTHER, WISH, FINE, 129.0) == (None, 1.0)
    to, _ = step(at(Stage.OVERLAPPING), OTHER, WISH, FINE, 130.0)
    assert to == Record(made=130, stage=Stage.ENDING, since=130, asked="a", count=2)
    hasty = WISH._replace(overlap=0.0)
    assert step(at(Stage.OVERLAPPING), OTHER, hasty, FINE, 101.0) == (None, SETTLE - 1.0)
    assert step(at(Stage.RETURNING), OTHER, WISH, FINE, 101.0) == (None, SETTLE - 1.0)
    done, _ = step(at(Stage.RETURNING), OTHER, WISH, FINE, 103.0)
    assert done == Record(made=0, stage=Stage.STEADY, since=103, asked="a", count=3)


def test_keys_are_renewed_when_asked_anew_or_when_they_are_old_and_else_never() -> None:
    steady = at(Stage.STEADY)

    def due(wish: Wishes, now: float) -> bool:
        return step(steady, ("k", ""), wish, FINE, now)[0] is not None

    assert not due(Wishes("a"), 1e9)
    assert not due(Wishes(""), 1e9), "a request that is taken away is none"
    assert due(Wishes("b"), 0.0)
    assert not due(Wishes("a", period=600.0), 599.0)
    assert step(steady, ("k", ""), Wishes("a", period=600.0), FINE, 599.0) == (None, 1.0)
    assert due(Wishes("a", period=600.0), 600.0)


def test_each_stage_announces_the_doors_that_its_hubs_have() -> None:
    hub = Hub(node="n", address="tcp://[fd00::1]:7400", rest="http://[fd00::1]:7480")

    def of(stage: Stage) -> list[tuple[str, str]]:
        state = KeyState((), "K", "k", "N", "n", at(stage))
        return [(each.address.rsplit(":", 1)[1], each.public_key) for each in doors(hub, TRANSPORT, state, True)]

    assert of(Stage.STEADY) == of(Stage.OFFERED) == [("7400", "K")]
    assert of(Stage.OVERLAPPING) == [("7400", "K"), ("7401", "N")]
    assert of(Stage.ENDING) == [("7401", "K")]
    assert of(Stage.RETURNING) == [("7400", "K"), ("7401", "K")]
    assert doors(hub, TRANSPORT, KeyState(), False) == (hub,)
    taken = Transport(hub_port=9401)
    assert second_port(taken) == 9404
    assert second_port(Transport(hub_port=65535)) not in (65535, taken.rest_port)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_secret_that_somebody_deleted_comes_back_in_the_stage_that_it_was_in(stage: Stage) -> None:
    data = fresh()
    for to in list(Stage)[1 : list(Stage).index(stage) + 1]:
        record = read_record(data[RECORD])
        assert record is not None
        data = turned(data, msgspec.structs.replace(record, stage=to))
    again = keep_record(complete({}, data), {}, data, "", 5.0)
    assert again == data
    assert observe(again).missing == ()
    # where nobody remembers, there are other keys, all whole
    anew = keep_record(complete({}, {}), {}, {}, "digest", 7.0)
    assert observe(anew).record == Record(made=7, since=7, asked="digest")


def test_a_next_set_that_was_damaged_is_made_anew_and_the_rest_is_kept() -> None:
    data = turned(fresh(), at(Stage.OFFERED))
    damaged = {**data, "next.hub.secret": "nonsense"}
    assert set(observe(damaged).missing) == set(NEXT_NAMES)
    mended = keep_record(complete(damaged, {}), damaged, {}, "", 0.0)
    assert observe(mended).missing == ()
    assert {name: mended[name] for name in KEY_NAMES} == {name: data[name] for name in KEY_NAMES}
    assert mended["next.hub.public"] != data["next.hub.public"]


def test_a_record_that_can_not_be_read_is_written_anew() -> None:
    for text in ("", "nonsense", "{}", '{"made":1,"stage":"Else"}', '{"made":1,"more":2}', "ä"):
        assert read_record(text) is None
        data = {**fresh(), RECORD: text}
        assert observe(data).missing == (RECORD,)
        assert observe(keep_record(complete(data, {}), data, {}, "x", 9.0)).record == Record(made=9, since=9)
    record = at(Stage.ENDING)
    assert read_record(write_record(record)) == record


def test_fingerprints_tell_sets_apart_and_there_is_none_of_half_a_set() -> None:
    assert len(key_fingerprint("a", "b")) == 16
    assert len({key_fingerprint("a", "b"), key_fingerprint("b", "a"), key_fingerprint("a", "c")}) == 3
    assert key_fingerprint("", "b") == key_fingerprint("a", "") == ""
