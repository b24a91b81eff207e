"""The RabbitMQ bindings of an AsyncAPI document:
https://github.com/asyncapi/bindings/tree/master/amqp."""

from __future__ import annotations

from typing import Any

from protoflow.asyncapi.bindings import DEAD_LETTER, Bindings, Fields, RetryChannel, servers
from protoflow.codecs.bindings import AMQP
from protoflow.config.options import parse_options
from protoflow.transport.interface import TransportSettings
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.options import RabbitMQOptions

_VERSION = {"bindingVersion": "0.3.0"}
_PERSISTENT = 2
_PORT, _TLS_PORT = 5672, 5671


class RabbitMQBindings(Bindings):
    """Bindings of AMQP 0-9-1, version 0.3.0."""

    header_prefix = AMQP.prefix
    content_type = ""  # a property of AMQP

    def __init__(self, settings: TransportSettings) -> None:
        self._url = settings.url
        self._ladder = settings.ladder
        options = parse_options(RabbitMQOptions, settings.url.query, settings.options, "rabbitmq")
        self._options = options
        self._names = Names(options.exchange, options.shards, settings.sources)
        self._vhost = settings.url.path.removeprefix("/") or "/"

    def servers(self) -> Fields:
        """Returns the brokers, each with its virtual host."""
        is_encrypted = self._url.scheme == "amqps"
        path = {"pathname": f"/{self._vhost}"} if self._vhost != "/" else {}
        port = _TLS_PORT if is_encrypted else _PORT
        return servers(self._url.hosts, port, self._url.scheme, **path)

    def security(self) -> Fields:
        """Returns the security schemes of clients."""
        found: dict[str, Any] = {"login": {"type": "userPassword"}}
        if self._options.tls_cert_file:
            found["certificate"] = {"type": "X509"}
        return found

    def address(self, topic: str) -> str:
        """Returns the routing key."""
        return self._names.routing_key(topic)

    def channel(self, topic: str, role: str) -> Fields:
        """Returns the exchange of a topic, or the queue of dead letters."""
        if role == DEAD_LETTER:
            return self._queue(self._names.dead_letters(topic))
        exchange = {
            "name": self._names.exchange,
            "type": "topic",
            "durable": True,
            "autoDelete": False,
            "vhost": self._vhost,
        }
        return {"bindings": {"amqp": {"is": "routingKey", "exchange": exchange, **_VERSION}}}

    def receive(self, topic: str, group: str) -> Fields:
        """Returns the queue of the group, for which AMQP's binding has no field."""
        return {
            "bindings": {"amqp": {"ack": True, **_VERSION}},
            "x-protoflow": {"queues": self._names.of(topic, group).queues},
        }

    def send(self) -> Fields:
        """Returns the publish settings: messages survive a restart of the broker."""
        return {"bindings": {"amqp": {"deliveryMode": _PERSISTENT, **_VERSION}}}

    def message(self, type: str, key: Fields | None) -> Fields:
        """Returns the type, which is also a property of AMQP."""
        return {"bindings": {"amqp": {"messageType": type, **_VERSION}}}

    def retries(self, topic: str, group: str, *, waits: bool) -> RetryChannel | None:
        """Returns the queues in which retries of a group wait, one for each wait."""
        if not waits:
            return None
        rungs = [self._names.of(topic, group).retry(step) for step in self._ladder]
        marks = [name.rpartition("/retry-") for name in rungs]
        return RetryChannel(
            address=f"{marks[0][0]}/retry-{{wait}}", waits=tuple(wait for _, _, wait in marks)
        )

    def _queue(self, name: str) -> Fields:
        queue = {
            "name": name,
            "durable": True,
            "exclusive": False,
            "autoDelete": False,
            "vhost": self._vhost,
        }
        return {"bindings": {"amqp": {"is": "queue", "queue": queue, **_VERSION}}}
