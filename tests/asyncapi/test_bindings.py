"""Bindings: what documents name is what the transports make."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from protoflow import Config, deployment
from protoflow.clock import Clock
from protoflow.config.url import TransportURL
from protoflow.connection import transport_for, transport_settings
from protoflow.contract.catalog import Catalog
from protoflow.transport import Topology, TransportSettings
from protoflow.transports.built_in import BUILT_IN
from protoflow.transports.kafka.asyncapi import KafkaBindings
from protoflow.transports.kafka.options import KafkaOptions
from protoflow.transports.kafka.topology import wanted_topics
from protoflow.transports.nats.asyncapi import CoreBindings, JetStreamBindings
from protoflow.transports.rabbitmq.asyncapi import RabbitMQBindings
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.planner import TopologyPlanner

from tests.asyncapi.conftest import config

Documents = dict[str, dict[str, Any]]


def settings(url: str, **options: Any) -> TransportSettings:
    return TransportSettings(url=TransportURL.parse(url), options=options)


def topology(catalog: Catalog, found: Config) -> Topology:
    capabilities = transport_for(found, Clock()).capabilities
    plans = deployment.subscriptions(catalog, found, capabilities)
    return Topology(subscriptions=tuple(one.settings for one in plans))


def addressed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The channels by address, parameters filled with each of their values."""
    return {
        channel["address"].replace("{wait}", wait): channel
        for channel in document["channels"].values()
        for wait in channel.get("parameters", {}).get("wait", {}).get("enum", [""])
    }


def test_kafkas_channels_are_the_topics_that_it_makes(
    catalog: Catalog, documents: Documents
) -> None:
    found = config("kafka")
    context: Any = SimpleNamespace(
        options=KafkaOptions(partitions=12, replication=3),
        settings=transport_settings(found, Clock()),
    )
    made = wanted_topics(topology(catalog, found), context)
    channels = addressed(documents["kafka"])
    assert {topic.name for topic in made} <= channels.keys()
    for topic in made:
        said = channels[topic.name]["bindings"]["kafka"]
        assert said["partitions"] == topic.partitions == 12
        assert said["replicas"] == topic.replication == 3


def test_rabbitmqs_queues_are_those_that_it_makes(catalog: Catalog, documents: Documents) -> None:
    found = config("rabbitmq")
    names = Names("protoflow", 1)
    plan = TopologyPlanner(names, found.retry_ladder, (4, 0)).plan(topology(catalog, found))
    document = documents["rabbitmq"]
    said = {
        channel["bindings"]["amqp"]["queue"]["name"]
        for channel in document["channels"].values()
        if channel.get("bindings", {}).get("amqp", {}).get("is") == "queue"
    }
    said |= {address for address in addressed(document) if "/retry-" in address}
    for operation in document["operations"].values():
        said |= {*operation.get("x-protoflow", {}).get("queues", ())}
    queues = {*plan.queues}
    inner = {
        name
        for name in queues
        if name.rpartition("/")[2].split("-")[0] in ("solo", "marks", "lock")
    }
    watching = {name for name in said if "watch" in name}  # a broadcast group keeps no queue
    assert said - watching == queues - inner


def test_exchanges_and_virtual_hosts(documents: Documents) -> None:
    document = documents["rabbitmq"]
    assert document["servers"] == {
        "broker": {
            "host": "rabbit:5671",
            "protocol": "amqps",
            "pathname": "/sales",
            "security": [{"$ref": "#/components/securitySchemes/login"}],
        }
    }
    channel = document["channels"]["shop.env.orders.placed"]["bindings"]["amqp"]
    assert channel["exchange"] == {
        "name": "protoflow", "type": "topic", "durable": True, "autoDelete": False,
        "vhost": "sales",
    }  # fmt: skip
    trait = document["components"]["messageTraits"]["cloudEvents"]["headers"]["properties"]
    assert "cloudEvents_type" in trait


