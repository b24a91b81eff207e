"""The NATS bindings of an AsyncAPI document: https://github.com/asyncapi/bindings/tree/master/nats.

JetStream has no binding there, so its streams and durables are under `x-protoflow`.
"""

from __future__ import annotations

from typing import Any

from protoflow.asyncapi.bindings import Bindings, Fields, RetryChannel, servers
from protoflow.codecs.bindings import NATS
from protoflow.config.options import parse_options
from protoflow.transport.interface import TransportSettings
from protoflow.transports.nats.names import JetStreamNames, tokens
from protoflow.transports.nats.options import ConnectionOptions, CoreOptions, JetStreamOptions

_VERSION = {"bindingVersion": "0.1.0"}
_PORT = 4222


class _ServerBindings(Bindings):
    """The common parts of core NATS and JetStream."""

    header_prefix = NATS.prefix
    content_type = NATS.content_type

    def __init__(self, settings: TransportSettings, options: ConnectionOptions) -> None:
        self._url = settings.url
        self._options = options

    def servers(self) -> Fields:
        """Returns the servers."""
        return servers(self._url.hosts, _PORT, "nats")

    def security(self) -> Fields:
        """Returns the security schemes of clients."""
        options, found = self._options, dict[str, Any]()
        user, _ = options.login(self._url)
        if user is not None:
            found["login"] = {"type": "userPassword"}
        if options.token is not None:
            found["token"] = {"type": "apiKey", "in": "password"}
        if options.credentials_file or options.nkey_file or options.nkey_seed is not None:
            found["nkey"] = {"type": "asymmetricEncryption"}
        if options.tls_cert_file:
            found["certificate"] = {"type": "X509"}
        return found


class CoreBindings(_ServerBindings):
    """Bindings of NATS, version 0.1.0."""

    def __init__(self, settings: TransportSettings) -> None:
        options = parse_options(CoreOptions, settings.url.query, settings.options, "nats")
        super().__init__(settings, options)
        self._prefix = f"{options.prefix}." if options.prefix else ""

    def address(self, topic: str) -> str:
        """Returns the subject."""
        return f"{self._prefix}{tokens(topic)}"

    def receive(self, topic: str, group: str) -> Fields:
        """Returns the queue group."""
        return {"bindings": {"nats": {"queue": group, **_VERSION}}}


class JetStreamBindings(_ServerBindings):
    """Streams, subjects and durables."""

    def __init__(self, settings: TransportSettings) -> None:
        options = parse_options(JetStreamOptions, settings.url.query, settings.options, "jetstream")
        super().__init__(settings, options)
        self._names = JetStreamNames(options.prefix, options.shards, settings.sources)

    def address(self, topic: str) -> str:
        """Returns the subject; for a topic with shards, the common prefix of their subjects."""
        if self._names.source(topic):
            return self._names.all_of(topic)
        return f"{self._names.prefix}.{tokens(topic)}"

    def channel(self, topic: str, role: str) -> Fields:
        """Returns the stream and its subjects."""
        names = self._names
        subjects = [names.all_of(topic)] if names.source(topic) else names.subjects(topic)
        return {"x-protoflow": {"stream": self._names.stream(topic), "subjects": subjects}}

    def receive(self, topic: str, group: str) -> Fields:
        """Returns the durable consumers of the group."""
        return {"x-protoflow": {"durables": self._names.consumers(topic, group)}}

    def retries(self, topic: str, group: str, *, waits: bool) -> RetryChannel | None:
        """Returns the subject of the stream that keeps the group's retries."""
        address = self._names.retry_topic(topic, group)
        return RetryChannel(
            address=f"{self._names.prefix}.{tokens(address)}",
            fields={"x-protoflow": {"stream": self._names.group_stream(group)}},
        )
