"""From registrations to subscriptions: names filled, policies resolved, contradictions found."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow.config import Config
from protoflow.contract import topics
from protoflow.contract.spec import (
    BatchPolicy,
    DeadLetterPolicy,
    DeliveryPolicy,
    MessageSpec,
    Ordering,
    RetryPolicy,
    Start,
    UnhandledTypes,
)
from protoflow.errors import CapabilityError, ConfigError, RegistrationError
from protoflow.registrations.plan import plan
from protoflow.registrations.registration import Registration
from protoflow.transport import Capabilities
from protoflow.v1 import options_pb2

ALL = Capabilities(
    per_key=True, per_partition=True, retains=True, broker_retry=True, atomic=True, broadcast=True
)


async def call(message: Any, context: Any) -> None:
    """A handler."""


def registration(name: str = "shop.v1.Orders.Bill", **fields: Any) -> Registration:
    message = MessageSpec(
        type=f"{name}.In", message_class=options_pb2.MessageOptions, partition_key="topic"
    )
    values = {
        "topic": "orders",
        "group": "billing",
        "types": (message.type,),
        "message": message,
        **fields,
    }
    return Registration(name=name, call=call, **values)


def config(**settings: Any) -> Config:
    return Config(environ={}, **settings)


def one(
    item: Registration, settings: Config | None = None, capabilities: Capabilities = ALL
) -> Any:
    (subscription,) = plan([item], settings or config(), capabilities)
    return subscription


def test_variables_and_namespace_stand_in_every_name() -> None:
    item = registration(topic="orders.{region}", group="{team}-billing")
    settings = config(namespace="test", variables={"region": "eu", "team": "blue"})
    subscription = one(item, settings)
    assert subscription.settings.topic == "test..orders.eu"
    assert subscription.settings.group == "test..blue-billing"
    assert subscription.settings.name == "test..orders.eu/test..blue-billing"
    (dead_letters,) = subscription.settings.dead_letter_topics
    assert dead_letters == "test..orders.eu..blue-billing..dead"


def test_everything_that_is_wrong_with_names_is_reported_at_once() -> None:
    items = [registration("a.B.C", topic="{x}"), registration("a.B.D", group="{y}.{z}")]
    with pytest.raises(ConfigError) as caught:
        plan(items, config(handlers={"a.B.E": DeliveryPolicy()}), ALL)
    text = str(caught.value)
    assert all(f"variables.{name}" in text for name in "xyz")
    assert "a.B.E" in text


def test_the_policy_of_a_handler_is_built_in_default_contract_and_override() -> None:
    item = registration(delivery=DeliveryPolicy(concurrency=3, retry=RetryPolicy(max_attempts=4)))
    settings = config(
        defaults=DeliveryPolicy(timeout=9.0, concurrency=2, retry=RetryPolicy(jitter=0.25)),
        handlers={item.name: DeliveryPolicy(retry=RetryPolicy(initial_backoff=7.0))},
    )
    policy = one(item, settings).policy
    assert (policy.concurrency, policy.timeout) == (3, 9.0)
    assert (policy.retry.max_attempts, policy.retry.jitter) == (4, 0.25)
    assert (policy.retry.initial_backoff, policy.retry.max_backoff) == (7.0, 300.0)


@pytest.mark.parametrize("contract", list(Ordering))
@pytest.mark.parametrize("override", list(Ordering))
def test_config_may_only_strengthen_the_order(contract: Ordering, override: Ordering) -> None:
    strength = [Ordering.NONE, Ordering.PER_KEY, Ordering.PER_PARTITION]
    item = registration(delivery=DeliveryPolicy(ordering=contract))
    settings = config(handlers={item.name: DeliveryPolicy(ordering=override)})
    if strength.index(override) < strength.index(contract):
        with pytest.raises(ConfigError, match="weaker"):
            one(item, settings)
    else:
        assert one(item, settings).settings.ordering is override


def test_methods_of_one_topic_and_group_share_a_subscription() -> None:
    items = [
        registration("a.B.C", delivery=DeliveryPolicy(concurrency=5)),
        registration("a.B.D", delivery=DeliveryPolicy(unhandled=UnhandledTypes.DEAD_LETTER)),
        registration("a.B.E", group="other"),
    ]
    first, second = plan(items, config(), ALL)
    assert {handler.registration.name for handler in first.handlers} == {"a.B.C", "a.B.D"}
    assert all(handler.policy.concurrency == 5 for handler in first.handlers)
    assert all(handler.policy.unhandled is UnhandledTypes.DEAD_LETTER for handler in first.handlers)
    assert set(first.routes) == {"a.B.C.In", "a.B.D.In"}
    assert second.settings.concurrency == 16


@pytest.mark.parametrize(
    ("leaf", "values"),
    [
        ("ordering", (Ordering.NONE, Ordering.PER_KEY)),
        ("concurrency", (1, 2)),
        ("unhandled", tuple(UnhandledTypes)),
        ("start", tuple(Start)),
        ("atomic", (True, False)),
    ],
)
def test_methods_of_a_subscription_may_not_contradict(leaf: str, values: tuple[Any, Any]) -> None:
    items = [
        registration(f"a.B.M{index}", delivery=DeliveryPolicy(**{leaf: value}))
        for index, value in enumerate(values)
    ]
    with pytest.raises(
        RegistrationError, match=f"{leaf} is .* in a.B.M0 and .* in a.B.M1, but these"
    ):
        plan(items, config(), ALL)


def test_the_leaf_said_where_it_counts_most_holds_for_a_subscription() -> None:
    items = [
        registration("a.B.C", delivery=DeliveryPolicy(concurrency=5)),
        registration("a.B.D"),
    ]
    (subscription,) = plan(items, config(defaults=DeliveryPolicy(concurrency=8)), ALL)
    assert subscription.settings.concurrency == 5
    items.append(registration("a.B.E", delivery=DeliveryPolicy(concurrency=5)))
    override = config(handlers={"a.B.D": DeliveryPolicy(concurrency=2)})
    (subscription,) = plan(items, override, ALL)
    assert subscription.settings.concurrency == 2
    assert {handler.policy.concurrency for handler in subscription.handlers} == {2}


def dead_letters_to(topic: str, **fields: Any) -> dict[str, Any]:
    policy = DeliveryPolicy(dead_letter=DeadLetterPolicy(topic=topic), **fields)
    return {"delivery": policy, "types": ("x.Y",)}


def test_dead_letters_do_not_go_round() -> None:
    items = [
        registration("a.L1.M", topic="x1", **dead_letters_to("x2")),
        registration("a.L2.M", topic="x2", **dead_letters_to("{back}")),
        registration("a.L3.M", topic="x3", **dead_letters_to("x4")),
    ]
    with pytest.raises(RegistrationError) as caught:
        plan(items, config(variables={"back": "x1"}), ALL)
    assert str(caught.value).count("circulate") == 1
    assert "a.L1.M sends those of x1 to x2, a.L2.M sends those of x2 to x1; choose" in str(
        caught.value
    )
    assert len(plan(items, config(variables={"back": "x3"}), ALL)) == 3


def test_a_raw_handler_takes_part_in_a_round() -> None:
    raw = registration(
        "raw",
        topic="x2",
        types=(),
        message=None,
        delivery=DeliveryPolicy(dead_letter=DeadLetterPolicy(topic="x1")),
    )
    with pytest.raises(RegistrationError, match="circulate for ever"):
        plan([registration("a.L1.M", topic="x1", **dead_letters_to("x2")), raw], config(), ALL)
    # A handler that consumes its own dead letters.
    with pytest.raises(RegistrationError, match=r"a\.L1\.M sends those of x1 to x1"):
        plan([registration("a.L1.M", topic="x1", **dead_letters_to("x1"))], config(), ALL)


def test_types_that_nobody_handles_end_a_round_unless_they_are_dead_lettered() -> None:
    other = {**dead_letters_to("x1"), "types": ("x.Z",)}
    items = [registration("a.L1.M", topic="x1", **dead_letters_to("x2"))]
    assert plan([*items, registration("a.L2.M", topic="x2", **other)], config(), ALL)
    other = {**dead_letters_to("x1", unhandled=UnhandledTypes.DEAD_LETTER), "types": ("x.Z",)}
    with pytest.raises(RegistrationError, match="circulate for ever"):
        plan([*items, registration("a.L2.M", topic="x2", **other)], config(), ALL)


def test_backoffs_that_contradict_over_contract_and_config_are_reported() -> None:
    item = registration(delivery=DeliveryPolicy(retry=RetryPolicy(max_backoff=2.0)))
    first = DeliveryPolicy(retry=RetryPolicy(initial_backoff=3.0))
    with pytest.raises(ConfigError, match=r"Bill: retry\.max_backoff is less than"):
        plan([item], config(handlers={"shop.v1.Orders.Bill": first}), ALL)


def test_timeout_retry_and_dead_letters_belong_to_the_method() -> None:
    items = [
        registration("a.B.C", delivery=DeliveryPolicy(timeout=1.0)),
        registration(
            "a.B.D",
            delivery=DeliveryPolicy(
                timeout=2.0,
                retry=RetryPolicy(max_attempts=9),
                dead_letter=DeadLetterPolicy(topic="lost"),
            ),
        ),
    ]
    (subscription,) = plan(items, config(), ALL)
    assert [handler.policy.timeout for handler in subscription.handlers] == [1.0, 2.0]
    assert [handler.policy.retry.max_attempts for handler in subscription.handlers] == [5, 9]
    assert subscription.settings.dead_letter_topics == ("lost", "orders..billing..dead")


def test_one_type_has_one_handler() -> None:
    items = [registration("a.B.C", types=("x.Y",)), registration("a.B.D", types=("x.Y",))]
    with pytest.raises(RegistrationError, match=r"both handle x\.Y of orders in group billing"):
        plan(items, config(), ALL)


def test_order_per_key_needs_a_key() -> None:
    message = MessageSpec(type="x.Y", message_class=options_pb2.MessageOptions)
    item = registration(message=message, delivery=DeliveryPolicy(ordering=Ordering.PER_KEY))
    with pytest.raises(RegistrationError, match="needs a partition key"):
        one(item)


def test_broadcast_starts_at_the_latest() -> None:
    settings = one(registration(broadcast=True)).settings
    assert settings.broadcast
    assert settings.start is Start.LATEST


def test_in_flight_is_sixteen_times_the_concurrency_unless_reported() -> None:
    assert one(registration()).settings.max_in_flight == 256
    assert one(registration(), config(max_in_flight=9)).settings.max_in_flight == 9


def test_three_of_the_largest_batches_are_in_flight_at_least() -> None:
    batched = registration(batched=True, batch=BatchPolicy(max_messages=500))
    assert one(batched).settings.max_in_flight == 1500
    assert one(batched, config(max_in_flight=9)).settings.max_in_flight == 1500
    assert one(batched, config(max_in_flight=2000)).settings.max_in_flight == 2000
    assert one(registration(batched=True)).settings.max_in_flight == 300


def test_every_setting_of_the_config_that_concerns_subscriptions_reaches_them() -> None:
    settings = one(
        registration(), config(max_in_flight_bytes=11, lease=12, max_hold=13, rebalance_drain=14)
    ).settings
    assert (settings.max_in_flight_bytes, settings.lease) == (11, 12.0)
    assert (settings.max_hold, settings.rebalance_drain) == (13.0, 14.0)


@given(st.sets(st.sampled_from(["per_key", "per_partition", "retains", "atomic", "broadcast"])))
def test_a_start_is_refused_exactly_when_a_demand_is_not_met(claimed: set[str]) -> None:
    claims: dict[str, Any] = dict.fromkeys(claimed, True)
    capabilities = Capabilities(**claims)
    items = [
        registration("a.B.C", delivery=DeliveryPolicy(ordering=Ordering.PER_KEY), group="1"),
        registration("a.B.D", delivery=DeliveryPolicy(ordering=Ordering.PER_PARTITION), group="2"),
        registration("a.B.E", delivery=DeliveryPolicy(start=Start.EARLIEST), group="3"),
        registration("a.B.F", delivery=DeliveryPolicy(atomic=True), group="4"),
        registration("a.B.G", broadcast=True, group="5"),
    ]
    missing = 5 - len(claimed)
    if not missing:
        plan(items, config(), capabilities)
        return
    with pytest.raises(CapabilityError) as caught:
        plan(items, config(), capabilities)
    assert len(caught.value.problems) == missing


@given(st.text(max_size=12))
def test_a_topic_is_filled_or_refused(text: str) -> None:
    filled, missing = topics.fill(text, {"a": "x"})
    assert missing or "{a}" not in filled
    if topics.problem(filled) is None:
        assert 1 <= len(filled) <= 200
        assert all(filled.split("."))
