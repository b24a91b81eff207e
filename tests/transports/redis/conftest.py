"""A Redis that runs, and a client of its own to look at it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
from protoflow.transport import Transport

from tests.brokers import url_or_skip
from tests.transports.nats.harness import opened


@pytest.fixture(scope="session")
def url() -> str:
    """The URL of the server that all tests share."""
    return url_or_skip("redis")


@pytest.fixture
async def transport(url: str) -> AsyncIterator[Transport]:
    """An open transport."""
    async with opened(url) as transport:
        yield transport


@pytest.fixture
async def client(url: str) -> AsyncIterator[Any]:
    """A bare client."""
    async with redis.asyncio.from_url(url, protocol=2) as client:
        yield client
