"""The cases of the acceptance suite that are about order, on FIFO topics and queues."""

from __future__ import annotations

import pytest
from protoflow.testing.transports import TransportTarget
from protoflow.testing.transports.cases.disturbed import *  # noqa: F403
from protoflow.testing.transports.cases.order import *  # noqa: F403
from protoflow.testing.transports.fixtures import *  # noqa: F403

from tests.acceptance.sessions import end_sqs


@pytest.fixture
def target(url: str) -> TransportTarget:
    """FIFO topics, in order per key."""
    options = {"wait_time": 1, "fifo": "key"}
    return TransportTarget(url=url, options=options, patience=3.0, end_session=end_sqs)
