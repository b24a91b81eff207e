"""The transports that the acceptance suite runs against: one target for each.

A new transport adds one line to TARGETS. `broker` names the server that `tests.brokers`
finds or starts; a transport without a broker needs no server.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import uuid
from dataclasses import dataclass
from pathlib import Path

from protoflow.testing.transports import TransportTarget
from protoflow.transport import Transport
from protoflow.transports.memory import MemoryTransport


@dataclass(frozen=True, kw_only=True)
class Target(TransportTarget):
    """One of the project's own transports under test.

    Attributes:
        name: what `--transport` says.
        module: the module in `protoflow.transports`.
        url: the URL; `{directory}` is a fresh directory, `{unique}` a fresh name.
        broker: the server in `tests.brokers` whose URL is taken instead.
    """

    name: str
    module: str
    url: str = ""
    broker: str | None = None

    @property
    def written(self) -> bool:
        """Whether the transport is there."""
        return importlib.util.find_spec(f"protoflow.transports.{self.module}") is not None

    def fresh_url(self, directory: Path) -> str | None:
        """A URL under which nothing has happened yet; None without a broker."""
        if self.broker is None:
            return self.url.format(directory=directory, unique=uuid.uuid4().hex)
        try:
            from tests.brokers import url_of
        except ImportError:
            return None
        return url_of(self.broker)

    def at(self, url: str) -> Target:
        """The same target at another URL."""
        return dataclasses.replace(self, url=url)


def _crash_memory(transport: Transport) -> None:
    assert isinstance(transport, MemoryTransport)
    transport.vanish()


TARGETS = {
    target.name: target
    for target in (
        Target(name="memory", module="memory", url="memory://{unique}", crash=_crash_memory),
        Target(name="sqlite", module="sqlite", url="sqlite:///{directory}/queue.db"),
        Target(
            name="kafka",
            module="kafka",
            broker="kafka",
            patience=4.0,
            crash_options={"session_timeout": 3.0, "heartbeat_interval": 0.5},
            restarts=7,
            # Kafka refuses a topic whose name differs from another's only in dots and underscores.
            refused_names=frozenset(
                {"dot and underscore in the topic", "dot and underscore in the group"}
            ),
        ),
        Target(name="rabbitmq", module="rabbitmq", broker="rabbitmq", patience=3.0),
        Target(name="nats", module="nats", broker="nats", patience=2.0),
        Target(name="jetstream", module="jetstream", broker="jetstream", patience=3.0),
    )
}
