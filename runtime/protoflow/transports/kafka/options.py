"""The options of Kafka, with Kafka's own names; times are seconds."""

from __future__ import annotations

import enum
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from protoflow.config.url import TransportURL
from protoflow.error_codes import TRANSPORT_OPTION
from protoflow.errors import ConfigError
from protoflow.transport.kit.security_options import CredentialOptions, TlsOptions
from protoflow.transport.settings import TransportSettings
from protoflow.transports.kafka.commit_metadata import REACH

DEFAULT_PORT = 9092


class SaslMechanism(enum.StrEnum):
    """How the client authenticates at the broker."""

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
    """Whether messages of aborted transactions are read."""

    READ_COMMITTED = "read_committed"
    READ_UNCOMMITTED = "read_uncommitted"


class Assignor(enum.StrEnum):
    """How partitions are assigned to the members of a group."""

    ROUNDROBIN = "roundrobin"
    RANGE = "range"
    STICKY = "sticky"


#: The smallest default of the option `window`.
_WINDOW = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions(TlsOptions, CredentialOptions):
    """The options of the Kafka transport.

    Attributes:
        client_id: the name in the broker's logs and quotas; default: the config's `client_name`.
        sasl_mechanism: the SASL mechanism for a user; `gssapi` and `oauthbearer` need no user.
        sasl_kerberos_service_name: the Kerberos service, for `gssapi`.
        sasl_kerberos_domain_name: the domain, for `gssapi`; default: the broker's host.
        sasl_oauth_token_provider: `package.module:factory` of an aiokafka token provider.
        request_timeout: seconds that one request may take.
        retry_backoff: seconds before a failed request is repeated.
        metadata_max_age: seconds after which topics and leaders are read again.
        metadata_timeout: seconds for which a publish waits until its topic exists.
        connections_max_idle: seconds after which an unused connection is closed.
        health_interval: seconds between two checks that the broker answers.
        idempotence: whether the broker drops messages that the client sends twice.
        compression: the compression of batches.
        linger: seconds for which a batch waits for more messages.
        max_batch_size: the largest batch for one partition, in bytes.
        max_request_size: the largest message, in bytes.
        publish_timeout: seconds after which an unconfirmed publish fails.
        session_timeout: seconds without a heartbeat after which a member is removed from its group.
        heartbeat_interval: seconds between two heartbeats of a member.
        rebalance_timeout: seconds for members to join again; default: `rebalance_drain` + 30.
        group_instance_id: a name for static membership, unique per process.
        assignor: how partitions are assigned to members.
        isolation_level: whether messages of aborted transactions are read.
        fetch_max_wait: seconds for which the broker waits for `fetch_min_bytes`.
        fetch_min_bytes: the bytes for which the broker waits before it answers a fetch.
        fetch_max_bytes: the largest response to a fetch, in bytes.
        max_partition_fetch_bytes: the largest part of a response for one partition, in bytes.
        check_crcs: whether checksums of batches are verified.
        client_rack: the rack, to fetch from a near replica (aiokafka >= 0.14).
        commit_interval: seconds between two commits of offsets.
        window: the most messages of a partition that are read after its oldest unfinished one; 0:
            five times the concurrency, at least 2,048.
        partitions: partitions of topics that are created; default: the broker's.
        replication: replicas of topics that are created; default: the broker's.
        retry_partitions: partitions of retry topics; default: `partitions`.
        transaction_timeout: seconds after which the broker aborts a transaction.
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
        """Returns the window of a subscription with this concurrency."""
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
                f"option window must be 0 to {REACH}, because commit metadata cannot store more"
            )
        if self.heartbeat_interval >= self.session_timeout:
            problems.append("option heartbeat_interval must be below session_timeout")
        if problems:
            raise ConfigError(problems)


def servers(url: TransportURL) -> list[str]:
    """Returns the brokers of the URL, as `host:port`."""
    hosts = url.hosts or (("localhost", None),)
    return [f"{host}:{port or DEFAULT_PORT}" for host, port in hosts]


def client_arguments(settings: TransportSettings, options: KafkaOptions) -> dict[str, Any]:
    """Returns the keyword arguments that aiokafka's producer, consumer and admin client share.

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
            raise ConfigError(
                "transport: kafka: oauthbearer needs sasl_oauth_token_provider",
                code=TRANSPORT_OPTION,
            )
        return None
    module, _, factory = path.partition(":")
    try:
        return getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            "transport: kafka: sasl_oauth_token_provider must name a callable, package.module:name",
            code=TRANSPORT_OPTION,
        ) from error
