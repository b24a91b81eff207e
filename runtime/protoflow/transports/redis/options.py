"""The options of `redis://` and `rediss://`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from protoflow.config.secret import Secret
from protoflow.errors import ConfigError
from protoflow.transport.kit.security_options import CredentialOptions, TlsOptions

_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,60}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions(TlsOptions, CredentialOptions):
    """The options of `redis://`; times are seconds.

    Attributes:
        prefix: the prefix of all keys.
        shards: the number of streams into which a topic is split by key, to share its load in a
            cluster; fixed when the topic is created.
        cluster: whether the URL names nodes of a cluster.
        sentinel: the name of the master, if the URL names sentinels.
        sentinel_username: the user at the sentinels.
        sentinel_password: the password at the sentinels.
        poll_interval: seconds between two checks of an empty topic for messages that were given
            back.
        request_timeout: seconds that the server may take to answer.
        max_message_bytes: the largest payload, key and metadata together, in bytes.
        retained_messages: the most messages in a topic without groups; the oldest are dropped.
    """

    prefix: str = "protoflow"
    shards: int = 1
    cluster: bool = False
    sentinel: str | None = None
    sentinel_username: str | None = None
    sentinel_password: Secret | None = None
    poll_interval: float = 0.5
    request_timeout: float = 10.0
    max_message_bytes: int = 16 * 1024 * 1024
    retained_messages: int = 1_000_000

    def __post_init__(self) -> None:
        problems = [*self.tls_problems()]
        if not _PREFIX.fullmatch(self.prefix):
            problems.append("option prefix must be 1 to 60 of A-Z a-z 0-9 . _ -")
        if not 1 <= self.shards <= 256:
            problems.append("option shards must be from 1 to 256")
        if self.cluster and self.sentinel is not None:
            problems.append("options cluster and sentinel exclude each other")
        if self.poll_interval <= 0 or self.request_timeout <= 0:
            problems.append("options poll_interval and request_timeout must be above 0")
        if not 0 < self.max_message_bytes <= 512 * 1024 * 1024:
            problems.append("option max_message_bytes must be from 1 to 536870912, Redis's bound")
        if self.retained_messages < 1:
            problems.append("option retained_messages must be above 0")
        if problems:
            raise ConfigError(problems)
