"""The built-in transports: one record each, read by all code, tests and tables that list them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from protoflow.dataclass_record import dataclass_record


@dataclass_record
class BuiltInTransport:
    """How a transport is found, installed, named and documented.

    Attributes:
        name: the name in texts, tests and the tables of options.
        title: the name in tables.
        schemes: the URL schemes, the plain one first.
        module: the module in `protoflow.transports` that has `create`.
        options: the dataclass of the options, `module:name` in `protoflow.transports`.
        example: a URL for tables.
        extra: the extra that installs the client; empty: none is needed.
        clients: top-level modules of the client -> the distribution that has them.
        system: `messaging.system` of OpenTelemetry's semantic conventions.
        proved_on: the server that `make acceptance` was run against.
        bindings: the class of its bindings in AsyncAPI documents, `module:name` in
            `protoflow.transports`; empty: it has none.
        scaling: the function that yields its triggers for KEDA, `module:name` in
            `protoflow.transports`; empty: KEDA cannot read its lag.
    """

    name: str
    title: str
    schemes: tuple[str, ...]
    module: str
    options: str
    example: str
    extra: str = ""
    clients: Mapping[str, str] = field(default_factory=dict)
    system: str
    proved_on: str = ""
    bindings: str = ""
    scaling: str = ""


_NATS: Final = {"nats": "nats-py"}

BUILT_IN: Final = (
    BuiltInTransport(
        name="memory",
        title="memory",
        schemes=("memory",),
        module="memory",
        options="memory.broker:MemoryOptions",
        example="memory://",
        system="memory",
    ),
    BuiltInTransport(
        name="sqlite",
        title="SQLite",
        schemes=("sqlite",),
        module="sqlite",
        options="sqlite.options:SqliteOptions",
        example="sqlite:///queue.db",
        system="sqlite",
        proved_on="SQLite 3.40",
    ),
    BuiltInTransport(
        name="file",
        title="files",
        schemes=("file",),
        module="file",
        options="file.options:FileOptions",
        example="file:///var/lib/app",
        system="file",
        proved_on="Linux 6.18, ext4",
    ),
    BuiltInTransport(
        name="postgresql",
        title="PostgreSQL",
        schemes=("postgresql", "postgresql+tls"),
        module="postgresql",
        options="postgresql.options:PostgresOptions",
        example="postgresql://localhost/app",
        extra="postgres",
        clients={"asyncpg": "asyncpg"},
        system="postgresql",
        proved_on="PostgreSQL 15.18",
    ),
    BuiltInTransport(
        name="kafka",
        title="Kafka",
        schemes=("kafka", "kafka+ssl"),
        module="kafka",
        options="kafka.options:KafkaOptions",
        example="kafka://localhost",
        extra="kafka",
        clients={"aiokafka": "aiokafka"},
        system="kafka",
        proved_on="Apache Kafka 4.3.1",
        bindings="kafka.asyncapi:KafkaBindings",
        scaling="kafka.scaling:triggers",
    ),
    BuiltInTransport(
        name="rabbitmq",
        title="RabbitMQ",
        schemes=("amqp", "amqps"),
        module="rabbitmq",
        options="rabbitmq.options:RabbitMQOptions",
        example="amqp://localhost",
        extra="rabbitmq",
        clients={"aiormq": "aio-pika", "pamqp": "aio-pika", "yarl": "aio-pika"},
        system="rabbitmq",
        proved_on="RabbitMQ 3.10.8",
        bindings="rabbitmq.asyncapi:RabbitMQBindings",
        scaling="rabbitmq.scaling:triggers",
    ),
    BuiltInTransport(
        name="jetstream",
        title="JetStream",
        schemes=("jetstream", "jetstream+tls"),
        module="nats.jetstream",
        options="nats.options:JetStreamOptions",
        example="jetstream://localhost",
        extra="nats",
        clients=_NATS,
        system="nats",
        proved_on="nats-server 2.15.1",
        bindings="nats.asyncapi:JetStreamBindings",
        scaling="nats.scaling:triggers",
    ),
    BuiltInTransport(
        name="nats",
        title="NATS core",
        schemes=("nats", "nats+tls"),
        module="nats.core",
        options="nats.options:CoreOptions",
        example="nats://localhost",
        extra="nats",
        clients=_NATS,
        system="nats",
        proved_on="nats-server 2.15.1",
        bindings="nats.asyncapi:CoreBindings",
    ),
    BuiltInTransport(
        name="redis",
        title="Redis",
        schemes=("redis", "rediss"),
        module="redis",
        options="redis.options:RedisOptions",
        example="redis://localhost",
        extra="redis",
        clients={"redis": "redis"},
        system="redis",
        proved_on="Redis 7.0.15",
    ),
    BuiltInTransport(
        name="sqs",
        title="SNS/SQS",
        schemes=("sqs",),
        module="sqs",
        options="sqs.options:SqsOptions",
        example="sqs://eu-central-1",
        extra="sqs",
        clients={"aiobotocore": "aiobotocore", "botocore": "aiobotocore"},
        system="aws_sqs",
        proved_on="emulator only: moto 5.2.5",
    ),
    BuiltInTransport(
        name="http",
        title="HTTP",
        schemes=("http", "https"),
        module="http",
        options="http.options:HttpOptions",
        example="http://127.0.0.1:8080",
        extra="http",
        clients={"aiohttp": "aiohttp"},
        system="http",
        proved_on="aiohttp 3.14.5",
    ),
)
#: The transport of each URL scheme.
BY_SCHEME: Final = {scheme: item for item in BUILT_IN for scheme in item.schemes}


def messaging_system(scheme: str) -> str:
    """`messaging.system` of the transport of a URL scheme; the scheme where it is not built in."""
    return BY_SCHEME[scheme].system if scheme in BY_SCHEME else scheme
