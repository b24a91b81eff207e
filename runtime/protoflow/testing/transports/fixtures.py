"""The fixtures of the cases: an open transport for one case, and dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from protoflow.testing.transports.dead_letter_topic import DeadLetterTopic
from protoflow.testing.transports.harness import TransportHarness
from protoflow.testing.transports.target import TransportTarget
from protoflow.transport import Capabilities


def require(request: pytest.FixtureRequest, capabilities: Capabilities) -> None:
    """Skips the case if the transport does not claim a capability that the case needs."""
    for capability in getattr(request.function, "capabilities", ()):
        if not getattr(capabilities, capability):
            pytest.skip(f"capability: {capability}")


@pytest_asyncio.fixture
async def harness(
    request: pytest.FixtureRequest, target: TransportTarget
) -> AsyncIterator[TransportHarness]:
    """Provides an open transport, with topics and groups that no other case uses."""
    harness = TransportHarness(target)
    harness.transport = await harness.connect()
    try:
        require(request, harness.capabilities)
        yield harness
    finally:
        await harness.close()


@pytest.fixture
def dead(harness: TransportHarness) -> DeadLetterTopic:
    """Provides the dead-letter topic of a group."""
    return DeadLetterTopic(harness)
