"""Every kernel with array arguments: hostile and odd input is refused, or handled as `support.refusals_*` says."""

from __future__ import annotations

import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from support.kernelkit import SAMPLED, array_arguments, assert_same, draw
from support.refusals import everything
from swarm_agents.compute import memory, registry
from swarm_agents.errors import BadArguments, NotEnoughMemory

TABLE = everything()
NAMES = [name for name in SAMPLED if array_arguments(name, draw(name, 3))]
LISTED = [name for name in NAMES if name in TABLE]
MIB = 1 << 20


def with_argument(name: str, call: registry.Call, argument: str, value: Any) -> registry.Call:
    """The call with another value for one argument."""
    names = [p.name for p in registry.get(name).signature.parameters]
    if argument in call.kwargs:
        return registry.Call(call.args, call.kwargs | {argument: value})
    place = names.index(argument)
    return registry.Call((*call.args[:place], value, *call.args[place + 1 :]), call.kwargs)


def dimensions(name: str) -> dict[str, tuple[str, ...]]:
    """The dimensions of each array parameter, as the signature says them."""
    found = {}
    for p in registry.get(name).signature.parameters:
        if match := re.search(r"\[(.*?)\]", p.expected):
            found[p.name] = tuple(part.strip() for part in match[1].split(","))
    return found


def each_array(name: str, seed: int = 3) -> Iterator[tuple[registry.Call, str, np.ndarray]]:
    call = draw(name, seed)
    for argument, array in array_arguments(name, call).items():
        yield call, argument, array


def refused(name: str, call: registry.Call, argument: str = "") -> None:
    with pytest.raises(BadArguments, match=f"kernel {name} argument '{argument}' must be .*Expected: "):
        registry.get(name).run(*call)


def test_every_kernel_with_arrays_has_an_entry_and_every_entry_a_kernel() -> None:
    ours = [name for name in NAMES if registry.get(name).__module__.startswith("swarm_agents.")]
    lacking = sorted(set(ours) - set(TABLE))
    assert not lacking, f"say in tests/support/refusals_*.py how {', '.join(lacking)} take odd input"
    assert set(TABLE) <= set(NAMES)
    assert not [name for name, entry in TABLE.items() if not entry.beyond], "`beyond` needs a call or a reason"
    for name, entry in TABLE.items():
        assert entry.takes_nonfinite | entry.takes_empty <= set(dimensions(name)), name


@pytest.mark.parametrize("name", LISTED)
def test_arrays_of_another_type_are_refused(name: str) -> None:
    for call, argument, array in each_array(name):
        others = [array.astype("datetime64[s]"), array.astype(object), array.astype("S8"), "text", {"a": 1}, None]
        if array.dtype.kind != "c":
            others.append(array.astype(complex))
        if array.dtype.kind in "iub":
            others.append(array.astype(float))
        for other in others:
            if other is None and not registry.get(name).signature.defaults.get(argument, 0):
                continue  # that it may be left out is what the signature says
            refused(name, with_argument(name, call, argument, other), argument)


@pytest.mark.parametrize("name", LISTED)
def test_arrays_of_another_shape_are_refused(name: str) -> None:
    dims = dimensions(name)
    named = Counter(dim for shape in dims.values() for dim in shape)
    for call, argument, array in each_array(name):
        for other in (array[None], array.reshape(-1)[0] if array.ndim else array[None]):
            refused(name, with_argument(name, call, argument, other), argument)
        for axis, dim in enumerate(dims[argument]):
            if dim.isdigit() or named[dim] > 1:
                shape = list(array.shape)
                shape[axis] += 1
                with pytest.raises(BadArguments, match=r"argument .* got (shape|an array of shape)"):
                    registry.get(name).run(*with_argument(name, call, argument, np.ones(shape, array.dtype)))


@pytest.mark.parametrize("name", LISTED)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_or_taken_as_the_table_says(name: str, bad: float) -> None:
    for call, argument, array in each_array(name):
        if array.dtype.kind not in "fc" or not array.size:
            continue
        broken = array.copy()
        broken.flat[-1] = bad
        broken_call = with_argument(name, call, argument, broken)
        if argument in TABLE[name].takes_nonfinite:
            with np.errstate(all="ignore"):
                expected = registry.get(name).run(*broken_call, implementation=registry.REFERENCE)
                for i in registry.get(name).implementations.values():
                    got = registry.get(name).run(*broken_call, implementation=i.name)
                    assert_same(expected, got, max(i.tolerance, 1e-12))
        else:
            refused(name, broken_call, argument)


