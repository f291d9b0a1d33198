"""Every kernel, every implementation: held against its reference, and against input that is hostile or odd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agents.codec import decode, encode
from swarm_agents.compute import registry
from swarm_agents.errors import BadArguments

SAMPLED = [name for name in registry.names() if registry.get(name).sample is not None]
PAIRS = [
    (name, other) for name in SAMPLED for other in registry.get(name).implementations if other != registry.REFERENCE
]


def draw(name: str, seed: int) -> registry.Call:
    sample = registry.get(name).sample
    assert sample is not None
    return sample(np.random.default_rng(seed))


def assert_same(expected: Any, got: Any, tolerance: float, where: str = "value") -> None:
    if isinstance(expected, dict):
        assert expected.keys() == got.keys(), where
        for key in expected:
            assert_same(expected[key], got[key], tolerance, f"{where}[{key!r}]")
    elif tolerance and isinstance(expected, float | np.ndarray):
        np.testing.assert_allclose(got, expected, rtol=tolerance, err_msg=where)
    elif isinstance(expected, np.ndarray):
        assert (expected.dtype, expected.shape) == (got.dtype, got.shape), where
        assert expected.tobytes() == got.tobytes(), where
    else:
        assert expected == got, where


def test_every_kernel_that_computes_a_value_has_random_arguments() -> None:
    ours = {name for name in registry.names() if registry.get(name).__module__.startswith("swarm_agents.")}
    assert {name for name in ours if not name.startswith("core.")} <= set(SAMPLED)


@pytest.mark.parametrize(("name", "implementation"), PAIRS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_implementation_gives_what_the_reference_gives(name: str, implementation: str, seed: int) -> None:
    kernel, call = registry.get(name), draw(name, seed)
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
    call = draw(name, 5)
    before = encode((call.args, call.kwargs))
    kept = before[0], [array.copy() for array in before[1]]
    for implementation in registry.get(name).implementations:
        registry.get(name).run(*call, implementation=implementation)
    after = encode((call.args, call.kwargs))
    assert kept[0] == after[0]
    for one, other in zip(kept[1], after[1], strict=True):
        assert one.tobytes() == other.tobytes()


def spoiled(array: np.ndarray) -> list[tuple[str, Any]]:
    """What may not be taken for this array."""
    found: list[tuple[str, Any]] = [
        ("complex", array.astype(complex)),
        ("one dimension more", array[None]),
        ("text", "text"),
        ("a date", array.astype("datetime64[s]")),
    ]
    if array.dtype.kind == "f":
        for bad in (np.nan, np.inf, -np.inf):
            broken = array.copy()
            broken.flat[-1] = bad
            found.append((str(bad), broken))
        found.append(("empty", array[:0]))
    return found


@pytest.mark.parametrize("name", SAMPLED)
def test_hostile_arrays_are_refused_before_the_kernel_sees_them(name: str) -> None:
    kernel, call = registry.get(name), draw(name, 3)
    for place, value in enumerate(call.args):
        if isinstance(value, np.ndarray):
            for what, bad in spoiled(value):
                args = (*call.args[:place], bad, *call.args[place + 1 :])
                with pytest.raises(BadArguments, match=f"kernel {name} argument"):
                    kernel.run(args, call.kwargs)
                assert what


@pytest.mark.parametrize("name", SAMPLED)
def test_byte_order_layout_and_alignment_make_no_difference(name: str) -> None:
    kernel, call = registry.get(name), draw(name, 4)
    expected = kernel.run(*call)

    def odd(value: Any, form: str) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        if form == "big-endian":
            return value.astype(value.dtype.newbyteorder(">"))
        if form == "reversed twice":
            return value[::-1].copy()[::-1]
        raw = np.empty(value.nbytes + 1, np.uint8)
        shifted = raw[1:].view(value.dtype).reshape(value.shape)
        shifted[...] = value
        return shifted

    for form in ("big-endian", "reversed twice", "misaligned"):
        got = kernel.run([odd(v, form) for v in call.args], {k: odd(v, form) for k, v in call.kwargs.items()})
        assert_same(expected, got, 0.0, form)
