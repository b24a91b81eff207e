"""Handlers of topics that are consumed from places of other programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from protoflow import Config
from protoflow.contract.spec import DeliveryPolicy, Ordering
from protoflow.errors import CapabilityError, RegistrationError
from protoflow.registrations.plan import plan
from protoflow.registrations.registration import Registration
from protoflow.transport import Capabilities

from tests.registrations.test_plan import registration

ORDERED = Capabilities(retains=True, per_key=True, sources=True, ordered_sources=True)
PLAIN = Capabilities(retains=True, per_key=True, sources=True)


def config(**source: str) -> Config:
    return Config(
        environ={}, transport="kafka://a", topics={"orders": {"source": {"name": "old", **source}}}
    )


def refused(items: Sequence[Registration], capabilities: Capabilities, **source: str) -> str:
    with pytest.raises((CapabilityError, RegistrationError)) as caught:
        plan(items, config(**source), capabilities)
    error: Any = caught.value
    return "\n".join(error.problems)


def orders(name: str = "a.B.C", **fields: Any) -> Registration:
    return registration(name, topic="orders", **fields)


def test_a_subscription_has_the_source_of_its_topic() -> None:
    first, second = plan([orders(), registration("a.B.D", topic="other")], config(), PLAIN)
    assert first.settings.source is not None
    assert (first.settings.source.name, second.settings.source) == ("old", None)


def test_a_transport_without_sources_is_refused_with_the_fix() -> None:
    assert refused([orders()], Capabilities(retains=True)) == (
        "a.B.C: kafka cannot consume old, which topics.'orders'.source names; remove the setting, "
        "or choose a transport with the capability `sources`"
    )


def test_order_is_refused_where_others_consume_the_place_too() -> None:
    policy = DeliveryPolicy(ordering=Ordering.PER_KEY)
    assert plan([orders(delivery=policy)], config(), ORDERED)
    assert "cannot keep the order of old" in refused([orders(delivery=policy)], PLAIN)


def test_a_type_that_no_handler_takes_is_refused() -> None:
    known = next(iter(orders().types))
    assert plan([orders()], config(type=known), PLAIN)
    assert "topics.'orders'.source.type: no handler takes 'a.B.Unknown'" in refused(
        [orders()], PLAIN, type="a.B.Unknown"
    )


def test_broadcasts_and_shared_places_are_refused() -> None:
    assert "cannot broadcast from old" in refused([orders(broadcast=True)], ORDERED)
    shared = Config(
        environ={},
        transport="kafka://a",
        topics={"orders": {"source": "old"}, "other": {"source": "old"}},
    )
    with pytest.raises(RegistrationError, match="both consume old: each would get a part"):
        plan([orders(), registration("a.B.D", topic="other")], shared, PLAIN)


def test_groups_share_a_log_and_not_a_queue() -> None:
    both = [orders(), orders("a.B.D", group="audit")]
    assert len(plan(both, config(), PLAIN)) == 2
    assert "both consume old" in refused(both, Capabilities(sources=True))
    assert "both consume old (consumer c)" in refused(both, PLAIN, consumer="c")


def test_a_source_on_another_transport_than_its_group_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    groups: dict[str, Any] = {"billing": {"transport": "audit"}}
    capabilities = {"default": PLAIN, "audit": PLAIN}
    items = [orders(group="billing"), orders("a.B.D", group="mail")]
    for consumers, warnings in ((items, 0), (items[:1], 1)):
        caplog.clear()
        apart = Config(
            environ={}, transport="kafka://a", topics={"orders": {"source": "old"}},
            transports={"audit": "kafka://b"}, groups=groups,
        )  # fmt: skip
        plan(consumers, apart, capabilities)
        found = [each for each in caplog.records if "source is not consumed" in each.message]
        assert len(found) == warnings
