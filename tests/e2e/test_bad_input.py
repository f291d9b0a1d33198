"""Bad input gets an error that says what to do; afterwards the swarm answers as before, with nothing in its queues."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from support.product import Running
from swarm_agents import errors
from swarm_agents.client import Connection, Swarm
from swarm_agents.client.connection import resolve

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(120)]


@pytest.fixture
def connection(product: Running, monkeypatch: pytest.MonkeyPatch) -> Connection:
    for name, value in product.env.items():
        monkeypatch.setenv(name, value)
    return resolve(None)


@pytest.fixture(params=["board", "hub"])
def swarm(request: pytest.FixtureRequest, connection: Connection) -> Iterator[Swarm]:
    """Connected by shared memory, and over TCP; at the end it must work as before."""
    if request.param == "hub":
        connection = msgspec.structs.replace(connection, board=None)
    with Swarm.connect(connection) as connected:
        yield connected
        assert connected.run("core.echo", "still here", timeout=20) == "still here"
        assert sum(connected.info()["queues"].values()) == 0


def test_a_kernel_that_does_not_exist_is_named_with_its_nearest(swarm: Swarm) -> None:
    with pytest.raises(errors.UnknownKernel, match=r"risk\.monte_carlo"):
        swarm.run("risk.monte_carlos", timeout=20)


def test_arguments_that_do_not_fit_say_what_is_expected(swarm: Swarm) -> None:
    with pytest.raises(errors.BadArguments, match="seconds"):
        swarm.run("core.sleep", "long", timeout=20)
    with pytest.raises(errors.BadArguments, match=r"core\.noop"):
        swarm.run("core.noop", 1, 2, 3, timeout=20)


def test_an_array_of_objects_is_refused_before_it_travels(swarm: Swarm) -> None:
    with pytest.raises(errors.PayloadError, match="Python objects"):
        swarm.submit("core.echo", np.array([object()]))


def test_a_payload_larger_than_the_arena_is_refused_with_its_size(swarm: Swarm) -> None:
    with pytest.raises(errors.PayloadTooLarge, match=r"\d"):
        swarm.submit("core.echo", np.zeros(400 << 20, np.uint8), timeout=5).result(timeout=20)


def test_an_error_in_a_kernel_comes_back_with_its_traceback(swarm: Swarm) -> None:
    with pytest.raises(errors.KernelError, match="on purpose") as caught:
        swarm.run("core.fail", "on purpose", timeout=20)
    assert "Traceback" in caught.value.remote_traceback
    assert "core.py" in caught.value.remote_traceback


def test_an_endpoint_where_nothing_listens_is_unreachable() -> None:
    with pytest.raises(errors.Unreachable):
        Swarm.connect("tcp://127.0.0.1:9", server_key="", timeout=1.0)
    with pytest.raises(errors.Unreachable):
        Swarm.connect("shm:///nowhere/agentswarm-none", timeout=1.0)


def test_a_wrong_key_is_refused_as_such(connection: Connection) -> None:
    import zmq

    public, secret = (key.decode() for key in zmq.curve_keypair())
    stranger = msgspec.structs.replace(connection, board=None, public_key=public, secret_key=secret)
    with pytest.raises(errors.WrongKey):
        Swarm.connect(stranger, timeout=5.0)


def test_an_invalid_swarm_is_refused_with_the_field_and_the_reason(product: Running) -> None:
    head = '{"apiVersion": "agentswarm.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": "bad"}, '
    text = head + '"spec": {"compute": %s}}'
    said = product.kubectl.refused("apply", "-f", "-", stdin=text % '{"replicas": -1}')
    assert "spec.compute.replicas" in said
    assert "greater than or equal to 0" in said
    said = product.kubectl.refused("apply", "-f", "-", stdin=text % '{"replicaz": 1}')
    assert "spec.compute.replicaz" in said
    assert product.kubectl.refused("get", "swarm", "bad")


def test_the_command_line_says_an_error_in_one_line(product: Running) -> None:
    failed = product.swarm("run", "core.nope")
    assert failed.returncode == 1
    assert failed.stderr.startswith("swarm: ")
    assert "Traceback" not in failed.stderr