def test_jetstream_names_streams_subjects_and_durables(documents: Documents) -> None:
    document = documents["jetstream"]
    channel = document["channels"]["orders.billed"]
    assert channel["address"] == "protoflow.orders.billed"
    assert channel["x-protoflow"] == {
        "stream": "protoflow-topic-orders_billed",
        "subjects": ["protoflow.orders.billed.=0", "protoflow.orders.billed.=1"],
    }
    bill = document["operations"]["Orders.BillOrder"]
    assert bill["x-protoflow"]["durables"] == ["billing_live~0", "billing_live~1"]
    assert document["components"]["securitySchemes"] == {
        "token": {"type": "apiKey", "in": "password"}
    }


@pytest.mark.parametrize(
    ("bindings", "expected"),
    [
        (KafkaBindings(settings("kafka://h")), {}),
        (KafkaBindings(settings("kafka://u:p@h")), {"sasl": {"type": "plain"}}),
        (
            KafkaBindings(settings("kafka://h", sasl_mechanism="oauthbearer")),
            {"sasl": {"type": "http", "scheme": "bearer"}},
        ),
        (
            KafkaBindings(settings("kafka+ssl://h", tls_cert_file="c.pem")),
            {"certificate": {"type": "X509"}},
        ),
        (RabbitMQBindings(settings("amqp://h")), {"login": {"type": "userPassword"}}),
        (CoreBindings(settings("nats://u:p@h")), {"login": {"type": "userPassword"}}),
        (CoreBindings(settings("nats://h")), {}),
        (
            JetStreamBindings(settings("jetstream://h", nkey_file="x")),
            {"nkey": {"type": "asymmetricEncryption"}},
        ),
    ],
)
def test_security_schemes_have_no_values(bindings: Any, expected: dict[str, Any]) -> None:
    assert bindings.security() == expected


def test_every_host_is_a_server() -> None:
    hosts = KafkaBindings(settings("kafka://u:p@a,b:1,[::1]:2")).servers()
    assert [server["host"] for server in hosts.values()] == ["a:9092", "b:1", "[::1]:2"]
    assert CoreBindings(settings("nats://")).servers()["broker"]["host"] == "localhost:4222"


def test_nats_has_queue_groups_and_no_dead_letters(catalog: Catalog) -> None:
    found = Config(environ={}, variables={"env": "live"}, transport="nats://h?prefix=shop")
    orders = Catalog([file for file in catalog.files if not file.services])
    document = deployment.document(orders, found)
    assert document["channels"]["kinds.everything"]["address"] == "shop.kinds.everything"
    bindings = CoreBindings(settings("nats://h"))
    assert bindings.receive("orders", "billing") == {
        "bindings": {"nats": {"queue": "billing", "bindingVersion": "0.1.0"}}
    }


def test_each_transport_with_bindings_can_be_loaded() -> None:
    named = [item for item in BUILT_IN if item.bindings]
    assert [item.name for item in named] == ["kafka", "rabbitmq", "jetstream", "nats"]
    for item in named:
        found = Config(environ={}, transport=item.example)
        assert deployment.deployment_of(Catalog([]), found).bindings.servers()


def test_retries_come_from_where_they_wait(documents: Documents) -> None:
    """A group in order keeps its waits in the process, and so does one with short ones."""
    for name in ("kafka", "rabbitmq", "jetstream"):
        operations = documents[name]["operations"]
        in_order = operations["Orders.BillOrder"]["x-retry"]["channel"]["$ref"]
        assert in_order == "#/channels/shop.env.orders.placed"
        waiting = operations["AuditService.Drop"]["x-retry"]["channel"]["$ref"]
        assert waiting == "#/channels/orders.billed..drop..retry"
    sqlite = documents["sqlite"]["operations"]["AuditService.Drop"]
    assert sqlite["x-retry"]["channel"]["$ref"] == "#/channels/orders.billed"
