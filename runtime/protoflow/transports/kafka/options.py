"""Options of Kafka, named as Kafka names them; times are seconds."""

from __future__ import annotations

import enum
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from protoflow.config.url import TransportURL
from protoflow.errors import ConfigError
from protoflow.transport.kit.security_options import CredentialOptions, TlsOptions
from protoflow.transport.settings import TransportSettings
from protoflow.transports.kafka.commit_metadata import REACH

DEFAULT_PORT = 9092


class SaslMechanism(enum.StrEnum):
    """How user and password, or a token, are shown to the broker."""

    PLAIN = "plain"
    SCRAM_SHA_256 = "scram-sha-256"
    SCRAM_SHA_512 = "scram-sha-512"
    GSSAPI = "gssapi"
    OAUTHBEARER = "oauthbearer"


class Compression(enum.StrEnum):
    """How batches are compressed."""

    NONE = "none"
    GZIP = "gzip"
    SNAPPY = "snappy"
    LZ4 = "lz4"
    ZSTD = "zstd"


class Isolation(enum.StrEnum):
    """Whether messages of aborted transactions are seen."""

    READ_COMMITTED = "read_committed"
    READ_UNCOMMITTED = "read_uncommitted"


class Assignor(enum.StrEnum):
    """How partitions are dealt out to the members of a group."""

    ROUNDROBIN = "roundrobin"
    RANGE = "range"
    STICKY = "sticky"


