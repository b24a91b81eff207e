"""What the contract demands and the transport cannot do stops the start, with a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from protoflow.context import Context
from protoflow.contract.spec import (
    DeadLetterPolicy,
    DeliveryPolicy,
    OnExhausted,
    Ordering,
    RetryPolicy,
    Start,
)
from protoflow.errors import CapabilityError, ConfigError, RegistrationError

from tests.acceptance.contract import pb, pf
from tests.acceptance.harness import Harness, Seen, handler, method, sync_handler

needs = pytest.mark.needs

#: A demand: what is registered under which policy, the capability that it needs, and the
#: words of the refusal.
DEMANDS: dict[str, tuple[str, DeliveryPolicy | None, str, str]] = {
    "per key by contract": ("Keyed", None, "per_key", "cannot keep order per key"),
    "per key by config": (
        "Work",
        DeliveryPolicy(ordering=Ordering.PER_KEY),
        "per_key",
        "cannot keep order per key",
    ),
    "per partition": ("Parted", None, "per_partition", "cannot keep order per partition"),
    "atomic": (
        "Transform",
        DeliveryPolicy(atomic=True),
        "atomic",
        "cannot publish and settle atomically",
    ),
    "broadcast": ("Everywhere", None, "broadcast", "cannot broadcast"),
    "start earliest": (
        "Work",
        DeliveryPolicy(start=Start.EARLIEST),
        "retains",
        "cannot deliver messages that are older than the group",
    ),
    "retries": (
        "Work",
        DeliveryPolicy(retry=RetryPolicy(max_attempts=3)),
        "at_least_once",
        "cannot retry safely",
    ),
    "dead letters": (
        "Audit",
        DeliveryPolicy(dead_letter=DeadLetterPolicy(topic="{topic}.{group}.lost")),
        "at_least_once",
        "cannot keep dead letters",
    ),
}


@pytest.mark.parametrize("demand", DEMANDS)
async def test_a_demand_is_met_or_stops_the_start(harness: Harness, demand: str) -> None:
    service_name, policy, capability, words = DEMANDS[demand]
    service = harness.service(handler(service_name, Seen(harness).ok), policy=policy)
    if getattr(harness.capabilities, capability):
        async with service:
            assert service.health().ready
        return
    with pytest.raises(CapabilityError) as caught:
        await service.start()
    text = str(caught.value)
    assert method(service_name) in text
    assert ";" in text, "the sentence says how to fix it"
    assert words in text
    assert not service.health().ready


async def test_every_demand_that_is_not_met_is_named_at_once(harness: Harness) -> None:
    policy = DeliveryPolicy(atomic=True, ordering=Ordering.PER_PARTITION, start=Start.EARLIEST)
    service = harness.service(handler("Transform", Seen(harness).ok), policy=policy)
    missing = [
        name for name in ("atomic", "per_partition", "retains")
        if not getattr(harness.capabilities, name)
    ]  # fmt: skip
    if not missing:
        async with service:
            assert service.health().ready
        return
    with pytest.raises(CapabilityError) as caught:
        await service.start()
    assert len(caught.value.problems) >= len(missing)


@needs("leases")
async def test_a_timeout_beyond_the_longest_hold_stops_the_start(harness: Harness) -> None:
    service = harness.service(
        handler("Work", Seen(harness).ok), policy=DeliveryPolicy(timeout=100.0), max_hold=50.0
    )
    with pytest.raises(CapabilityError, match="hold a message for 100 s, only for 50 s"):
        await service.start()


async def test_built_in_defaults_yield(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that demands nothing starts on every transport."""
    got = []

    async def raw(message: Any, context: Context) -> None:
        got.append(message.payload)

    service = harness.service()
    service.register_message_handler("raw", "tasks", raw)
    async with service:
        await harness.publish("tasks", b"anything")
        await harness.until(lambda: got)
    assert got == [b"anything"]
    warned = [r for r in caplog.records if "at most once" in r.getMessage()]
    assert len(warned) == (0 if harness.capabilities.at_least_once else 1)


@needs("at_least_once")
async def test_ordering_cannot_be_weakened_by_config(harness: Harness) -> None:
    service = harness.service(
        handler("Keyed", Seen(harness).ok), policy=DeliveryPolicy(ordering=Ordering.NONE)
    )
    with pytest.raises(ConfigError, match="weaker than the contract's"):
        await service.start()


async def test_a_missing_variable_stops_the_start_with_its_name(harness: Harness) -> None:
    service = harness.service(handler("Reports", Seen(harness).ok), variables={"team": "blue"})
    with pytest.raises(ConfigError, match=r"set variables\.region"):
        await service.start()


async def test_an_override_of_a_handler_that_is_not_there_stops_the_start(harness: Harness) -> None:
    service = harness.service(
        handler("Work", Seen(harness).ok), handlers={"suite.v1.Work.Wrok": {"concurrency": 2}}
    )
    with pytest.raises(ConfigError, match=r"Wrok.*no such handler.*suite\.v1\.Work\.Work"):
        await service.start()


async def test_registrations_that_contradict_each_other_are_refused(harness: Harness) -> None:
    service = harness.service(handler("Work", Seen(harness).ok))
    with pytest.raises(RegistrationError, match="already registered"):
        service.register(handler("Work", Seen(harness).ok))
    with pytest.raises(RegistrationError, match="is a class"):
        service.register(pf.WorkHandler)
    with pytest.raises(RegistrationError, match="no generated handler"):
        service.register(object())  # type: ignore[arg-type]  # the mistake


async def test_two_handlers_of_one_type_in_one_group_are_refused(harness: Harness) -> None:
    async def other(message: Any, context: Context) -> None:
        raise AssertionError

    service = harness.service(handler("Work", Seen(harness).ok))
    service.register_proto_handler("other", "tasks", pb.Task, other, group="workers")
    with pytest.raises((RegistrationError, CapabilityError), match=r"both handle suite\.v1\.Task"):
        await service.start()


@needs("at_least_once")
async def test_contradictions_within_a_subscription_are_refused(harness: Harness) -> None:
    service = harness.service(
        handler("Mixed", Seen(harness).ok),
        handlers={
            "suite.v1.Mixed.OnTask": {"concurrency": 2},
            "suite.v1.Mixed.OnRemark": {"concurrency": 3},
        },
    )
    with pytest.raises(
        RegistrationError, match=r"concurrency is 2 in .*OnTask and 3 in .*OnRemark"
    ):
        await service.start()


@needs("at_least_once")
async def test_what_one_method_sets_holds_for_the_whole_subscription(harness: Harness) -> None:
    service = harness.service(
        handler("Mixed", Seen(harness).ok), handlers={"suite.v1.Mixed.OnTask": {"concurrency": 2}}
    )
    async with service:
        assert service.subscriptions[0].settings.concurrency == 2


@needs("at_least_once")
async def test_block_needs_no_dead_letters_and_drop_neither(harness: Harness) -> None:
    for choice in (OnExhausted.BLOCK, OnExhausted.DROP):
        policy = DeliveryPolicy(dead_letter=DeadLetterPolicy(on_exhausted=choice))
        async with harness.running(sync_handler("Work", print), policy=policy) as service:
            assert service.health().ready
