"""The transports that the acceptance suite runs against: one target for each.

A new transport adds one line to HOW. `broker` names the server that `tests.brokers`
finds or starts; a transport without a broker needs no server.
"""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protoflow.testing.transports import TransportTarget
from protoflow.transport import Transport
from protoflow.transports.built_in import BUILT_IN
from protoflow.transports.memory import MemoryTransport

from tests.acceptance import sessions
from tests.brokers.base import free_port


@dataclass(frozen=True, kw_only=True)
class Target(TransportTarget):
    """One of the project's own transports under test.

    Attributes:
        name: what `--transport` says.
        url: the URL; `{directory}` is a fresh directory, `{unique}` a fresh name, `{port}` a free
            port. In `options`, `{url}` stands for it.
        broker: the server in `tests.brokers` whose URL is taken instead.
        takes_minutes: it is tested only where `--transport` names it, as `make acceptance` does.
        takes_any_topic: whether a publish succeeds to a topic that nothing consumes. False: the
            options send every topic to the transport under test, which refuses unknown ones.
    """

    name: str
    url: str = ""
    broker: str | None = None
    takes_minutes: bool = False
    takes_any_topic: bool = True

    def fresh_url(self, directory: Path) -> str | None:
        """A URL under which nothing has happened yet; None without a broker."""
        if self.broker is None:
            return self.url.format(directory=directory, unique=uuid.uuid4().hex, port=free_port())
        try:
            from tests.brokers import url_of
        except ImportError:
            return None
        return url_of(self.broker)

    def at(self, url: str) -> Target:
        """The same target at another URL."""
        return dataclasses.replace(self, url=url, options=_at(url, self.options))


def _at(url: str, value: Any) -> Any:
    """Options with the URL filled in."""
    if isinstance(value, dict):
        return {name: _at(url, each) for name, each in value.items()}
    if isinstance(value, list):
        return [_at(url, each) for each in value]
    return value.replace("{url}", url) if isinstance(value, str) else value


def _crash_memory(transport: Transport) -> None:
    assert isinstance(transport, MemoryTransport)
    transport.vanish()


#: How each transport is tested.
HOW: dict[str, dict[str, Any]] = {
    "memory": {"url": "memory://{unique}", "crash": _crash_memory},
    "sqlite": {"url": "sqlite:///{directory}/queue.db", "end_session": sessions.end_sqlite},
    "file": {
        "url": "file://{directory}/log",
        "options": {"fsync": "never"},
        "end_session": sessions.end_file,
    },
    "postgresql": {
        "broker": "postgresql",
        # All cases share a server: what one writes wakes the subscriptions of all others.
        "options": {"poll_interval": 0.2},
        "end_session": sessions.end_postgresql,
    },
    "kafka": {
        "broker": "kafka",
        "patience": 4.0,
        "crash_options": {"session_timeout": 3.0, "heartbeat_interval": 0.5},
        "restarts": 7,
        "end_session": sessions.end_kafka,
        "commits_later": True,
        # Kafka refuses a topic whose name differs from another's only in dots and underscores.
        "refused_names": frozenset(
            {"dot and underscore in the topic", "dot and underscore in the group"}
        ),
    },
    "rabbitmq": {
        "broker": "rabbitmq",
        "patience": 3.0,
        "crash_options": {"heartbeat": 2.0},
        "end_session": sessions.end_rabbitmq,
    },
    "nats": {"broker": "nats", "patience": 2.0},
    "jetstream": {
        "broker": "jetstream",
        "patience": 3.0,
        "end_session": sessions.end_jetstream,
    },
    "redis": {"broker": "redis", "end_session": sessions.end_redis},
    "sqs": {
        "broker": "sqs",
        "takes_minutes": True,  # because of moto; `make test` runs tests/transports/sqs
        # moto copies each message, and looks through all of a queue for each request.
        "patience": 3.0,
        "restarts": 5,
        # A process that ends waits for its requests, which wait for messages.
        "options": {"wait_time": 1},
        "end_session": sessions.end_sqs,
    },
    "http": {
        "takes_minutes": True,  # a request for each message; `make test` runs tests/transports/http
        "url": "http://127.0.0.1:{port}",
        "options": {
            "targets": [{"topic": "*", "url": "{url}/{topic}"}],
            "allowed_networks": ["127.0.0.0/8"],
            "concurrent_requests": 128,
        },
        "patience": 2.0,
        "confirms_when_settled": True,
        "takes_any_topic": False,
        "restarts": 5,
    },
}
TARGETS = {item.name: Target(name=item.name, **HOW[item.name]) for item in BUILT_IN}
#: The names of those that are tested unless `--transport` names others.
QUICK = frozenset(target.name for target in TARGETS.values() if not target.takes_minutes)
