"""On which transport a topic, a group and a handler are."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from protoflow import Config
from protoflow.routing.routes import Routes, output_systems, system_of, warn_of_unused
from protoflow.transport import SubscriptionSettings


def config(**settings: Any) -> Config:
    named = {"audit": "nats://b", "queue": "sqlite:///q.db", "files": "sqlite:///f.db"}
    return Config(
        environ={},
        transport="kafka://a",
        transports=named,
        **{
            "topics": {"audited": {"transport": "audit"}, "{region}.in": {"transport": "queue"}},
            "groups": {"billing": {"transport": "files"}},
            "handlers": {"a.B.C": {"transport": "default"}},
            "variables": {"region": "eu"},
            **settings,
        },
    )


def test_the_handler_goes_before_the_group_and_that_before_the_topic() -> None:
    routes = Routes(config())
    assert routes.of_topic("audited") == "audit"
    assert routes.of_topic("eu.in") == "queue"
    assert routes.of_topic("other") == "default"
    assert routes.of_group("audited", "shipping") == "audit"
    assert routes.of_group("audited", "billing") == "files"
    assert routes.of_handler("a.B.C", "audited", "billing") == "default"
    assert routes.of_handler("a.B.D", "audited", "billing") == "files"


def test_names_of_the_contract_are_found_below_a_namespace() -> None:
    routes = Routes(config(namespace="test"))
    assert routes.of_topic("test..audited") == "audit"
    assert routes.of_group("test..other", "test..billing") == "files"
    assert routes.of_place("test..audited..shipping..dead") == "audit"


def test_names_from_the_environment_stand_for_names_with_dots() -> None:
    routes = Routes(config(topics={"orders_audited": {"transport": "audit"},
                                   "q": {"transport": "queue"}}))  # fmt: skip
    assert routes.of_topic("orders.audited") == "audit"
    assert routes.of_topic("orders.placed") == "default"


def test_places_are_read_where_subscriptions_have_them() -> None:
    routes = Routes(config())
    assert routes.of_place("orders..billing..dead") == "files", "the group says it"
    assert routes.of_place("failed") == "default"
    one = SubscriptionSettings(
        name="orders/ship", topic="orders", group="ship", transport="audit",
        dead_letter_topics=("failed",),
    )  # fmt: skip
    routes.learn([one])
    assert routes.of_place("failed") == "audit"
    assert routes.of_place("orders") == "audit"
    assert routes.consumed_from("orders", "ship") == "audit"
    assert routes.of_topic("orders") == "default", "what is published goes by the topic"
    assert routes.of_sent("orders") == "default"
    assert routes.of_sent("failed") == "audit"
    assert routes.of_sent("orders..ship..retry") == "audit", "retries stay where they came from"
    assert routes.of_place("audited") == "audit"


def test_names_of_topics_that_come_from_data_are_not_kept_for_ever() -> None:
    routes = Routes(config())
    for number in range(20_000):
        routes.of_topic(f"t{number}")
    assert len(routes._published) <= 10_000


def test_the_kind_of_broker_is_that_of_the_topic() -> None:
    assert (system_of(config()), system_of(config(), "audit")) == ("kafka", "nats")
    of = output_systems(config())
    assert (of("audited"), of("other")) == ("nats", "kafka")
    assert output_systems(Config(environ={}, transport="kafka://a"))("any") == "kafka"


def test_a_topic_that_no_handler_uses_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_unused(config(namespace="n"), {"n..eu.in"})
    assert [record.topic for record in caplog.records] == ["audited"]  # type: ignore[attr-defined]
