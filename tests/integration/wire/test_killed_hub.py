"""A hub that is a process of its own and is killed by SIGKILL, as the kernel's memory killer would do it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.wirekit import KEYS, FakeDesk, connection_to, eventually
from swarm_agents.client import Swarm

TESTS = Path(__file__).parents[2]

#: The texts of a set of keys, without what may follow it.
FIELDS = [name for name in KEYS.__struct_fields__ if isinstance(getattr(KEYS, name), str)]
PROGRAM = """
import sys
from support.wirekit import FakeDesk, HubThread, make_settings
from swarm_agents.wire.keys import Keys
desk = FakeDesk(auto=False)
hub = HubThread(desk, make_settings(), Keys(**dict(zip(Keys.__struct_fields__, sys.argv[1:]))))
print(hub.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hub_process() -> Iterator[Callable[[], tuple[str, subprocess.Popen[str]]]]:
    processes: list[subprocess.Popen[str]] = []

    def start() -> tuple[str, subprocess.Popen[str]]:
        keys = [getattr(KEYS, name) for name in FIELDS]
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *keys],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )
        processes.append(process)
        return process.stdout.readline().strip(), process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_the_tasks_of_a_killed_hub_are_answered_by_another_under_their_ids(hub_process, make_hub):
    desk = FakeDesk()
    address, process = hub_process()
    other = make_hub(desk, node="node-b")
    where = connection_to(address, other.url)
    with Swarm.connect(where) as swarm:
        assert swarm.endpoint == address
        futures = [swarm.submit("core.echo", n) for n in range(8)]
        process.send_signal(signal.SIGKILL)
        assert [future.result(20) for future in futures] == list(range(8))
        eventually(lambda: swarm.endpoint == other.url)
    assert sorted(desk.begun) == [future.task for future in futures]


def test_a_stopped_hub_is_given_up_by_its_silence(hub_process, make_hub):
    address, process = hub_process()
    other = make_hub(node="node-b")
    where = connection_to(address, other.url)
    with Swarm.connect(where) as swarm:
        future = swarm.submit("core.echo", 1)
        process.send_signal(signal.SIGSTOP)
        assert future.result(20) == 1
        assert swarm.endpoint == other.url


#: Imports once, and forks a hub for each line that it reads: the hub's pid is the answer.
NURSERY = """
import os, signal, sys, time
from support.wirekit import FakeDesk, HubThread, make_settings
from swarm_agents.wire.keys import Keys
keys = Keys(**dict(zip(Keys.__struct_fields__, sys.argv[2:])))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        hub = HubThread(FakeDesk(), make_settings(transport={"hub_port": int(sys.argv[1])}), keys)
        print(os.getpid(), flush=True)
        time.sleep(600)
"""


def test_a_hub_killed_again_and_again_at_random_instants_loses_nothing_and_answers_nothing_twice():
    """SWARM_HUB_KILLS says how many times; the client goes on with the same ids at the hub's next life."""
    import random
    import time

    from support.wirekit import free_port

    kills, port, rng = int(os.environ.get("SWARM_HUB_KILLS", "24")), free_port(), random.Random(5)
    keys = [getattr(KEYS, name) for name in FIELDS]
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(port), *keys],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )  # fmt: skip

    def hatch() -> int:
        nursery.stdin.write("hub\n")
        return int(nursery.stdout.readline())

    def gone(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    pid, answered = hatch(), []
    try:
        with Swarm.connect(connection_to(f"tcp://127.0.0.1:{port}"), retry_window=60) as swarm:
            for round_ in range(kills):
                futures = [swarm.submit("core.echo", (round_, n)) for n in range(40)]
                for future in futures:
                    future.add_done_callback(answered.append)
                # Anywhere from the first submission's arrival to after the last acknowledgement.
                time.sleep(rng.uniform(0, 0.015))
                os.kill(pid, signal.SIGKILL)
                eventually(lambda pid=pid: gone(pid))
                pid = hatch()
                assert [future.result(30) for future in futures] == [[round_, n] for n in range(40)]
            eventually(lambda: len(answered) == 40 * kills)
            assert len({future.task for future in answered}) == 40 * kills
    finally:
        os.kill(pid, signal.SIGKILL)
        nursery.kill()
        nursery.communicate()
