"""The options of `nats://` and `jetstream://`."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from protoflow.config.secret import Secret
from protoflow.errors import ConfigError
from protoflow.transport.kit.security_options import CredentialOptions, TlsOptions

_TOKENS = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Storage(enum.StrEnum):
    """Where a stream is kept."""

    FILE = "file"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions(TlsOptions, CredentialOptions):
    """What both transports take.

    Attributes:
        token: a token instead of user and password.
        credentials_file: a `.creds` file with a JWT and its seed (needs `pip install nkeys`).
        nkey_file: a file with an NKey seed (needs `pip install nkeys`).
        nkey_seed: the seed itself.
        tls_first: the TLS handshake comes before the server says anything.
        ping_interval: seconds between signs of life asked of a silent server.
        max_pings: how many of them may be missing before the connection counts as lost.
        reconnect_wait: seconds before the first new attempt; doubles up to `reconnect_max`.
        reconnect_max: the longest such wait.
        publish_timeout: seconds before a publication that is not confirmed is an error.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "user": "username",
        "tls_ca": "tls_ca_file",
        "tls_certificate": "tls_cert_file",
        "tls_key": "tls_key_file",
        "tls_hostname": "tls_server_name",
    }

    token: Secret | None = None
    credentials_file: str | None = None
    nkey_file: str | None = None
    nkey_seed: Secret | None = None
    tls_first: bool = False
    ping_interval: float = 10.0
    max_pings: int = 2
    reconnect_wait: float = 0.1
    reconnect_max: float = 5.0
    publish_timeout: float = 10.0

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ConfigError(problems)

    def _problems(self) -> list[str]:
        given = [
            name
            for name in ("username", "token", "credentials_file", "nkey_file", "nkey_seed")
            if getattr(self, name) is not None
        ]
        problems = [*self.tls_problems()]
        if len(given) > 1:
            problems.append(f"options {' and '.join(given)} exclude each other")
        problems += [
            f"option {name} must be above 0"
            for name in (
                "ping_interval",
                "max_pings",
                "reconnect_wait",
                "reconnect_max",
                "publish_timeout",
            )
            if getattr(self, name) <= 0
        ]
        return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreOptions(ConnectionOptions):
    """The options of `nats://`.

    Attributes:
        prefix: what goes before a topic in its subject, with a dot; none by default, so
            that a subject is the topic and others can talk to us.
        pending_messages: how many received messages wait for a slow handler; beyond, they
            are dropped, which is counted, logged and turns readiness red.
        pending_bytes: the same in bytes.
    """

    prefix: str | None = None
    pending_messages: int = 65_536
    pending_bytes: int = 64 * 1024 * 1024

    def _problems(self) -> list[str]:
        problems = ConnectionOptions._problems(self)  # zero-argument super fails with slots
        if self.prefix and not _TOKENS.fullmatch(self.prefix):
            problems.append("option prefix must be A-Z a-z 0-9 _ - between dots")
        if self.pending_messages < 1 or self.pending_bytes < 1:
            problems.append("options pending_messages and pending_bytes must be above 0")
        return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class JetStreamOptions(ConnectionOptions):
    """The options of `jetstream://`.

    Attributes:
        prefix: what goes before a topic in its subject and before the names of streams.
        domain: the JetStream domain.
        storage: where new streams are kept: `file` or `memory`.
        replicas: how many servers keep a stream.
        max_age: seconds for which a topic keeps its messages; for ever by default. Retries
            and dead letters are kept for ever.
        max_bytes: how large a topic's stream may become, oldest messages going; unlimited
            by default.
        duplicate_window: seconds for which the server remembers deduplication ids.
        shards: subjects that a topic is split into, each handed to one process at a time
            under ordering; fixed when the topic's stream is made.
        max_ack_pending: how many deliveries of an unordered group may be unsettled over
            all its processes.
        ordered_window: how many deliveries of one shard of an ordered group may be unsettled.
        fetch_batch: how many messages one request asks for at most.
        fetch_expires: seconds that a request waits at the server.
    """

    prefix: str = "protoflow"
    domain: str | None = None
    storage: Storage = Storage.FILE
    replicas: int = 1
    max_age: float = 0.0
    max_bytes: int | None = None
    duplicate_window: float = 120.0
    shards: int = 1
    max_ack_pending: int = 10_000
    ordered_window: int = 256
    fetch_batch: int = 256
    fetch_expires: float = 30.0

    def _problems(self) -> list[str]:
        problems = ConnectionOptions._problems(self)  # zero-argument super fails with slots
        problems += [
            f"option {name} must be A-Z a-z 0-9 _ - between dots"
            for name in ("prefix", "domain")
            if getattr(self, name) is not None and not _TOKENS.fullmatch(getattr(self, name))
        ]
        if not 1 <= self.replicas <= 5:
            problems.append("option replicas must be from 1 to 5")
        if not 1 <= self.shards <= 256:
            problems.append("option shards must be from 1 to 256")
        if min(self.max_ack_pending, self.ordered_window, self.fetch_batch) < 1:
            problems.append(
                "options max_ack_pending, ordered_window and fetch_batch must be above 0"
            )
        if self.max_age < 0 or self.duplicate_window <= 0 or self.fetch_expires < 1:
            problems.append(
                "option max_age must not be below 0, duplicate_window must be above it,"
                " fetch_expires at least 1 s"
            )
        return problems
