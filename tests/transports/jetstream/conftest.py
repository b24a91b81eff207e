"""A JetStream server that runs, and one that a test may stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from protoflow.transport import Transport

from tests.brokers import start_own, url_of
from tests.brokers.base import BrokerUnavailable, RunningBroker
from tests.transports.nats.harness import opened


@pytest.fixture(scope="session")
def url() -> str:
    """The URL of the server that all tests share."""
    found = url_of("jetstream")
    if found is None:
        pytest.skip("broker: jetstream")
    return found


@pytest.fixture
async def transport(url: str) -> AsyncIterator[Transport]:
    """An open transport."""
    async with opened(url) as transport:
        yield transport


@pytest.fixture
def own() -> Iterator[RunningBroker]:
    """A server of this test alone."""
    try:
        with start_own("nats") as broker:
            yield broker
    except BrokerUnavailable as error:
        pytest.skip(f"broker: {error}")
