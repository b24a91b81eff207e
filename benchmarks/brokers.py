"""The brokers to measure on: found or started as for the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

#: Transport -> its server, and the server's name.
SERVERS = {
    "kafka": ("kafka", "Kafka"),
    "rabbitmq": ("rabbitmq", "RabbitMQ"),
    "nats": ("nats", "nats-server"),
    "jetstream": ("nats", "nats-server"),
    "redis": ("redis", "Redis"),
    "postgresql": ("postgresql", "PostgreSQL"),
}


@dataclass
class Brokers:
    """Where they are, and their versions."""

    urls: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def find(transports: Iterable[str]) -> Brokers:
    """The brokers of these transports; ends the program when one is missing."""
    from tests.brokers import BrokerUnavailable, url_of
    from tests.brokers import find as running

    found = Brokers()
    for transport in sorted(transports):
        try:
            url = url_of(transport)
        except BrokerUnavailable as error:
            sys.exit(f"{transport}: {error}")
        if url is None:
            sys.exit(f"{transport}: no broker; run `make brokers`, or leave out what needs it")
        found.urls[transport] = url
        server, name = SERVERS[transport]
        broker = running(server)
        if broker is not None:
            found.versions[name] = _version(server, broker.source, broker.version)
    return found


def _version(server: str, source: str, probed: str) -> str:
    if server == "kafka" and source != "env":
        from tests.brokers.kafka import jars

        return jars()[0]  # Kafka itself does not tell its version
    return probed
