"""The options of `http://` and `https://`."""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from protoflow.config.secret import Secret
from protoflow.errors import ConfigError
from protoflow.transport.kit.security_options import TlsOptions
from protoflow.transports.http.signatures import Signer

#: The topic of a target that gets all topics without a target of their own.
ANY_TOPIC: Final = "*"
_OF_A_GROUP: Final = re.compile(r"\.\.(dead|retry\.\d+)$")


class Mode(enum.StrEnum):
    """The content mode of CloudEvents."""

    BINARY = "binary"
    STRUCTURED = "structured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """How one topic is received.

    Attributes:
        topic: the topic, with the namespace.
        path: the path of its requests; by default that of the URL, and the topic.
        secrets: the secrets of its signatures, in place of those of the transport.
        token: the bearer token of its requests, in place of that of the transport.
    """

    topic: str
    path: str | None = None
    secrets: tuple[Secret, ...] = ()
    token: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that gets the messages of a topic.

    Attributes:
        topic: the topic, with the namespace; `*` for all topics without a target of their own.
        url: the URL; `{topic}` in it stands for the topic.
        secrets: the secrets that sign its requests. Each makes one signature.
        token: the bearer token of its requests.
        mode: `binary` or `structured`.
    """

    topic: str
    url: str
    secrets: tuple[Secret, ...] = ()
    token: Secret | None = None
    mode: Mode = Mode.BINARY


@dataclass(frozen=True, kw_only=True)
class HttpOptions(TlsOptions):
    """The options of `http://`; times are seconds. `tls_*` are for requests to targets.

    Attributes:
        secrets: the secrets of signatures of received requests; one of them must have signed.
        token: the bearer token of received requests.
        allow_unsigned: receive without secrets and token, also from other machines.
        endpoints: tables with `topic`, `path`, `secrets` and `token`, for topics that differ.
        tolerance: the most that the time of a signature may differ from this machine's.
        max_message_bytes: the largest body of a request, received or sent.
        answer_timeout: the most that a request waits until its messages are settled.
        hand_off: the URL of another transport, which stores received messages.
        headers: further headers of received requests that become metadata.
        allowed_origins: the senders that may ask for permission by `WebHook-Request-Origin`; `*`
            for all.
        allowed_rate: the requests per minute that the answer allows; 0 means no limit.
        reuse_port: share the port with other processes, between which the system divides
            connections.
        server_cert_file: a PEM file with the certificate of `https://`.
        server_key_file: a PEM file with its key, if `server_cert_file` does not contain it.
        server_key_password: the password of the key.
        targets: tables with `topic`, `url`, `secrets`, `token` and `mode`, to which messages are
            sent.
        allowed_networks: networks that targets may be in although they are not public, such as
            `10.1.0.0/16`.
        concurrent_requests: the most requests to one target at the same time.
        connect_timeout: the most that a connection to a target may take.
        request_timeout: the most that a target may take to answer.
        publish_timeout: the most that a message waits for its target before publishing fails.
        disabled_file: a file that keeps the targets that answered 410, so that they stay disabled
            after a restart.
    """

    secrets: tuple[Secret, ...] = ()
    token: Secret | None = None
    allow_unsigned: bool = False
    endpoints: tuple[Endpoint, ...] = ()
    tolerance: float = 300.0
    max_message_bytes: int = 1024 * 1024
    answer_timeout: float = 25.0
    hand_off: Secret | None = None
    headers: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    allowed_rate: int = 0
    reuse_port: bool = False
    server_cert_file: str | None = None
    server_key_file: str | None = None
    server_key_password: Secret | None = None
    targets: tuple[Target, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    concurrent_requests: int = 16
    connect_timeout: float = 5.0
    request_timeout: float = 30.0
    publish_timeout: float = 60.0
    disabled_file: str | None = None

    def __post_init__(self) -> None:
        problems = [*self.tls_problems(), *self._limits(), *self._endpoints(), *self._targets()]
        for network in self.allowed_networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                problems.append(f"option allowed_networks: {error}")
        if problems:
            raise ConfigError(problems)

    def endpoint(self, topic: str, base: str) -> Endpoint:
        """Returns how a topic is received, with the defaults filled in."""
        found = next((one for one in self.endpoints if one.topic == topic), Endpoint(topic=topic))
        own = bool(found.secrets or found.token)
        return Endpoint(
            topic=topic,
            path=found.path or f"{base}/{topic}",
            secrets=found.secrets if own else self.secrets,
            token=found.token if own else self.token,
        )

    def targets_of(self, topic: str, *, of_a_group: bool = False) -> Sequence[Target]:
        """Returns the targets of a topic. Retries and dead letters of a group are not for `*`."""
        own = [target for target in self.targets if target.topic == topic]
        if own or of_a_group or _OF_A_GROUP.search(topic):
            return own
        return [target for target in self.targets if target.topic == ANY_TOPIC]

    def topics(self) -> Mapping[str, Collection[str]]:
        """Returns the topics that each option names."""
        return {
            "endpoints": [endpoint.topic for endpoint in self.endpoints],
            "targets": [target.topic for target in self.targets if target.topic != ANY_TOPIC],
        }

    def _limits(self) -> Iterator[str]:
        for name in (
            *("tolerance", "max_message_bytes", "answer_timeout", "concurrent_requests"),
            *("connect_timeout", "request_timeout", "publish_timeout"),
        ):
            if getattr(self, name) <= 0:
                yield f"option {name} must be above 0"
        if self.allowed_rate < 0:
            yield "option allowed_rate must be at least 0"
        if self.server_key_file and not self.server_cert_file:
            yield "option server_key_file needs server_cert_file"

    def _endpoints(self) -> Iterator[str]:
        yield from _secret_problems("secrets", self.secrets)
        for number, endpoint in enumerate(self.endpoints):
            where = f"endpoints[{number}]"
            yield from _secret_problems(f"{where}: secrets", endpoint.secrets)
            if endpoint.path is not None and not endpoint.path.startswith("/"):
                yield f"option {where}: path must begin with /"
        topics = [endpoint.topic for endpoint in self.endpoints]
        if len({*topics}) < len(topics):
            yield "option endpoints: a topic has two tables"

    def _targets(self) -> Iterator[str]:
        for number, target in enumerate(self.targets):
            where = f"targets[{number}]"
            yield from _secret_problems(f"{where}: secrets", target.secrets)
            if problem := _url_problem(target.url):
                yield f"option {where}: url {problem}"


def _secret_problems(name: str, secrets: Sequence[Secret]) -> Iterator[str]:
    for number, secret in enumerate(secrets):
        try:
            Signer(secret)
        except ValueError as error:
            yield f"option {name}: secret {number + 1} {error}"


def _url_problem(url: str) -> str | None:
    """Returns what is wrong with the URL of a target; the text shows no part of the URL."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return "cannot be read"
    if not valid:
        return "must be http://host/path or https://host/path"
    if parts.username is not None or parts.password is not None:
        return "contains a user or a password; set token instead"
    return None
