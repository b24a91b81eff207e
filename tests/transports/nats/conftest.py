"""A NATS server that runs, and one that a test may stop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.brokers import start_own, url_of
from tests.brokers.base import BrokerUnavailable, RunningBroker


@pytest.fixture(scope="session")
def url() -> str:
    """The URL of the server that all tests share."""
    found = url_of("nats")
    if found is None:
        pytest.skip("broker: nats")
    return found


@pytest.fixture
def own() -> Iterator[RunningBroker]:
    """A server of this test alone."""
    try:
        with start_own("nats") as broker:
            yield broker
    except BrokerUnavailable as error:
        pytest.skip(f"broker: {error}")
