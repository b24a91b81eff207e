"""KEDA's scaler for Kafka: https://keda.sh/docs/latest/scalers/apache-kafka/."""

from __future__ import annotations

from collections.abc import Iterator

from protoflow.config.options import parse_options
from protoflow.contract.spec import Start
from protoflow.transport.interface import SubscriptionSettings, TransportSettings
from protoflow.transport.scaling import ScalerTrigger
from protoflow.transports.kafka import names
from protoflow.transports.kafka.options import DEFAULT_PORT, KafkaOptions, SaslMechanism

_SASL = {
    SaslMechanism.PLAIN: "plaintext",
    SaslMechanism.SCRAM_SHA_256: "scram_sha256",
    SaslMechanism.SCRAM_SHA_512: "scram_sha512",
}


def triggers(
    settings: TransportSettings, subscription: SubscriptionSettings, lag: int
) -> Iterator[ScalerTrigger]:
    """Yields the trigger of a subscription: one process for each `lag` messages."""
    options = parse_options(KafkaOptions, settings.url.query, settings.options, "kafka")
    sources = settings.sources
    hosts = settings.url.hosts or [("localhost", None)]
    metadata = {
        "bootstrapServers": ",".join(f"{host}:{port or DEFAULT_PORT}" for host, port in hosts),
        "consumerGroup": sources.consumer(subscription.topic, subscription.group),
        "topic": names.place(subscription.topic, sources),
        "lagThreshold": str(lag),
        "offsetResetPolicy": "latest" if subscription.start is Start.LATEST else "earliest",
    }
    credentials = {}
    user, _ = options.login(settings.url)
    if user is not None and options.sasl_mechanism in _SASL:
        metadata["sasl"] = _SASL[options.sasl_mechanism]
        credentials = {"username": "username", "password": "password"}
    if settings.url.scheme.endswith("+ssl"):
        metadata["tls"] = "enable"
    yield ScalerTrigger(type="kafka", metadata=metadata, credentials=credentials)