#: Where few handlers run at once.
_WINDOW = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions(TlsOptions, CredentialOptions):
    """Tunables of the Kafka transport.

    Attributes:
        client_id: the name for the broker's logs and quotas; else the runtime's.
        sasl_mechanism: used if there is a user, and for gssapi and oauthbearer.
        sasl_kerberos_service_name: for gssapi.
        sasl_kerberos_domain_name: for gssapi; else the broker's host.
        sasl_oauth_token_provider: `package.module:factory` of an aiokafka token provider.
        request_timeout: how long one request may take.
        retry_backoff: the pause before a failed request is repeated.
        metadata_max_age: how old the knowledge of topics and leaders may become.
        metadata_timeout: how long publishing waits for a topic to appear.
        connections_max_idle: unused connections are closed after this time.
        health_interval: how often the broker is asked whether it is there.
        idempotence: the broker drops what the client had to send twice.
        compression: of batches.
        linger: how long a batch waits for company.
        max_batch_size: bytes of one batch of one partition.
        max_request_size: bytes of one message at most.
        publish_timeout: after this time a publish that is not confirmed has failed.
        session_timeout: a member that is silent for this time is out of its group.
        heartbeat_interval: how often a member says that it is there.
        rebalance_timeout: how long members may take to join again; else the drain plus 30 s.
        group_instance_id: static membership: unique per process, kept over restarts.
        assignor: how partitions are dealt out.
        isolation_level: whether messages of aborted transactions are seen.
        fetch_max_wait: how long the broker collects `fetch_min_bytes`.
        fetch_min_bytes: what a fetch waits for.
        fetch_max_bytes: what a fetch brings at most.
        max_partition_fetch_bytes: what a fetch brings of one partition at most.
        check_crcs: batches are checked for damage.
        client_rack: the rack, for fetching from a near replica (aiokafka >= 0.14).
        commit_interval: how often progress is committed.
        window: messages of one partition read beyond the oldest unfinished one; 0 is five for
            each handler at once, and at least 2,048.
        partitions: of topics made here; else the broker's default.
        replication: of topics made here; else the broker's default.
        retry_partitions: of retry topics; else as `partitions`.
        transaction_timeout: the broker ends a transaction that takes longer.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "ssl_ca_file": "tls_ca_file",
        "ssl_cert_file": "tls_cert_file",
        "ssl_key_file": "tls_key_file",
        "ssl_key_password": "tls_key_password",
        "ssl_check_hostname": "tls_verify_hostname",
        "ssl_verify": "tls_verify",
    }

    client_id: str | None = None
    sasl_mechanism: SaslMechanism = SaslMechanism.PLAIN
    sasl_kerberos_service_name: str = "kafka"
    sasl_kerberos_domain_name: str | None = None
    sasl_oauth_token_provider: str | None = None
    request_timeout: float = 15.0
    retry_backoff: float = 0.1
    metadata_max_age: float = 300.0
    metadata_timeout: float = 10.0
    connections_max_idle: float = 540.0
    health_interval: float = 5.0
    idempotence: bool = True
    compression: Compression = Compression.NONE
    linger: float = 0.0
    max_batch_size: int = 262144
    max_request_size: int = 1048576
    publish_timeout: float = 120.0
    session_timeout: float = 10.0
    heartbeat_interval: float = 3.0
    rebalance_timeout: float | None = None
    group_instance_id: str | None = None
    assignor: Assignor = Assignor.ROUNDROBIN
    isolation_level: Isolation = Isolation.READ_COMMITTED
    fetch_max_wait: float = 0.5
    fetch_min_bytes: int = 1
    fetch_max_bytes: int = 52428800
    max_partition_fetch_bytes: int = 1048576
    check_crcs: bool = True
    client_rack: str | None = None
    commit_interval: float = 1.0
    window: int = 0
    partitions: int | None = None
    replication: int | None = None
    retry_partitions: int | None = None
    transaction_timeout: float = 60.0

    def window_for(self, concurrency: int) -> int:
        """The window of a subscription with so many handlers at once."""
        return self.window or min(REACH, max(_WINDOW, 5 * concurrency))

    def __post_init__(self) -> None:
        problems = [*self.tls_problems()]
        problems += [
            f"option {name} must be above zero"
            for name in ("commit_interval", "request_timeout", "health_interval")
            if getattr(self, name) <= 0
        ]
        if not 0 <= self.window <= REACH:
            problems.append(
                f"option window must be 0 to {REACH}: what the metadata of a commit can store"
            )
        if self.heartbeat_interval >= self.session_timeout:
            problems.append("option heartbeat_interval must be below session_timeout")
        if problems:
            raise ConfigError(problems)


def servers(url: TransportURL) -> list[str]:
    """The brokers to ask first, as `host:port`."""
    hosts = url.hosts or (("localhost", None),)
    return [f"{host}:{port or DEFAULT_PORT}" for host, port in hosts]


def client_arguments(settings: TransportSettings, options: KafkaOptions) -> dict[str, Any]:
    """The keyword arguments that aiokafka's producer, consumer and admin client share.

    Raises:
        ConfigError: a file or token provider cannot be loaded.
    """
    return {
        "bootstrap_servers": servers(settings.url),
        "client_id": options.client_id or settings.client_name,
        "request_timeout_ms": int(options.request_timeout * 1000),
        "retry_backoff_ms": int(options.retry_backoff * 1000),
        "metadata_max_age_ms": int(options.metadata_max_age * 1000),
        "connections_max_idle_ms": int(options.connections_max_idle * 1000),
        **_security(settings.url, options),
    }


def _security(url: TransportURL, options: KafkaOptions) -> dict[str, Any]:
    tls = options.tls_context("kafka", "kafka+ssl", encrypted=url.scheme.endswith("+ssl"))
    user, password = options.login(url)
    token = options.sasl_mechanism in (SaslMechanism.GSSAPI, SaslMechanism.OAUTHBEARER)
    sasl = user is not None or token
    protocol = ("SASL_SSL" if tls else "SASL_PLAINTEXT") if sasl else "SSL" if tls else "PLAINTEXT"
    arguments: dict[str, Any] = {"security_protocol": protocol}
    if tls:
        arguments["ssl_context"] = tls
    if sasl:
        arguments |= {
            "sasl_mechanism": options.sasl_mechanism.value.upper(),
            "sasl_plain_username": user,
            "sasl_plain_password": password.reveal() if password else "",
            "sasl_kerberos_service_name": options.sasl_kerberos_service_name,
            "sasl_kerberos_domain_name": options.sasl_kerberos_domain_name,
            "sasl_oauth_token_provider": _token_provider(options),
        }
    return arguments


def _token_provider(options: KafkaOptions) -> Any:
    path = options.sasl_oauth_token_provider
    if path is None:
        if options.sasl_mechanism is SaslMechanism.OAUTHBEARER:
            raise ConfigError("transport: kafka: oauthbearer needs sasl_oauth_token_provider")
        return None
    module, _, factory = path.partition(":")
    try:
        return getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            "transport: kafka: sasl_oauth_token_provider must name a callable, package.module:name"
        ) from error
