"""Keys renewed while tasks travel: two hubs, taken through the stages by hand, as an operator takes them."""

from __future__ import annotations

import threading
import time
from collections import Counter

import msgspec
import pytest

from support.wirekit import KEYS, FakeDesk, HubThread, connection, eventually, make_settings
from swarm_agents.client import Swarm
from swarm_agents.client.connection import write_connection
from swarm_agents.client.hubs import keys_in_use
from swarm_agents.client.session import Session
from swarm_agents.config import Hub as HubAddress
from swarm_agents.config import Settings, second_port
from swarm_agents.errors import ConnectionLost, Unreachable, WrongKey
from swarm_agents.resource.doors import Doors
from swarm_agents.wire.keys import Keys, make_keys
from swarm_agents.wire.network import Network


def _doors(hubs: list[HubThread], *, main: str = "", second: str = "") -> tuple[HubAddress, ...]:
    """The hubs' addresses as the settings have them, for those ports whose public key is given."""
    found = []
    for hub in hubs:
        for port, key in ((hub.settings.transport.hub_port, main), (second_port(hub.settings.transport), second)):
            if key:
                found.append(HubAddress(node=hub.node, address=f"tcp://127.0.0.1:{port}", public_key=key))
    return tuple(found)


class Keeper:
    """What the operator, the Secret and the ConfigMap are in a cluster."""

    def __init__(self, hubs: list[HubThread], path) -> None:
        self.hubs, self.keys, self.path = hubs, KEYS, path
        self.announce(main=KEYS.hub_public)

    def announce(self, **doors: str) -> None:
        listed = _doors(self.hubs, **doors)
        for hub in self.hubs:
            hub.hub.apply(msgspec.structs.replace(hub.settings, hubs=listed))
        # the ports differ from hub to hub here, where all have one in a cluster
        use, _ = keys_in_use(msgspec.structs.replace(self.hubs[0].settings, hubs=listed), self.keys)
        hubs = tuple(hub for hub in listed if hub.public_key == use.hub_public)
        made = msgspec.structs.replace(connection(*self.hubs, keys=use), hubs=hubs)
        write_connection(made, self.path)

    def have(self, keys: Keys) -> None:
        self.keys = keys
        for hub in self.hubs:
            hub.hub.rekey(keys)

    def served(self, main: str, second: str) -> None:
        eventually(lambda: all(hub.told and _shown(hub) == (main, second) for hub in self.hubs))

    def linked(self, *ports: str) -> None:
        def up() -> bool:
            return all(
                len(peer.links) == len(ports) and all(link.open for link in peer.links.values())
                for hub in self.hubs
                for peer in hub.hub.peers.values()
            )

        eventually(up)

    def rotate(self) -> Keys:
        """Through all stages; returns the keys that hold no more."""
        old, new = self.keys, make_keys()
        self.have(msgspec.structs.replace(old, next=new))
        self.served(old.fingerprint, new.fingerprint)
        self.announce(main=old.hub_public, second=new.hub_public)
        self.linked("main", "second")
        self.announce(second=new.hub_public)
        self.linked("second")
        self.have(new)
        self.served(new.fingerprint, new.fingerprint)
        self.announce(main=new.hub_public, second=new.hub_public)
        self.linked("main", "second")
        self.announce(main=new.hub_public)
        self.linked("main")
        self.served(new.fingerprint, "")
        return old


def _shown(hub: HubThread) -> tuple[str, str]:
    last = [fields for event, fields in hub.told if event == "KeysServed"][-1]
    return last["main"], last["second"]


