"""A message received from one broker and published on another has its metadata only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from protoflow.message import Message
from protoflow.transports.kafka import headers as kafka
from protoflow.transports.nats.wire import headers as nats
from protoflow.transports.rabbitmq import codec
from protoflow.transports.rabbitmq.codec import Native
from protoflow.transports.rabbitmq.reading import Properties

#: What each transport keeps of a message that it has received.
NATIVE = {"kafka": (("a", b"1"),), "nats": {"a": "1"}, "rabbitmq": Native(Properties())}
WRITE: dict[str, Callable[[Message], Any]] = {
    "kafka": kafka.write,
    "nats": nats.encode,
    "rabbitmq": lambda message: codec.encode(message, 0.0, "protoflow"),
}


@pytest.mark.parametrize("publisher", WRITE)
@pytest.mark.parametrize("origin", NATIVE)
def test_headers_of_another_broker_are_left_out(publisher: str, origin: str) -> None:
    def written(native: Any) -> Any:
        return WRITE[publisher](Message(id="m", topic="t", payload=b"x", headers=native))

    if publisher != origin:
        assert written(NATIVE[origin]) == written(None)
