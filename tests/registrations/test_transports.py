"""Handlers on several transports: what each can, and what holds within one only."""

from __future__ import annotations

from typing import Any

import pytest
from protoflow import Config
from protoflow.contract.spec import DeadLetterPolicy, DeliveryPolicy, Ordering, PublicationSpec
from protoflow.errors import CapabilityError, ConfigError, RegistrationError
from protoflow.registrations.plan import plan
from protoflow.registrations.registration import Registration
from protoflow.transport import Capabilities

from tests.registrations.test_plan import registration

STRONG = Capabilities(per_key=True, retains=True, broker_retry=True, atomic=True)
WEAK = Capabilities(retains=True)
BOTH = {"default": STRONG, "audit": WEAK}


def config(**settings: Any) -> Config:
    return Config(
        environ={}, transport="kafka://a", transports={"audit": "nats://b"},
        **{"topics": {"audited": {"transport": "audit"}}, **settings},
    )  # fmt: skip


def test_a_subscription_is_on_the_transport_of_its_handlers() -> None:
    items = [registration("a.B.C"), registration("a.B.D", topic="audited", group="auditing")]
    first, second = plan(items, config(), BOTH)
    assert (first.settings.transport, second.settings.transport) == ("default", "audit")
    (moved,) = plan([items[0]], config(groups={"billing": {"transport": "audit"}}), BOTH)
    assert moved.settings.transport == moved.handlers[0].transport == "audit"


def test_each_transport_is_asked_for_its_own_handlers() -> None:
    ordered = DeliveryPolicy(ordering=Ordering.PER_KEY)
    assert plan([registration("a.B.C", delivery=ordered)], config(), BOTH)
    wrong = registration("a.B.D", topic="audited", delivery=ordered)
    with pytest.raises(CapabilityError) as caught:
        plan([wrong], config(), BOTH)
    assert caught.value.problems[0].startswith(
        "a.B.D: transport audit (nats) cannot keep order per key"
    )


def publishing(name: str, topic: str, **fields: Any) -> Registration:
    made = registration(name, **fields)
    assert made.message is not None
    return registration(
        name, publication=PublicationSpec(topic=topic, message=made.message), **fields
    )


def test_atomic_is_refused_if_outputs_leave_the_transport() -> None:
    atomic = DeliveryPolicy(atomic=True)
    assert plan([publishing("a.B.C", "other", delivery=atomic)], config(), BOTH)
    with pytest.raises(CapabilityError) as caught:
        plan([publishing("a.B.C", "audited", delivery=atomic)], config(), BOTH)
    (text,) = caught.value.problems
    assert text == (
        "a.B.C: `atomic` holds within one transport, but it consumes orders from default and "
        "publishes audited to audit; leave `atomic` unset, or put both on one transport"
    )


def test_handlers_of_one_subscription_are_on_one_transport() -> None:
    items = [registration("a.B.C"), registration("a.B.D")]
    with pytest.raises(RegistrationError) as caught:
        plan(items, config(handlers={"a.B.D": {"transport": "audit"}}), BOTH)
    assert caught.value.problems[0].startswith(
        "a.B.C from default and a.B.D from audit consume on different transports"
    )


def test_dead_letters_of_two_transports_do_not_share_a_topic() -> None:
    policy = DeliveryPolicy(dead_letter=DeadLetterPolicy(topic="failed"))
    items = [
        registration("a.B.C", delivery=policy),
        registration("a.B.D", topic="audited", delivery=policy),
    ]
    with pytest.raises(RegistrationError) as caught:
        plan(items, config(), BOTH)
    (text,) = caught.value.problems
    assert text == (
        "a.B.D on audit and a.B.C on default both send dead letters to failed; give one of them "
        "another dead_letter.topic"
    )
    consumer = registration("a.B.E", topic="failed", group="fixing")
    with pytest.raises(RegistrationError) as caught:
        plan([items[1], consumer], config(), BOTH)
    assert caught.value.problems[0].startswith(
        "a.B.E consumes failed from default, but a.B.D sends its dead letters there on audit"
    )


def test_a_group_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        plan([registration("a.B.C")], config(groups={"biling": {"transport": "audit"}}), BOTH)
    assert caught.value.problems == (
        "groups.'biling': no such group consumes here; did you mean billing?; there are billing",
    )
