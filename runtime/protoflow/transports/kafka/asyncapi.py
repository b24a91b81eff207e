"""The Kafka bindings of an AsyncAPI document:
https://github.com/asyncapi/bindings/tree/master/kafka."""

from __future__ import annotations

from typing import Any

from protoflow.asyncapi.bindings import DEAD_LETTER, Bindings, Fields, RetryChannel, servers
from protoflow.codecs.bindings import KAFKA
from protoflow.config.options import parse_options
from protoflow.transport.interface import SubscriptionSettings, TransportSettings
from protoflow.transports.kafka import names
from protoflow.transports.kafka.options import DEFAULT_PORT, KafkaOptions, SaslMechanism
from protoflow.transports.kafka.topics import SubscriptionTopics

_VERSION = {"bindingVersion": "0.5.0"}
_SCHEMES = {
    SaslMechanism.PLAIN: {"type": "plain"},
    SaslMechanism.SCRAM_SHA_256: {"type": "scramSha256"},
    SaslMechanism.SCRAM_SHA_512: {"type": "scramSha512"},
    SaslMechanism.GSSAPI: {"type": "gssapi"},
    SaslMechanism.OAUTHBEARER: {"type": "http", "scheme": "bearer"},
}
_TOKENS = (SaslMechanism.GSSAPI, SaslMechanism.OAUTHBEARER)


class KafkaBindings(Bindings):
    """Bindings of Kafka, version 0.5.0."""

    header_prefix = KAFKA.prefix
    content_type = KAFKA.content_type

    def __init__(self, settings: TransportSettings) -> None:
        self._url = settings.url
        self._ladder = settings.ladder
        self._sources = settings.sources
        self._options = parse_options(KafkaOptions, settings.url.query, settings.options, "kafka")

    def servers(self) -> Fields:
        """Returns the bootstrap brokers."""
        protocol = "kafka-secure" if self._url.scheme.endswith("+ssl") else "kafka"
        return servers(self._url.hosts, DEFAULT_PORT, protocol)

    def security(self) -> Fields:
        """Returns the security schemes of clients."""
        options, found = self._options, dict[str, Any]()
        user, _ = options.login(self._url)
        if user is not None or options.sasl_mechanism in _TOKENS:
            found["sasl"] = _SCHEMES[options.sasl_mechanism]
        if options.tls_cert_file:
            found["certificate"] = {"type": "X509"}
        return found

    def address(self, topic: str) -> str:
        """Returns the topic, shortened to Kafka's limit, or its source."""
        return names.place(topic, self._sources)

    def channel(self, topic: str, role: str) -> Fields:
        """Returns the topic and, if they are set, its partitions at creation."""
        # Dead letters are stored without limit.
        kept = {"topicConfiguration": {"retention.ms": -1}} if role == DEAD_LETTER else {}
        return self._topic(self.address(topic), self._options.partitions, kept)

    def receive(self, topic: str, group: str) -> Fields:
        """Returns the consumer group."""
        return _kafka(groupId={"type": "string", "const": self._sources.consumer(topic, group)})

    def message(self, type: str, key: Fields | None) -> Fields:
        """Returns the key."""
        return _kafka(key=key) if key else {}

    def retries(self, topic: str, group: str, *, waits: bool) -> RetryChannel | None:
        """Returns the retry topics of a group, one for each wait."""
        settings = SubscriptionSettings(name="", topic=topic, group=group, needs_broker_retry=waits)
        rungs = list(SubscriptionTopics(settings, self._ladder).rungs)
        partitions = self._options.retry_partitions or self._options.partitions
        fields = self._topic(None, partitions, {})
        marks = [name.rpartition(".retry.") for name in rungs]
        return RetryChannel(
            address=f"{marks[0][0]}.retry.{{wait}}",
            waits=tuple(wait for _, _, wait in marks),
            fields=fields,
        )

    def _topic(self, name: str | None, partitions: int | None, more: Fields) -> Fields:
        return _kafka(topic=name, partitions=partitions, replicas=self._options.replication, **more)


def _kafka(**fields: Any) -> Fields:
    said = {name: value for name, value in fields.items() if value is not None}
    return {"bindings": {"kafka": {**said, **_VERSION}}}
