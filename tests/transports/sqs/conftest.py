"""moto's server, and a transport on it whose requests a test can change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from protoflow.transport import Transport

from tests.brokers import url_or_skip
from tests.transports.nats.harness import opened

Call = Callable[..., Awaitable[Mapping[str, Any]]]
Change = Callable[[Call, dict[str, Any]], Awaitable[Mapping[str, Any]]]


class Requests:
    """The requests of a transport: each is noted, and may be changed by its operation."""

    def __init__(self, transport: Any) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.changes: dict[str, Change] = {}
        self._call = transport._connection.call
        transport._connection.call = self.call

    async def call(
        self, service: str, operation: str, *, longer: float = 0.0, **parameters: Any
    ) -> Mapping[str, Any]:
        self.sent.append((operation, parameters))

        async def send(**changed: Any) -> Mapping[str, Any]:
            found: Mapping[str, Any] = await self._call(
                service, operation, longer=longer, **changed
            )
            return found

        change = self.changes.get(operation)
        return await (send(**parameters) if change is None else change(send, parameters))

    def of(self, operation: str) -> list[dict[str, Any]]:
        """The parameters of the requests of one kind."""
        return [parameters for name, parameters in self.sent if name == operation]


@pytest.fixture(scope="session")
def url() -> str:
    """The URL of the server that all tests share."""
    return url_or_skip("sqs")


@pytest.fixture
async def transport(url: str) -> AsyncIterator[Transport]:
    """An open transport with standard queues."""
    async with opened(url, wait_time=1) as transport:
        yield transport


@pytest.fixture
async def ordered(url: str) -> AsyncIterator[Transport]:
    """An open transport with FIFO queues."""
    async with opened(url, wait_time=1, fifo="key") as transport:
        yield transport


@pytest.fixture
def requests(transport: Transport) -> Requests:
    """The requests of `transport`."""
    return Requests(transport)
