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
    """The storage of a stream."""

    FILE = "file"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions(TlsOptions, CredentialOptions):
    """The options of both transports; times are seconds.

    Attributes:
        token: a token instead of user and password.
        credentials_file: a `.creds` file with a JWT and its seed (needs `pip install nkeys`).
        nkey_file: a file with an NKey seed (needs `pip install nkeys`).
        nkey_seed: the seed itself.
        tls_first: the TLS handshake begins before the server sends its first line.
        ping_interval: seconds between two pings of a silent server.
        max_pings: unanswered pings after which the connection is lost.
        reconnect_wait: seconds before the first reconnect; the wait doubles up to `reconnect_max`.
        reconnect_max: the longest wait before a reconnect.
        publish_timeout: seconds after which an unconfirmed publish fails.
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
        prefix: the prefix of every subject. Without it the subject is the topic, which other
            clients expect.
        pending_messages: the most received messages that wait for a slow handler. Further
            messages are dropped, counted and logged, and readiness turns red.
        pending_bytes: the size of these messages.
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
        prefix: the prefix of subjects and of names of streams.
        domain: the JetStream domain.
        storage: the storage of new streams, `file` or `memory`.
        replicas: the number of servers that store each stream.
        max_age: seconds for which a topic keeps its messages; 0: without limit. Retries and
            dead letters are kept without limit.
        max_bytes: the largest size of a topic's stream, which then drops its oldest messages;
            None: unlimited.
        duplicate_window: seconds in which the server stores one message of each id.
        shards: subjects into which a topic is split; under ordering, one process at a time
            handles a shard. The number is fixed when the stream of the topic is created.
        max_ack_pending: the most unsettled deliveries of an unordered group, over all its
            processes.
        ordered_window: the most unsettled deliveries of a shard of an ordered group.
        fetch_batch: the most messages in one fetch.
        fetch_expires: seconds for which a fetch waits at the server.
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
