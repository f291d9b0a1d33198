"""What tests of the embedded API share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.local_api import close_stores, make_api, make_client
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.api.core import Api


@pytest.fixture(autouse=True)
def _stores_are_closed() -> Iterator[None]:
    yield
    close_stores()


@pytest.fixture
def api() -> Api:
    """An API with the Widget kind."""
    return make_api()


@pytest.fixture
def client(api: Api) -> LocalClient:
    """A client of it."""
    return make_client(api)
