"""Hubs that are closed after the test, and that must not have met an exception that they did not expect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.wirekit import FakeDesk, HubThread, make_settings

MakeHub = Callable[..., HubThread]


@pytest.fixture
def make_hub() -> Iterator[MakeHub]:
    hubs: list[HubThread] = []

    def make(desk: FakeDesk | None = None, settings=None, **options) -> HubThread:
        hub = HubThread(desk or FakeDesk(), settings or make_settings(), **options)
        hubs.append(hub)
        return hub

    yield make
    for hub in hubs:
        hub.close()
    assert [error for hub in hubs for error in hub.errors] == []
