"""A JetStream server that runs, an open transport on it, and a server that a test may stop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from protoflow.transport import Transport

from tests.brokers.fixtures import own_broker, shared_url
from tests.transports.nats.harness import opened

url = shared_url("jetstream")
own = own_broker("nats")


@pytest.fixture
async def transport(url: str) -> AsyncIterator[Transport]:
    """An open transport."""
    async with opened(url) as transport:
        yield transport
