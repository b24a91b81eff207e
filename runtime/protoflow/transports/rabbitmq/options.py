"""The options of RabbitMQ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from protoflow.errors import ConfigError
from protoflow.transport.kit.security_options import CredentialOptions, TlsOptions

_EXCHANGE = re.compile(r"(?!amq\.)[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitMQOptions(TlsOptions, CredentialOptions):
    """The options of `amqp://`; times are seconds.

    Attributes:
        exchange: the topic exchange, and the prefix of all other names.
        heartbeat: seconds between two heartbeats; three missed heartbeats end the connection; 0:
            no heartbeats.
        prefetch: messages of a subscription that the broker sends in advance; None: as many as
            may be in flight. Lower it for large messages.
        shards: queues of each group and topic; the key of a message selects the queue. The number
            cannot be changed later. More than one needs the plugin
            `rabbitmq_consistent_hash_exchange`.
        max_hold: seconds for which a delivery may be unsettled; must be below the server's
            `consumer_timeout` (default 30 minutes).
        confirm_timeout: seconds that the broker may take to confirm a message.
        request_timeout: seconds that the broker may take to answer any other request.
        watchdog: seconds after which a queue without deliveries is checked for a lost consumer.
        max_message_bytes: the largest payload; None: the server's default, 16 MiB since RabbitMQ 4
            and 128 MiB before.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "ca_file": "tls_ca_file",
        "cert_file": "tls_cert_file",
        "key_file": "tls_key_file",
        "verify": "tls_verify",
    }

    exchange: str = "protoflow"
    heartbeat: float = 10.0
    prefetch: int | None = None
    shards: int = 1
    max_hold: float = 25 * 60.0
    confirm_timeout: float = 30.0
    request_timeout: float = 30.0
    watchdog: float = 60.0
    max_message_bytes: int | None = None

    def __post_init__(self) -> None:
        problems = [*self.tls_problems()]
        problems += [
            f"option {name} must be positive"
            for name in ("max_hold", "confirm_timeout", "request_timeout", "watchdog")
            if getattr(self, name) <= 0
        ]
        if not 0 <= self.heartbeat < 65536:
            problems.append("option heartbeat must be from 0 to 65535 seconds")
        if self.prefetch is not None and not 1 <= self.prefetch <= 65535:
            problems.append("option prefetch must be from 1 to 65535")
        if not 1 <= self.shards <= 256:
            problems.append("option shards must be from 1 to 256")
        if self.max_message_bytes is not None and self.max_message_bytes < 1:
            problems.append("option max_message_bytes must be positive")
        if not _EXCHANGE.fullmatch(self.exchange):
            problems.append(
                "option exchange must be 1 to 100 of A-Z a-z 0-9 . _ - and not begin with amq.,"
                " which rabbitmq keeps for itself"
            )
        if problems:
            raise ConfigError(problems)