@pytest.mark.parametrize("name", LISTED)
def test_empty_arrays_are_refused_or_taken_as_the_table_says(name: str) -> None:
    kernel, entry = registry.get(name), TABLE[name]
    if entry.takes_empty:
        call = draw(name, 3)
        for argument, array in array_arguments(name, call).items():
            if entry.emptied is not None:
                call = entry.emptied()
                assert not array_arguments(name, call)[argument].size or argument not in entry.takes_empty
            elif argument in entry.takes_empty:
                call = with_argument(name, call, argument, np.empty((0,) * array.ndim, array.dtype))
        answers = [kernel.run(*call, implementation=i) for i in kernel.implementations]
        for answer in answers[1:]:
            assert_same(answers[0], answer, 1e-12)
    for call, argument, array in each_array(name):
        if argument not in entry.takes_empty:
            refused(name, with_argument(name, call, argument, array[:0]), argument)


@pytest.mark.parametrize("name", SAMPLED)
def test_numbers_of_another_type_and_numbers_that_are_none_are_refused(name: str) -> None:
    kernel, call = registry.get(name), draw(name, 3)
    for p in kernel.signature.parameters:
        kind = p.expected.split()[0]
        if kind not in ("int", "float"):
            continue
        bad: list[Any] = ["1", [1], True, 1j, np.ones(2), {"a": 1}, np.nan, np.inf, -np.inf]
        bad += [1.5] if kind == "int" else []
        bad += [] if p.expected.endswith("or None") else [None]
        for value in bad:
            position = [q.name for q in kernel.signature.parameters].index(p.name)
            if position < len(call.args):
                changed = with_argument(name, call, p.name, value)
            else:
                changed = registry.Call(call.args, call.kwargs | {p.name: value})
            refused(name, changed, p.name)


@pytest.mark.parametrize("name", LISTED)
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
        if form == "every other":
            wide = np.zeros((*value.shape[:-1], 2 * value.shape[-1]), value.dtype)
            wide[..., ::2] = value
            return wide[..., ::2]
        if form == "fortran":
            return np.asfortranarray(value)
        raw = np.empty(value.nbytes + 1, np.uint8)
        shifted = raw[1:].view(value.dtype).reshape(value.shape)
        shifted[...] = value
        return shifted

    for form in ("big-endian", "reversed twice", "every other", "fortran", "misaligned"):
        got = kernel.run([odd(v, form) for v in call.args], {k: odd(v, form) for k, v in call.kwargs.items()})
        assert_same(expected, got, 0.0, form)


@pytest.mark.parametrize("name", LISTED)
def test_an_array_larger_than_memory_is_refused_before_it_is_copied(name: str) -> None:
    """By strides of 0 an array of some bytes may claim to be of any size."""
    for call, argument, array in each_array(name):
        if dimensions(name)[argument][0].isdigit():
            continue
        huge = np.broadcast_to(array[:1], (1 << 50, *array.shape[1:]))
        with pytest.raises((BadArguments, NotEnoughMemory)):
            registry.get(name).run(*with_argument(name, call, argument, huge))


@pytest.mark.parametrize("name", [name for name in LISTED if callable(TABLE[name].beyond)])
def test_a_call_beyond_memory_is_refused_before_anything_is_allocated(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "available", lambda: float(MIB))
    beyond = TABLE[name].beyond
    assert callable(beyond)
    call = beyond()
    tracemalloc.start()
    try:
        with pytest.raises(NotEnoughMemory, match=f"kernel {name} needs .* of memory, .* are available"):
            registry.get(name).run(*call)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", LISTED)
def test_where_there_is_no_memory_every_kernel_says_so_and_takes_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, call = registry.get(name), draw(name, 7)
    assert kernel.needs is not None, f"say by `@{name.partition('.')[2]}.memory` what a call of {name} allocates"
    for implementation in kernel.implementations:
        monkeypatch.setattr(memory, "SMALL", 0)
        monkeypatch.setattr(memory, "available", lambda: 0.0)
        with pytest.raises(NotEnoughMemory, match=f"kernel {name} needs .* of memory, 0 bytes are available"):
            kernel.run(*call, implementation=implementation)
        monkeypatch.undo()
        kernel.run(*call, implementation=implementation)


@pytest.mark.parametrize("name", [name for name in SAMPLED if registry.get(name).needs is not None])
def test_a_kernel_allocates_no_more_than_it_says(name: str) -> None:
    kernel = registry.get(name)
    needs = kernel.needs
    assert needs is not None
    for seed in (7, 8, 9):
        call = draw(name, seed)
        said = needs(**kernel.signature.defaults | kernel.bind(*call))
        for implementation in kernel.implementations:
            # what is imported and cached at the first call is not its own
            kernel.run(*call, implementation=implementation)
            tracemalloc.start()
            try:
                kernel.run(*call, implementation=implementation)
                taken = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert taken <= said + 64 * 1024, implementation
