"""What the suite runs against: one target for each transport.

A new transport adds one line to TARGETS. `broker` names the server that `tests.brokers`
finds or starts; without it the transport needs none.
"""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Target:
    """One transport under test.

    Attributes:
        name: what `--transport` says.
        module: the module in `protoflow.transports`.
        url: the URL; `{directory}` is a fresh directory, `{unique}` a fresh name.
        broker: the server in `tests.brokers` whose URL is taken instead.
        options: `TransportSettings.options`.
        patience: by what waits are multiplied: how slow the broker is allowed to be.
        lease: the lease that subscriptions get, where a test does not say.
        mortal: further options of processes that a test kills, so that they are soon missed.
        restarts: how often a test starts it anew where it does so many times: more than twice as
            often as hand-outs or starts raise suspicion, and fewer where starting takes long.
    """

    name: str
    module: str
    url: str = ""
    broker: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    patience: float = 1.0
    lease: float = 30.0
    mortal: Mapping[str, Any] = field(default_factory=dict)
    restarts: int = 20

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


TARGETS = {
    target.name: target
    for target in (
        Target(name="memory", module="memory", url="memory://{unique}"),
        Target(name="sqlite", module="sqlite", url="sqlite:///{directory}/queue.db"),
        Target(
            name="kafka",
            module="kafka",
            broker="kafka",
            patience=4.0,
            mortal={"session_timeout": 3.0, "heartbeat_interval": 0.5},
            restarts=7,
        ),
        Target(name="rabbitmq", module="rabbitmq", broker="rabbitmq", patience=3.0),
        Target(name="nats", module="nats", broker="nats", patience=2.0),
        Target(name="jetstream", module="jetstream", broker="jetstream", patience=3.0),
    )
}
