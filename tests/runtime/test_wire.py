"""Names on the wire."""

from __future__ import annotations

import pytest
from protoflow import wire

CORE = ("id", "type", "source", "specversion", "subject", "time", "dataschema", "datacontenttype")


@pytest.mark.parametrize("attribute", CORE)
@pytest.mark.parametrize("prefix", ["ce_", "ce-", "CE-", "cloudEvents_", "cloudEvents:"])
def test_core_attributes_are_reserved_as_every_binding_writes_them(
    prefix: str, attribute: str
) -> None:
    assert wire.reserved(prefix + attribute)
    assert not wire.is_order(prefix + attribute)


@pytest.mark.parametrize(
    "name",
    ["content-type", "Content-Type", "message_id", "_watermill_message_uuid",
     "event_message_schema"],
)  # fmt: skip
def test_names_that_say_what_a_message_is_are_reserved(name: str) -> None:
    assert wire.reserved(name)


@pytest.mark.parametrize(
    "name",
    ["pf_attempt", "PF_DUE", "pf_anything", "CC", "bcc", "Nats-Msg-Id", "nats-ttl",
     "Nats-Expected-Stream", "x-delay", "X-Death", "x-first-death-queue", "x-opt-delivery-count",
     "x-delivery-count"],
)  # fmt: skip
def test_hop_state_and_orders_to_a_broker_are_reserved(name: str) -> None:
    assert wire.is_order(name)
    assert wire.reserved(name)


@pytest.mark.parametrize(
    "name",
    ["tenant", "x-request-id", "correlation_id", "causation_id", "traceparent", "ce_partitionkey",
     "ce-sequence", "cloudEvents_tenant", "ce_ids", "name", "", "accept", "natsy", "cc-list"],
)  # fmt: skip
def test_other_names_are_free(name: str) -> None:
    assert not wire.reserved(name)
