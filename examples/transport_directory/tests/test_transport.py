"""The acceptance suite for transports, run against this transport."""

import sys
from pathlib import Path

import pytest
from protoflow.testing.transports import TransportTarget
from protoflow.testing.transports.cases import *  # noqa: F403
from protoflow_directory.transport import Subscription


async def end_session(subscription: Subscription) -> None:
    """Frees held messages, as if their leases had ended."""
    await subscription.transport.run(subscription.group.expire, sys.maxsize)


@pytest.fixture
def target(tmp_path: Path) -> TransportTarget:
    """Provides an empty directory for each case."""
    url, options = f"directory://{tmp_path}/broker", {"sync": False}
    return TransportTarget(url=url, options=options, end_session=end_session)
