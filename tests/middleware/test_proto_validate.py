from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
from protoflow import Context, Message, Output, wire
from protoflow.contract import validation
from protoflow.contract.spec import BatchPolicy
from protoflow.contract.validation import check_of, has_rules
from protoflow.errors import InvalidMessageError, MissingExtraError
from protoflow.message import Delivery
from protoflow.middleware import Dependencies, proto_validate
from protoflow.testing import TestedService

from tests.middleware.harness import NAME, nothing, put, running, worker
from tests.middleware.rules import (
    CHOICE,
    OUTER,
    PLAIN,
    RULED,
    TO_RULED,
    Choice,
    Outer,
    Plain,
    Ruled,
)


async def deliver(service: TestedService, *messages: Any) -> None:
    """Past the producer's own check."""
    for index, message in enumerate(messages):
        kind = message.DESCRIPTOR.full_name
        await service.service.publish(
            Message(
                id=f"m{index}",
                topic=kind.rpartition(".")[2].lower(),
                payload=message.SerializeToString(),
                metadata={wire.CE_TYPE: kind},
            )
        )
    await service.settled()


def test_rules_are_found_in_fields_oneofs_and_nested_messages() -> None:
    assert has_rules(Ruled.DESCRIPTOR)
    assert has_rules(Outer.DESCRIPTOR)
    assert has_rules(Choice.DESCRIPTOR)
    assert not has_rules(Plain.DESCRIPTOR)  # and it holds itself


async def test_what_violates_a_rule_is_dead_lettered_at_once() -> None:
    async with running(worker(nothing, input=RULED)) as service:
        await deliver(service, Ruled(name="ab"), Ruled(name="abc"))
        (dead_letter,) = service.dead_letters
        stats = service.service.stats()[NAME]
    metadata = dead_letter.message.metadata
    assert metadata["pf_error_class"] == "validation"
    assert metadata["pf_error_message"] == "test.v1.Ruled: name violates string.min_len"
    assert metadata["pf_attempt"] == "1"
    assert (stats.handled, stats.errors.validation, stats.retried) == (1, 1, 0)


async def test_nested_messages_and_oneofs_are_checked() -> None:
    handlers = (
        worker(nothing, input=OUTER),
        worker(nothing, name="test.v1.Other.Do", input=CHOICE),
    )
    async with running(*handlers) as service:
        await deliver(service, Outer(items=[Ruled(name="abc"), Ruled(name="x")]), Choice())
        texts = {
            dead_letter.message.metadata["pf_error_message"] for dead_letter in service.dead_letters
        }
    assert texts == {
        "test.v1.Outer: items.name violates string.min_len",
        "test.v1.Choice: one violates required",
    }


def test_types_without_rules_cost_nothing() -> None:
    async def last(_delivery: Delivery, _context: Context) -> Any: ...

    class Spec:
        message = PLAIN
        config = type("C", (), {"validate": True})()

    assert check_of(PLAIN) is None
    assert proto_validate()(last, Spec()) is last  # type: ignore[arg-type]


async def test_an_invalid_message_does_not_spoil_its_batch() -> None:
    seen: list[str] = []

    async def batch(messages: Any, _context: Context) -> None:
        seen.extend(message.name for message in messages)

    handler = worker(batch, input=RULED, batch=BatchPolicy(max_messages=3, max_wait=0.1))
    async with running(handler) as service:
        await deliver(service, Ruled(name="abc"), Ruled(name="x"), Ruled(name="def"))
        (dead_letter,) = service.dead_letters
    assert seen == ["abc", "def"]
    assert dead_letter.message.metadata["pf_error_class"] == "validation"


async def test_invalid_outputs_are_not_published() -> None:
    async def handler(_message: object, _context: Context) -> Any:
        return Ruled(name="no")

    async with running(worker(handler, publication=TO_RULED)) as service:
        await put(service, "a")
        (dead_letter,) = service.dead_letters
        assert dead_letter.message.metadata["pf_error_class"] == "validation"
        assert not service.published(Ruled)
        with pytest.raises(InvalidMessageError, match=r"name violates string\.min_len"):
            await service.publish_outputs(TO_RULED, [Output(Ruled(name="no"))])


async def test_a_setting_waives_the_rules() -> None:
    async with running(worker(nothing, input=RULED), validate=False) as service:
        await service.publish_outputs(TO_RULED, [Output(Ruled(name="no"))])
        await service.settled()
        assert service.service.stats()[NAME].handled == 1


async def test_rules_without_protovalidate_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "protovalidate", None)
    monkeypatch.setattr(validation, "_validators", [])
    with pytest.raises(MissingExtraError, match=r"test.v1.Ruled has rules.*\[validate\]"):
        async with running(worker(nothing, input=RULED)):
            pass
    async with running(worker(nothing)):
        pass


async def test_a_validator_of_ones_own_sees_all_messages() -> None:
    class Strict:
        def validate(self, message: Any, /) -> None:
            if message.value == "bad":
                raise ValueError(f"secret {message.value}")

    dependencies = Dependencies(validator=Strict())
    async with running(worker(nothing), dependencies=dependencies) as service:
        with pytest.raises(InvalidMessageError):
            await put(service, "bad")
        service.service._components.publisher.encode._bound.clear()
        service.service._components.publisher.encode.validator = None
        await put(service, "bad", "good")
        (dead_letter,) = service.dead_letters
    assert dead_letter.message.metadata["pf_error_message"] == (
        "google.protobuf.StringValue: ValueError"
    )


def test_a_violation_does_not_show_the_value() -> None:
    check = check_of(replace(RULED))
    assert check is not None
    text = check(Ruled(name="s3"))
    assert text is not None
    assert "s3" not in text
    many = check_of(OUTER)
    assert many is not None
    assert "and 5 more" in str(many(Outer(items=[Ruled(name="x")] * 15)))
