"""A Kafka that runs, and an open transport on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from protoflow.transports.kafka.transport import KafkaTransport

from tests.brokers.fixtures import shared_url
from tests.transports.kafka.harness import opened

url = shared_url("kafka")


@pytest.fixture
async def broker(url: str) -> AsyncIterator[KafkaTransport]:
    """An open transport."""
    async with opened(url) as transport:
        yield transport
