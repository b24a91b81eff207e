"""A RabbitMQ that runs, a harness on it, and a channel of another client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiormq
import pytest
from aiormq.abc import AbstractChannel

from tests.acceptance.targets import TARGETS
from tests.brokers.fixtures import shared_url
from tests.transports.rabbitmq.harness import Harness

url = shared_url("rabbitmq")


@pytest.fixture
async def harness(url: str, tmp_path: Path) -> AsyncIterator[Harness]:
    """An open transport with topics of its own."""
    harness = Harness(TARGETS["rabbitmq"], url, tmp_path)
    harness.transport = await harness.connect()
    yield harness
    await harness.close()


@pytest.fixture
async def native(url: str) -> AsyncIterator[AbstractChannel]:
    """A channel of the client library, as others use it."""
    connection = await aiormq.connect(url)
    yield await connection.channel()
    await connection.close()
