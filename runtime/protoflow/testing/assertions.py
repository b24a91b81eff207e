"""Assertions about a service under test, which show differing fields."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from google.protobuf import text_format
from google.protobuf.message import Message as ProtoMessage

from protoflow import wire
from protoflow.codecs.payload import decode
from protoflow.context import Context
from protoflow.counted import counted
from protoflow.message import Message
from protoflow.testing.service import Run, TestedService


def assert_published(where: TestedService | Context, *expected: ProtoMessage) -> None:
    """Asserts that exactly these messages of their types were published, in this order.

    Args:
        where: a service under test, or the context of a handler that was called directly.
        expected: the messages; messages of other types are ignored.
    """
    classes = list(dict.fromkeys(type(message) for message in expected))
    for message_class in classes:
        wanted = [message for message in expected if type(message) is message_class]
        found = _published(where, message_class)
        if found != wanted:
            name = message_class.DESCRIPTOR.name
            raise AssertionError(
                f"other {name} messages were published:\n{message_diff(found, wanted)}"
            )


def assert_retried(service: TestedService, times: int, *, handler: str = "") -> None:
    """Asserts how many failed runs were repeated, of one handler or of all handlers."""
    runs = [run for run in service.retried if handler in ("", run.handler)]
    if len(runs) != times:
        raise AssertionError(f"{counted(len(runs), 'retried run')}, not {times}:\n{_table(runs)}")


def assert_dead_lettered(
    service: TestedService, *expected: ProtoMessage, reason: str | None = None
) -> None:
    """Asserts that the dead letters are exactly these messages, in this order.

    Args:
        service: the service under test.
        expected: the messages; without any, there must be no dead letter.
        reason: a text that the error of each dead letter must contain.
    """
    records = service.dead_letters
    found = [
        _decoded(each.message, type(like)) for each, like in zip(records, expected, strict=False)
    ]
    if len(records) != len(expected) or found != [*expected]:
        rows = "\n".join(
            f"    {each.message.metadata.get(wire.PF_ORIGINAL_TOPIC)}: "
            f"{each.message.metadata.get(wire.PF_ERROR_MESSAGE)}"
            for each in records
        )
        raise AssertionError(
            f"{counted(len(records), 'dead letter')}, not {len(expected)}:\n{rows or '    none'}\n"
            f"{message_diff(found, expected)}\n{_table(service.runs)}"
        )
    for each in records:
        text = each.message.metadata.get(wire.PF_ERROR_MESSAGE, "")
        if reason is not None and reason not in text:
            raise AssertionError(f"the dead letter says {text!r}, not {reason!r}")


def message_diff(found: Sequence[ProtoMessage], expected: Sequence[ProtoMessage]) -> str:
    """Returns the difference between two lists of messages in text format, field by field."""
    lines = difflib.unified_diff(
        _lines(expected), _lines(found), "expected", "found", lineterm="", n=2
    )
    return "\n".join(f"    {line}" for line in lines)


def _published(
    where: TestedService | Context, message_class: type[ProtoMessage]
) -> list[ProtoMessage]:
    if isinstance(where, TestedService):
        return [*where.published(message_class)]
    name = message_class.DESCRIPTOR.full_name
    return [
        _decoded(message, message_class)
        for message in where.outputs
        if message.metadata.get(wire.CE_TYPE) == name
    ]


def _decoded(message: Message, message_class: type[ProtoMessage]) -> ProtoMessage:
    payload = message.payload or b""
    return decode(payload, message.metadata.get(wire.CONTENT_TYPE), message_class)


def _lines(messages: Sequence[ProtoMessage]) -> list[str]:
    lines: list[str] = []
    for message in messages:
        lines.append(f"{message.DESCRIPTOR.name}:")
        lines += [f"  {line}" for line in text_format.MessageToString(message).splitlines()]
    return lines


def _table(runs: Sequence[Run]) -> str:
    rows = [
        f"    {run.handler} {run.message.id} run {run.attempt}: {type(run.outcome).__name__}"
        + (f": {run.outcome.__cause__!r}" if run.outcome.__cause__ else "")
        for run in runs
    ]
    return "\n".join(rows) or "    there was no run"
