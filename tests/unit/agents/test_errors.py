"""Errors keep what they are when they travel."""

from __future__ import annotations

import pytest

from swarm_agents import errors


def all_errors(of: type[errors.SwarmError] = errors.SwarmError) -> list[type[errors.SwarmError]]:
    return [of, *(c for sub in of.__subclasses__() for c in all_errors(sub))]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda c: c.__name__)
def test_an_error_of_ours_comes_back_as_the_same_class_with_its_message(cls: type[errors.SwarmError]) -> None:
    back = errors.from_wire(errors.to_wire(cls("mend it so")))
    assert type(back) is cls
    assert str(back) == "mend it so"


def test_a_foreign_error_comes_back_as_a_kernel_error_with_type_and_traceback() -> None:
    back = errors.from_wire(errors.to_wire(ZeroDivisionError("by zero"), "Traceback: line 7\n"))
    assert isinstance(back, errors.KernelError)
    assert back.remote_type == "ZeroDivisionError"
    assert "ZeroDivisionError: by zero" in str(back)
    assert "line 7" in str(back)


def test_a_kernel_error_is_passed_on_whole_by_a_second_hop() -> None:
    first = errors.from_wire(errors.to_wire(ValueError("x"), "tb"))
    second = errors.from_wire(errors.to_wire(first))
    assert isinstance(second, errors.KernelError)
    assert (second.args, second.remote_traceback) == (first.args, "tb")


def test_an_error_of_a_newer_peer_is_still_an_error_of_ours() -> None:
    back = errors.from_wire({"code": "InventedLater", "message": "hm"})
    assert type(back) is errors.SwarmError
    assert str(back) == "hm"


def test_standard_exceptions_catch_what_says_the_same() -> None:
    assert issubclass(errors.DeadlineExceeded, TimeoutError)
    assert issubclass(errors.Unreachable, ConnectionError)
    assert issubclass(errors.BadArguments, TypeError)
