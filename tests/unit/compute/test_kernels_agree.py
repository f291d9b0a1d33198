"""Every kernel, every implementation: held against its reference on random arguments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.kernelkit import SAMPLED, assert_same, draw
from swarm_agents.codec import decode, encode
from swarm_agents.compute import registry

PAIRS = [
    (name, other) for name in SAMPLED for other in registry.get(name).implementations if other != registry.REFERENCE
]


def unavailable(kernel: registry.Kernel, implementation: str) -> str:
    """Why an implementation can't run on this machine; empty when it can."""
    needs = getattr(kernel.implementations[implementation], "needs", None)
    if not needs:
        return ""
    from swarm_agents.compute.features import missing

    return str(missing(needs) or "")


def test_every_kernel_that_computes_a_value_has_random_arguments() -> None:
    ours = {name for name in registry.names() if registry.get(name).__module__.startswith("swarm_agents.")}
    assert {name for name in ours if not name.startswith("core.")} <= set(SAMPLED)


def test_every_tolerance_is_one_that_tells_right_from_wrong() -> None:
    wide = {
        f"{name}/{i.name}": i.tolerance
        for name in SAMPLED
        for i in registry.get(name).implementations.values()
        if not 0.0 <= i.tolerance <= 1e-3
    }
    assert not wide


@pytest.mark.parametrize(("name", "implementation"), PAIRS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_implementation_gives_what_the_reference_gives(name: str, implementation: str, seed: int) -> None:
    kernel, call = registry.get(name), draw(name, seed)
    if why := unavailable(kernel, implementation):
        pytest.skip(why)
    expected = kernel.run(*call, implementation=registry.REFERENCE)
    got = kernel.run(*call, implementation=implementation)
    assert_same(expected, got, kernel.implementations[implementation].tolerance)


@pytest.mark.parametrize("name", SAMPLED)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_arguments_and_answers_survive_the_journey(name: str, seed: int) -> None:
    """As the data plane carries them: encoded, read-only, in memory of somebody else."""
    kernel, call = registry.get(name), draw(name, seed)
    header, arrays = encode((call.args, call.kwargs))
    args, kwargs = decode(header, [bytes(np.ascontiguousarray(a)) for a in arrays])
    there = kernel.run(args, kwargs)
    header, arrays = encode(there)
    assert_same(kernel.run(*call), decode(header, [bytes(np.ascontiguousarray(a)) for a in arrays]), 0.0)


@pytest.mark.parametrize("name", SAMPLED)
def test_a_kernel_does_not_change_its_arguments(name: str) -> None:
    kernel, call = registry.get(name), draw(name, 5)
    before = encode((call.args, call.kwargs))
    kept = before[0], [array.copy() for array in before[1]]
    for implementation in kernel.implementations:
        if not unavailable(kernel, implementation):
            kernel.run(*call, implementation=implementation)
    after = encode((call.args, call.kwargs))
    assert kept[0] == after[0]
    for one, other in zip(kept[1], after[1], strict=True):
        assert one.tobytes() == other.tobytes()
