"""Copies of checkpoints on another node, over a network that loses, repeats, delays and reorders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm_agents.config import Checkpoints
from swarm_agents.runtime.mirror import (
    PATIENCE,
    SETTLED,
    Confirmed,
    Copies,
    Mirror,
    Mirrored,
    Withdrawn,
    newest_of,
    partner,
    read_bytes,
)
from swarm_agents.runtime.store import Keeper, Store, list_files, task_key

KEY = task_key((1, 2), "team.simulate")


class Network:
    """Keeps messages until the test says what becomes of them."""

    def __init__(self) -> None:
        self.ways: list[tuple[str, Any, bytes]] = []
        self.up = True

    def send(self, node: str, message: Any, payload: bytes = b"") -> bool:
        if self.up:
            self.ways.append((node, message, payload))
        return self.up


class Home:
    """A node with a task on it, and its partner `b`."""

    def __init__(self, root: Path, *, most: int = 1 << 30) -> None:
        self.here, self.there = root / "a", root / "b"
        self.here.mkdir()
        self.there.mkdir()
        self.network = Network()
        self.copies = Copies(self.there, most=most)
        self.mirror = Mirror("a", self.network, lambda: newest_of(self.here), lambda key: read_bytes(self.here, key))
        self.now = 0.0

    def keeper(self) -> Keeper:
        return Store(self.here, Checkpoints(), owner="a", place=(1, 1)).keeper(KEY, lambda: True)

    def plan(self, seconds: float = SETTLED) -> int:
        self.now += seconds
        return self.mirror.plan(["a", "b"], self.now)

    def deliver(self, at: int = 0, *, again: bool = False) -> None:
        node, message, payload = self.network.ways[at] if again else self.network.ways.pop(at)
        if isinstance(message, Mirrored):
            self.network.ways.append(("a", self.copies.mirrored(message, payload), b""))
        elif isinstance(message, Withdrawn):
            self.copies.withdrawn(message)
        else:
            assert isinstance(message, Confirmed)
            assert node == "a"
            self.mirror.confirmed("b", message)

    def settle(self) -> None:
        for _ in range(6):
            self.plan(PATIENCE + SETTLED)
            while self.network.ways:
                self.deliver()

    def value_there(self) -> Any:
        kept = Store(self.there, Checkpoints()).read(KEY)
        return None if kept is None else kept.value


def test_a_checkpoint_is_found_on_its_partner_and_goes_when_its_task_is_answered(tmp_path: Path) -> None:
    home = Home(tmp_path)
    keeper = home.keeper()
    keeper.write({"step": 1})
    assert home.plan(0.0) == 0, "what is over sooner is not worth a message"
    assert home.plan() == 1
    keeper.write({"step": 2})
    assert home.plan(0.1) == 0, "one message of a key is on the way"
    home.deliver()
    assert home.value_there() == {"step": 1}
    assert home.mirror.lag() == 1
    home.deliver()
    assert home.plan(0.1) == 1
    home.deliver()
    home.deliver()
    assert home.value_there() == {"step": 2}
    assert home.mirror.lag() == 0
    assert home.plan(9.0) == 0, "nothing is sent twice that was confirmed"
    # The node dies; on its partner the task goes on, in a higher term, which is mirrored no worse.
    successor = Store(home.there, Checkpoints(), owner="b", place=(1, 1)).keeper(KEY, lambda: True)
    assert successor.read().value == {"step": 2}  # type: ignore[union-attr]
    successor.write({"step": 3})
    assert (home.value_there(), successor.term) == ({"step": 3}, 2)
    keeper.done()
    assert home.plan() == 1
    home.deliver()
    assert list_files(home.there, ("board.copy-",)) == []
    assert home.plan(9.0) == 0


def test_what_was_lost_is_sent_again_and_a_node_that_comes_back_gets_everything(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.keeper().write("value")
    assert home.plan() == 0
    home.plan()
    home.network.ways.clear()
    assert home.plan(PATIENCE / 2) == 0
    assert home.plan(PATIENCE) == 1
    while home.network.ways:
        home.deliver()
    home.mirror.lost("b")
    for path in home.there.iterdir():
        path.unlink()
    home.settle()
    assert home.value_there() == "value"


def test_a_partner_without_room_or_with_nonsense_keeps_what_it_has(tmp_path: Path) -> None:
    home = Home(tmp_path, most=100)
    home.keeper().write("value")
    home.settle()
    assert list(home.there.iterdir()) == []
    copies = Copies(home.there, most=1 << 20)
    assert copies.mirrored(Mirrored(KEY, 1, 1), b"nonsense") == Confirmed(KEY, 0, 0)
    assert copies.mirrored(Mirrored("agent x", 1, 1), b"") == Confirmed("agent x", 0, 0)
    loaded = read_bytes(home.here, KEY)
    assert loaded is not None
    assert copies.mirrored(Mirrored(KEY, 1, 7), loaded[2]) == Confirmed(KEY, 0, 0), "it is not number 7"
    assert list(home.there.iterdir()) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.sampled_from(["write", "succeed", "plan", "late", "deliver", "repeat", "last", "lose"]), max_size=40
    )
)
def test_a_copy_never_goes_back_and_arrives_in_the_end(tmp_path_factory: Any, steps: list[str]) -> None:
    home = Home(tmp_path_factory.mktemp("nodes"))
    keeper, number, seen = home.keeper(), 0, -1
    ways = home.network.ways
    for step in steps:
        if step == "write":
            number += 1
            keeper.write(number)
        elif step == "succeed":
            keeper.release()
            keeper = home.keeper()
        elif step in ("plan", "late"):
            home.plan(SETTLED if step == "plan" else PATIENCE)
        elif ways:
            if step == "lose":
                ways.pop()
            else:
                home.deliver(-1 if step == "last" else 0, again=step == "repeat")
        there = home.value_there()
        assert there is None or there >= seen
        seen = -1 if there is None else there
    home.settle()
    assert home.value_there() == (number or None)


def test_partners_are_the_same_for_all_who_ask_and_move_little() -> None:
    nodes = [f"node-{n}" for n in range(10)]
    keys = [task_key((n, 1), "a.b") for n in range(400)]
    before = {key: partner(key, "node-0", nodes) for key in keys}
    assert set(before.values()) == set(nodes[1:])
    after = {key: partner(key, "node-0", nodes[:-1]) for key in keys}
    assert all(before[key] in (after[key], "node-9") for key in keys)
    assert partner(keys[0], "node-0", nodes, origin="node-7") == "node-7"
    assert partner(keys[0], "node-0", ["node-0"]) is None
