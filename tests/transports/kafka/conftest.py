"""A Kafka that runs, and an open transport on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from protoflow.transports.kafka.transport import KafkaTransport

from tests.brokers import url_of
from tests.transports.kafka.harness import opened


@pytest.fixture(scope="session")
def url() -> str:
    """The URL of the broker that all tests share."""
    found = url_of("kafka")
    if found is None:
        pytest.skip("broker: kafka")
    return found


@pytest.fixture
async def broker(url: str) -> AsyncIterator[KafkaTransport]:
    """An open transport."""
    async with opened(url) as transport:
        yield transport