def test_keys_are_renewed_three_times_under_load_and_no_task_is_lost_doubled_or_failed(make_hub, tmp_path) -> None:
    hubs = [make_hub(FakeDesk(auto=True), node=name) for name in ("node-a", "node-b")]
    path = tmp_path / "connection.json"
    keeper = Keeper(hubs, path)
    keeper.linked("main")
    answers: Counter[int] = Counter()
    over = threading.Event()
    done = [0]

    with Swarm.connect(path, retry_window=30) as swarm:

        def work() -> None:
            while not over.is_set():
                futures = [swarm.submit("core.double", done[0] + n) for n in range(8)]
                for n, future in enumerate(futures):
                    assert future.result(timeout=60) == 2 * (done[0] + n)
                    answers[done[0] + n] += 1
                done[0] += 8

        failures: list[BaseException] = []

        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        eventually(lambda: done[0] > 16 or failures)
        revoked = []
        for _ in range(3):
            before = done[0]
            revoked.append(keeper.rotate())
            eventually(lambda before=before: done[0] > before or failures, within=30)
        over.set()
        thread.join(60)
        assert not failures
        assert len(answers) == done[0]
        assert set(answers.values()) == {1}

    for keys in revoked:
        stale = msgspec.structs.replace(connection(*hubs, keys=keys))
        with pytest.raises((WrongKey, Unreachable)):
            Session(stale, timeout=2, retry_window=0)
    # the hub's new public key alone opens nothing: the client's pair was renewed as well
    half = msgspec.structs.replace(connection(hubs[0], keys=revoked[-1]), server_key=keeper.keys.hub_public)
    with pytest.raises(WrongKey):
        Session(half, timeout=2, retry_window=0)


def test_who_is_connected_by_the_old_key_is_cut_off_when_it_ends(make_hub, tmp_path) -> None:
    hub = make_hub(FakeDesk(auto=True))
    keeper = Keeper([hub], tmp_path / "connection.json")
    with Swarm.connect(connection(hub), retry_window=1.0) as swarm:  # it has nobody to ask for newer keys
        assert swarm.submit("core.echo", 1).result(10) == 1
        keeper.rotate()
        with pytest.raises(ConnectionLost, match="does not accept these CURVE keys"):
            swarm.submit("core.echo", 2).result(30)


def test_a_port_that_is_taken_is_opened_once_it_is_free_and_not_said_to_be_open_before(make_hub, tmp_path) -> None:
    import socket

    hub = make_hub(FakeDesk())
    keeper = Keeper([hub], tmp_path / "connection.json")
    new = make_keys()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", second_port(hub.settings.transport)))
        taken.listen()
        keeper.have(msgspec.structs.replace(KEYS, next=new))
        time.sleep(0.05)  # several attempts
        assert _shown(hub) == (KEYS.fingerprint, "")
    keeper.served(KEYS.fingerprint, new.fingerprint)


def test_the_keys_of_a_hub_are_told_by_fingerprint_alone(
    make_hub, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = make_hub(FakeDesk())
    old = Keeper([hub], tmp_path / "connection.json").rotate()
    said = repr(hub.told) + repr(hub.hub._keys) + "".join(capsys.readouterr())
    now = hub.hub._keys
    assert now != old
    assert now.fingerprint in said
    for secret in (old.hub_secret, old.client_secret, now.hub_secret, now.client_secret, now.token):
        assert secret not in said


def test_a_client_takes_the_next_keys_once_a_hub_is_announced_with_them(tmp_path) -> None:
    new = make_keys()
    keys = msgspec.structs.replace(KEYS, next=new)
    transport = make_settings().transport
    base: Settings = make_settings(transport={"hub_port": transport.hub_port, "rest_port": transport.rest_port})
    main, second = (f"tcp://10.0.0.1:{port}" for port in (transport.hub_port, second_port(transport)))

    def use(*hubs: HubAddress, keys: Keys = keys) -> tuple[Keys, list[tuple[str, str]]]:
        chosen, found = keys_in_use(msgspec.structs.replace(base, hubs=hubs), keys)
        return chosen, [(hub.address, hub.public_key) for hub in found]

    old_main, new_second = (
        HubAddress(node="a", address=main, public_key=KEYS.hub_public),
        HubAddress(node="a", address=second, public_key=new.hub_public),
    )
    assert use(old_main) == (keys, [(main, KEYS.hub_public)])
    whole = [(second, new.hub_public), (main, new.hub_public)]
    assert use(old_main, new_second) == (new, whole)
    assert use(new_second, keys=new) == (new, whole)
    clear = HubAddress(node="a", address=main)
    assert use(clear) == (keys, [(main, "")])


def test_doors_tell_nothing_without_encryption(make_hub) -> None:
    hub = make_hub(FakeDesk(), make_settings(transport={"encryption": False}), keys=Keys(token="t"))
    hub.hub.rekey(make_keys())
    assert hub.told == []
    assert isinstance(hub.hub._doors, Doors)
    assert isinstance(hub.hub._network, Network)
