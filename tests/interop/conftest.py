"""Clients that are not ours, on real brokers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from protoflow import Config, Context, Service
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.transport import Topology, TopologyMode

from tests.acceptance.harness import handler
from tests.brokers import url_or_skip
from tests.interop.peers import PATIENCE, PEERS, Peer

ONCE = DeliveryPolicy(retry=RetryPolicy(max_attempts=1))


@dataclass(frozen=True)
class Got:
    """What a handler of ours was given."""

    message: Any
    context: Context


@dataclass
class Party:
    """Our side: services and producers in a namespace of one test."""

    url: str
    peer: Any
    namespace: str = field(default_factory=lambda: f"i{uuid.uuid4().hex[:10]}")
    got: list[Got] = field(default_factory=list)

    def config(self, **settings: Any) -> Config:
        return Config(
            transport=self.url,
            namespace=self.namespace,
            environ={},
            retry_ladder=(5.0,),
            variables={"team": "a", "region": "eu"},
            **settings,
        )

    def topic(self, name: str) -> str:
        """A topic as others know it."""
        return f"{self.namespace}..{name}"

    async def keep(self, message: Any, context: Context, /) -> None:
        """A handler that remembers."""
        self.got.append(Got(message, context))

    @asynccontextmanager
    async def running(self, *services: str, **settings: Any) -> AsyncIterator[Service]:
        """A service with handlers that remember."""
        handlers = [handler(name, self.keep) for name in services]
        methods = [
            method.name for item in handlers for method in type(item).__protoflow_spec__.methods
        ]
        # No retries: what is not understood is to be seen at once, and core NATS has none.
        settings.setdefault("handlers", dict.fromkeys(methods, ONCE))
        service = Service(self.config(**settings))
        service.register(*handlers)
        async with service:
            yield service

    async def received(self, count: int) -> list[Got]:
        """So many messages, once they are there."""
        async with asyncio.timeout(PATIENCE):
            while len(self.got) < count:
                await asyncio.sleep(0.01)
        return self.got

    async def make(self, service: Any, *topics: str) -> None:
        """Makes topics before anything is published to them."""
        names = tuple(map(self.topic, topics))
        await service.transport.ensure(Topology(topics=names), TopologyMode.CREATE)


def _url(broker: str) -> str:
    return url_or_skip(broker)


@asynccontextmanager
async def _party(broker: str) -> AsyncIterator[Party]:
    url = _url(broker)
    peer: Peer
    async with PEERS[broker](url).open() as peer:
        yield Party(url, peer)


@pytest.fixture(params=sorted(PEERS))
async def party(request: pytest.FixtureRequest) -> AsyncIterator[Party]:
    """Each broker in turn."""
    async with _party(request.param) as party:
        yield party


@pytest.fixture
async def kafka() -> AsyncIterator[Party]:
    async with _party("kafka") as party:
        yield party


@pytest.fixture
async def rabbitmq() -> AsyncIterator[Party]:
    async with _party("rabbitmq") as party:
        yield party


@pytest.fixture
async def core() -> AsyncIterator[Party]:
    async with _party("nats") as party:
        yield party


@pytest.fixture
async def jetstream() -> AsyncIterator[Party]:
    async with _party("jetstream") as party:
        yield party
